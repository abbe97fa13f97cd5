//! The time series of one SIM card or one organization.

use std::ops::Range;

use actix_web::http::header::EntityTag;
use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use utoipa::ToSchema;

use super::answer_cache::{AnswerCache, CachedPage, CachedRows, Known, Tags};
use super::cursor::{self, ListId};
use super::format::ResponseFormat;
use super::listing::{Context, Field, Item, Listing, respond, respond_in_turn, write_page};
use super::params::{
    CSV, CURSOR, END, EVERY, Endpoint, FILL, FORMAT, PAGE, Paging, Parameter, Parameters, SIZE,
    START, TZ,
};
use super::problem::{ApiError, Problem};
use super::response::{
    CommonResponses, Rules, has_content_tag, has_tags, list_id, unchanged, version_tag,
};
use super::share::Turn;
use super::telemetry::DataSource;
use crate::db::queries::{self, Rows, SeriesQuery, Totals, UsageRows};
use crate::db::{Client, StorageError};
use crate::domain::{
    Buckets, Freshness, Granularity, Interval, OrganizationId, Pieces, Scope, SimCardId, Subject,
    TooManyBuckets, UsageBucket, Window, Zone,
};

/// Calculating this many buckets takes less than a millisecond.
const MAX_BUCKETS_ON_LOOP: usize = 1_000;

pub(super) struct SeriesRequest {
    subject: Subject,
    scope: Scope,
    interval: Interval,
    every: Granularity,
    zone: Zone,
    fill: bool,
    paging: Paging,
    cursor: Option<SeriesCursor>,
    buckets: Buckets,
    /// What is read for this page and all after it.
    pieces: Pieces,
    /// Indexes of the buckets that the response may contain. While `fill` writes them, `start` is
    /// the next one.
    shown: Range<usize>,
    /// Identifies the series.
    list: ListId,
    /// Identifies the response.
    digest: String,
    answer_cache: web::Data<AnswerCache>,
}

/// Where a page starts, with the totals that the first page queried.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct SeriesCursor {
    /// Index of the first bucket.
    from: usize,
    /// Rows of the series.
    total: i64,
    bytes: i64,
    /// The version of the usage on the first page.
    version: i64,
}

impl Endpoint for SeriesRequest {
    const PARAMETERS: &'static [Parameter] = &[
        TZ,
        START.required(),
        END.required(),
        EVERY.required(),
        FILL,
        PAGE,
        SIZE,
        CURSOR,
        FORMAT,
        CSV,
    ];
}

/// The parameters of a series, before its buckets are known.
struct SeriesParameters {
    subject: Subject,
    interval: Interval,
    every: Granularity,
    zone: Zone,
    fill: bool,
    paging: Paging,
    cursor: Option<SeriesCursor>,
    list: ListId,
}

impl SeriesParameters {
    fn parse(
        parameters: &mut Parameters<SeriesRequest>,
        context: &Context,
        subject: Result<Subject, ApiError>,
    ) -> Option<Self> {
        let (request, caller, ..) = context;
        let zone = parameters.zone();
        // Dates are checked even if the zone is wrong.
        let (start, end) = (
            parameters.start(zone.unwrap_or(Zone::UTC)),
            parameters.end(zone.unwrap_or(Zone::UTC)),
        );
        // Otherwise the missing one is already an error.
        let interval = if start.is_some() && end.is_some() {
            parameters.interval(start, end)
        } else {
            None
        };
        let (every, fill) = (parameters.every(), parameters.fill());
        let paging = parameters.paging(ResponseFormat::accepted(request));
        let subject = parameters.found(subject);
        let (interval, every, zone, fill, paging) = (interval?, every?, zone?, fill?, paging?);
        let list = list_id(
            request,
            &caller.scope,
            &format!("{interval} {every} {zone} {fill}"),
        );
        let cursor = parameters.cursor(&paging, &list, "series").ok()?;
        Some(Self {
            subject: subject?,
            interval,
            every,
            zone,
            fill,
            paging,
            cursor,
            list,
        })
    }

    /// Whether the buckets are calculated outside of the event loop. A series that has too many of
    /// them by far is refused without calculating any.
    fn is_large(&self, rules: &Rules) -> bool {
        let about = Buckets::about(self.interval, self.every);
        about > MAX_BUCKETS_ON_LOOP && about / 2 <= rules.max_buckets
    }

    /// A function that calculates the buckets, and what is read for this page and all after it.
    fn buckets(
        &self,
        max: usize,
    ) -> impl FnOnce() -> Result<(Buckets, Pieces), TooManyBuckets> + Send + use<> {
        let (interval, every, zone) = (self.interval, self.every, self.zone);
        let from = self.cursor.map_or(0, |cursor| cursor.from);
        move || {
            let buckets = Buckets::new(interval, every, zone, max)?;
            let pieces = buckets.pieces(from);
            Ok((buckets, pieces))
        }
    }
}

