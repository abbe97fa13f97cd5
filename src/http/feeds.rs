//! How far each feed of records is stored.

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::access::Caller;
use super::params::{Endpoint, Parameter, Parameters, rfc3339};
use super::problem::{ApiError, Problem};
use crate::db::{self, Feed, Pool};

/// A request for the feeds, which has no parameters.
pub(super) struct FeedsRequest;

impl Endpoint for FeedsRequest {
    const PARAMETERS: &'static [Parameter] = &[];
}

/// The feeds of usage records.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = Feeds)]
pub(super) struct FeedList {
    /// The first 1,000 feeds by name; none for a token that is bound to organizations.
    items: Vec<FeedItem>,
    /// Every feed that is expected and live has delivered the usage up to this instant; null: one of them
    /// has no records.
    #[schema(format = DateTime)]
    complete_through: Option<String>,
}

/// A feed: sources that deliver the same kind of records.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = Feed)]
struct FeedItem {
    /// The pattern of `feeds.names`, or else the topic, the name of the stream, or the name of the files
    /// with `*` for numbers.
    feed: String,
    /// The time of its newest record, but not after it was stored; for a topic, that of its slowest
    /// partition; null: nothing is stored yet.
    #[schema(format = DateTime)]
    complete_through: Option<String>,
    /// When something of it was last stored or rejected.
    #[schema(format = DateTime)]
    last_ingested_at: Option<String>,
    /// Whether `complete-through` of the usage waits for it: `feeds.names` has it, or is empty.
    expected: bool,
    /// Whether it was silent for no longer than `feeds.silent_after_hours` before the last ingest.
    live: bool,
}

impl From<Feed> for FeedItem {
    fn from(feed: Feed) -> Self {
        Self {
            feed: feed.name,
            complete_through: feed.complete_through.map(rfc3339),
            last_ingested_at: feed.last_ingested_at.map(rfc3339),
            expected: feed.is_expected,
            live: feed.is_live,
        }
    }
}

/// How far each feed is stored
#[utoipa::path(
    get,
    path = "/api/v1/feeds",
    operation_id = "listFeeds",
    tag = "usage",
    responses(
        (status = 200, description = "All feeds.", body = FeedList),
        (status = 422, description = "The path has no query parameters.", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The client sends too many requests.", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "The server failed.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is unavailable or busy; retry later.", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("token" = [])),
)]
pub(super) async fn list(
    request: HttpRequest,
    caller: Caller,
    pool: web::Data<Pool>,
) -> Result<HttpResponse, ApiError> {
    Parameters::<FeedsRequest>::parse(request.query_string()).finish(Some(FeedsRequest))?;
    let _turn = caller.share.query().await?;
    let (feeds, complete_through) = pool.run(async |client| db::feeds(client).await).await?;
    // Names of files may contain those of other customers.
    let is_restricted = caller.scope.organizations().is_some();
    let items = feeds.into_iter().filter(|_| !is_restricted);
    let list = FeedList {
        items: items.map(FeedItem::from).collect(),
        complete_through: complete_through.map(rfc3339),
    };
    let mut response = HttpResponse::Ok();
    response.insert_header((CACHE_CONTROL, "private, no-cache"));
    Ok(response.json(list))
}
