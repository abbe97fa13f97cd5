//! The time series of one SIM card or one organization.

use actix_web::{HttpRequest, web};
use serde::Serialize;

use super::params::{END, EVERY, Parameters, START, next_page, rfc3339};
use super::problem::ApiError;
use crate::db::{Pool, queries};
use crate::domain::{Granularity, Interval, OrganizationId, Page, SimCardId, UsageSeries};

/// What is asked for.
#[derive(Debug)]
struct Question {
    interval: Interval,
    every: Granularity,
    page: Page,
}

impl Question {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let mut parameters = Parameters::parse(query);
        parameters.require(&[START, END, EVERY]);
        let (start, end) = (parameters.start(), parameters.end());
        // Without both there is no interval, and the one that misses has its problem already.
        let interval = if start.is_some() && end.is_some() { parameters.interval(start, end) } else { None };
        let (every, page) = (parameters.every(), parameters.page());
        let read = interval.zip(every).zip(page).map(|((interval, every), page)| Self { interval, every, page });
        parameters.finish(read)
    }

    fn answer(&self, series: UsageSeries, request: &HttpRequest) -> web::Json<Answer> {
        let items = series.buckets.into_iter().map(|bucket| Item {
            date: rfc3339(bucket.start),
            bytes_used_total: bucket.bytes,
            records: bucket.records,
        });
        web::Json(Answer {
            items: items.collect(),
            total: series.total,
            page: self.page.number(),
            size: self.page.size(),
            start: rfc3339(self.interval.start()),
            end: rfc3339(self.interval.end()),
            every: self.every,
            tz: "UTC",
            bytes_used_total: series.bytes,
            next: next_page(request, self.page, series.total),
        })
    }
}

/// One page of a series. `total`, `bytes-used-total` are those of the whole interval.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Answer {
    items: Vec<Item>,
    total: i64,
    page: i64,
    size: i64,
    start: String,
    end: String,
    every: Granularity,
    tz: &'static str,
    bytes_used_total: i64,
    next: Option<String>,
}

/// One bucket; `date` is its start.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Item {
    date: String,
    bytes_used_total: i64,
    records: i64,
}

/// `GET /api/v1/simcard/{simcard}/usage`
pub(super) async fn of_sim_card(
    request: HttpRequest,
    id: web::Path<String>,
    pool: web::Data<Pool>,
) -> Result<web::Json<impl Serialize>, ApiError> {
    let question = Question::parse(request.query_string())?;
    let nobody_knows = || ApiError::NoSimCard(id.to_string());
    let sim_card = SimCardId::parse(&id).map_err(|_| nobody_knows())?;
    let Question { interval, every, page } = question;
    let series = pool
        .ask(async |client| queries::sim_card_usage(client, &sim_card, interval, every, page).await)
        .await?
        .ok_or_else(nobody_knows)?;
    Ok(question.answer(series, &request))
}

/// `GET /api/v1/organization/{organization}/usage`
pub(super) async fn of_organization(
    request: HttpRequest,
    id: web::Path<String>,
    pool: web::Data<Pool>,
) -> Result<web::Json<impl Serialize>, ApiError> {
    let question = Question::parse(request.query_string())?;
    let nobody_knows = || ApiError::NoOrganization(id.to_string());
    let organization = OrganizationId::parse(&id).map_err(|_| nobody_knows())?;
    let Question { interval, every, page } = question;
    let series = pool
        .ask(async |client| queries::organization_usage(client, &organization, interval, every, page).await)
        .await?
        .ok_or_else(nobody_knows)?;
    Ok(question.answer(series, &request))
}
