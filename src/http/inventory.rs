//! The list of assignments of SIM cards to organizations.

use std::fmt::Display;

use actix_web::http::header::EntityTag;
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::Caller;
use super::cursor::{self, ListId};
use super::format::ResponseFormat;
use super::listing::{Field, Item, Listing, respond};
use super::params::{
    CSV, CURSOR, Endpoint, FORMAT, ORGANIZATION, PAGE, PREFIX, Paging, Parameter, Parameters,
    SIM_CARD, SIZE, rfc3339,
};
use super::problem::{ApiError, Problem};
use super::response::{CommonResponses, list_id, weak_tag};
use crate::db::queries::{self, InventoryQuery, Rows};
use crate::db::{Client, Pool, StorageError};
use crate::domain::{Assignment, OrganizationId, Scope, SimCardId};

pub(super) struct InventoryRequest {
    scope: Scope,
    organization: Option<OrganizationId>,
    sim_card: Option<SimCardId>,
    prefix: Option<String>,
    paging: Paging,
    cursor: Option<InventoryCursor>,
    /// Identifies the list.
    list: ListId,
}

/// The last row of the page before, with the total that the first page queried.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct InventoryCursor {
    sim_card: String,
    valid_from: Option<DateTime<Utc>>,
    /// Assignments in the whole list; `None` if they were not counted.
    total: Option<i64>,
    /// The version of the inventory on the first page.
    version: i64,
}

/// What a query returns about the whole list.
pub(super) struct InventorySummary {
    /// `None` for a query that continues at a cursor whose total is still right, and if there are too
    /// many to count.
    total: Option<i64>,
    version: i64,
}

impl Endpoint for InventoryRequest {
    const PARAMETERS: &'static [Parameter] = &[
        ORGANIZATION,
        SIM_CARD,
        PREFIX,
        PAGE,
        SIZE,
        CURSOR,
        FORMAT,
        CSV,
    ];
}

impl InventoryRequest {
    fn parse(
        parameters: &mut Parameters<Self>,
        request: &HttpRequest,
        caller: &Caller,
    ) -> Option<Self> {
        let (organization, sim_card) = (parameters.organization(), parameters.sim_card());
        let prefix = parameters.prefix();
        let paging = parameters.paging(ResponseFormat::accepted(request))?;
        if paging.window().offset > Self::MAX_SKIPPED {
            let reason = format!(
                "it skips more than {} assignments; follow 'next' from an earlier page, or stream the \
                 list with format=ndjson",
                Self::MAX_SKIPPED
            );
            parameters.refuse(PAGE, &paging.page.number().to_string(), &reason);
            return None;
        }
        let scope = caller.scope.clone();
        let list = list_id(
            request,
            &scope,
            &format!("{organization:?} {sim_card:?} {prefix:?}"),
        );
        let cursor = parameters.cursor(&paging, &list, "list").ok()?;
        Some(Self {
            scope,
            organization,
            sim_card,
            prefix,
            paging,
            cursor,
            list,
        })
    }

    fn total(&self, summary: &InventorySummary) -> Option<i64> {
        let cursor = self.cursor.as_ref();
        let cursor = cursor.filter(|_| !self.has_changed(summary));
        cursor.map_or(summary.total, |cursor| cursor.total)
    }
}

impl Listing for InventoryRequest {
    type Row = Assignment;
    type Summary = InventorySummary;
    type Item = AssignmentItem;

    /// Skipping an assignment costs as much as reading it.
    const MAX_SKIPPED: i64 = 10_000;

    fn paging(&self) -> &Paging {
        &self.paging
    }

    async fn query(
        &self,
        client: &Client,
    ) -> Result<Option<(InventorySummary, Rows<Assignment>)>, StorageError> {
        let cursor = self.cursor.as_ref();
        let query = InventoryQuery {
            scope: &self.scope,
            organization: self.organization.as_ref(),
            sim_card: self.sim_card.as_ref(),
            prefix: self.prefix.as_deref(),
            after: cursor.map(|cursor| (cursor.sim_card.as_str(), cursor.valid_from)),
            version: cursor.map(|cursor| cursor.version),
            window: self.paging.window(),
        };
        let inventory = queries::inventory(client, query).await?;
        Ok(inventory.map(|inventory| {
            let summary = InventorySummary {
                total: inventory.total,
                version: inventory.version,
            };
            (summary, inventory.rows)
        }))
    }

    fn not_found(&self) -> ApiError {
        let organization = self.organization.as_ref();
        ApiError::NoOrganization(organization.map(ToString::to_string).unwrap_or_default())
    }

    fn digest(&self) -> String {
        let Self { list, paging, .. } = self;
        cursor::digest(&format!("{list} {paging:?}"))
    }