impl SeriesRequest {
    fn new(
        parameters: &mut Parameters<Self>,
        context: &Context,
        series: SeriesParameters,
        buckets: Result<(Buckets, Pieces), TooManyBuckets>,
    ) -> Option<Self> {
        let (_, caller, _, _, answer_cache) = context;
        let SeriesParameters {
            subject,
            interval,
            every,
            zone,
            fill,
            paging,
            cursor,
            list,
        } = series;
        let buckets = buckets.map_err(|error| {
            let reason = format!("the interval has {error}, the limit set by serve.max_buckets");
            parameters.refuse(EVERY, &every.to_string(), &reason);
        });
        let (buckets, pieces) = buckets.ok()?;
        let all = buckets.len();
        // Other time zone rules may have more buckets.
        if cursor.is_some_and(|cursor| cursor.from >= all) {
            parameters.refuse_cursor(&paging, "series");
            return None;
        }
        let from = cursor.map_or(0, |cursor| cursor.from);
        // Without `fill`, the database counts the buckets of a page.
        let shown = if fill && !paging.is_unbounded() {
            let rows = |rows: i64| usize::try_from(rows).unwrap_or(usize::MAX);
            let from = cursor.map_or_else(|| rows(paging.page.offset()), |cursor| cursor.from);
            from.min(all)..from.saturating_add(rows(paging.page.size())).min(all)
        } else {
            from..all
        };
        let digest = cursor::digest(&format!("{list} {paging:?}"));
        Some(Self {
            subject,
            scope: caller.scope.clone(),
            interval,
            every,
            zone,
            fill,
            paging,
            cursor,
            buckets,
            pieces,
            shown,
            list,
            digest,
            answer_cache: answer_cache.clone(),
        })
    }

    fn date(&self, index: usize) -> String {
        let start = self.buckets.start(index);
        start
            .map(|start| self.zone.write(start))
            .unwrap_or_default()
    }

    /// The totals of the whole series, whichever page the rows are of. If it has changed since the
    /// first page, the query returned them; otherwise the cursor has them.
    fn totals(&self, summary: &(Totals, Freshness)) -> Totals {
        let cursor = self.cursor.filter(|_| !self.has_changed(summary));
        let totals = cursor.map_or(summary.0, |cursor| Totals {
            rows: cursor.total,
            bytes: Some(cursor.bytes),
        });
        if self.fill {
            let rows = i64::try_from(self.buckets.len()).unwrap_or(i64::MAX);
            Totals { rows, ..totals }
        } else {
            totals
        }
    }
}

impl Listing for SeriesRequest {
    type Row = UsageBucket;
    type Summary = (Totals, Freshness);
    type Item = Bucket;

    fn paging(&self) -> &Paging {
        &self.paging
    }

    async fn query(
        &self,
        client: &Client,
    ) -> Result<Option<(Self::Summary, Rows<UsageBucket>)>, StorageError> {
        let query = |pieces| SeriesQuery {
            scope: &self.scope,
            interval: self.interval,
            buckets: &self.buckets,
            pieces,
            shown: (self.shown.start, self.shown.end),
            window: if self.fill {
                Window::ALL
            } else {
                self.paging.window()
            },
        };
        let answer = queries::usage_series(client, &self.subject, query(&self.pieces)).await?;
        let summary_and_rows =
            |answer: UsageRows<_>| ((answer.totals, answer.freshness), answer.rows);
        let Some((summary, rows)) = answer.map(summary_and_rows) else {
            return Ok(None);
        };
        if !self.has_changed(&summary) {
            return Ok(Some((summary, rows)));
        }
        // The totals on the first page are out of date, so the buckets before this page are read, too.
        rows.collect().await?;
        let all = self.buckets.pieces(0);
        let answer = queries::usage_series(client, &self.subject, query(&all)).await?;
        Ok(answer.map(summary_and_rows))
    }

    fn not_found(&self) -> ApiError {
        not_found(&self.subject)
    }

    fn digest(&self) -> String {
        self.digest.clone()
    }

    fn has_changed(&self, (_, freshness): &Self::Summary) -> bool {
        self.cursor
            .is_some_and(|cursor| cursor.version != freshness.version)
    }

    fn version_tag(&self, (_, freshness): &Self::Summary) -> EntityTag {
        version_tag(freshness, self.interval, &self.digest)
    }

    fn content(&self, summary: &Self::Summary) -> impl Serialize {
        (summary.0, self.has_changed(summary))
    }

