//! Whether the process lives, and whether it can answer: what an orchestrator asks.

use actix_web::web;
use serde::Serialize;

use super::problem::ApiError;
use crate::db::{Pool, migrate};

#[derive(Debug, Serialize)]
struct Health {
    status: &'static str,
}

/// `GET /livez`: a process that answers lives. A database that is away is no reason to restart it.
pub(super) async fn live() -> web::Json<impl Serialize> {
    web::Json(Health { status: "ok" })
}

/// `GET /readyz`: the database is there, with the schema.
pub(super) async fn ready(pool: web::Data<Pool>) -> Result<web::Json<impl Serialize>, ApiError> {
    pool.ask(async |client| migrate::ensure_current(client).await).await?;
    Ok(web::Json(Health { status: "ok" }))
}
