//! The time series of one SIM card or one organization.

use std::fmt::Write as _;
use std::sync::Arc;

use actix_web::http::header::EntityTag;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::Caller;
use super::cursor;
use super::format::Format;
use super::openapi::{OtherAnswers, SeriesParameters};
use super::params::{END, EVERY, Paging, Parameters, START};
use super::problem::{ApiError, Problem};
use super::response::{Links, Rules, begin, digest, has_tags, stream, tag, telemetry, unchanged};
use super::series_cache::{Page, SeriesCache};
use super::telemetry::Source;
use crate::db::queries::{self, SeriesQuery, Totals};
use crate::db::{Pool, Streaming};
use crate::domain::{
    Buckets, Freshness, Granularity, Interval, OrganizationId, Pieces, Scope, SimCardId, Subject,
    UsageBucket, Window, Zone,
};

/// The columns of CSV.
const CSV_HEAD: &str = "date,bytes-used-total,records\n";

/// What is asked for.
#[derive(Debug)]
struct SeriesRequest {
    scope: Scope,
    interval: Interval,
    every: Granularity,
    zone: Zone,
    fill: bool,
    paging: Paging,
    format: Format,
    buckets: Buckets,
    /// What is read for this page and those behind it.
    pieces: Pieces,
    /// Where the page begins, if an earlier answer has said so.
    place: Option<SeriesCursor>,
    /// Which series is asked for, whatever the page and the format.
    series: String,
    /// What an answer to this is known by.
    digest: String,
}

/// A place in a series.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct SeriesCursor {
    /// The next bucket.
    from: usize,
    /// What the whole series sums up to, as the first page has told it.
    total: i64,
    bytes: i64,
}

impl SeriesRequest {
    fn parse(request: &HttpRequest, caller: Caller, rules: &Rules) -> Result<Self, ApiError> {
        let mut parameters = Parameters::parse(request.query_string());
        parameters.require(&[START, END, EVERY]);
        // A zone that is wrong is a problem of its own; the dates are looked at all the same.
        let zone = parameters.zone();
        let (start, end) = (
            parameters.start(zone.unwrap_or(Zone::UTC)),
            parameters.end(zone.unwrap_or(Zone::UTC)),
        );
        // Without both there is no interval, and the one that misses has its problem already.
        let interval = if start.is_some() && end.is_some() {
            parameters.interval(start, end)
        } else {
            None
        };
        let (every, fill, paging) = (parameters.every(), parameters.fill(), parameters.paging());
        let (place, format) = (
            parameters.cursor(),
            parameters.format(Format::accepted(request)),
        );
        let read = interval
            .zip(every)
            .zip(zone)
            .zip(fill)
            .zip(paging)
            .zip(format);
        let question = read.and_then(|(((((interval, every), zone), fill), paging), format)| {
            let buckets = Buckets::new(interval, every, zone, rules.max_buckets);
            let buckets = buckets.map_err(|error| {
                let reason = format!("the interval has {error} of it, and serve.max_buckets allows no more");
                parameters.refuse(EVERY, &every.to_string(), &reason);
            });
            let buckets = buckets.ok()?;
            let scope = caller.scope;
            let series = digest(request, &scope, &format!("{interval} {every} {zone} {fill}"));
            let fits = |place: &SeriesCursor| place.from < buckets.starts().len();
            let place = parameters.place(place, &series, "series", fits).ok()?;
            let pieces = buckets.pieces(place.map_or(0, |place| place.from));
            if pieces.count() > rules.max_pieces {
                let (count, max) = (pieces.count(), rules.max_pieces);
                let reason = format!(
                    "its buckets cut the interval into {count} pieces that are read one by one, and serve.max_pieces \
                     allows no more than {max}; ask for a shorter interval"
                );
                parameters.refuse(EVERY, &every.to_string(), &reason);
                return None;
            }
            let digest = cursor::digest(&format!("{series} {paging:?} {format:?} {place:?}"));
            Some(Self { scope, interval, every, zone, fill, paging, format, buckets, pieces, place, series, digest })
        });
        parameters.finish(question)
    }

