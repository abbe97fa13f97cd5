//! Builds the batches of one source: parses and encodes its records, and collects those that are
//! rejected.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use chrono::DateTime;

use super::batch::Batch;
use super::csv_line::HeaderError;
use super::days::DayCounts;
use super::parse::Format;
use super::parse::{Parser, UsageRecord};
use super::record_encoder::RecordEncoder;
use super::reject::{Defect, Reason};
use crate::config;
use crate::db::{BatchEnd, Checkpoint, RejectedRecord, TUPLE_BYTES, sorted};

/// Limit for the encoded records of a file's batch. They stay in memory until the commit, because a
/// lost connection loses what was sent.
const FILE_BATCH_BYTES: u64 = 32 * 1024 * 1024;

/// Limit for the encoded records of all partitions of a topic together.
const TOPIC_BATCH_BYTES: u64 = 16 * 1024 * 1024;

/// Limit for the rejected records of a batch.
const REJECTED_BYTES: usize = 4 * 1024 * 1024;

/// How many rejected records are logged individually.
const LOGGED_REJECTS: u64 = 10;

/// When a batch ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchLimits {
    records: u64,
    tuple_bytes: u64,
    age: Duration,
}

impl BatchLimits {
    pub fn of_file(config: &config::Ingest) -> Self {
        Self::new(config, FILE_BATCH_BYTES)
    }

    /// Limits for the batches of all partitions together.
    pub fn of_topic(config: &config::Ingest) -> Self {
        Self::new(config, TOPIC_BATCH_BYTES)
    }

    fn new(config: &config::Ingest, tuple_bytes: u64) -> Self {
        Self {
            records: config.batch_rows,
            tuple_bytes,
            age: Duration::from_millis(config.batch_age_ms),
        }
    }

    /// Whether a batch of this size must end.
    pub fn is_full(&self, size: BatchSize) -> bool {
        size.records >= self.records
            || size.tuple_bytes >= self.tuple_bytes
            || size.rejected_bytes >= REJECTED_BYTES
    }

    /// Whether a batch that began at `began` must end. This reads the clock.
    pub fn is_old(&self, began: Instant) -> bool {
        began.elapsed() >= self.age
    }
}

/// The size of a batch so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchSize {
    /// Valid and rejected records.
    pub records: u64,
    /// Encoded records.
    pub tuple_bytes: u64,
    /// Rejected records.
    pub rejected_bytes: usize,
}

/// A record as it was read.
#[derive(Clone, Copy)]
pub(super) struct Payload<'a> {
    /// The record, or its first bytes if it is longer than a record may be.
    pub bytes: &'a [u8],
    /// The full length in bytes.
    pub length: u64,
}

impl<'a> Payload<'a> {
    /// A payload that is cut after `longest` bytes.
    pub fn cut(bytes: &'a [u8], longest: usize) -> Self {
        Self {
            bytes: &bytes[..bytes.len().min(longest)],
            length: bytes.len() as u64,
        }
    }

    fn is_cut(&self) -> bool {
        self.length > self.bytes.len() as u64
    }
}

/// The position of a record in its source.
#[derive(Clone, Copy)]
pub(super) struct RecordPosition {
    /// Byte offset in a stream, or message offset in a partition.
    pub offset: u64,
    /// Line number in a stream, from 1. In a partition, the offset plus 1.
    pub line: u64,
}

/// Builds one batch after the other from the records of one source.
pub(super) struct BatchBuilder {
    source: Arc<str>,
    format: Format,
    header: Option<Bytes>,
    parser: Parser,
    encoder: Arc<RecordEncoder>,
    valid: ValidRecords,
    rejected: Vec<RejectedRecord>,
    rejected_bytes: usize,
}

struct ValidRecords {
    tuples: BytesMut,
    rows: u64,
    days: DayCounts,
    newest_us: Option<i64>,
}

impl BatchBuilder {
    /// A builder for the records of `source`. `header` is the first line of a CSV file.
    ///
    /// # Errors
    /// Returns an error if the header lacks a required column or is malformed.
    pub fn new(
        source: Arc<str>,
        format: Format,
        header: Option<Bytes>,
        encoder: Arc<RecordEncoder>,
    ) -> Result<Self, HeaderError> {
        Ok(Self {
            source,
            format,
            parser: Parser::new(format, header.as_deref())?,
            header,
            encoder,
            valid: ValidRecords {
                tuples: BytesMut::new(),
                rows: 0,
                days: DayCounts::default(),
                newest_us: None,
            },
            rejected: vec![],
            rejected_bytes: 0,
        })
    }

    /// Name of the source.
    pub fn source(&self) -> &Arc<str> {
        &self.source
    }

    /// Encodes all further records with `encoder`.
    pub fn set_encoder(&mut self, encoder: &Arc<RecordEncoder>) {
        if !Arc::ptr_eq(&self.encoder, encoder) {
            self.encoder = Arc::clone(encoder);
        }
    }