    fn cache(&self, tags: Tags, &(totals, _): &Self::Summary, rows: &[UsageBucket]) {
        let rows = CachedRows::Series(rows.to_vec());
        let page = CachedPage { totals, rows };
        self.answer_cache.insert(self.digest.clone(), tags, page);
    }

    fn next(&self, summary: &Self::Summary, rows: &mut Vec<UsageBucket>) -> Option<String> {
        let next = if self.fill {
            Some(self.shown.end).filter(|&end| end < self.buckets.len())
        } else {
            self.paging.truncate(rows).map(|row| row.index)
        };
        let totals = self.totals(summary);
        let version = self
            .cursor
            .map_or(summary.1.version, |cursor| cursor.version);
        let cursor = |from| SeriesCursor {
            from,
            total: totals.rows,
            bytes: totals.bytes.unwrap_or_default(),
            version,
        };
        next.map(|from| self.list.write_cursor(&cursor(from)))
    }

    fn items(&mut self, row: Option<UsageBucket>) -> impl Iterator<Item = Bucket> {
        let empty = if self.fill {
            let end = row.map_or(self.shown.end, |row| row.index);
            std::mem::replace(&mut self.shown.start, end + 1)..end
        } else {
            0..0
        };
        let empty = empty.map(|index| UsageBucket {
            index,
            bytes: 0,
            records: 0,
        });
        empty.chain(row).map(|row| Bucket {
            date: self.date(row.index),
            bytes_used_total: row.bytes,
            records: row.records,
        })
    }

    fn body(
        &self,
        summary: &Self::Summary,
        items: Vec<Bucket>,
        next: Option<String>,
    ) -> impl Serialize {
        let write = |instant| self.zone.write(instant);
        let (totals, freshness) = (self.totals(summary), summary.1);
        Series {
            items,
            total: totals.rows,
            page: self.paging.page.number(),
            size: self.paging.page.size(),
            start: write(self.interval.start()),
            end: write(self.interval.end()),
            every: self.every,
            tz: self.zone,
            bytes_used_total: totals.bytes.unwrap_or_default(),
            complete_through: freshness.complete_through.map(write),
            last_ingested_at: freshness.last_ingested_at.map(write),
            list_changed: self.has_changed(summary),
            next,
        }
    }
}

/// One page of a time series. `total` and `bytes-used-total` refer to the whole interval.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Series {
    /// The buckets, by time. Buckets without usage are included only with `fill=zero`.
    items: Vec<Bucket>,
    /// Number of buckets in the whole series.
    #[schema(minimum = 0)]
    total: i64,
    /// Page number.
    #[schema(minimum = 1)]
    page: i64,
    /// Maximum number of items per page.
    #[schema(minimum = 1)]
    size: i64,
    /// Start of the interval, inclusive.
    #[schema(format = DateTime)]
    start: String,
    /// End of the interval, exclusive.
    #[schema(format = DateTime)]
    end: String,
    /// Width of the buckets.
    #[schema(value_type = String, example = "1day")]
    every: Granularity,
    /// Time zone of the buckets.
    #[schema(value_type = String, example = "UTC")]
    tz: Zone,
    /// Bytes used in the whole interval.
    #[schema(minimum = 0)]
    bytes_used_total: i64,
    /// Every feed that is expected and live has delivered the usage up to this instant.
    #[schema(format = DateTime)]
    complete_through: Option<String>,
    /// Time of the last ingest.
    #[schema(format = DateTime)]
    last_ingested_at: Option<String>,
    /// True if the list has changed since its first page, so that pages may lack or repeat items;
    /// otherwise absent. The other fields describe the list as it is now. Request the first page
    /// again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    list_changed: bool,
    /// Path and query of the next page; null on the last page.
    next: Option<String>,
}

/// One bucket of a time series.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Bucket {
    /// Start of the bucket.
    #[schema(format = DateTime)]
    date: String,
    /// Bytes used.
    #[schema(minimum = 0)]
    bytes_used_total: i64,
    /// Number of usage records.
    #[schema(minimum = 0)]
    records: i64,
}

impl Item for Bucket {
    const CSV_HEADER: &'static str = "date,bytes-used-total,records";

    fn csv(&self) -> impl IntoIterator<Item = Field<'_>> {
        [
            Field::Plain(&self.date),
            Field::Plain(&self.bytes_used_total),
            Field::Plain(&self.records),
        ]
    }
}

fn not_found(subject: &Subject) -> ApiError {
    match subject {
        Subject::SimCard(sim_card) => ApiError::NoSimCard(sim_card.to_string()),
        Subject::Organization(organization) => ApiError::NoOrganization(organization.to_string()),
    }
}