    /// The first bucket that is read.
    fn from(&self) -> usize {
        self.place.map_or(0, |place| place.from)
    }

    /// The buckets that are answered, by their places. Without `fill` it is only known where they begin.
    fn shown(&self) -> (usize, usize) {
        let all = self.buckets.starts().len();
        if !self.fill || self.paging.is_unbounded(self.format) {
            return (self.from(), all);
        }
        let page = self.paging.page;
        let place = |rows: i64| usize::try_from(rows).unwrap_or(usize::MAX);
        let from = self
            .place
            .map_or_else(|| place(page.offset()), |place| place.from);
        (
            from.min(all),
            from.saturating_add(place(page.size())).min(all),
        )
    }

    fn ask(&self) -> SeriesQuery<'_> {
        let window = if self.fill {
            Window::ALL
        } else {
            self.paging.window(self.format, self.place.is_some())
        };
        let Self {
            scope,
            interval,
            buckets,
            pieces,
            ..
        } = self;
        SeriesQuery {
            scope,
            interval: *interval,
            starts: buckets.starts(),
            pieces,
            shown: self.shown(),
            window,
        }
    }

    fn tag(&self, rules: &Rules, freshness: &Freshness) -> Option<EntityTag> {
        tag(rules, self.interval, freshness, &self.digest)
    }

    /// What the series sums up to, as all its pages tell it.
    fn totals(&self, read: Totals) -> Totals {
        let buckets = i64::try_from(self.buckets.starts().len()).unwrap_or(i64::MAX);
        let totals = self.place.map_or(read, |place| Totals {
            rows: place.total,
            bytes: place.bytes,
        });
        if self.fill {
            Totals {
                rows: buckets,
                ..totals
            }
        } else {
            totals
        }
    }

    fn date(&self, index: usize) -> String {
        self.buckets
            .starts()
            .get(index)
            .map(|&start| self.zone.write(start))
            .unwrap_or_default()
    }

    fn item(
        &self,
        UsageBucket {
            index,
            bytes,
            records,
        }: UsageBucket,
    ) -> Bucket {
        Bucket {
            date: self.date(index),
            bytes_used_total: bytes,
            records,
        }
    }

    /// One page, as JSON, read from the database.
    async fn page(
        &self,
        request: &HttpRequest,
        rules: &Rules,
        pool: &Pool,
        series_cache: &SeriesCache,
        subject: &Subject,
    ) -> Result<HttpResponse, ApiError> {
        let answered = pool.run(async |client| {
            let Some(answer) = queries::usage_series(client, subject, self.ask()).await? else {
                return Ok(None);
            };
            let page = Page {
                totals: answer.totals,
                rows: answer.rows.collect().await?,
            };
            Ok(Some((answer.freshness, Arc::new(page))))
        });
        let (freshness, page) = answered.await?.ok_or_else(|| nobody_knows(subject))?;
        let tag = self.tag(rules, &freshness);
        if let Some(tag) = &tag {
            series_cache.keep(self.digest.clone(), tag.clone(), Arc::clone(&page));
        }
        Ok(unchanged(request, tag.as_ref()).unwrap_or_else(|| {
            self.write_page(request, tag.as_ref(), &page, &freshness, Source::Database)
        }))
    }

    /// One page, as JSON.
    fn write_page(
        &self,
        request: &HttpRequest,
        tag: Option<&EntityTag>,
        page: &Page,
        freshness: &Freshness,
        source: Source,
    ) -> HttpResponse {
        let totals = self.totals(page.totals);
        let filled = self.fill.then(|| filled(&page.rows, self.shown()));
        let (rows, next) = if let Some(filled) = &filled {
            (
                &filled[..],
                Some(self.shown().1).filter(|&until| until < self.buckets.starts().len()),
            )
        } else {
            let (shown, _) = self.paging.shown(page.rows.len());
            (
                &page.rows[..shown],
                page.rows.get(shown).map(|row| row.index),
            )
        };
        telemetry(request).found(source, rows.len());
        let place = |from: usize| SeriesCursor {
            from,
            total: totals.rows,
            bytes: totals.bytes,
        };
        let next = next.map(|from| cursor::write(&self.series, &place(from)));
        let links = Links::new(request, self.paging.page, next.as_deref());
        let body = Series {
            items: rows.iter().map(|&row| self.item(row)).collect(),
            total: totals.rows,
            page: self.paging.page.number(),
            size: self.paging.page.size(),
            start: self.zone.write(self.interval.start()),
            end: self.zone.write(self.interval.end()),
            every: self.every,
            tz: self.zone,
            bytes_used_total: totals.bytes,
            complete_through: freshness
                .complete_through
                .map(|instant| self.zone.write(instant)),
            last_ingested_at: freshness
                .last_ingested_at
                .map(|instant| self.zone.write(instant)),
            next: links.next().map(str::to_owned),
        };
        begin(self.format, tag, Some(&links)).json(body)
    }

    /// All rows, or those of a page, as CSV or NDJSON.
    async fn rows(
        self,
        request: &HttpRequest,
        rules: &Rules,
        pool: &Pool,
        subject: &Subject,
    ) -> Result<HttpResponse, ApiError> {
        let question = async |client: &_| queries::usage_series(client, subject, self.ask()).await;
        let (answer, mut lease) = pool.open(question).await?;
        let Some(answer) = answer else {
            lease.give_back().await;
            return Err(nobody_knows(subject));
        };
        let tag = self.tag(rules, &answer.freshness);
        let response = begin(self.format, tag.as_ref(), None);
        let head = if self.format == Format::Csv {
            CSV_HEAD
        } else {
            ""
        };
        let (mut next, until) = self.shown();
        let write = move |row: Option<UsageBucket>, text: &mut String| {
            if self.fill {
                let zeros = row.map_or(until, |row| row.index);
                while next < zeros {
                    self.write_row(
                        UsageBucket {
                            index: next,
                            bytes: 0,
                            records: 0,
                        },
                        text,
                    );
                    next += 1;
                }
                next += 1;
            }
            if let Some(row) = row {
                self.write_row(row, text);
            }
        };
        Ok(stream(
            request,
            response,
            head,
            Streaming {
                rows: answer.rows,
                lease,
            },
            write,
        ))
    }

    fn write_row(&self, row: UsageBucket, text: &mut String) {
        let UsageBucket {
            index,
            bytes,
            records,
        } = row;
        let date = self.date(index);
        // Neither a date nor a number needs to be quoted.
        let written = if self.format == Format::Csv {
            writeln!(text, "{date},{bytes},{records}")
        } else {
            writeln!(
                text,
                r#"{{"date":"{date}","bytes-used-total":{bytes},"records":{records}}}"#
            )
        };
        written.expect("a string takes everything");
    }
}

