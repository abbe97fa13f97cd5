//! The list of which SIM card belongs to which organization.

use std::fmt::Write as _;

use actix_web::http::header::EntityTag;
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::Caller;
use super::cursor;
use super::format::Format;
use super::openapi::{InventoryParameters, OrganizationParameter, OtherAnswers};
use super::params::{OrganizationFilter, Paging, Parameters, rfc3339};
use super::problem::{ApiError, Problem};
use super::response::{Links, begin, digest, lasting_tag, stream, telemetry, unchanged};
use super::telemetry::Source;
use crate::db::queries::{self, InventoryQuery};
use crate::db::{Pool, Streaming};
use crate::domain::{Assignment, OrganizationId, Scope, SimCardId};

/// The columns of CSV, which are those that `simusage ingest --inventory` reads.
const CSV_HEAD: &str = "sim-card-id,org-id,valid-from\n";

/// What is asked for.
#[derive(Debug)]
struct InventoryRequest {
    scope: Scope,
    organization_filter: OrganizationFilter,
    prefix: Option<String>,
    paging: Paging,
    format: Format,
    /// Behind which assignment the page begins, if an earlier answer has said so.
    place: Option<InventoryCursor>,
    /// Which list is asked for, whatever the page and the format.
    list: String,
}

/// A place in the list: behind an assignment.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct InventoryCursor {
    sim_card: String,
    valid_from: Option<DateTime<Utc>>,
    /// How many assignments the whole list has, as the first page has told it.
    total: i64,
}

impl InventoryRequest {
    fn parse(request: &HttpRequest, caller: Caller) -> Result<Self, ApiError> {
        let mut parameters = Parameters::parse(request.query_string());
        let (organization_filter, prefix) = (parameters.organization_filter(), parameters.prefix());
        let (paging, place, format) = (
            parameters.paging(),
            parameters.cursor(),
            parameters.format(Format::accepted(request)),
        );
        let question = paging.zip(format).and_then(|(paging, format)| {
            let scope = caller.scope;
            let list = digest(
                request,
                &scope,
                &format!("{organization_filter:?} {prefix:?}"),
            );
            let place = parameters.place(place, &list, "list", |_| true).ok()?;
            Some(Self {
                scope,
                organization_filter,
                prefix,
                paging,
                format,
                place,
                list,
            })
        });
        parameters.finish(question)
    }

    fn ask<'a>(&'a self, organization: Option<&'a OrganizationId>) -> InventoryQuery<'a> {
        let after = self
            .place
            .as_ref()
            .map(|place| (place.sim_card.as_str(), place.valid_from));
        let window = self.paging.window(self.format, after.is_some());
        let prefix = self.prefix.as_deref();
        InventoryQuery {
            scope: &self.scope,
            organization,
            prefix,
            after,
            window,
        }
    }

    fn tag(&self, version: i64) -> EntityTag {
        let Self {
            list,
            paging,
            format,
            place,
            ..
        } = self;
        lasting_tag(&format!("{list} {paging:?} {format:?} {place:?} {version}"))
    }

    /// One page, as JSON.
    async fn page(&self, request: &HttpRequest, pool: &Pool) -> Result<HttpResponse, ApiError> {
        let filter = self.organization_filter.organization()?;
        let answered = pool.run(async |client| {
            let Some(answer) = queries::inventory(client, self.ask(filter.as_ref())).await? else {
                return Ok(None);
            };
            Ok(Some((
                answer.total,
                answer.version,
                answer.rows.collect().await?,
            )))
        });
        let (total, version, mut rows) = answered
            .await?
            .ok_or_else(|| self.organization_filter.nobody_knows())?;
        let tag = self.tag(version);
        if let Some(unchanged) = unchanged(request, Some(&tag)) {
            return Ok(unchanged);
        }
        let total = self
            .place
            .as_ref()
            .map(|place| place.total)
            .or(total)
            .unwrap_or_default();
        let (shown, has_next) = self.paging.shown(rows.len());
        rows.truncate(shown);
        telemetry(request).found(Source::Database, shown);
        let place = rows.last().filter(|_| has_next).map(|row| {
            let place = InventoryCursor {
                sim_card: row.sim_card.to_string(),
                valid_from: row.valid_from,
                total,
            };
            cursor::write(&self.list, &place)
        });
        let links = Links::new(request, self.paging.page, place.as_deref());
        let body = Assignments {
            items: rows.into_iter().map(Item::from).collect(),
            total,
            page: self.paging.page.number(),
            size: self.paging.page.size(),
            next: links.next().map(str::to_owned),
        };
        Ok(begin(self.format, Some(&tag), Some(&links)).json(body))
    }

