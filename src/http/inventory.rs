//! The list of which SIM card belongs to which organization.

use actix_web::{HttpRequest, web};
use serde::Serialize;

use super::params::{Parameters, next_page, rfc3339};
use super::problem::ApiError;
use crate::db::{Pool, queries};
use crate::domain::{OrganizationId, SimCardId};

/// One page of the assignments.
#[derive(Debug, Serialize)]
struct Answer {
    items: Vec<Item>,
    total: i64,
    page: i64,
    size: i64,
    next: Option<String>,
}

/// One assignment; without `valid-from` it holds since ever.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Item {
    simcard: SimCardId,
    organization: OrganizationId,
    valid_from: Option<String>,
}

/// `GET /api/v1/inventory`
pub(super) async fn list(request: HttpRequest, pool: web::Data<Pool>) -> Result<web::Json<impl Serialize>, ApiError> {
    let mut parameters = Parameters::parse(request.query_string());
    let page = parameters.page();
    let page = parameters.finish(page)?;
    let inventory = pool.ask(async |client| queries::inventory(client, page).await).await?;
    let items = inventory.items.into_iter().map(|assignment| Item {
        simcard: assignment.sim_card,
        organization: assignment.organization,
        valid_from: assignment.valid_from.map(rfc3339),
    });
    Ok(web::Json(Answer {
        items: items.collect(),
        total: inventory.total,
        page: page.number(),
        size: page.size(),
        next: next_page(&request, page, inventory.total),
    }))
}
