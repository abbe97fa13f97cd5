//! The lists of organizations and of SIM cards, with the total usage of each.

use std::marker::PhantomData;

use actix_web::http::header::EntityTag;
use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::{Array, ArrayBuilder, Ref};

use super::answer_cache::{AnswerCache, CachedPage, CachedRows, Known, Tags};
use super::cursor::{self, ListId};
use super::format::ResponseFormat;
use super::listing::{Context, Field, Item, Listing, respond, write_page};
use super::params::{
    CSV, CURSOR, END, EVERY, Endpoint, FORMAT, ORGANIZATION, PAGE, Paging, Parameter, Parameters,
    SIZE, SORT, START, TZ,
};
use super::problem::{ApiError, Problem};
use super::response::{
    CommonResponses, has_content_tag, has_tags, list_id, unchanged, version_tag,
};
use super::telemetry::DataSource;
use crate::db::queries::{self, Rows, Totals, TotalsQuery, UsageRows};
use crate::db::{Client, StorageError};
use crate::domain::{Freshness, Interval, Order, OrganizationId, Scope, UsageTotal, Zone};

/// A total has no buckets, but clients may send the parameters of a series.
const UNUSED_EVERY: Parameter = EVERY.described(
    "Checked, but otherwise ignored, so that requests can have the parameters of a time series.",
);

pub(super) struct TotalsRequest<T> {
    scope: Scope,
    organization: Option<OrganizationId>,
    start: Option<DateTime<Utc>>,
    end: Option<DateTime<Utc>>,
    interval: Interval,
    zone: Zone,
    order: Order,
    paging: Paging,
    cursor: Option<TotalsCursor>,
    /// Identifies the list.
    list: ListId,
    /// Identifies the response.
    digest: String,
    answer_cache: web::Data<AnswerCache>,
    item: PhantomData<T>,
}

/// The last row of the page before.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct TotalsCursor {
    /// As text, because JSON numbers have 64 bits.
    bytes: String,
    id: String,
    /// The version of the usage on the first page.
    version: i64,
}

/// An item, which determines the endpoint's parameters and query.
pub(super) trait Total: Item + From<UsageTotal> {
    const PARAMETERS: &'static [Parameter];

    async fn query(
        client: &Client,
        organization: Option<&OrganizationId>,
        query: TotalsQuery<'_>,
    ) -> Result<Option<UsageRows<UsageTotal>>, StorageError>;
}

impl<T: Total> Endpoint for TotalsRequest<T> {
    const PARAMETERS: &'static [Parameter] = T::PARAMETERS;
}

impl<T: Total> TotalsRequest<T> {
    fn parse(parameters: &mut Parameters<Self>, context: &Context) -> Option<Self> {
        let (request, caller, _, _, answer_cache) = context;
        let zone = parameters.zone();
        let (start, end) = (
            parameters.start(zone.unwrap_or(Zone::UTC)),
            parameters.end(zone.unwrap_or(Zone::UTC)),
        );
        let interval = parameters.interval(start, end);
        parameters.every();
        let order = parameters.order();
        let paging = parameters.paging(ResponseFormat::accepted(request));
        let organization = parameters.organization();
        let (interval, zone, order, paging) = (interval?, zone?, order?, paging?);
        let scope = caller.scope.clone();
        let list = list_id(
            request,
            &scope,
            &format!("{interval} {zone} {order:?} {organization:?}"),
        );
        let cursor = parameters.cursor(&paging, &list, "list").ok()?;
        let digest = cursor::digest(&format!("{list} {paging:?}"));
        Some(Self {
            scope,
            organization,
            start,
            end,
            interval,
            zone,
            order,
            paging,
            cursor,
            list,
            digest,
            answer_cache: answer_cache.clone(),
            item: PhantomData,
        })
    }
}

impl<T: Total> Listing for TotalsRequest<T> {
    type Row = UsageTotal;
    type Summary = (Totals, Freshness);
    type Item = T;

