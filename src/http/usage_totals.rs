//! The lists of organizations and of SIM cards with what each used.

use std::fmt::Write as _;

use actix_web::http::header::EntityTag;
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::Caller;
use super::cursor;
use super::format::Format;
use super::openapi::{ListParameters, OrganizationParameter, OtherAnswers};
use super::params::{OrganizationFilter, Paging, Parameters};
use super::problem::{ApiError, Problem};
use super::response::{
    Links, Rules, begin, digest, stream, tag, telemetry, unchanged, unchanged_over,
};
use super::series_cache::SeriesCache;
use super::telemetry::Source;
use crate::db::queries::{self, Totals, TotalsQuery};
use crate::db::{Pool, Streaming};
use crate::domain::{Freshness, Interval, Order, Scope, UsageTotal, Zone};

/// What a list is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Organizations,
    SimCards,
}

impl Kind {
    /// The name of a row's identifier.
    fn id(self) -> &'static str {
        match self {
            Self::Organizations => "organization",
            Self::SimCards => "simcard",
        }
    }
}

/// What is asked for.
#[derive(Debug)]
struct TotalsRequest {
    kind: Kind,
    scope: Scope,
    organization_filter: OrganizationFilter,
    start: Option<DateTime<Utc>>,
    end: Option<DateTime<Utc>>,
    interval: Interval,
    zone: Zone,
    order: Order,
    paging: Paging,
    format: Format,
    /// Behind which row the page begins, if an earlier answer has said so.
    place: Option<TotalsCursor>,
    /// Which list is asked for, whatever the page and the format.
    list: String,
    /// What an answer to this is known by.
    digest: String,
}

/// A place in a list: behind a row.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct TotalsCursor {
    bytes: i64,
    id: String,
}

impl TotalsRequest {
    fn parse(request: &HttpRequest, caller: Caller, kind: Kind) -> Result<Self, ApiError> {
        let mut parameters = Parameters::parse(request.query_string());
        let zone = parameters.zone();
        let (start, end) = (
            parameters.start(zone.unwrap_or(Zone::UTC)),
            parameters.end(zone.unwrap_or(Zone::UTC)),
        );
        let interval = parameters.interval(start, end);
        // Clients send the granularity that they ask a series with. A total has none, so it is only checked.
        parameters.every();
        let (order, paging) = (parameters.order(), parameters.paging());
        let (place, format) = (
            parameters.cursor(),
            parameters.format(Format::accepted(request)),
        );
        let organization_filter = if kind == Kind::SimCards {
            parameters.organization_filter()
        } else {
            OrganizationFilter::default()
        };
        let read = interval.zip(zone).zip(order).zip(paging).zip(format);
        let question = read.and_then(|((((interval, zone), order), paging), format)| {
            let scope = caller.scope;
            let list = digest(
                request,
                &scope,
                &format!("{interval} {zone} {order:?} {organization_filter:?}"),
            );
            let place = parameters.place(place, &list, "list", |_| true).ok()?;
            let digest = cursor::digest(&format!("{list} {paging:?} {format:?} {place:?}"));
            let question = Self {
                kind,
                scope,
                organization_filter,
                start,
                end,
                interval,
                zone,
                order,
                paging,
                format,
                place,
                list,
                digest,
            };
            Some(question)
        });
        parameters.finish(question)
    }