    /// All rows, or those of a page, as CSV or NDJSON.
    async fn rows(self, request: &HttpRequest, pool: &Pool) -> Result<HttpResponse, ApiError> {
        let filter = self.organization_filter.organization()?;
        let question =
            async |client: &_| queries::inventory(client, self.ask(filter.as_ref())).await;
        let (answer, mut lease) = pool.open(question).await?;
        let Some(answer) = answer else {
            lease.give_back().await;
            return Err(self.organization_filter.nobody_knows());
        };
        let tag = self.tag(answer.version);
        if let Some(unchanged) = unchanged(request, Some(&tag)) {
            return Ok(unchanged);
        }
        let format = self.format;
        let head = if format == Format::Csv { CSV_HEAD } else { "" };
        let write = move |row: Option<Assignment>, text: &mut String| {
            let Some(row) = row else { return };
            let item = Item::from(row);
            if format == Format::Csv {
                // Neither an identifier nor an instant has anything in it that would have to be quoted.
                let since = item.valid_from.unwrap_or_default();
                writeln!(text, "{},{},{since}", item.simcard, item.organization)
                    .expect("a string takes everything");
            } else {
                text.push_str(&serde_json::to_string(&item).expect("texts are JSON"));
                text.push('\n');
            }
        };
        Ok(stream(
            request,
            begin(format, Some(&tag), None),
            head,
            Streaming {
                rows: answer.rows,
                lease,
            },
            write,
        ))
    }
}

/// One page of the inventory.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Assignments {
    /// The assignments, by SIM card, then by time.
    items: Vec<Item>,
    /// Assignments of the whole list.
    #[schema(minimum = 0)]
    total: i64,
    /// The page.
    #[schema(minimum = 1)]
    page: i64,
    /// Rows of a page, at most.
    #[schema(minimum = 1)]
    size: i64,
    /// Path and query of the next page.
    next: Option<String>,
}

/// One assignment of a SIM card to an organization.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = Assignment)]
struct Item {
    /// The SIM card's ICCID.
    #[schema(value_type = String)]
    simcard: SimCardId,
    /// The organization's identifier.
    #[schema(value_type = String)]
    organization: OrganizationId,
    /// Since when; none for since ever.
    #[schema(format = DateTime)]
    valid_from: Option<String>,
}

impl From<Assignment> for Item {
    fn from(
        Assignment {
            sim_card,
            organization,
            valid_from,
        }: Assignment,
    ) -> Self {
        Self {
            simcard: sim_card,
            organization,
            valid_from: valid_from.map(rfc3339),
        }
    }
}

/// Which SIM card belongs to which organization
#[utoipa::path(
    get,
    path = "/api/v1/inventory",
    operation_id = "inventory",
    tag = "inventory",
    params(OrganizationParameter, InventoryParameters),
    responses(
        (status = 200, description = "One page, or all rows as CSV or NDJSON.", content(
            (Assignments = "application/json"),
            (String = "text/csv"),
            (String = "application/x-ndjson"),
        )),
        (status = 404, description = "Nobody knows the organization.", body = Problem, content_type = "application/problem+json"),
        OtherAnswers,
    ),
    security((), ("token" = [])),
)]
pub(super) async fn list(
    request: HttpRequest,
    caller: Caller,
    pool: web::Data<Pool>,
) -> Result<HttpResponse, ApiError> {
    let question = InventoryRequest::parse(&request, caller)?;
    match question.format {
        Format::Json => question.page(&request, &pool).await,
        Format::Csv | Format::Ndjson => question.rows(&request, &pool).await,
    }
}