    fn paging(&self) -> &Paging {
        &self.paging
    }

    async fn query(
        &self,
        client: &Client,
    ) -> Result<Option<(Self::Summary, Rows<UsageTotal>)>, StorageError> {
        let cursor = self.cursor.as_ref();
        let query = TotalsQuery {
            scope: &self.scope,
            interval: self.interval,
            order: self.order,
            after: cursor.map(|cursor| {
                // Cursors are authenticated.
                let bytes = cursor.bytes.parse().unwrap_or_default();
                (self.order.place(bytes), cursor.id.as_str())
            }),
            window: self.paging.window(),
        };
        let answer = T::query(client, self.organization.as_ref(), query).await?;
        Ok(answer.map(|answer| ((answer.totals, answer.freshness), answer.rows)))
    }

    fn not_found(&self) -> ApiError {
        let organization = self.organization.as_ref();
        ApiError::NoOrganization(organization.map(ToString::to_string).unwrap_or_default())
    }

    fn digest(&self) -> String {
        self.digest.clone()
    }

    fn version_tag(&self, (_, freshness): &Self::Summary) -> EntityTag {
        version_tag(freshness, self.interval, &self.digest)
    }

    fn content(&self, summary: &Self::Summary) -> impl Serialize {
        (summary.0, self.has_changed(summary))
    }

    fn cache(&self, tags: Tags, &(totals, _): &Self::Summary, rows: &[UsageTotal]) {
        let rows = CachedRows::List(rows.to_vec());
        let page = CachedPage { totals, rows };
        self.answer_cache.insert(self.digest.clone(), tags, page);
    }

    fn has_changed(&self, (_, freshness): &Self::Summary) -> bool {
        let cursor = self.cursor.as_ref();
        cursor.is_some_and(|cursor| cursor.version != freshness.version)
    }

    fn next(&self, (_, freshness): &Self::Summary, rows: &mut Vec<UsageTotal>) -> Option<String> {
        self.paging.truncate(rows)?;
        let UsageTotal { id, bytes, .. } = rows.last()?.clone();
        let cursor = self.cursor.as_ref();
        let version = cursor.map_or(freshness.version, |cursor| cursor.version);
        let bytes = bytes.to_string();
        let cursor = TotalsCursor { bytes, id, version };
        Some(self.list.write_cursor(&cursor))
    }

    fn items(&mut self, row: Option<UsageTotal>) -> impl Iterator<Item = T> {
        row.map(T::from).into_iter()
    }

    fn body(&self, summary: &Self::Summary, items: Vec<T>, next: Option<String>) -> impl Serialize {
        let &(totals, freshness) = summary;
        let write = |instant| self.zone.write(instant);
        TotalsPage {
            items,
            total: totals.rows,
            page: self.paging.page.number(),
            size: self.paging.page.size(),
            start: self.start.map(write),
            end: self.end.map(write),
            tz: self.zone,
            bytes_used_total: totals.bytes,
            complete_through: freshness.complete_through.map(write),
            last_ingested_at: freshness.last_ingested_at.map(write),
            list_changed: self.has_changed(summary),
            next,
        }
    }
}

/// One page of a list. `total` and `bytes-used-total` refer to the whole list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct TotalsPage<T> {
    /// The items, in the order of `sort`.
    #[schema(schema_with = named_items::<T>)]
    items: Vec<T>,
    /// Number of items in the whole list.
    #[schema(minimum = 0)]
    total: i64,
    /// Page number.
    #[schema(minimum = 1)]
    page: i64,
    /// Maximum number of items per page.
    #[schema(minimum = 1)]
    size: i64,
    /// Start of the interval, inclusive; null for all time.
    #[schema(format = DateTime)]
    start: Option<String>,
    /// End of the interval, exclusive; null for all time.
    #[schema(format = DateTime)]
    end: Option<String>,
    /// Time zone of dates.
    #[schema(value_type = String, example = "UTC")]
    tz: Zone,
    /// Bytes used by the whole list; null if they exceed 64 bits.
    #[schema(minimum = 0)]
    bytes_used_total: Option<i64>,
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