    fn ask(&self) -> TotalsQuery<'_> {
        let after = self
            .place
            .as_ref()
            .map(|place| (self.order.place(place.bytes), place.id.as_str()));
        let window = self.paging.window(self.format, after.is_some());
        let Self {
            scope,
            interval,
            order,
            ..
        } = self;
        TotalsQuery {
            scope,
            interval: *interval,
            order: *order,
            after,
            window,
        }
    }

    fn tag(&self, rules: &Rules, freshness: &Freshness) -> Option<EntityTag> {
        tag(rules, self.interval, freshness, &self.digest)
    }

    /// One page, as JSON.
    async fn page(
        &self,
        request: &HttpRequest,
        rules: &Rules,
        pool: &Pool,
    ) -> Result<HttpResponse, ApiError> {
        let filter = self.organization_filter.organization()?;
        let answered = pool.run(async |client| {
            let answer = match self.kind {
                Kind::Organizations => {
                    Some(queries::organization_totals(client, self.ask()).await?)
                }
                Kind::SimCards => {
                    queries::sim_card_totals(client, filter.as_ref(), self.ask()).await?
                }
            };
            let Some(answer) = answer else {
                return Ok(None);
            };
            Ok(Some((
                answer.totals,
                answer.freshness,
                answer.rows.collect().await?,
            )))
        });
        let (totals, freshness, mut rows) = answered
            .await?
            .ok_or_else(|| self.organization_filter.nobody_knows())?;
        let tag = self.tag(rules, &freshness);
        if let Some(unchanged) = unchanged(request, tag.as_ref()) {
            return Ok(unchanged);
        }
        let (shown, has_next) = self.paging.shown(rows.len());
        rows.truncate(shown);
        telemetry(request).found(Source::Database, shown);
        let place = rows.last().filter(|_| has_next).map(|row| TotalsCursor {
            bytes: row.bytes,
            id: row.id.clone(),
        });
        let next = place.map(|place| cursor::write(&self.list, &place));
        let links = Links::new(request, self.paging.page, next.as_deref());
        let mut response = begin(self.format, tag.as_ref(), Some(&links));
        Ok(match self.kind {
            Kind::Organizations => {
                response.json(self.list::<OrganizationTotal>(rows, totals, freshness, &links))
            }
            Kind::SimCards => {
                response.json(self.list::<SimCardTotal>(rows, totals, freshness, &links))
            }
        })
    }

    fn list<Item: From<UsageTotal>>(
        &self,
        rows: Vec<UsageTotal>,
        totals: Totals,
        freshness: Freshness,
        links: &Links,
    ) -> List<Item> {
        let write = |instant: DateTime<Utc>| self.zone.write(instant);
        List {
            items: rows.into_iter().map(Item::from).collect(),
            total: totals.rows,
            page: self.paging.page.number(),
            size: self.paging.page.size(),
            start: self.start.map(write),
            end: self.end.map(write),
            tz: self.zone,
            bytes_used_total: totals.bytes,
            complete_through: freshness.complete_through.map(write),
            last_ingested_at: freshness.last_ingested_at.map(write),
            next: links.next().map(str::to_owned),
        }
    }

    /// All rows, or those of a page, as CSV or NDJSON.
    async fn rows(
        self,
        request: &HttpRequest,
        rules: &Rules,
        pool: &Pool,
    ) -> Result<HttpResponse, ApiError> {
        let filter = self.organization_filter.organization()?;
        let question = async |client: &_| match self.kind {
            Kind::Organizations => queries::organization_totals(client, self.ask())
                .await
                .map(Some),
            Kind::SimCards => queries::sim_card_totals(client, filter.as_ref(), self.ask()).await,
        };
        let (answer, mut lease) = pool.open(question).await?;
        let Some(answer) = answer else {
            lease.give_back().await;
            return Err(self.organization_filter.nobody_knows());
        };
        let response = begin(
            self.format,
            self.tag(rules, &answer.freshness).as_ref(),
            None,
        );
        let (format, id) = (self.format, self.kind.id());
        let head = if format == Format::Csv {
            format!("{id},bytes-used-total,records\n")
        } else {
            String::new()
        };
        let write = move |row: Option<UsageTotal>, text: &mut String| {
            let Some(UsageTotal {
                id: value,
                bytes,
                records,
            }) = row
            else {
                return;
            };
            // An identifier has nothing in it that would have to be quoted in CSV.
            let written = if format == Format::Csv {
                writeln!(text, "{value},{bytes},{records}")
            } else {
                let value = serde_json::Value::String(value);
                writeln!(
                    text,
                    r#"{{"{id}":{value},"bytes-used-total":{bytes},"records":{records}}}"#
                )
            };
            written.expect("a string takes everything");
        };
        Ok(stream(
            request,
            response,
            &head,
            Streaming {
                rows: answer.rows,
                lease,
            },
            write,
        ))
    }
}