/// Every bucket of a range, those without usage included.
fn filled(rows: &[UsageBucket], (from, until): (usize, usize)) -> Vec<UsageBucket> {
    let mut rows = rows.iter().peekable();
    let bucket = |index| match rows.next_if(|row| row.index == index) {
        Some(row) => *row,
        None => UsageBucket {
            index,
            bytes: 0,
            records: 0,
        },
    };
    (from..until).map(bucket).collect()
}

/// One page of a time series. `total` and `bytes-used-total` are those of the whole interval.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Series {
    /// The buckets, by time; those without usage are left out unless `fill` is `zero`.
    items: Vec<Bucket>,
    /// Buckets of the whole series.
    #[schema(minimum = 0)]
    total: i64,
    /// The page.
    #[schema(minimum = 1)]
    page: i64,
    /// Rows of a page, at most.
    #[schema(minimum = 1)]
    size: i64,
    /// First instant of the interval.
    #[schema(format = DateTime)]
    start: String,
    /// First instant behind it.
    #[schema(format = DateTime)]
    end: String,
    /// Width of the buckets.
    #[schema(value_type = String, example = "1day")]
    every: Granularity,
    /// Time zone of the buckets.
    #[schema(value_type = String, example = "UTC")]
    tz: Zone,
    /// Bytes of the whole interval.
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

/// One bucket of a time series.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
struct Bucket {
    /// Its start.
    #[schema(format = DateTime)]
    date: String,
    /// Bytes used in it.
    #[schema(minimum = 0)]
    bytes_used_total: i64,
    /// Usage records in it.
    #[schema(minimum = 0)]
    records: i64,
}

