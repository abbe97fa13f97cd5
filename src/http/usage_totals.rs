//! The lists of organizations and of SIM cards with what each used.

use actix_web::{HttpRequest, web};
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::params::{Parameters, next_page, rfc3339};
use super::problem::ApiError;
use crate::db::{Pool, queries};
use crate::domain::{Interval, OrganizationId, Page, UsageTotal, UsageTotals};

/// What is asked for.
#[derive(Debug)]
struct Question {
    start: Option<DateTime<Utc>>,
    end: Option<DateTime<Utc>>,
    interval: Interval,
    page: Page,
}

impl Question {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let mut parameters = Parameters::parse(query);
        let read = Self::read(&mut parameters);
        parameters.finish(read)
    }

    fn parse_with_organization(query: &str) -> Result<(Self, Option<String>), ApiError> {
        let mut parameters = Parameters::parse(query);
        let read = Self::read(&mut parameters);
        let organization = parameters.organization();
        parameters.finish(read.map(|question| (question, organization)))
    }

    fn read(parameters: &mut Parameters) -> Option<Self> {
        let (start, end) = (parameters.start(), parameters.end());
        let interval = parameters.interval(start, end);
        // Clients send the granularity that they ask a series with. A total has none, so it is only checked.
        parameters.every();
        let page = parameters.page();
        Some(Self { start, end, interval: interval?, page: page? })
    }

    fn answer<Item>(
        &self,
        totals: UsageTotals,
        item: impl Fn(UsageTotal) -> Item,
        request: &HttpRequest,
    ) -> web::Json<Answer<Item>> {
        web::Json(Answer {
            items: totals.items.into_iter().map(item).collect(),
            total: totals.total,
            page: self.page.number(),
            size: self.page.size(),
            start: self.start.map(rfc3339),
            end: self.end.map(rfc3339),
            tz: "UTC",
            bytes_used_total: totals.bytes,
            next: next_page(request, self.page, totals.total),
        })
    }
}

/// One page of a list. `total`, `bytes-used-total` are those of the whole list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Answer<Item> {
    items: Vec<Item>,
    total: i64,
    page: i64,
    size: i64,
    start: Option<String>,
    end: Option<String>,
    tz: &'static str,
    bytes_used_total: i64,
    next: Option<String>,
}

/// What one organization used.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct OrganizationItem {
    organization: String,
    bytes_used_total: i64,
    records: i64,
}

/// What one SIM card used.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct SimCardItem {
    simcard: String,
    bytes_used_total: i64,
    records: i64,
}

/// `GET /api/v1/usage/organizations`
pub(super) async fn of_organizations(
    request: HttpRequest,
    pool: web::Data<Pool>,
) -> Result<web::Json<impl Serialize>, ApiError> {
    let question = Question::parse(request.query_string())?;
    let totals =
        pool.ask(async |client| queries::organization_totals(client, question.interval, question.page).await).await?;
    let item = |total: UsageTotal| OrganizationItem {
        organization: total.id,
        bytes_used_total: total.bytes,
        records: total.records,
    };
    Ok(question.answer(totals, item, &request))
}

/// `GET /api/v1/usage/simcards`
pub(super) async fn of_sim_cards(
    request: HttpRequest,
    pool: web::Data<Pool>,
) -> Result<web::Json<impl Serialize>, ApiError> {
    let (question, filter) = Question::parse_with_organization(request.query_string())?;
    let nobody_knows = || ApiError::NoOrganization(filter.clone().unwrap_or_default());
    let organization = filter.as_deref().map(OrganizationId::parse).transpose().map_err(|_| nobody_knows())?;
    let Question { interval, page, .. } = question;
    let totals = pool
        .ask(async |client| queries::sim_card_totals(client, organization.as_ref(), interval, page).await)
        .await?
        .ok_or_else(nobody_knows)?;
    let item =
        |total: UsageTotal| SimCardItem { simcard: total.id, bytes_used_total: total.bytes, records: total.records };
    Ok(question.answer(totals, item, &request))
}
