//! The responder of all lists: one page as JSON, or a stream of rows as CSV or NDJSON.

use std::cell::Cell;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::rc::Rc;
use std::time::Duration;

use actix_web::http::header::EntityTag;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::stream::unfold;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::access::Caller;
use super::answer_cache::{AnswerCache, Tags};
use super::format::ResponseFormat;
use super::params::Paging;
use super::problem::ApiError;
use super::response::{Links, Rules, begin, content_tag, has_content_tag, telemetry, unchanged};
use super::share::{Streams, Turn};
use super::telemetry::{DataSource, Telemetry};
use crate::db::queries::Rows;
use crate::db::{Client, Pool, StorageError, Streaming};
use crate::logging::{current_request, within_request};

/// Rows are sent in chunks of about this size.
const CHUNK_BYTES: usize = 32 * 1024;

/// Says that the list has changed since its first page. JSON pages say it in a field, too.
const HAS_CHANGED: (&str, &str) = ("list-changed", "true");

/// What the usage handlers extract from a request.
pub type Context = (
    HttpRequest,
    Caller,
    web::Data<Rules>,
    web::Data<Pool>,
    web::Data<AnswerCache>,
);

/// A request for a list.
pub trait Listing: 'static {
    type Row: Serialize + 'static;
    /// The values that describe the whole list.
    type Summary;
    type Item: Item;

    /// How many rows a page may skip without a cursor.
    const MAX_SKIPPED: i64 = i64::MAX;

    fn paging(&self) -> &Paging;

    /// Queries the requested rows. Returns `None` if what was asked for does not exist.
    async fn query(
        &self,
        client: &Client,
    ) -> Result<Option<(Self::Summary, Rows<Self::Row>)>, StorageError>;

    fn not_found(&self) -> ApiError;

    /// Identifies the request, together with its caller's scope.
    fn digest(&self) -> String;

    /// The tag that all responses with the same data in the database have.
    fn version_tag(&self, summary: &Self::Summary) -> EntityTag;

    /// What its tag covers besides the rows, if it is made of the content.
    fn content(&self, summary: &Self::Summary) -> impl Serialize;

    /// Whether the list has changed since the first page, according to the request's cursor. If so,
    /// the pages may lack or repeat items.
    fn has_changed(&self, summary: &Self::Summary) -> bool;

    /// Caches what a JSON page is made of.
    fn cache(&self, _: Tags, _: &Self::Summary, _: &[Self::Row]) {}

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

    /// The fields of a line of CSV.
    fn csv(&self) -> impl IntoIterator<Item = Field<'_>>;
}