fn nobody_knows(subject: &Subject) -> ApiError {
    match subject {
        Subject::SimCard(sim_card) => ApiError::NoSimCard(sim_card.to_string()),
        Subject::Organization(organization) => ApiError::NoOrganization(organization.to_string()),
    }
}

async fn answer(
    request: &HttpRequest,
    caller: Caller,
    rules: &Rules,
    pool: &Pool,
    series_cache: &SeriesCache,
    subject: Result<Subject, ApiError>,
) -> Result<HttpResponse, ApiError> {
    let question = SeriesRequest::parse(request, caller, rules)?;
    let subject = subject?;
    rules.check_records(question.zone, || question.pieces.first_record())?;
    let kept = if question.format == Format::Json {
        series_cache.get(&question.digest)
    } else {
        None
    };
    // Where neither the client nor this process has anything, one round trip does it all.
    if kept.is_some() || has_tags(request) {
        let freshness = series_cache.freshness(question.interval).await?;
        let tag = question.tag(rules, &freshness);
        if let Some(unchanged) = unchanged(request, tag.as_ref()) {
            return Ok(unchanged);
        }
        if let Some((of, page)) = &kept
            && tag.as_ref() == Some(of)
        {
            return Ok(question.write_page(request, Some(of), page, &freshness, Source::Memory));
        }
    }
    match question.format {
        Format::Json => {
            question
                .page(request, rules, pool, series_cache, &subject)
                .await
        }
        Format::Csv | Format::Ndjson => question.rows(request, rules, pool, &subject).await,
    }
}

/// The time series of a SIM card
#[utoipa::path(
    get,
    path = "/api/v1/simcard/{simcard}/usage",
    operation_id = "simcard-usage",
    tag = "usage",
    params(("simcard" = String, Path, description = "The SIM card's ICCID", example = "89440001"), SeriesParameters),
    responses(
        (status = 200, description = "One page, or all rows as CSV or NDJSON.", content(
            (Series = "application/json"),
            (String = "text/csv"),
            (String = "application/x-ndjson"),
        )),
        (status = 404, description = "Nobody knows the SIM card.", body = Problem, content_type = "application/problem+json"),
        OtherAnswers,
    ),
    security((), ("token" = [])),
)]
pub(super) async fn of_sim_card(
    request: HttpRequest,
    id: web::Path<String>,
    caller: Caller,
    rules: web::Data<Rules>,
    pool: web::Data<Pool>,
    series_cache: web::Data<SeriesCache>,
) -> Result<HttpResponse, ApiError> {
    let subject = SimCardId::parse(&id)
        .map(Subject::SimCard)
        .map_err(|_| ApiError::NoSimCard(id.into_inner()));
    answer(&request, caller, &rules, &pool, &series_cache, subject).await
}

/// The time series of an organization
#[utoipa::path(
    get,
    path = "/api/v1/organization/{organization}/usage",
    operation_id = "organization-usage",
    tag = "usage",
    params(("organization" = String, Path, description = "The organization's identifier", example = "x00g8"), SeriesParameters),
    responses(
        (status = 200, description = "One page, or all rows as CSV or NDJSON.", content(
            (Series = "application/json"),
            (String = "text/csv"),
            (String = "application/x-ndjson"),
        )),
        (status = 404, description = "Nobody knows the organization.", body = Problem, content_type = "application/problem+json"),
        OtherAnswers,
    ),
    security((), ("token" = [])),
)]
pub(super) async fn of_organization(
    request: HttpRequest,
    id: web::Path<String>,
    caller: Caller,
    rules: web::Data<Rules>,
    pool: web::Data<Pool>,
    series_cache: web::Data<SeriesCache>,
) -> Result<HttpResponse, ApiError> {
    let nobody_knows = |_| ApiError::NoOrganization(id.to_string());
    let subject = OrganizationId::parse(&id)
        .map(Subject::Organization)
        .map_err(nobody_knows);
    answer(&request, caller, &rules, &pool, &series_cache, subject).await
}