    /// Adds a record to the batch, as valid or as rejected. Returns it if it was rejected.
    pub fn push(
        &mut self,
        payload: Payload<'_>,
        position: RecordPosition,
    ) -> Option<&RejectedRecord> {
        // The first record may have come days after the last batch; the others come soon after it.
        if self.is_empty() {
            self.encoder.follow_clock();
        }
        let added = if payload.is_cut() {
            Err(too_long(payload))
        } else {
            self.parser
                .parse(payload.bytes)
                .and_then(|record| self.valid.add(&record, &self.encoder))
        };
        match added {
            Ok(()) => None,
            Err(defect) => Some(self.reject(payload, position, defect)),
        }
    }

    /// Adds the last record of a source that may still grow or may have been cut, and whose last line
    /// has no line end. A record that may continue is rejected; `advice` says what to do.
    pub fn push_unfinished(
        &mut self,
        payload: Payload<'_>,
        position: RecordPosition,
        advice: &str,
    ) -> Option<&RejectedRecord> {
        if !payload.is_cut()
            && !self.format.closes_records()
            && self.parser.parse(payload.bytes).is_ok()
        {
            let problem =
                format!("the last line has no line ending, so it may be incomplete; {advice}");
            let defect = Defect::of_line(Reason::UnfinishedLine, problem);
            return Some(self.reject(payload, position, defect));
        }
        self.push(payload, position)
    }

    fn reject(
        &mut self,
        payload: Payload<'_>,
        position: RecordPosition,
        defect: Defect,
    ) -> &RejectedRecord {
        self.rejected_bytes +=
            payload.bytes.len() + defect.detail.len() + size_of::<RejectedRecord>();
        self.rejected.push_mut(RejectedRecord {
            source: Arc::clone(&self.source),
            position: i64::try_from(position.offset).unwrap_or(i64::MAX),
            line: i64::try_from(position.line).unwrap_or(i64::MAX),
            format: self.format.name(),
            header: self.header.clone(),
            reason: defect.reason.code(),
            field: defect.field,
            detail: defect.detail,
            raw: payload.bytes.to_vec(),
        })
    }

    pub fn size(&self) -> BatchSize {
        BatchSize {
            records: self.valid.rows + self.rejected.len() as u64,
            tuple_bytes: self.valid.rows * TUPLE_BYTES as u64,
            rejected_bytes: self.rejected_bytes,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.valid.rows == 0 && self.rejected.is_empty()
    }

    /// The position of the last rejected record.
    pub fn last_rejected(&self) -> Option<i64> {
        self.rejected.last().map(|record| record.position)
    }

    /// Ends the batch at `checkpoint`, and begins the next.
    pub fn take(&mut self, checkpoint: Checkpoint) -> Batch {
        self.rejected_bytes = 0;
        let valid = &mut self.valid;
        // The buffer stays, for the next batch.
        let tuples = sorted(&valid.tuples).freeze();
        valid.tuples.clear();
        let newest_us = valid.newest_us.take();
        Batch {
            tuples,
            end: BatchEnd {
                rows: std::mem::take(&mut valid.rows),
                rejected: std::mem::take(&mut self.rejected),
                days: valid.days.take(),
                newest_record_at: newest_us.and_then(DateTime::from_timestamp_micros),
                checkpoint,
            },
        }
    }
}

impl ValidRecords {
    fn add(&mut self, record: &UsageRecord<'_>, encoder: &RecordEncoder) -> Result<(), Defect> {
        encoder.encode(record, &mut self.tuples)?;
        self.days.add(record.time_us, record.bytes);
        self.newest_us = self.newest_us.max(Some(record.time_us));
        self.rows += 1;
        Ok(())
    }
}

fn too_long(payload: Payload<'_>) -> Defect {
    let detail = format!(
        "{} bytes, of which the first {} are kept",
        payload.length,
        payload.bytes.len()
    );
    Defect::of_line(Reason::TooLong, detail)
}

/// Counts the rejected records of a run, and logs the first of them.
#[derive(Debug)]
pub(super) struct Rejects {
    total: u64,
    limit: Option<u64>,
    is_dry_run: bool,
}

impl Rejects {
    /// `limit` is the number of rejected records after which the run stops.
    pub fn new(limit: Option<u64>, is_dry_run: bool) -> Self {
        Self {
            total: 0,
            limit,
            is_dry_run,
        }
    }

    /// Counts a record, and logs it if it is one of the first.
    pub fn count(&mut self, record: &RejectedRecord, place: std::fmt::Arguments<'_>) {
        self.total += 1;
        if self.total <= LOGGED_REJECTS {
            log::warn!("{place}: {}: {}", record.reason, record.detail);
        } else if self.total == LOGGED_REJECTS + 1 {
            let others = if self.is_dry_run {
                "the summary counts them by reason"
            } else {
                "all are in the table rejected_records"
            };
            log::warn!("further rejected records are not logged; {others}");
        }
    }

    /// The limit, if it is exceeded.
    pub fn exceeded_limit(&self) -> Option<u64> {
        self.limit.filter(|&limit| self.total > limit)
    }
}
