//! What all answers about usage have in common: whether the client has them already, their headers, and rows that
//! are written as they come.

use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, ETAG, EntityTag, Header as _, IF_NONE_MATCH, IfNoneMatch,
    LINK, VARY,
};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::stream::try_unfold;

use super::cursor;
use super::format::Format;
use super::params::with_page;
use super::problem::ApiError;
use super::series_cache::SeriesCache;
use super::telemetry::{Source, Telemetry};
use crate::config::{Config, Storage};
use crate::db::{StorageError, Streaming};
use crate::domain::{Freshness, Interval, Page, Scope, Zone};

/// Rows travel in chunks of about this size.
const CHUNK_BYTES: usize = 32 * 1024;

/// What the settings say about answers.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The most buckets of a time series.
    pub max_buckets: usize,
    /// The most pieces that a series may be read in.
    pub max_pieces: usize,
    storage: Storage,
}

impl Rules {
    /// The rules of the settings.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            max_buckets: config.serve.max_buckets,
            max_pieces: config.serve.max_pieces,
            storage: config.storage.clone(),
        }
    }

    /// Checks that retention has taken none of the records that would be summed, the `first` of which is only asked for
    /// where there is a retention.
    ///
    /// # Errors
    /// It may have.
    pub fn check_records(
        &self,
        zone: Zone,
        first: impl FnOnce() -> Option<DateTime<Utc>>,
    ) -> Result<(), ApiError> {
        let Some(kept_from) = oldest(self.storage.retention_records_days) else {
            return Ok(());
        };
        match first() {
            Some(first) if first < kept_from => Err(ApiError::RecordsGone {
                hour: zone.write(first),
                kept_from: zone.write(kept_from),
            }),
            _ => Ok(()),
        }
    }

    /// Whether time alone may take something out of the interval.
    fn is_fading(&self, interval: Interval) -> bool {
        let Storage {
            retention_records_days,
            retention_hourly_days,
            retention_daily_days,
            ..
        } = self.storage;
        let periods = [
            retention_records_days,
            retention_hourly_days,
            retention_daily_days,
        ];
        periods
            .into_iter()
            .filter_map(oldest)
            .any(|oldest| interval.start() < oldest)
    }
}

/// The first instant that a retention of so many days keeps; `None` where it keeps all.
fn oldest(days: u32) -> Option<DateTime<Utc>> {
    // A chunk is dropped when all of it is older than that.
    (days > 0).then(|| Utc::now() - TimeDelta::days(days.into()))
}

/// A question as far as its answer depends on it: the path, whatever its parameters mean, and what may be seen.
#[must_use]
pub fn digest(request: &HttpRequest, scope: &Scope, parameters: &str) -> String {
    cursor::digest(&format!(
        "{} {:?} {parameters}",
        request.path(),
        scope.organizations()
    ))
}

/// The tag of an answer, if it has one: as long as its interval does not change, it does not.
#[must_use]
pub fn tag(
    rules: &Rules,
    interval: Interval,
    freshness: &Freshness,
    digest: &str,
) -> Option<EntityTag> {
    let is_lasting = freshness.is_settled && !rules.is_fading(interval);
    let Freshness {
        version,
        inventory_version,
        ..
    } = freshness;
    is_lasting.then(|| lasting_tag(&format!("{digest} {version} {inventory_version}")))
}

/// The tag of an answer that `content` says all about. It is a weak one, because compression makes other bytes of
/// the same answer.
#[must_use]
pub fn lasting_tag(content: &str) -> EntityTag {
    EntityTag::new_weak(cursor::digest(&format!(
        "{content} {}",
        env!("CARGO_PKG_VERSION")
    )))
}

/// Whether the client names tags of answers that it has.
#[must_use]
pub fn has_tags(request: &HttpRequest) -> bool {
    request.headers().contains_key(IF_NONE_MATCH)
}

/// The counters of the server that was asked.
///
/// # Panics
/// The app has no counters.
#[must_use]
pub fn telemetry(request: &HttpRequest) -> &web::Data<Telemetry> {
    request.app_data().expect("the app has its counters")
}

