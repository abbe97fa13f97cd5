//! The API over HTTP: which path answers what, and the server around it.
//!
//! One file per resource holds its parameters, its answer and what lies between. Nothing here knows SQL, and
//! nothing outside names actix.

mod access;
mod access_log;
mod auth;
mod cursor;
mod format;
mod health;
mod inventory;
mod limits;
mod listing;
pub mod metrics;
mod observe;
pub mod openapi;
mod page;
mod params;
mod problem;
mod process;
mod request_id;
mod response;
mod series_cache;
mod telemetry;
mod tls;
mod usage_series;
mod usage_totals;

use std::net::SocketAddr;
use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{ServerHandle, ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::middleware::{Compress, from_fn};
use actix_web::{App, FromRequest, Handler, HttpServer, Resource, Responder, web};
use anyhow::{Context as _, bail};

use crate::config::{Config, Serve};
use crate::db::{self, Pool};
use crate::signals::Signals;
pub use access::Access;
pub use auth::Caller;
pub use health::Ending;
use problem::ApiError;
use response::Rules;
use series_cache::SeriesCache;
pub use telemetry::Telemetry;

/// Answers requests until the process is told to stop, by SIGTERM or SIGINT. Requests in task are answered
/// before it returns. Until there is a token, anybody is answered, and `allow_anonymous` says that this may be so on
/// an address that other machines reach.
///
/// # Errors
/// The database cannot be reached or has no schema, the address cannot be listened on or would be open to all, or a
/// second signal came before all requests were answered.
pub async fn serve(config: &Config, allow_anonymous: bool) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("listening for signals")?;
    check_database(config).await?;
    let tokens_pool = Pool::new(config, 1);
    let access = Access::open(config, &tokens_pool).await?;
    check_address(&config.serve.listen, &access, allow_anonymous)?;
    let workers = workers(&config.serve);
    let shared = ServerState::new(access);
    serve_metrics_elsewhere(&config.serve, &shared)?;
    let (pool_config, all) = (config.clone(), shared.clone());
    let pool_size = (config.serve.pool_size / workers).max(1);
    // The closure runs once in each worker's thread, so that a worker drives its connections itself.
    let server = HttpServer::new(move || {
        app(
            &pool_config,
            Pool::new(&pool_config, pool_size),
            all.clone(),
        )
    })
    .workers(workers)
    .max_connections((config.serve.max_connections / workers).max(1))
    .keep_alive(Duration::from_millis(config.serve.keep_alive_ms))
    .client_request_timeout(Duration::from_millis(config.serve.request_head_timeout_ms))
    .shutdown_timeout(config.serve.shutdown_timeout_ms.div_ceil(1_000))
    .disable_signals();
    let listen = &config.serve.listen;
    let server = match tls::server_config(&config.serve)? {
        Some(tls) => server.bind_rustls_0_23(listen, tls),
        None => server.bind(listen),
    }
    .with_context(|| metrics::cannot_listen(listen, "--listen"))?;
    for (address, scheme) in server.addrs_with_scheme() {
        log::info!("listening on {scheme}://{address}");
    }
    let server = server.run();
    let handle = server.handle();
    tokio::select! {
        result = server => result.context("answering requests"),
        result = stop(&mut signals, handle, &config.serve, &shared.ending) => result,
        () = shared.access.keep_current(&tokens_pool) => unreachable!("it goes on for ever"),
    }
}

/// Refuses to answer whoever asks on an address that more than this machine reaches, unless that is what is wanted.
fn check_address(listen: &str, access: &Access, allow_anonymous: bool) -> anyhow::Result<()> {
    if access.needs_token() {
        return Ok(());
    }
    let is_local = listen
        .parse()
        .is_ok_and(|address: SocketAddr| address.ip().to_canonical().is_loopback());
    if !is_local && !allow_anonymous {
        bail!(
            "there is no token yet, so whoever reaches {listen} could read everything: create one with \
             `simusage token create NAME`, or say --allow-anonymous"
        );
    }
    log::info!("there is no token yet: /api answers without");
    Ok(())
}

/// Answers `/metrics` at an address of its own, where the settings name one.
fn serve_metrics_elsewhere(serve: &Serve, shared: &ServerState) -> anyhow::Result<()> {
    if serve.metrics_listen.is_empty() || serve.metrics_listen == Serve::NO_METRICS {
        return Ok(());
    }
    let telemetry = shared.telemetry.clone();
    metrics::serve_metrics(&serve.metrics_listen, move || telemetry.to_prometheus()).map(drop)
}

