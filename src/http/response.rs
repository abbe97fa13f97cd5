//! What the responses of all resources share: entity tags, headers and links.

use std::time::Duration;

use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, ETAG, EntityTag, Header as _, HeaderValue, IF_NONE_MATCH,
    IfNoneMatch, LINK, VARY,
};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use serde::Serialize;
use utoipa::IntoResponses;

use super::access::Access;
use super::cursor::{self, ListId};
use super::format::ResponseFormat;
use super::params::with_page;
use super::problem::Problem;
use super::telemetry::{DataSource, Telemetry};
use crate::config::{Config, Networks, Serve};
use crate::domain::{Freshness, Interval, Page, Scope};

/// The settings that requests are checked against.
#[derive(Debug, Clone)]
pub struct Rules {
    pub max_buckets: usize,
    pub trusted_proxies: Networks,
    /// The value of `Strict-Transport-Security`, if it is sent.
    pub hsts: Option<HeaderValue>,
    /// How long a request may wait while the same one is being answered.
    pub longest_wait: Duration,
}

impl Rules {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            max_buckets: config.serve.max_buckets,
            hsts: hsts(&config.serve),
            trusted_proxies: config.serve.trusted_proxies.clone(),
            longest_wait: Duration::from_millis(config.serve.pool_timeout_ms),
        }
    }
}

/// The value of `Strict-Transport-Security`; `None` without HTTPS.
fn hsts(serve: &Serve) -> Option<HeaderValue> {
    let is_sent = serve.tls_files().is_some() && serve.hsts_days > 0;
    let value = format!("max-age={}", serve.hsts_days.saturating_mul(86_400));
    HeaderValue::try_from(value).ok().filter(|_| is_sent)
}

/// Identifies a list by its path, the caller's scope, and the parameters that select its rows.
///
/// # Panics
/// Panics if the app was built without [`Access`].
#[must_use]
pub(super) fn list_id(request: &HttpRequest, scope: &Scope, parameters: &str) -> ListId {
    let access: &web::Data<Access> = request.app_data().expect("the app has access control");
    let query = format!(
        "{} {:?} {parameters}",
        request.path(),
        scope.organizations()
    );
    ListId::new(&query, access.cursor_key())
}

/// The tag of every response that is made of the same version of the usage in an interval, and of the
/// inventory, and complete through the same instant of the interval. Known before any usage is read, but
/// it also changes when others' usage does.
#[must_use]
pub fn version_tag(freshness: &Freshness, interval: Interval, digest: &str) -> EntityTag {
    let Freshness {
        version,
        inventory_version,
        complete_through,
        ..
    } = freshness;
    let complete = complete_through.map(|instant| instant.min(interval.end()));
    let complete = complete.map(|instant| instant.timestamp_micros());
    weak_tag(&format!(
        "{digest} {version} {inventory_version} {complete:?}"
    ))
}

/// Whether a response has a [`content_tag`]. A caller who sees everything gets the tag that is known
/// before any usage is read, and so does a stream, whose content is not known when it begins.
#[must_use]
pub fn has_content_tag(scope: &Scope, format: ResponseFormat) -> bool {
    scope.is_limited() && format == ResponseFormat::Json
}

/// The tag of a response with these rows. It changes with nothing but what the caller may see.
///
/// # Panics
/// Panics if they cannot be serialized as JSON.
#[must_use]
pub fn content_tag(digest: &str, others: &impl Serialize, rows: &impl Serialize) -> EntityTag {
    let content = serde_json::to_string(&(digest, others, rows));
    weak_tag(&content.expect("rows serialize as JSON"))
}

/// The tag of a response that `content` determines. It is weak because compressed responses have
/// the same tag.
#[must_use]
pub fn weak_tag(content: &str) -> EntityTag {
    EntityTag::new_weak(cursor::digest(&format!(
        "{content} {}",
        env!("CARGO_PKG_VERSION")
    )))
}

/// Whether the request names the responses that the client has. `If-None-Match: *` names none, and
/// is true only of something that exists.
#[must_use]
pub fn has_tags(request: &HttpRequest) -> bool {
    request.headers().contains_key(IF_NONE_MATCH)
        && !matches!(IfNoneMatch::parse(request), Ok(IfNoneMatch::Any))
}