/// One page of a list. `total` and `bytes-used-total` are those of the whole list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct List<Item> {
    /// The rows, in the order of `sort`.
    items: Vec<Item>,
    /// Rows of the whole list.
    #[schema(minimum = 0)]
    total: i64,
    /// The page.
    #[schema(minimum = 1)]
    page: i64,
    /// Rows of a page, at most.
    #[schema(minimum = 1)]
    size: i64,
    /// First instant of the interval; none for all time.
    #[schema(format = DateTime)]
    start: Option<String>,
    /// First instant behind it; none for all time.
    #[schema(format = DateTime)]
    end: Option<String>,
    /// Time zone of bare dates.
    #[schema(value_type = String, example = "UTC")]
    tz: Zone,
    /// Bytes of the whole list.
    #[schema(minimum = 0)]
    bytes_used_total: i64,
    /// What was ingested is in this answer up to here.
    #[schema(format = DateTime)]
    complete_through: Option<String>,
    /// When ingest has last moved on.
    #[schema(format = DateTime)]
    last_ingested_at: Option<String>,
    /// Path and query of the next page.
    next: Option<String>,
}

/// What an organization used.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct OrganizationTotal {
    /// Its identifier.
    organization: String,
    /// Bytes it used.
    #[schema(minimum = 0)]
    bytes_used_total: i64,
    /// Usage records.
    #[schema(minimum = 0)]
    records: i64,
}

impl From<UsageTotal> for OrganizationTotal {
    fn from(UsageTotal { id, bytes, records }: UsageTotal) -> Self {
        Self {
            organization: id,
            bytes_used_total: bytes,
            records,
        }
    }
}

/// What a SIM card used.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct SimCardTotal {
    /// Its ICCID.
    simcard: String,
    /// Bytes it used.
    #[schema(minimum = 0)]
    bytes_used_total: i64,
    /// Usage records.
    #[schema(minimum = 0)]
    records: i64,
}

impl From<UsageTotal> for SimCardTotal {
    fn from(UsageTotal { id, bytes, records }: UsageTotal) -> Self {
        Self {
            simcard: id,
            bytes_used_total: bytes,
            records,
        }
    }
}

async fn answer(
    request: &HttpRequest,
    caller: Caller,
    kind: Kind,
    rules: &Rules,
    pool: &Pool,
    series_cache: &SeriesCache,
) -> Result<HttpResponse, ApiError> {
    let question = TotalsRequest::parse(request, caller, kind)?;
    rules.check_records(question.zone, || question.interval.parts().first_record())?;
    if let Some(unchanged) = unchanged_over(
        request,
        series_cache,
        rules,
        question.interval,
        &question.digest,
    )
    .await?
    {
        return Ok(unchanged);
    }
    match question.format {
        Format::Json => question.page(request, rules, pool).await,
        Format::Csv | Format::Ndjson => question.rows(request, rules, pool).await,
    }
}

/// Organizations with what each used
#[utoipa::path(
    get,
    path = "/api/v1/usage/organizations",
    operation_id = "usage-of-organizations",
    tag = "usage",
    params(ListParameters),
    responses(
        (status = 200, description = "One page, or all rows as CSV or NDJSON.", content(
            (List<OrganizationTotal> = "application/json"),
            (String = "text/csv"),
            (String = "application/x-ndjson"),
        )),
        OtherAnswers,
    ),
    security((), ("token" = [])),
)]
pub(super) async fn of_organizations(
    request: HttpRequest,
    caller: Caller,
    rules: web::Data<Rules>,
    pool: web::Data<Pool>,
    series_cache: web::Data<SeriesCache>,
) -> Result<HttpResponse, ApiError> {
    answer(
        &request,
        caller,
        Kind::Organizations,
        &rules,
        &pool,
        &series_cache,
    )
    .await
}

/// SIM cards with what each used
#[utoipa::path(
    get,
    path = "/api/v1/usage/simcards",
    operation_id = "usage-of-simcards",
    tag = "usage",
    params(ListParameters, OrganizationParameter),
    responses(
        (status = 200, description = "One page, or all rows as CSV or NDJSON.", content(
            (List<SimCardTotal> = "application/json"),
            (String = "text/csv"),
            (String = "application/x-ndjson"),
        )),
        (status = 404, description = "Nobody knows the organization.", body = Problem, content_type = "application/problem+json"),
        OtherAnswers,
    ),
    security((), ("token" = [])),
)]
pub(super) async fn of_sim_cards(
    request: HttpRequest,
    caller: Caller,
    rules: web::Data<Rules>,
    pool: web::Data<Pool>,
    series_cache: web::Data<SeriesCache>,
) -> Result<HttpResponse, ApiError> {
    answer(
        &request,
        caller,
        Kind::SimCards,
        &rules,
        &pool,
        &series_cache,
    )
    .await
}