/// Refers to the named schema of the items, which a generic parameter would inline.
fn named_items<T: ToSchema>() -> Array {
    ArrayBuilder::new()
        .items(Ref::from_schema_name(T::name()))
        .description(Some("The items, in the order of `sort`."))
        .build()
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "gives the schema a name")]
pub(super) struct OrganizationTotals(#[schema(inline)] TotalsPage<OrganizationTotal>);

#[derive(ToSchema)]
#[expect(dead_code, reason = "gives the schema a name")]
pub(super) struct SimCardTotals(#[schema(inline)] TotalsPage<SimCardTotal>);

/// The usage of an organization.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct OrganizationTotal {
    /// Identifier of the organization.
    organization: String,
    /// Bytes used; null if they exceed 64 bits.
    #[schema(minimum = 0)]
    bytes_used_total: Option<i64>,
    /// Number of usage records.
    #[schema(minimum = 0)]
    records: i64,
}

/// The usage of a SIM card.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct SimCardTotal {
    /// ICCID of the SIM card.
    simcard: String,
    /// Bytes used; null if they exceed 64 bits.
    #[schema(minimum = 0)]
    bytes_used_total: Option<i64>,
    /// Number of usage records.
    #[schema(minimum = 0)]
    records: i64,
}

impl From<UsageTotal> for OrganizationTotal {
    fn from(UsageTotal { id, bytes, records }: UsageTotal) -> Self {
        Self {
            organization: id,
            bytes_used_total: i64::try_from(bytes).ok(),
            records,
        }
    }
}

impl From<UsageTotal> for SimCardTotal {
    fn from(UsageTotal { id, bytes, records }: UsageTotal) -> Self {
        Self {
            simcard: id,
            bytes_used_total: i64::try_from(bytes).ok(),
            records,
        }
    }
}

impl Item for OrganizationTotal {
    const CSV_HEADER: &'static str = "organization,bytes-used-total,records";

    fn csv(&self) -> impl IntoIterator<Item = Field<'_>> {
        [
            Field::Id(&self.organization),
            self.bytes_used_total
                .as_ref()
                .map_or(Field::Plain(&""), |bytes| Field::Plain(bytes)),
            Field::Plain(&self.records),
        ]
    }
}

impl Item for SimCardTotal {
    const CSV_HEADER: &'static str = "simcard,bytes-used-total,records";

    fn csv(&self) -> impl IntoIterator<Item = Field<'_>> {
        [
            Field::Id(&self.simcard),
            self.bytes_used_total
                .as_ref()
                .map_or(Field::Plain(&""), |bytes| Field::Plain(bytes)),
            Field::Plain(&self.records),
        ]
    }
}

impl Total for OrganizationTotal {
    const PARAMETERS: &'static [Parameter] = &[
        TZ,
        START,
        END,
        UNUSED_EVERY,
        SORT,
        PAGE,
        SIZE,
        CURSOR,
        FORMAT,
        CSV,
    ];

    async fn query(
        client: &Client,
        _: Option<&OrganizationId>,
        query: TotalsQuery<'_>,
    ) -> Result<Option<UsageRows<UsageTotal>>, StorageError> {
        queries::organization_totals(client, query).await.map(Some)
    }
}

impl Total for SimCardTotal {
    const PARAMETERS: &'static [Parameter] = &[
        TZ,
        START,
        END,
        UNUSED_EVERY,
        SORT,
        PAGE,
        SIZE,
        CURSOR,
        FORMAT,
        CSV,
        ORGANIZATION,
    ];

    async fn query(
        client: &Client,
        organization: Option<&OrganizationId>,
        query: TotalsQuery<'_>,
    ) -> Result<Option<UsageRows<UsageTotal>>, StorageError> {
        queries::sim_card_totals(client, organization, query).await
    }
}

