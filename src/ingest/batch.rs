//! From lines to batches: the thread that reads, parses, stamps and encodes.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc::Sender;

use super::hours::TouchedHours;
use super::lines::{Line, Lines};
use super::parse::{CsvHeader, CsvParser, UsageRecord, name, parse_ndjson};
use super::progress::Counters;
use super::reject::{Defect, Reason};
use super::source::{Format, Source};
use crate::db::{Directory, NoStamp, RejectedRecord, TUPLE_BYTES, encode_usage_record};
use crate::domain::Interval;

/// Encoded tuples travel in pieces of about this size.
const PIECE_BYTES: usize = 256 * 1024;

/// A batch ends when the rejected records it holds in memory weigh this much.
const REJECTED_BYTES: usize = 4 * 1024 * 1024;

/// How many rejected records are logged one by one.
const LOGGED_REJECTS: u64 = 10;

/// What goes to the thread's other side. A batch is pieces, then an end.
pub(super) enum Message {
    /// Encoded usage records.
    Tuples(Bytes),
    /// The batch is complete.
    End(BatchEnd),
}

/// The end of a batch.
pub(super) struct BatchEnd {
    /// What could not be stored, in reading order.
    pub rejected: Vec<RejectedRecord>,
    /// How many usage records were sent.
    pub rows: u64,
    /// The place behind the batch's last record, for messages.
    pub place: String,
}

/// What the reading thread is told.
pub(super) struct Settings {
    pub format: Option<Format>,
    pub batch_rows: u64,
    pub max_record_bytes: usize,
    pub max_rejects: Option<u64>,
    /// Records older than this, in microseconds since 1970, are rejected.
    pub oldest_us: Option<i64>,
}

/// What a batcher remembers of all it read.
pub(super) struct Account {
    /// The hours of the usage records that were sent.
    pub hours: TouchedHours,
    /// How many records were rejected, by reason.
    pub reasons: BTreeMap<Reason, u64>,
}

/// Reads sources one after the other and sends their records on.
pub(super) struct Batcher {
    settings: Settings,
    directory: Directory,
    outlet: Sender<Message>,
    counters: Arc<Counters>,
    account: Account,
    tuples: BytesMut,
    rejected: Vec<RejectedRecord>,
    rejected_bytes: usize,
    rows: u64,
    total_rejected: u64,
}

/// Why reading ended before the sources did.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    /// `--max-rejects` is exceeded. What was read is sent on.
    #[error("stopped at {place}: more than {limit} records were rejected")]
    TooManyRejects { place: String, limit: u64 },
    /// The other side failed, and says why itself.
    #[error("the database side ended")]
    OutletClosed,
    /// The source cannot be read. What was read before is sent on.
    #[error(transparent)]
    Source(#[from] anyhow::Error),
}

/// A parser of one source's lines.
enum Parser {
    Ndjson,
    Csv(Box<CsvParser>),
}

impl Parser {
    fn parse<'a>(&'a mut self, line: &'a [u8]) -> Result<UsageRecord<'a>, Defect> {
        match self {
            Self::Ndjson => parse_ndjson(line),
            Self::Csv(parser) => parser.parse(line),
        }
    }
}

impl Batcher {
    /// A batcher that stamps by `directory` and sends to `outlet`.
    pub fn new(settings: Settings, directory: Directory, outlet: Sender<Message>, counters: Arc<Counters>) -> Self {
        Self {
            settings,
            directory,
            outlet,
            counters,
            account: Account { hours: TouchedHours::new(), reasons: BTreeMap::new() },
            tuples: BytesMut::with_capacity(PIECE_BYTES + TUPLE_BYTES),
            rejected: vec![],
            rejected_bytes: 0,
            rows: 0,
            total_rejected: 0,
        }
    }

    /// Ends the batcher, and with it the channel.
    pub fn into_account(self) -> Account {
        self.account
    }

    /// Reads a source to its end. Its last batch is sent, too: no batch holds records of two sources.
    pub fn read(&mut self, source: &Source) -> Result<(), Stopped> {
        let name = source.name();
        let (input, _) = source.open()?;
        let mut lines = Lines::new(input, self.settings.max_record_bytes).with_context(|| format!("reading {name}"))?;
        let result = self.read_lines(source, &name, &mut lines);
        let place = format!("{name} at byte {}", lines.position());
        if !matches!(result, Err(Stopped::OutletClosed)) {
            self.end_batch(place)?;
        }
        result
    }