/// Waits for a signal, goes on for as long as load balancers need to see it, then lets the requests in task end. A
/// second signal ends the wait.
async fn stop(
    signals: &mut Signals,
    handle: ServerHandle,
    serve: &Serve,
    ending: &Ending,
) -> anyhow::Result<()> {
    signals.next().await;
    ending.begin();
    let (drain, patience) = (serve.drain_ms, serve.shutdown_timeout_ms);
    if drain > 0 {
        log::info!("not ready any more; answering on for {drain} ms");
    }
    let ended = async {
        tokio::time::sleep(Duration::from_millis(drain)).await;
        log::info!("stopping; requests in task have {patience} ms");
        handle.stop(true).await;
    };
    tokio::select! {
        () = ended => Ok(()),
        () = signals.next() => bail!("a second signal came before all requests were answered"),
    }
}

/// Fails early, and names the server, where no request could be answered.
async fn check_database(config: &Config) -> anyhow::Result<()> {
    let connection = db::connect(&config.database).await?;
    let current = db::migrate::ensure_current(&connection).await;
    connection.close().await;
    current.with_context(|| format!("checking the schema of {}", config.database.url))
}

/// How many threads answer requests.
fn workers(serve: &Serve) -> usize {
    match serve.workers {
        0 => available_parallelism().map_or(1, NonZero::get),
        workers => workers,
    }
}

/// What all workers have in common.
#[derive(Clone)]
pub struct ServerState {
    /// Who may pass, and how often.
    pub access: Access,
    /// What they count.
    pub telemetry: web::Data<Telemetry>,
    /// Whether the end has begun.
    pub ending: web::Data<Ending>,
}

impl ServerState {
    /// What the workers of a new server have in common.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self {
            access,
            telemetry: web::Data::default(),
            ending: web::Data::default(),
        }
    }
}

/// The whole API on one pool, behind the access.
pub fn app(
    config: &Config,
    pool: Pool,
    shared: ServerState,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody + use<>>,
        Error = actix_web::Error,
        InitError = (),
    > + use<>,
> {
    let ServerState {
        access,
        telemetry,
        ending,
    } = shared;
    telemetry.add_pool(pool.clone());
    let has_metrics = config.serve.metrics_listen.is_empty();
    let series_cache_bytes =
        config.serve.series_cache_mb.saturating_mul(1_000_000) / workers(&config.serve) as u64;
    let series_cache = SeriesCache::new(pool.clone(), series_cache_bytes);
    App::new()
        .app_data(web::Data::new(pool))
        .app_data(web::Data::new(series_cache))
        .app_data(web::Data::new(Rules::new(config)))
        .app_data(access.tokens)
        .app_data(access.limits)
        .app_data(telemetry)
        .app_data(ending)
        .wrap(from_fn(limits::check_sizes))
        .wrap(Compress::default())
        .wrap(from_fn(observe::observe))
        .service(
            // A scope and not a comparison of paths, because there are many ways to write one.
            web::scope("/api")
                .wrap(from_fn(auth::admit))
                .service(get(
                    "/v1/usage/organizations",
                    usage_totals::of_organizations,
                ))
                .service(get("/v1/usage/simcards", usage_totals::of_sim_cards))
                .service(get(
                    "/v1/organization/{organization}/usage",
                    usage_series::of_organization,
                ))
                .service(get(
                    "/v1/simcard/{simcard}/usage",
                    usage_series::of_sim_card,
                ))
                .service(get("/v1/inventory", inventory::list))
                .default_service(web::to(async || Err::<String, _>(ApiError::NoPath))),
        )
        .service(get(openapi::PATH, openapi::describe))
        .service(openapi::page())
        .service(get("/", page::index))
        .service(get("/assets/{version}/{name}", page::asset))
        .service(get("/livez", health::live))
        .service(get("/readyz", health::ready))
        .configure(move |services| {
            if has_metrics {
                services.service(get("/metrics", telemetry::answer));
            }
        })
        .default_service(web::to(async || Err::<String, _>(ApiError::NoPath)))
}

/// A path that can be read, and nothing else. HEAD is answered like GET; the server leaves the body out.
fn get<F, Args>(path: &str, answer: F) -> Resource
where
    F: Handler<Args> + Clone,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    web::resource(path)
        .route(web::get().to(answer.clone()))
        .route(web::head().to(answer))
        .default_service(web::to(async || Err::<String, _>(ApiError::Method)))
}
