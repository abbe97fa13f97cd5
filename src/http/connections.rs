//! The listener for clients, with a limit for the connections from one address.
//!
//! actix-web's own server has no such limit: connections of one address would use up
//! `serve.max_connections`, and all others would wait. It is applied before the TLS handshake.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_http::HttpService;
use actix_server::{Server, ServerBuilder};
use actix_service::{IntoServiceFactory, ServiceFactory, ServiceFactoryExt as _, map_config};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, ServiceRequest, ServiceResponse};
use actix_web::rt::net::TcpStream;
use actix_web::{App, web};
use anyhow::Context as _;
use rustc_hash::FxHashMap;
use rustls::ServerConfig;

use super::limits::network;
use super::metrics_server;
use super::telemetry::Telemetry;
use crate::config::{Networks, Serve};

/// How long a connection that is being closed may take.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause between two warnings about refused connections.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// The open connections, by the client's network.
#[derive(Debug, Clone)]
struct Connections {
    /// The maximum per network; 0: no limit.
    max: usize,
    /// Their connections are not limited.
    trusted_proxies: Networks,
    open: Arc<Mutex<FxHashMap<IpAddr, usize>>>,
    telemetry: web::Data<Telemetry>,
    warned_at: Arc<Mutex<Option<Instant>>>,
}

impl Connections {
    fn new(serve: &Serve, telemetry: web::Data<Telemetry>) -> Self {
        Self {
            max: serve.max_connections_per_address,
            trusted_proxies: serve.trusted_proxies.clone(),
            open: Arc::default(),
            telemetry,
            warned_at: Arc::default(),
        }
    }

    /// Counts a refused connection, and logs its address unless another was logged a moment ago.
    fn refuse(&self, address: IpAddr) {
        self.telemetry.count_refused_connection();
        let warned_at = self.warned_at.lock();
        let mut warned_at = warned_at.unwrap_or_else(PoisonError::into_inner);
        if warned_at.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL) {
            *warned_at = Some(Instant::now());
            log::warn!(
                "connections from {address} are closed: it has {} already \
                 (serve.max_connections_per_address)",
                self.max
            );
        }
    }

    /// Counts a connection until the returned value is dropped. Returns `None` if it exceeds the
    /// limit.
    fn enter(&self, address: IpAddr) -> Option<OpenConnection> {
        let is_limited = self.max > 0 && !self.trusted_proxies.contains(address.to_canonical());
        let network = network(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(network).or_default();
        if is_limited && *count >= self.max {
            drop(open);
            self.refuse(address);
            return None;
        }
        *count += 1;
        Some(OpenConnection {
            open: Arc::clone(&self.open),
            network,
        })
    }
}

#[derive(Debug)]
struct OpenConnection {
    open: Arc<Mutex<FxHashMap<IpAddr, usize>>>,
    network: IpAddr,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.network);
            }
        }
    }
}

/// Starts a server whose workers each run the app that `app` returns.
///
/// # Errors
/// Returns an error if the address cannot be listened on.
pub(super) fn start<T, B>(
    serve: &Serve,
    workers: usize,
    tls: Option<&ServerConfig>,
    telemetry: web::Data<Telemetry>,
    app: impl Fn() -> App<T> + Send + Clone + 'static,
) -> anyhow::Result<Server>
where
    T: ServiceFactory<
            ServiceRequest,
            Config = (),
            Response = ServiceResponse<B>,
            Error = actix_web::Error,
            InitError = (),
        > + 'static,
    B: MessageBody + 'static,
{
    let mut builder = Server::build()
        .workers(workers)
        .max_concurrent_connections((serve.max_connections / workers).max(1))
        .shutdown_timeout(serve.shutdown_timeout_ms.div_ceil(1_000))
        .disable_signals();
    let cannot_listen = || metrics_server::cannot_listen(&serve.listen, "--listen");
    let connections = Connections::new(serve, telemetry);
    let scheme = if tls.is_some() { "https" } else { "http" };
    for listener in crate::config::listen(&serve.listen).with_context(cannot_listen)? {
        let address = listener.local_addr().with_context(cannot_listen)?;
        let (connections, app) = (connections.clone(), app.clone());
        builder = listen(builder, listener, address, serve, tls, connections, app)
            .with_context(cannot_listen)?;
        log::info!("listening on {scheme}://{address}");
    }
    Ok(builder.run())
}