/// A field of a line of CSV.
pub enum Field<'a> {
    Id(&'a str),
    /// An instant or a number, which need no quotes.
    Plain(&'a dyn Display),
}

/// Queries the database and responds, as soon as it is the caller's turn.
pub async fn respond<L: Listing>(
    request: &HttpRequest,
    caller: &Caller,
    pool: &Pool,
    listing: L,
) -> Result<HttpResponse, ApiError> {
    let turn = caller.share.query().await?;
    respond_in_turn(request, caller, turn, pool, listing).await
}

/// Like [`respond`], in a turn that the caller already has.
pub async fn respond_in_turn<L: Listing>(
    request: &HttpRequest,
    caller: &Caller,
    turn: Turn,
    pool: &Pool,
    listing: L,
) -> Result<HttpResponse, ApiError> {
    // A page keeps its turn until it is complete, a stream until its first row.
    let _turn = turn;
    match listing.paging().format {
        ResponseFormat::Json => page(request, caller, pool, listing).await,
        ResponseFormat::Csv | ResponseFormat::Ndjson => {
            stream(request, caller, pool, listing).await
        }
    }
}

async fn page<L: Listing>(
    request: &HttpRequest,
    caller: &Caller,
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
    let version = listing.version_tag(&summary);
    let tag = if has_content_tag(&caller.scope, ResponseFormat::Json) {
        content_tag(&listing.digest(), &listing.content(&summary), &rows)
    } else {
        version.clone()
    };
    let tags = Tags {
        version,
        tag: tag.clone(),
    };
    listing.cache(tags, &summary, &rows);
    Ok(unchanged(request, &tag).unwrap_or_else(|| {
        let source = DataSource::Database;
        write_page(request, listing, &tag, &summary, rows, source)
    }))
}

/// Responds with a JSON page of rows that were queried or cached.
pub fn write_page<L: Listing>(
    request: &HttpRequest,
    mut listing: L,
    tag: &EntityTag,
    summary: &L::Summary,
    mut rows: Vec<L::Row>,
    source: DataSource,
) -> HttpResponse {
    let has_changed = listing.has_changed(summary);
    let next = listing.next(summary, &mut rows);
    let page = listing.paging().page;
    let previous = page.previous();
    let previous = previous.filter(|page| page.offset() <= L::MAX_SKIPPED);
    let links = Links::new(request, page, previous, next.as_deref());
    let mut items = Vec::with_capacity(rows.len());
    for row in rows.into_iter().map(Some).chain([None]) {
        items.extend(listing.items(row));
    }
    telemetry(request).count_response(source, items.len());
    let body = listing.body(summary, items, links.next().map(str::to_owned));
    let mut response = begin(ResponseFormat::Json, tag, Some(&links));
    if has_changed {
        response.insert_header(HAS_CHANGED);
    }
    response.json(body)
}

/// Responds with rows that are written as they arrive from the database, so memory does not grow
/// with their number.
///
/// A separate task reads the rows. It ends at the timeout even while the client accepts no data,
/// and gives the connection back. A response that is not complete is aborted, so clients notice.
async fn stream<L: Listing>(
    request: &HttpRequest,
    caller: &Caller,
    pool: &Pool,
    listing: L,
) -> Result<HttpResponse, ApiError> {
    let streams: &web::Data<Streams> = request.app_data().expect("the app has streams");
    let turn = caller.share.stream()?;
    let slot = streams.slot().await?;
    let (found, mut lease) = pool
        .open(async |client| listing.query(client).await)
        .await?;
    let Some((summary, rows)) = found else {
        lease.give_back().await;
        return Err(listing.not_found());
    };
    let tag = listing.version_tag(&summary);
    if let Some(unchanged) = unchanged(request, &tag) {
        // The client need not wait until the query has ended, but its turn lasts until then.
        spawn_local(async move {
            drop(rows);
            lease.give_back().await;
            drop((turn, slot));
        });
        return Ok(unchanged);
    }
    let format = listing.paging().format;
    let mut response = begin(format, &tag, None);
    if listing.has_changed(&summary) {
        response.insert_header(HAS_CHANGED);
    }
    let telemetry = telemetry(request).clone();
    telemetry.count_response(DataSource::Database, 0);
    let (sender, chunks) = mpsc::channel(1);
    let is_complete = Rc::new(Cell::new(false));
    let stream = RowStream {
        streaming: Streaming { rows, lease },
        listing,
        telemetry,
        chunk: match format {
            ResponseFormat::Csv => format!("{}\n", L::Item::CSV_HEADER).into_bytes(),
            _ => vec![],
        },
    };
    let (timeout_ms, complete) = (streams.timeout_ms(), Rc::clone(&is_complete));
    let task = async move {
        complete.set(send_rows(stream, sender, timeout_ms).await);
        drop((turn, slot));
    };
    match current_request() {
        Some(id) => drop(spawn_local(within_request(id, task))),
        None => drop(spawn_local(task)),
    }
    let body = unfold(chunks, move |mut chunks| {
        let is_complete = Rc::clone(&is_complete);
        async move {
            match chunks.recv().await {
                Some(chunk) => Some((Ok(chunk), chunks)),
                None if is_complete.get() => None,
                None => Some((Err(Aborted), chunks)),
            }
        }
    });
    Ok(response.streaming(body))
}

/// A response ended before its last row.
#[derive(Debug, thiserror::Error)]
#[error("the response was aborted")]
struct Aborted;

/// Sends all rows, and returns whether that succeeded before the timeout.
async fn send_rows<L: Listing>(
    stream: RowStream<L>,
    sender: mpsc::Sender<Bytes>,
    timeout_ms: u64,
) -> bool {
    let disconnected = sender.clone();
    tokio::select! {
        biased;
        () = disconnected.closed() => false,
        sent = timeout(Duration::from_millis(timeout_ms), stream.send(&sender)) => match sent {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                log::error!("a response was aborted: {error}");
                false
            }
            Err(_) => {
                log::warn!(
                    "a response was aborted: it was not read within {timeout_ms} ms \
                     (serve.stream_timeout_ms)"
                );
                false
            }
        },
    }
}

/// A list that is being sent.
struct RowStream<L: Listing> {
    streaming: Streaming<L::Row>,
    listing: L,
    telemetry: web::Data<Telemetry>,
    chunk: Vec<u8>,
}

impl<L: Listing> RowStream<L> {
    async fn send(mut self, sender: &mpsc::Sender<Bytes>) -> Result<(), StorageError> {
        let paging = self.listing.paging();
        let (format, is_raw_csv) = (paging.format, paging.is_raw_csv);
        loop {
            let row = self.streaming.next().await?;
            let is_last = row.is_none();
            self.telemetry.add_rows(usize::from(!is_last));
            // A row may have many items: the empty buckets before it.
            for item in self.listing.items(row) {
                write_item(format, is_raw_csv, &item, &mut self.chunk)
                    .expect("memory accepts every write");
                if self.chunk.len() >= CHUNK_BYTES {
                    let next = Vec::with_capacity(CHUNK_BYTES + 1024);
                    let chunk = std::mem::replace(&mut self.chunk, next);
                    // Fails if the client has disconnected, which ends this task.
                    let _ = sender.send(chunk.into()).await;
                }
            }
            if is_last {
                if !self.chunk.is_empty() {
                    let _ = sender.send(self.chunk.into()).await;
                }
                return Ok(());
            }
        }
    }
}

/// Whether a spreadsheet would calculate the text.
fn is_formula(text: &str) -> bool {
    text.starts_with(['=', '+', '-', '@'])
}

/// Writes an item as a line.
fn write_item(
    format: ResponseFormat,
    is_raw_csv: bool,
    item: &impl Item,
    chunk: &mut Vec<u8>,
) -> io::Result<()> {
    if format == ResponseFormat::Csv {
        for (index, field) in item.csv().into_iter().enumerate() {
            if index > 0 {
                chunk.push(b',');
            }
            match field {
                Field::Id(id) if !is_raw_csv && is_formula(id) => write!(chunk, "\"'{id}\"")?,
                Field::Id(id) => chunk.extend_from_slice(id.as_bytes()),
                Field::Plain(value) => write!(chunk, "{value}")?,
            }
        }
    } else {
        serde_json::to_writer(&mut *chunk, item)?;
    }
    chunk.push(b'\n');
    Ok(())
}
