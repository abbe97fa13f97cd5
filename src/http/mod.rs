//! The API over HTTP: which path answers what, and the server around it.
//!
//! One file per resource holds its parameters, its answer and what lies between. Nothing here knows SQL, and
//! nothing outside names actix.

mod access_log;
mod answer;
mod cursor;
mod format;
mod health;
mod inventory;
pub mod metrics;
mod observe;
pub mod openapi;
mod params;
mod problem;
mod request_id;
mod tls;
mod usage_series;
mod usage_totals;

use std::num::NonZero;
use std::thread::available_parallelism;

use actix_web::body::MessageBody;
use actix_web::dev::{ServerHandle, ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::middleware::{Compress, from_fn};
use actix_web::{App, FromRequest, Handler, HttpServer, Resource, Responder, web};
use anyhow::{Context as _, bail};

use crate::config::{Config, Serve};
use crate::db::{self, Pool};
use crate::signals::Signals;
use answer::Rules;
use problem::ApiError;

/// Answers requests until the process is told to stop, by SIGTERM or SIGINT. Requests in flight are answered
/// before it returns.
///
/// # Errors
/// The database cannot be reached or has no schema, the address cannot be listened on, or a second signal came
/// before all requests were answered.
pub async fn serve(config: &Config) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("listening for signals")?;
    check_database(config).await?;
    let workers = workers(&config.serve);
    let pool_config = config.clone();
    let pool_size = (config.serve.pool_size / workers).max(1);
    // The closure runs once in each worker's thread, so that a worker drives its connections itself.
    let server = HttpServer::new(move || app(&pool_config, Pool::new(&pool_config, pool_size)))
        .workers(workers)
        .shutdown_timeout(config.serve.shutdown_timeout_ms.div_ceil(1_000))
        .disable_signals();
    let listen = &config.serve.listen;
    let server = match tls::server_config(&config.serve)? {
        Some(tls) => server.bind_rustls_0_23(listen, tls),
        None => server.bind(listen),
    }
    .with_context(|| format!("cannot listen on {listen}"))?;
    for (address, scheme) in server.addrs_with_scheme() {
        log::info!("listening on {scheme}://{address}");
    }
    let server = server.run();
    let handle = server.handle();
    tokio::select! {
        result = server => result.context("answering requests"),
        result = stop(&mut signals, handle, &config.serve) => result,
    }
}

/// Waits for a signal, then lets the requests in flight end. A second signal ends the wait.
async fn stop(signals: &mut Signals, handle: ServerHandle, serve: &Serve) -> anyhow::Result<()> {
    signals.next().await;
    log::info!("stopping; requests in flight have {} ms", serve.shutdown_timeout_ms);
    tokio::select! {
        () = handle.stop(true) => Ok(()),
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

/// The whole API on one pool.
pub fn app(
    config: &Config,
    pool: Pool,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody + use<>>,
        Error = actix_web::Error,
        InitError = (),
    > + use<>,
> {
    App::new()
        .app_data(web::Data::new(pool))
        .app_data(web::Data::new(Rules::new(config)))
        .wrap(Compress::default())
        .wrap(from_fn(observe::observe))
        .service(get("/api/v1/usage/organizations", usage_totals::of_organizations))
        .service(get("/api/v1/usage/simcards", usage_totals::of_sim_cards))
        .service(get("/api/v1/organization/{organization}/usage", usage_series::of_organization))
        .service(get("/api/v1/simcard/{simcard}/usage", usage_series::of_sim_card))
        .service(get("/api/v1/inventory", inventory::list))
        .service(get(openapi::PATH, openapi::describe))
        .service(openapi::page())
        .service(get("/livez", health::live))
        .service(get("/readyz", health::ready))
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