fn listen<T, B>(
    builder: ServerBuilder,
    listener: TcpListener,
    address: SocketAddr,
    serve: &Serve,
    tls: Option<&ServerConfig>,
    connections: Connections,
    app: impl Fn() -> App<T> + Send + Clone + 'static,
) -> std::io::Result<ServerBuilder>
where
    T: ServiceFactory<
            ServiceRequest,
            Config = (),
            Response = ServiceResponse<B>,
            Error = actix_web::Error,
            InitError = (),
        > + 'static,
    B: MessageBody + 'static,
{
    let signal = builder.graceful_shutdown_signal();
    let keep_alive = Duration::from_millis(serve.keep_alive_ms);
    let head_timeout = Duration::from_millis(serve.request_head_timeout_ms);
    // A macro, because the type of the service depends on that of the connection.
    macro_rules! service {
        ($app:expr, $signal:expr) => {{
            let (app, signal) = ($app().into_factory(), $signal.clone());
            let app = app.map_err(|error: actix_web::Error| error.error_response());
            HttpService::build()
                .graceful_shutdown_signal(move || {
                    let signal = signal.clone();
                    async move { signal.notified().await }
                })
                .keep_alive(keep_alive)
                .client_request_timeout(head_timeout)
                .client_disconnect_timeout(DISCONNECT_TIMEOUT)
                .local_addr(address)
                .finish(map_config(app, |()| AppConfig::default()))
        }};
    }
    match tls.cloned() {
        Some(tls) => builder.listen("simusage", listener, move || {
            let service = service!(app, signal).rustls_0_23(tls.clone());
            limited(connections.clone(), service)
        }),
        None => builder.listen("simusage", listener, move || {
            limited(connections.clone(), service!(app, signal).tcp())
        }),
    }
}

/// Closes connections above the limit, and passes on the others.
fn limited<F>(
    connections: Connections,
    service: F,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = F::Error, InitError = ()>
where
    F: ServiceFactory<TcpStream, Config = (), Response = (), InitError = ()>,
{
    actix_service::apply_fn_factory(service, move |stream: TcpStream, service: &F::Service| {
        let address = stream.peer_addr().map(|address| address.ip());
        let open = address.ok().and_then(|address| connections.enter(address));
        let served = open
            .is_some()
            .then(|| actix_service::Service::call(service, stream));
        async move {
            let _open = open;
            match served {
                Some(served) => served.await,
                None => Ok(()),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};

    #[test]
    fn connections_are_limited_per_address_until_they_close() {
        let connections = |max, trusted: &str| {
            let mut serve = Config::load(None, [], &Overrides::default()).unwrap().serve;
            serve.max_connections_per_address = max;
            serve.trusted_proxies = Networks::try_from(trusted.to_owned()).unwrap();
            Connections::new(&serve, web::Data::default())
        };
        let unlimited = [connections(0, ""), connections(1, "192.0.2.0/24")].map(|connections| {
            let enter = || connections.enter("::ffff:192.0.2.1".parse().unwrap());
            [enter(), enter()].iter().all(Option::is_some)
        });
        assert_eq!(unlimited, [true, true]);
        let connections = connections(2, "192.0.2.2");
        let enter = |address: &str| connections.enter(address.parse().unwrap());
        let (one, _two) = (enter("192.0.2.1").unwrap(), enter("192.0.2.1").unwrap());
        assert!(enter("192.0.2.1").is_none());
        let other = enter("192.0.2.2").unwrap();
        drop((one, other));
        assert!(enter("192.0.2.1").is_some());
        assert_eq!(connections.open.lock().unwrap().len(), 1);
    }
}
