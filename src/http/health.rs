//! Whether the process lives, and whether it can answer: what an orchestrator asks.

use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::web;
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::{ApiError, Problem};
use crate::db::{Pool, migrate};

/// All is well.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok`
    status: &'static str,
}

/// Whether the end of the server has begun.
#[derive(Debug, Default)]
pub struct Ending(AtomicBool);

impl Ending {
    /// From now on the server is not ready, so that nobody sends it more.
    pub(super) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether the process lives
///
/// A process that answers lives. A database that is away is no reason to restart it.
#[utoipa::path(
    get,
    path = "/livez",
    operation_id = "livez",
    tag = "operations",
    responses((status = 200, description = "It does.", body = Health)),
    security(()),
)]
pub(super) async fn live() -> web::Json<impl Serialize> {
    web::Json(Health { status: "ok" })
}

/// Whether the API can be answered
///
/// The database is there, with the schema, and the server is to stay.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "readyz",
    tag = "operations",
    responses(
        (status = 200, description = "It can.", body = Health),
        (
            status = 503,
            description = "The database is away or not migrated, or the server is about to stop.",
            body = Problem,
            content_type = "application/problem+json",
        ),
    ),
    security(()),
)]
pub(super) async fn ready(
    pool: web::Data<Pool>,
    ending: web::Data<Ending>,
) -> Result<web::Json<impl Serialize>, ApiError> {
    if ending.0.load(Ordering::Relaxed) {
        return Err(ApiError::Ending);
    }
    pool.run(async |client| migrate::ensure_current(client).await)
        .await?;
    Ok(web::Json(Health { status: "ok" }))
}
