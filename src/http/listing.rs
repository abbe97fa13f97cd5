//! The responder of all lists: one page as JSON, or a stream of rows as CSV or NDJSON.

use std::fmt::Display;
use std::io::{self, Write as _};

use actix_web::http::header::EntityTag;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::stream::try_unfold;
use serde::Serialize;

use super::access::Caller;
use super::format::ResponseFormat;
use super::params::Paging;
use super::problem::ApiError;
use super::response::{Links, Rules, begin, telemetry, unchanged};
use super::series_cache::SeriesCache;
use super::telemetry::DataSource;
use crate::db::queries::Rows;
use crate::db::{Client, Pool, StorageError, Streaming};

/// Rows are sent in chunks of about this size.
const CHUNK_BYTES: usize = 32 * 1024;

/// What the usage handlers extract from a request.
pub type Context = (
    HttpRequest,
    Caller,
    web::Data<Rules>,
    web::Data<Pool>,
    web::Data<SeriesCache>,
);

/// A request for a list.
pub trait Listing: 'static {
    type Row: 'static;
    /// The values that describe the whole list.
    type Summary;
    type Item: Item;

    fn paging(&self) -> &Paging;

    /// Queries the requested rows. Returns `None` if what was asked for does not exist.
    async fn query(
        &self,
        client: &Client,
    ) -> Result<Option<(Self::Summary, Rows<Self::Row>)>, StorageError>;

    fn not_found(&self) -> ApiError;

    fn tag(&self, summary: &Self::Summary) -> Option<EntityTag>;

    /// Caches what a JSON page is made of.
    fn cache(&self, _: &EntityTag, _: &Self::Summary, _: &[Self::Row]) {}

    /// Truncates the rows to those on the page, and returns the cursor of the next page.
    fn next(&self, summary: &Self::Summary, rows: &mut Vec<Self::Row>) -> Option<String>;

    /// The items up to and including this row; with `None`, those after the last row.
    fn items(&mut self, row: Option<Self::Row>) -> impl Iterator<Item = Self::Item>;

    /// The JSON page; `next` is the link to the next one.
    fn body(
        &self,
        summary: &Self::Summary,
        items: Vec<Self::Item>,
        next: Option<String>,
    ) -> impl Serialize;
}

/// An item of a list, which serializes to an element of a JSON page and to a line of NDJSON.
pub trait Item: Serialize + 'static {
    const CSV_HEADER: &'static str;

    /// The fields of a line of CSV. Identifiers, instants and numbers need no quotes.
    fn csv(&self) -> [&dyn Display; 3];
}

/// Queries the database and responds.
pub async fn respond<L: Listing>(
    request: &HttpRequest,
    pool: &Pool,
    listing: L,
) -> Result<HttpResponse, ApiError> {
    match listing.paging().format {
        ResponseFormat::Json => page(request, pool, listing).await,
        ResponseFormat::Csv | ResponseFormat::Ndjson => stream(request, pool, listing).await,
    }
}

async fn page<L: Listing>(
    request: &HttpRequest,
    pool: &Pool,
    listing: L,
) -> Result<HttpResponse, ApiError> {
    let found = pool.run(async |client| {
        let Some((summary, rows)) = listing.query(client).await? else {
            return Ok(None);
        };
        Ok(Some((summary, rows.collect().await?)))
    });
    let (summary, rows) = found.await?.ok_or_else(|| listing.not_found())?;
    let tag = listing.tag(&summary);
    if let Some(tag) = &tag {
        listing.cache(tag, &summary, &rows);
    }
    Ok(unchanged(request, tag.as_ref()).unwrap_or_else(|| {
        let source = DataSource::Database;
        write_page(request, listing, tag.as_ref(), &summary, rows, source)
    }))
}

/// Responds with a JSON page of rows that were queried or cached.
pub fn write_page<L: Listing>(
    request: &HttpRequest,
    mut listing: L,
    tag: Option<&EntityTag>,
    summary: &L::Summary,
    mut rows: Vec<L::Row>,
    source: DataSource,
) -> HttpResponse {
    let next = listing.next(summary, &mut rows);
    let links = Links::new(request, listing.paging().page, next.as_deref());
    let mut items = Vec::with_capacity(rows.len());
    for row in rows.into_iter().map(Some).chain([None]) {
        items.extend(listing.items(row));
    }
    telemetry(request).count_response(source, items.len());
    let body = listing.body(summary, items, links.next().map(str::to_owned));
    begin(ResponseFormat::Json, tag, Some(&links)).json(body)
}

/// Responds with rows that are written as they arrive from the database, so memory does not grow
/// with their number. An error halfway aborts the response, so clients notice that it is
/// incomplete.
async fn stream<L: Listing>(
    request: &HttpRequest,
    pool: &Pool,
    listing: L,
) -> Result<HttpResponse, ApiError> {
    let (found, mut lease) = pool
        .open(async |client| listing.query(client).await)
        .await?;
    let Some((summary, rows)) = found else {
        lease.give_back().await;
        return Err(listing.not_found());
    };
    let tag = listing.tag(&summary);
    if let Some(unchanged) = unchanged(request, tag.as_ref()) {
        return Ok(unchanged);
    }
    let mut response = begin(listing.paging().format, tag.as_ref(), None);
    let telemetry = telemetry(request).clone();
    telemetry.count_response(DataSource::Database, 0);
    let head = match listing.paging().format {
        ResponseFormat::Csv => format!("{}\n", L::Item::CSV_HEADER),
        _ => String::new(),
    };
    let streaming = Streaming { rows, lease };
    let state = Some((streaming, listing, head.into_bytes()));
    let chunks = try_unfold((state, telemetry), async |(state, telemetry)| {
        let Some((mut streaming, mut listing, mut chunk)) = state else {
            return Ok(None);
        };
        while chunk.len() < CHUNK_BYTES {
            let row = streaming
                .next()
                .await
                .inspect_err(|error| log::error!("a response was aborted: {error}"))?;
            let is_last = row.is_none();
            telemetry.add_rows(usize::from(!is_last));
            write_row(&mut listing, row, &mut chunk).expect("memory accepts every write");
            if is_last {
                return Ok::<_, StorageError>(Some((Bytes::from(chunk), (None, telemetry))));
            }
        }
        let rest = (streaming, listing, Vec::with_capacity(CHUNK_BYTES + 1024));
        Ok(Some((Bytes::from(chunk), (Some(rest), telemetry))))
    });
    Ok(response.streaming(chunks))
}

/// Writes the items of a row as lines.
fn write_row<L: Listing>(
    listing: &mut L,
    row: Option<L::Row>,
    chunk: &mut Vec<u8>,
) -> io::Result<()> {
    let format = listing.paging().format;
    for item in listing.items(row) {
        if format == ResponseFormat::Csv {
            let [first, second, third] = item.csv();
            write!(chunk, "{first},{second},{third}")?;
        } else {
            serde_json::to_writer(&mut *chunk, &item)?;
        }
        chunk.push(b'\n');
    }
    Ok(())
}
