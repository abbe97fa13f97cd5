//! Metrics of a process that answers nothing else, for Prometheus.

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::Context as _;

/// The media type of Prometheus's text format.
pub(super) const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What to say where an address cannot be listened on.
pub(super) fn cannot_listen(address: &str, option: &str) -> String {
    format!(
        "cannot listen on {address} (if another program has that port: end it, or choose another port with {option})"
    )
}

/// Answers `GET /metrics` at `address` with what `render` says, in Prometheus's text format, until the handle that
/// is returned is told to stop.
///
/// # Errors
/// The address cannot be listened on.
pub fn serve_metrics(
    address: &str,
    render: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> anyhow::Result<ServerHandle> {
    let server = HttpServer::new(move || {
        let render = render.clone();
        let answer = move || {
            let text = render();
            async move { HttpResponse::Ok().content_type(TEXT_FORMAT).body(text) }
        };
        App::new().route("/metrics", web::get().to(answer))
    })
    .workers(1)
    .disable_signals()
    .bind(address)
    .with_context(|| cannot_listen(address, "--metrics-listen"))?;
    for address in server.addrs() {
        log::info!("metrics on http://{address}/metrics");
    }
    let server = server.run();
    let handle = server.handle();
    tokio::spawn(server);
    Ok(handle)
}
