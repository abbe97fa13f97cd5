//! The HTTP API: the server and its routes.
//!
//! Each resource has one file with its parameters, handler and response. This module contains no
//! SQL, and only this module uses actix.

mod access;
mod access_log;
mod answer_cache;
mod auth;
mod client_address;
mod connections;
mod cors;
mod cursor;
mod feeds;
mod format;
mod health;
mod hosts;
mod inventory;
mod limits;
mod listing;
pub mod metrics_server;
mod observe;
pub mod openapi;
mod page;
mod params;
mod probe;
mod problem;
mod process;
mod request_id;
mod response;
mod share;
mod static_file;
mod telemetry;
mod tls;
mod usage_series;
mod usage_totals;

use std::convert::Infallible;
use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{ServerHandle, ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::middleware::{Compress, from_fn};
use actix_web::{App, FromRequest, Handler, Resource, Responder, web};
use anyhow::{Context as _, bail, ensure};
use tokio::sync::Notify;

use crate::config::{Config, PoolMode, RequireToken, Serve, listen_addresses};
use crate::db::{self, Pool};
use crate::signals::{Hangups, Signals};
pub use access::Access;
use answer_cache::{AnswerCache, Answers};
use health::{Readiness, Shutdown};
pub use probe::probe;
use problem::ApiError;
use response::Rules;
use share::Streams;
use telemetry::Telemetry;

/// Serves requests until SIGTERM or SIGINT, then finishes the requests in flight. Unless
/// `serve.require_token` says otherwise, anyone can read all data while no tokens exist; on an address
/// other than loopback that requires `allow_anonymous`.
///
/// # Errors
/// Returns an error if the database is unreachable or not migrated, if the address cannot be
/// listened on or would allow anonymous access, or if a second signal arrives before all requests
/// have finished.
pub async fn serve(config: &Config, allow_anonymous: bool) -> anyhow::Result<()> {
    let listening = "cannot listen for signals";
    let mut signals = Signals::listen().context(listening)?;
    let hangups = Hangups::listen().context(listening)?;
    let config = &with_database_checked(config).await?;
    let tokens_pool = Pool::new(config, 1);
    let access = Access::open(config, &tokens_pool).await?;
    check_anonymous_access(&config.serve, &access, allow_anonymous)?;
    tokio::task::spawn_blocking(|| {
        page::prepare();
        openapi::prepare();
    });
    let workers = workers(&config.serve);
    let state = ServerState::new(config, access);
    serve_metrics_separately(config, &state)?;
    let (worker_config, worker_state) = (config.clone(), state.clone());
    let pool_size = (config.serve.pool_size / workers).max(1);
    // The closure runs once in each worker's thread, so each worker drives its own connections.
    let server_app = move || {
        app(
            &worker_config,
            Pool::new(&worker_config, pool_size),
            worker_state.clone(),
        )
    };
    let reload = Arc::<Notify>::default();
    let tls = tls::server_config(&config.serve, Arc::clone(&reload))?;
    let server = connections::start(
        &config.serve,
        workers,
        tls.as_ref(),
        state.telemetry.clone(),
        server_app,
    )?;
    let handle = server.handle();
    tokio::select! {
        result = server => result.context("the server failed"),
        result = stop(&mut signals, handle, &config.serve, &state.shutdown) => result,
        never = state.access.keep_current(&tokens_pool) => match never {},
        never = reload_on_hangup(hangups, &state.access, &tokens_pool, &reload) => match never {},
    }
}

/// Refuses anonymous access on an address other than loopback, unless it is allowed explicitly.
fn check_anonymous_access(
    serve: &Serve,
    access: &Access,
    allow_anonymous: bool,
) -> anyhow::Result<()> {
    let listen = &serve.listen;
    if serve.require_token == RequireToken::True {
        ensure!(
            !allow_anonymous,
            "--allow-anonymous contradicts serve.require_token = true; remove one of them"
        );
        if !access.has_tokens() {
            log::warn!(
                "no tokens exist, and serve.require_token is true: /api refuses every request until \
                 `simusage token create NAME` creates one; check that this is the right database"
            );
        }
    }
    if access.requires_token() {
        return Ok(());
    }
    if serve.require_token == RequireToken::False {
        log::warn!("serve.require_token is false: anyone who can reach {listen} can read all data");
        return Ok(());
    }
    let is_local = listen_addresses(listen).is_ok_and(|addresses| {
        addresses
            .iter()
            .all(|address| address.ip().to_canonical().is_loopback())
    });
    if !is_local && !allow_anonymous {
        bail!(
            "no tokens exist, so anyone who can reach {listen} could read all data: create a token with \
             `simusage token create NAME`, or pass --allow-anonymous"
        );
    }
    log::info!("no tokens exist; /api accepts unauthenticated requests");
    Ok(())
}

/// Serves `/metrics` and the probes on their own address if one is configured, in a thread and with
/// a database connection that no client can occupy.
fn serve_metrics_separately(config: &Config, state: &ServerState) -> anyhow::Result<()> {
    let listen = &config.serve.metrics_listen;
    if listen.is_empty() || listen == Serve::NO_METRICS {
        return Ok(());
    }
    let telemetry = state.telemetry.clone();
    let (config, readiness, shutdown) = (
        config.clone(),
        web::Data::<Readiness>::default(),
        state.shutdown.clone(),
    );
    let probes = move |services: &mut web::ServiceConfig| {
        services
            .app_data(web::Data::new(Pool::new(&config, 1)))
            .app_data(readiness.clone())
            .app_data(shutdown.clone())
            .service(get("/livez", health::live))
            .service(get("/readyz", health::ready));
    };
    metrics_server::serve_metrics_and(listen, move || telemetry.to_prometheus(), probes).map(drop)
}

/// Reloads the tokens and the certificate at each SIGHUP.
async fn reload_on_hangup(
    mut hangups: Hangups,
    access: &Access,
    tokens_pool: &Pool,
    reload: &Notify,
) -> Infallible {
    loop {
        hangups.next().await;
        log::info!("reloading the tokens and the TLS certificate, because of SIGHUP");
        reload.notify_one();
        match access.refresh(tokens_pool).await {
            Ok(()) => log::info!("reloaded the tokens"),
            Err(error) => log::warn!("cannot reload the tokens: {error}"),
        }
    }
}

/// Waits for a signal, keeps serving for `serve.drain_ms` so that load balancers can notice, then
/// waits for the requests in flight. A second signal ends the wait.
async fn stop(
    signals: &mut Signals,
    server: ServerHandle,
    serve: &Serve,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    signals.next().await;
    shutdown.begin();
    let (drain_ms, timeout_ms) = (serve.drain_ms, serve.shutdown_timeout_ms);
    if drain_ms > 0 {
        log::info!("shutting down: not ready, but still serving requests for {drain_ms} ms");
    }
    let finished = async {
        tokio::time::sleep(Duration::from_millis(drain_ms)).await;
        log::info!("shutting down: waiting up to {timeout_ms} ms for requests in flight");
        server.stop(true).await;
    };
    tokio::select! {
        () = finished => Ok(()),
        () = signals.next() => bail!("a second signal arrived before all requests had finished"),
    }
}

/// Finds out whether connections have their own sessions. Fails at startup, with the database's URL,
/// if requests could not be served anyway.
async fn with_database_checked(config: &Config) -> anyhow::Result<Config> {
    let mut config = config.clone();
    config.database.pool_mode = db::pool_mode(&config.database).await?;
    if config.database.pool_mode == PoolMode::Transaction {
        log::info!("the database's sessions are shared, so settings are made in each transaction");
    }
    Pool::new(&config, 1)
        .run(async |client| db::migrate::ensure_current(client).await)
        .await
        .with_context(|| format!("checking the schema of {}", config.database.url))?;
    Ok(config)
}

/// The number of worker threads.
fn workers(serve: &Serve) -> usize {
    match serve.workers {
        0 => available_parallelism().map_or(1, NonZero::get),
        workers => workers,
    }
}

/// State shared by all workers.
#[derive(Debug, Clone)]
pub struct ServerState {
    access: Access,
    telemetry: web::Data<Telemetry>,
    readiness: web::Data<Readiness>,
    shutdown: web::Data<Shutdown>,
    answers: Answers,
}

impl ServerState {
    /// The state of a server that has not received any requests.
    #[must_use]
    pub fn new(config: &Config, access: Access) -> Self {
        Self {
            access,
            answers: Answers::new(config.serve.cache_mb.saturating_mul(1_000_000)),
            telemetry: web::Data::default(),
            readiness: web::Data::default(),
            shutdown: web::Data::default(),
        }
    }
}

/// The application of one worker: all routes and middleware, on the worker's own pool.
pub fn app(
    config: &Config,
    pool: Pool,
    state: ServerState,
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
        readiness,
        shutdown,
        answers,
    } = state;
    telemetry.add_pool(pool.clone());
    let has_metrics = config.serve.metrics_listen.is_empty();
    let answer_cache = AnswerCache::new(pool.clone(), answers);
    let streams = Streams::new(&config.serve, workers(&config.serve), &pool);
    App::new()
        .app_data(web::Data::new(pool))
        .app_data(web::Data::new(answer_cache))
        .app_data(web::Data::new(streams))
        .app_data(web::Data::new(Rules::new(config)))
        .app_data(web::Data::new(access))
        .app_data(telemetry)
        .app_data(readiness)
        .app_data(shutdown)
        .wrap(cors::middleware(&config.serve.cors_origins))
        .wrap(from_fn(access::check_limits))
        .wrap(Compress::default())
        .wrap(from_fn(observe::observe))
        .wrap(from_fn(observe::complete))
        .service(
            // A scope, because comparing paths would have to handle every way to escape them.
            web::scope("/api")
                .wrap(from_fn(access::admit))
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
                .service(get("/v1/feeds", feeds::list))
                .default_service(web::to(async || Err::<String, _>(ApiError::NoPath))),
        )
        .service(get(openapi::PATH, openapi::describe))
        .service(get("/docs/{name:.*}", openapi::page))
        .service(get("/", page::index))
        .service(get("/assets/{version}/{name}", page::asset))
        .service(get("/livez", health::live))
        .service(get("/readyz", health::ready))
        .configure(move |services| {
            if has_metrics {
                services.service(get("/metrics", telemetry::metrics));
            }
        })
        .default_service(web::to(async || Err::<String, _>(ApiError::NoPath)))
}

/// A resource that supports only GET and HEAD, also with a slash after its path. The server omits the
/// body of HEAD responses.
fn get<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args> + Clone,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    // A path that ends in a slash or a parameter has no second spelling.
    let slashed = Some(format!("{path}/")).filter(|_| !path.ends_with(['/', '}']));
    let paths: Vec<String> = [path.to_owned()].into_iter().chain(slashed).collect();
    web::resource(paths)
        .route(web::get().to(handler.clone()))
        .route(web::head().to(handler))
        .default_service(web::to(async || {
            Err::<String, _>(ApiError::MethodNotAllowed)
        }))
}