/// The answer that nothing has changed, if the client has the answer of that tag.
#[must_use]
pub fn unchanged(request: &HttpRequest, tag: Option<&EntityTag>) -> Option<HttpResponse> {
    let tag = tag?;
    let known = match IfNoneMatch::parse(request).ok()? {
        IfNoneMatch::Any => true,
        IfNoneMatch::Items(items) => items.iter().any(|item| item.weak_eq(tag)),
    };
    known.then(|| {
        telemetry(request).found(Source::Client, 0);
        let mut response = HttpResponse::NotModified();
        with_common_headers(&mut response, Some(tag));
        response.finish()
    })
}

/// Looks, without touching the usage, whether the client has the answer over the interval already.
///
/// # Errors
/// The database is away.
pub(super) async fn unchanged_over(
    request: &HttpRequest,
    series_cache: &SeriesCache,
    rules: &Rules,
    interval: Interval,
    digest: &str,
) -> Result<Option<HttpResponse>, ApiError> {
    if !has_tags(request) {
        return Ok(None);
    }
    let freshness = series_cache.freshness(interval).await?;
    Ok(unchanged(
        request,
        tag(rules, interval, &freshness, digest).as_ref(),
    ))
}

fn with_common_headers(response: &mut HttpResponseBuilder, tag: Option<&EntityTag>) {
    response.insert_header((VARY, "accept, authorization"));
    // A client may keep an answer, and asks each time whether it still holds.
    response.insert_header((CACHE_CONTROL, "private, no-cache"));
    if let Some(tag) = tag {
        response.insert_header((ETAG, tag.clone()));
    }
}

/// Where a page is among the others.
#[derive(Debug)]
pub struct Links {
    first: String,
    previous: Option<String>,
    next: Option<String>,
}

impl Links {
    /// The links of a page; `next` says where the next one begins, if there is one.
    #[must_use]
    pub fn new(request: &HttpRequest, page: Page, next: Option<&str>) -> Self {
        let to = |number: i64, cursor: Option<&str>| {
            format!(
                "{}?{}",
                request.uri().path(),
                with_page(request.query_string(), number, cursor)
            )
        };
        Self {
            first: to(1, None),
            previous: page.previous().map(|page| to(page.number(), None)),
            next: next.map(|cursor| to(page.number() + 1, Some(cursor))),
        }
    }

    /// The path and query of the next page.
    #[must_use]
    pub fn next(&self) -> Option<&str> {
        self.next.as_deref()
    }

    /// As RFC 8288 has it.
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

/// An answer of that format, up to its body.
#[must_use]
pub fn begin(
    format: Format,
    tag: Option<&EntityTag>,
    links: Option<&Links>,
) -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    with_common_headers(&mut response, tag);
    response.content_type(format.media_type());
    if let Some(links) = links {
        response.insert_header((LINK, links.header()));
    }
    if format == Format::Csv {
        response.insert_header((CONTENT_DISPOSITION, "attachment; filename=\"usage.csv\""));
    }
    response
}

/// Completes an answer by rows that are written as they come from the database, in memory that does not grow with
/// them. `write` is called with each, and with `None` at the end. An error half-way cuts the answer off, so that no
/// client takes it for whole.
pub fn stream<T: 'static>(
    request: &HttpRequest,
    mut response: HttpResponseBuilder,
    head: &str,
    streaming: Streaming<T>,
    write: impl FnMut(Option<T>, &mut String) + 'static,
) -> HttpResponse {
    let telemetry = telemetry(request).clone();
    telemetry.found(Source::Database, 0);
    let state = Some((streaming, write, head.to_owned()));
    let chunks = try_unfold((state, telemetry), async |(state, telemetry)| {
        let Some((mut streaming, mut write, mut chunk)) = state else {
            return Ok(None);
        };
        while chunk.len() < CHUNK_BYTES {
            let row = streaming
                .next()
                .await
                .inspect_err(|error| log::error!("an answer is cut off: {error}"))?;
            let is_last = row.is_none();
            telemetry.add_rows(usize::from(!is_last));
            write(row, &mut chunk);
            if is_last {
                return Ok::<_, StorageError>(Some((Bytes::from(chunk), (None, telemetry))));
            }
        }
        let rest = (streaming, write, String::with_capacity(CHUNK_BYTES + 1024));
        Ok(Some((Bytes::from(chunk), (Some(rest), telemetry))))
    });
    response.streaming(chunks)
}