/// Responds without reading any usage, if the client or the cache has the answer; otherwise returns the
/// request.
async fn answer_known<T: Total>(
    (request, caller, _, _, answer_cache): &Context,
    totals: TotalsRequest<T>,
) -> Result<Result<HttpResponse, TotalsRequest<T>>, ApiError> {
    let is_cached = totals.paging.format == ResponseFormat::Json;
    let has_version_tag = !has_content_tag(&caller.scope, totals.paging.format);
    if !(is_cached && answer_cache.has(&totals.digest) || has_tags(request)) {
        return Ok(Err(totals));
    }
    let known = answer_cache.known(&totals.digest, totals.interval, has_version_tag);
    let Some(Known {
        tag,
        freshness,
        page,
    }) = known.await?
    else {
        return Ok(Err(totals));
    };
    if let Some(unchanged) = unchanged(request, &tag) {
        return Ok(Ok(unchanged));
    }
    let Some(CachedPage {
        totals: summary,
        rows: CachedRows::List(rows),
    }) = page
    else {
        return Ok(Err(totals));
    };
    let summary = (summary, freshness);
    let source = DataSource::Cache;
    Ok(Ok(write_page(
        request, totals, &tag, &summary, rows, source,
    )))
}

async fn answer<T: Total>(context: Context) -> Result<HttpResponse, ApiError> {
    let (request, caller, rules, pool, answer_cache) = &context;
    let mut parameters = Parameters::parse(request.query_string());
    let totals = TotalsRequest::<T>::parse(&mut parameters, &context);
    let totals = parameters.finish(totals)?;
    let is_cached = totals.paging.format == ResponseFormat::Json;
    let totals = match answer_known(&context, totals).await? {
        Ok(response) => return Ok(response),
        Err(totals) => totals,
    };
    if !is_cached {
        return respond(request, caller, pool, totals).await;
    }
    // A list of the whole fleet takes seconds of the database's time.
    let (_turn, has_waited) = answer_cache.turn(&totals.digest, rules.longest_wait).await;
    let totals = if has_waited {
        match answer_known(&context, totals).await? {
            Ok(response) => return Ok(response),
            Err(totals) => totals,
        }
    } else {
        totals
    };
    respond(request, caller, pool, totals).await
}

/// Total usage of each organization
///
/// Without `start` and `end`, totals cover all recorded usage.
#[utoipa::path(
    get,
    path = "/api/v1/usage/organizations",
    operation_id = "listOrganizationTotals",
    tag = "usage",
    params(Parameters<TotalsRequest<OrganizationTotal>>),
    responses(
        (status = 200, description = "One page as JSON, or all rows as CSV or NDJSON.", content(
            (OrganizationTotals = "application/json"),
            (String = "text/csv"),
            (String = "application/x-ndjson"),
        )),
        CommonResponses,
    ),
    security((), ("token" = [])),
)]
pub(super) async fn of_organizations(context: Context) -> Result<HttpResponse, ApiError> {
    answer::<OrganizationTotal>(context).await
}

/// Total usage of each SIM card
///
/// Without `start` and `end`, totals cover all recorded usage. With `organization`, they cover the
/// usage of each SIM card while it belonged to that organization.
#[utoipa::path(
    get,
    path = "/api/v1/usage/simcards",
    operation_id = "listSimCardTotals",
    tag = "usage",
    params(Parameters<TotalsRequest<SimCardTotal>>),
    responses(
        (status = 200, description = "One page as JSON, or all rows as CSV or NDJSON.", content(
            (SimCardTotals = "application/json"),
            (String = "text/csv"),
            (String = "application/x-ndjson"),
        )),
        (status = 404, description = "The organization does not exist.", body = Problem, content_type = "application/problem+json"),
        CommonResponses,
    ),
    security((), ("token" = [])),
)]
pub(super) async fn of_sim_cards(context: Context) -> Result<HttpResponse, ApiError> {
    answer::<SimCardTotal>(context).await
}