/// The metrics of the server.
///
/// # Panics
/// Panics if the app was built without them.
#[must_use]
pub fn telemetry(request: &HttpRequest) -> &web::Data<Telemetry> {
    request.app_data().expect("the app has telemetry")
}

/// A response of 304 if the client already has the response with this tag.
#[must_use]
pub fn unchanged(request: &HttpRequest, tag: &EntityTag) -> Option<HttpResponse> {
    let is_known = match IfNoneMatch::parse(request).ok()? {
        IfNoneMatch::Any => true,
        IfNoneMatch::Items(items) => items.iter().any(|item| item.weak_eq(tag)),
    };
    is_known.then(|| {
        telemetry(request).count_response(DataSource::Client, 0);
        let mut response = HttpResponse::NotModified();
        with_common_headers(&mut response, tag);
        response.finish()
    })
}

fn with_common_headers(response: &mut HttpResponseBuilder, tag: &EntityTag) {
    response.insert_header((VARY, "accept, authorization"));
    // Clients may store responses, and revalidate them before each use.
    response.insert_header((CACHE_CONTROL, "private, no-cache"));
    response.insert_header((ETAG, tag.clone()));
}

/// The paths and queries of the pages around a page.
#[derive(Debug)]
pub struct Links {
    first: String,
    previous: Option<String>,
    next: Option<String>,
}

impl Links {
    /// `previous` is the previous page, if there is one, and `next` the cursor of the next page.
    #[must_use]
    pub fn new(
        request: &HttpRequest,
        page: Page,
        previous: Option<Page>,
        next: Option<&str>,
    ) -> Self {
        let to = |number: i64, cursor: Option<&str>| {
            format!(
                "{}?{}",
                request.uri().path(),
                with_page(request.query_string(), number, cursor)
            )
        };
        Self {
            first: to(1, None),
            previous: previous.map(|page| to(page.number(), None)),
            next: next.map(|cursor| to(page.number() + 1, Some(cursor))),
        }
    }

    #[must_use]
    pub fn next(&self) -> Option<&str> {
        self.next.as_deref()
    }

    /// The value of the `Link` header (RFC 8288).
    fn header(&self) -> String {
        let links = [
            ("first", Some(&self.first)),
            ("prev", self.previous.as_ref()),
            ("next", self.next.as_ref()),
        ];
        let written = links
            .into_iter()
            .filter_map(|(name, link)| Some(format!("<{}>; rel=\"{name}\"", link?)));
        written.collect::<Vec<_>>().join(", ")
    }
}

/// A response without its body.
#[must_use]
pub fn begin(
    format: ResponseFormat,
    tag: &EntityTag,
    links: Option<&Links>,
) -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    with_common_headers(&mut response, tag);
    response.content_type(format.media_type());
    if let Some(links) = links {
        response.insert_header((LINK, links.header()));
    }
    if format == ResponseFormat::Csv {
        response.insert_header((CONTENT_DISPOSITION, "attachment; filename=\"usage.csv\""));
    }
    response
}

/// The OpenAPI description of the responses that all lists share.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described")]
pub enum CommonResponses {
    /// The client's copy is current.
    #[response(status = 304)]
    NotModified,
    /// No server of this database created the cursor, or it was changed.
    #[response(status = 400, content_type = "application/problem+json")]
    ForgedCursor(Problem<'static>),
    /// The `Accept` header allows none of the formats.
    #[response(status = 406, content_type = "application/problem+json")]
    NotAcceptable(Problem<'static>),
    /// Query parameters are wrong; `errors` lists each of them.
    #[response(status = 422, content_type = "application/problem+json")]
    Parameters(Problem<'static>),
    /// The client sends too many requests, or too many at the same time; retry after `Retry-After`
    /// seconds.
    #[response(status = 429, content_type = "application/problem+json")]
    TooMany(Problem<'static>),
    /// The server failed, or a total exceeds 64 bits.
    #[response(status = 500, content_type = "application/problem+json")]
    Failed(Problem<'static>),
    /// The database is unavailable or busy; retry later.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem<'static>),
}