/// Prepares a request whose buckets take long to calculate: only if the subject exists, in another
/// thread, and in the turn that the query needs anyway, so that a client that sends many such
/// requests waits for itself.
async fn prepare_large(
    context: &Context,
    series: SeriesParameters,
) -> Result<(SeriesRequest, Turn), ApiError> {
    let (request, caller, rules, pool, _) = context;
    let turn = caller.share.query().await?;
    let (subject, scope) = (&series.subject, &caller.scope);
    let exists = pool
        .run(async |client| queries::subject_exists(client, subject, scope).await)
        .await?;
    if !exists {
        return Err(not_found(subject));
    }
    let buckets = spawn_blocking(series.buckets(rules.max_buckets))
        .await
        .map_err(|error| StorageError::Other(error.to_string().into()))?;
    let mut parameters = Parameters::parse(request.query_string());
    let series = SeriesRequest::new(&mut parameters, context, series, buckets);
    Ok((parameters.finish(series)?, turn))
}

async fn answer(
    context: Context,
    subject: Result<Subject, ApiError>,
) -> Result<HttpResponse, ApiError> {
    let (request, caller, rules, pool, answer_cache) = &context;
    let mut parameters = Parameters::parse(request.query_string());
    let series = SeriesParameters::parse(&mut parameters, &context, subject);
    let is_large = series.as_ref().is_some_and(|series| series.is_large(rules));
    let (series, turn) = if is_large {
        let (series, turn) = prepare_large(&context, parameters.finish(series)?).await?;
        (series, Some(turn))
    } else {
        let series = series.and_then(|series| {
            let buckets = series.buckets(rules.max_buckets)();
            SeriesRequest::new(&mut parameters, &context, series, buckets)
        });
        (parameters.finish(series)?, None)
    };
    // If neither the client nor the cache has a response, one round trip does everything.
    let is_cached = series.paging.format == ResponseFormat::Json;
    let has_version_tag = !has_content_tag(&caller.scope, series.paging.format);
    if (is_cached && answer_cache.has(&series.digest)) || (has_version_tag && has_tags(request)) {
        let known = answer_cache.known(&series.digest, series.interval, has_version_tag);
        if let Some(Known {
            tag,
            freshness,
            page,
        }) = known.await?
        {
            if let Some(unchanged) = unchanged(request, &tag) {
                return Ok(unchanged);
            }
            if let Some(CachedPage {
                totals,
                rows: CachedRows::Series(rows),
            }) = page
            {
                let summary = (totals, freshness);
                let source = DataSource::Cache;
                return Ok(write_page(request, series, &tag, &summary, rows, source));
            }
        }
    }
    match turn {
        Some(turn) => respond_in_turn(request, caller, turn, pool, series).await,
        None => respond(request, caller, pool, series).await,
    }
}

/// Usage of a SIM card over time
#[utoipa::path(
    get,
    path = "/api/v1/simcard/{simcard}/usage",
    operation_id = "getSimCardUsage",
    tag = "usage",
    params(("simcard" = String, Path, description = "ICCID of the SIM card", example = "89440001"), Parameters<SeriesRequest>),
    responses(
        (status = 200, description = "One page as JSON, or all rows as CSV or NDJSON.", content(
            (Series = "application/json"),
            (String = "text/csv"),
            (String = "application/x-ndjson"),
        )),
        (status = 404, description = "The SIM card does not exist.", body = Problem, content_type = "application/problem+json"),
        CommonResponses,
    ),
    security((), ("token" = [])),
)]
pub(super) async fn of_sim_card(
    context: Context,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let subject = SimCardId::parse(&id)
        .map(Subject::SimCard)
        .map_err(|_| ApiError::NoSimCard(id.into_inner()));
    answer(context, subject).await
}

/// Usage of an organization over time
#[utoipa::path(
    get,
    path = "/api/v1/organization/{organization}/usage",
    operation_id = "getOrganizationUsage",
    tag = "usage",
    params(("organization" = String, Path, description = "Identifier of the organization", example = "x00g8"), Parameters<SeriesRequest>),
    responses(
        (status = 200, description = "One page as JSON, or all rows as CSV or NDJSON.", content(
            (Series = "application/json"),
            (String = "text/csv"),
            (String = "application/x-ndjson"),
        )),
        (status = 404, description = "The organization does not exist.", body = Problem, content_type = "application/problem+json"),
        CommonResponses,
    ),
    security((), ("token" = [])),
)]
pub(super) async fn of_organization(
    context: Context,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let subject = OrganizationId::parse(&id)
        .map(Subject::Organization)
        .map_err(|_| ApiError::NoOrganization(id.into_inner()));
    answer(context, subject).await
}
