//! A metrics endpoint for Prometheus, on a separate address.

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::Context as _;

use crate::config::listen;

/// The media type of Prometheus's text format.
pub(super) const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The most open connections; further ones wait.
const MAX_CONNECTIONS: usize = 64;

pub(super) fn cannot_listen(address: &str, option: &str) -> String {
    format!(
        "cannot listen on {address} (if the port is in use, stop the other program or choose another port with {option})"
    )
}

/// Serves `GET /metrics` on `address` until the returned handle stops it. `render` returns the
/// metrics in Prometheus's text format.
///
/// # Errors
/// Returns an error if the address cannot be listened on.
pub fn serve_metrics(
    address: &str,
    render: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> anyhow::Result<ServerHandle> {
    serve_metrics_and(address, render, |_| ())
}

/// Like [`serve_metrics`], with further paths.
pub(super) fn serve_metrics_and(
    address: &str,
    render: impl Fn() -> String + Clone + Send + Sync + 'static,
    further: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
) -> anyhow::Result<ServerHandle> {
    let listeners = listen(address).with_context(|| cannot_listen(address, "--metrics-listen"))?;
    let mut server = HttpServer::new(move || {
        let render = render.clone();
        let handler = move || {
            let text = render();
            async move { HttpResponse::Ok().content_type(TEXT_FORMAT).body(text) }
        };
        App::new()
            .route("/metrics", web::get().to(handler))
            .configure(further.clone())
    })
    .workers(1)
    // Its clients must not use up the files that the API needs.
    .max_connections(MAX_CONNECTIONS)
    .disable_signals();
    for listener in listeners {
        server = server
            .listen(listener)
            .with_context(|| cannot_listen(address, "--metrics-listen"))?;
    }
    for address in server.addrs() {
        log::info!("serving metrics on http://{address}/metrics");
    }
    let server = server.run();
    let handle = server.handle();
    tokio::spawn(server);
    Ok(handle)
}
