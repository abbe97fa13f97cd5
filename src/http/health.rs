//! Liveness and readiness probes for orchestrators and load balancers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix_web::web;
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use super::problem::{ApiError, Problem};
use crate::db::{Pool, StorageError, migrate};

/// A successful probe.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// Always `ok`.
    status: &'static str,
}

/// Whether the server is shutting down.
#[derive(Debug, Default)]
pub(super) struct Shutdown(AtomicBool);

impl Shutdown {
    /// Makes `/readyz` fail from now on, so that load balancers stop sending requests.
    pub(super) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether the database was available and migrated a moment ago, so that probes cost a round trip
/// per second at most.
#[derive(Debug, Default)]
pub(super) struct Readiness(Mutex<Option<(Instant, Result<(), StorageError>)>>);

impl Readiness {
    const MAX_AGE: Duration = Duration::from_secs(1);

    async fn check(&self, pool: &Pool) -> Result<(), StorageError> {
        // Requests that arrive during a check wait for its result.
        let mut last = self.0.lock().await;
        match &*last {
            Some((at, result)) if at.elapsed() < Self::MAX_AGE => result.clone(),
            _ => {
                let result = pool
                    .run(async |client| migrate::ensure_current(client).await)
                    .await;
                *last = Some((Instant::now(), result.clone()));
                result
            }
        }
    }
}

/// Liveness probe
///
/// Succeeds whenever the process responds, even if the database is unavailable.
#[utoipa::path(
    get,
    path = "/livez",
    operation_id = "livez",
    tag = "operations",
    responses((status = 200, description = "The process is running.", body = Health)),
    security(()),
)]
pub(super) async fn live() -> web::Json<impl Serialize> {
    web::Json(Health { status: "ok" })
}

/// Readiness probe
///
/// Succeeds if the database is available and migrated and the server is not shutting down.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "readyz",
    tag = "operations",
    responses(
        (status = 200, description = "The API can serve requests.", body = Health),
        (
            status = 503,
            description = "The database is unavailable or not migrated, or the server is shutting down.",
            body = Problem,
            content_type = "application/problem+json",
        ),
    ),
    security(()),
)]
pub(super) async fn ready(
    pool: web::Data<Pool>,
    readiness: web::Data<Readiness>,
    shutdown: web::Data<Shutdown>,
) -> Result<web::Json<impl Serialize>, ApiError> {
    if shutdown.0.load(Ordering::Relaxed) {
        return Err(ApiError::ShuttingDown);
    }
    readiness.check(&pool).await?;
    Ok(web::Json(Health { status: "ok" }))
}