    fn read_lines(&mut self, source: &Source, name: &Arc<str>, lines: &mut Lines<impl Read>) -> Result<(), Stopped> {
        let format = self.settings.format.unwrap_or_else(|| source.detect_format(lines.pending()));
        let mut parser = match format {
            Format::Ndjson => Parser::Ndjson,
            Format::Csv => match lines.next().with_context(|| format!("reading {name}"))? {
                Some(header) => Parser::Csv(Box::new(CsvParser::new(
                    CsvHeader::parse(header.bytes).map_err(|problem| anyhow!("{name}:{}: {problem}", header.number))?,
                ))),
                None => return Ok(()),
            },
        };
        let mut counted = 0;
        loop {
            let Some(line) = lines.next().with_context(|| format!("reading {name}"))? else { break };
            if line.bytes.is_empty() {
                continue;
            }
            self.add(name, &line, &mut parser);
            let (number, end) = (line.number, line.position + line.length);
            if self.tuples.len() >= PIECE_BYTES {
                self.counters.add(end - counted, 0);
                counted = end;
                self.send_tuples()?;
            }
            if let Some(limit) = self.settings.max_rejects.filter(|&limit| self.total_rejected > limit) {
                return Err(Stopped::TooManyRejects { place: format!("{name}:{number}"), limit });
            }
            let records = self.rows + self.rejected.len() as u64;
            if records >= self.settings.batch_rows || self.rejected_bytes >= REJECTED_BYTES {
                self.end_batch(format!("{name}:{number}"))?;
            }
        }
        self.counters.add(lines.position() - counted, 0);
        Ok(())
    }

    /// Takes one line into the batch, as a usage record or as a rejected one.
    fn add(&mut self, source: &Arc<str>, line: &Line<'_>, parser: &mut Parser) {
        let result = if line.is_cut() {
            let longest = self.settings.max_record_bytes;
            let detail = format!("{} bytes, of which the first {longest} are kept", line.length);
            Err(Defect::of_line(Reason::TooLong, detail))
        } else {
            parser.parse(line.bytes).and_then(|record| self.add_record(&record))
        };
        if let Err(defect) = result {
            self.reject(source, line, defect);
        }
    }

    fn add_record(&mut self, record: &UsageRecord<'_>) -> Result<(), Defect> {
        let time_us = record.time_us;
        let date_defect = |reason, problem: &str| {
            let date =
                chrono::DateTime::from_timestamp_micros(time_us).map_or_else(String::new, |date| date.to_rfc3339());
            Err(Defect::of_field(reason, name::DATE, &date, problem))
        };
        let recordable = Interval::RECORDABLE;
        if !(recordable.start().timestamp_micros()..recordable.end().timestamp_micros()).contains(&time_us) {
            return date_defect(Reason::DateOutOfRange, "is not from 1970 to 2199");
        }
        if self.settings.oldest_us.is_some_and(|oldest_us| time_us < oldest_us) {
            return date_defect(Reason::OlderThanRetention, "is older than storage.retention_records_days");
        }
        let stamp = self.directory.stamp(&record.sim_card, time_us).map_err(|why| {
            let (reason, problem) = match why {
                NoStamp::Unknown => (Reason::UnknownSimCard, "is not in the inventory"),
                NoStamp::Unassigned => (Reason::UnassignedSimCard, "belonged to no organization at the record's date"),
            };
            Defect::of_field(reason, name::SIM_CARD, &record.sim_card, problem)
        })?;
        encode_usage_record(&mut self.tuples, time_us, stamp, record.bytes);
        self.account.hours.insert(time_us);
        self.rows += 1;
        Ok(())
    }

    fn reject(&mut self, source: &Arc<str>, line: &Line<'_>, defect: Defect) {
        self.total_rejected += 1;
        if self.total_rejected <= LOGGED_REJECTS {
            log::warn!("{source}:{}: {}: {}", line.number, defect.reason, defect.detail);
        } else if self.total_rejected == LOGGED_REJECTS + 1 {
            log::warn!("more records are rejected; all are in the table rejected_records");
        }
        *self.account.reasons.entry(defect.reason).or_default() += 1;
        self.rejected_bytes += line.bytes.len() + size_of::<RejectedRecord>() + defect.detail.len();
        self.rejected.push(RejectedRecord {
            source: Arc::clone(source),
            position: i64::try_from(line.position).unwrap_or(i64::MAX),
            line: i64::try_from(line.number).unwrap_or(i64::MAX),
            reason: defect.reason.code(),
            field: defect.field,
            detail: defect.detail,
            raw: line.bytes.to_vec(),
        });
    }

    fn send_tuples(&mut self) -> Result<(), Stopped> {
        if self.tuples.is_empty() {
            return Ok(());
        }
        let fresh = BytesMut::with_capacity(PIECE_BYTES + TUPLE_BYTES);
        let tuples = std::mem::replace(&mut self.tuples, fresh).freeze();
        self.counters.add(0, (tuples.len() / TUPLE_BYTES) as u64);
        self.outlet.blocking_send(Message::Tuples(tuples)).map_err(|_| Stopped::OutletClosed)
    }

    fn end_batch(&mut self, place: String) -> Result<(), Stopped> {
        self.send_tuples()?;
        if self.rows == 0 && self.rejected.is_empty() {
            return Ok(());
        }
        let rejected = std::mem::take(&mut self.rejected);
        self.rejected_bytes = 0;
        self.counters.add(0, rejected.len() as u64);
        let end = BatchEnd { rejected, rows: std::mem::take(&mut self.rows), place };
        self.outlet.blocking_send(Message::End(end)).map_err(|_| Stopped::OutletClosed)
    }
}