    fn version_tag(&self, summary: &InventorySummary) -> EntityTag {
        weak_tag(&format!("{} {}", self.digest(), summary.version))
    }

    fn content(&self, summary: &InventorySummary) -> impl Serialize {
        (self.total(summary), self.has_changed(summary))
    }

    fn has_changed(&self, summary: &InventorySummary) -> bool {
        let cursor = self.cursor.as_ref();
        cursor.is_some_and(|cursor| cursor.version != summary.version)
    }

    fn next(&self, summary: &InventorySummary, rows: &mut Vec<Assignment>) -> Option<String> {
        self.paging.truncate(rows)?;
        let row = rows.last()?;
        let cursor = InventoryCursor {
            sim_card: row.sim_card.to_string(),
            valid_from: row.valid_from,
            total: self.total(summary),
            version: self
                .cursor
                .as_ref()
                .map_or(summary.version, |cursor| cursor.version),
        };
        Some(self.list.write_cursor(&cursor))
    }

    fn items(&mut self, row: Option<Assignment>) -> impl Iterator<Item = AssignmentItem> {
        row.map(AssignmentItem::from).into_iter()
    }

    fn body(
        &self,
        summary: &InventorySummary,
        items: Vec<AssignmentItem>,
        next: Option<String>,
    ) -> impl Serialize {
        Assignments {
            items,
            total: self.total(summary),
            page: self.paging.page.number(),
            size: self.paging.page.size(),
            list_changed: self.has_changed(summary),
            next,
        }
    }
}

/// One page of the inventory.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Assignments {
    /// The assignments, by the bytes of the SIM card's identifier, then by time.
    items: Vec<AssignmentItem>,
    /// Number of assignments in the whole list; null for a `q` that more than 1,000 assignments of
    /// SIM cards match.
    #[schema(minimum = 0)]
    total: Option<i64>,
    /// Page number.
    #[schema(minimum = 1)]
    page: i64,
    /// Maximum number of items per page.
    #[schema(minimum = 1)]
    size: i64,
    /// True if the list has changed since its first page, so that pages may lack or repeat items;
    /// otherwise absent. The other fields describe the list as it is now. Request the first page
    /// again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    list_changed: bool,
    /// Path and query of the next page; null on the last page.
    next: Option<String>,
}

/// An assignment of a SIM card to an organization.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = Assignment)]
pub(super) struct AssignmentItem {
    /// ICCID of the SIM card.
    #[schema(value_type = String)]
    simcard: SimCardId,
    /// Identifier of the organization.
    #[schema(value_type = String)]
    organization: OrganizationId,
    /// Start of the assignment; null if it has no start.
    #[schema(format = DateTime)]
    valid_from: Option<String>,
    /// End of the assignment, exclusive: the next one of the same SIM card begins, or it was ended;
    /// null if it has no end.
    #[schema(format = DateTime)]
    valid_until: Option<String>,
}

impl From<Assignment> for AssignmentItem {
    fn from(
        Assignment {
            sim_card,
            organization,
            valid_from,
            valid_until,
        }: Assignment,
    ) -> Self {
        Self {
            simcard: sim_card,
            organization,
            valid_from: valid_from.map(rfc3339),
            valid_until: valid_until.map(rfc3339),
        }
    }
}

impl Item for AssignmentItem {
    const CSV_HEADER: &'static str = "sim-card-id,org-id,valid-from,valid-until";

    fn csv(&self) -> impl IntoIterator<Item = Field<'_>> {
        [
            Field::Id(self.simcard.as_str()),
            Field::Id(self.organization.as_str()),
            Field::Plain(or_empty(self.valid_from.as_ref())),
            Field::Plain(or_empty(self.valid_until.as_ref())),
        ]
    }
}

fn or_empty(text: Option<&String>) -> &dyn Display {
    text.map_or(&"", |text| text)
}

/// Assignments of SIM cards to organizations
#[utoipa::path(
    get,
    path = "/api/v1/inventory",
    operation_id = "listAssignments",
    tag = "inventory",
    params(Parameters<InventoryRequest>),
    responses(
        (status = 200, description = "One page as JSON, or all rows as CSV or NDJSON.", content(
            (Assignments = "application/json"),
            (String = "text/csv"),
            (String = "application/x-ndjson"),
        )),
        (status = 404, description = "The organization does not exist.", body = Problem, content_type = "application/problem+json"),
        CommonResponses,
    ),
    security((), ("token" = [])),
)]
pub(super) async fn list(
    request: HttpRequest,
    caller: Caller,
    pool: web::Data<Pool>,
) -> Result<HttpResponse, ApiError> {
    let mut parameters = Parameters::parse(request.query_string());
    let inventory = InventoryRequest::parse(&mut parameters, &request, &caller);
    respond(&request, &caller, &pool, parameters.finish(inventory)?).await
}
