//! A batch while its records are read: what is to be stored, what cannot be, and the hours that all that touches.

use bytes::{Bytes, BytesMut};
use chrono::DateTime;

use super::hours::TouchedHours;
use super::parse::UsageRecord;
use super::record_encoder::RecordEncoder;
use super::reject::Defect;
use crate::db::{BatchEnd, Checkpoint, RejectedRecord, TUPLE_BYTES};

/// Encoded tuples travel in pieces of about this size.
const PIECE_BYTES: usize = 256 * 1024;

/// A batch ends when the rejected records it holds in memory weigh this much.
const REJECTED_BYTES: usize = 4 * 1024 * 1024;

/// How many rejected records are logged one by one.
const LOGGED_REJECTS: u64 = 10;

/// A batch that grows.
pub(super) struct BatchBuilder {
    tuples: BytesMut,
    rows: u64,
    rejected: Vec<RejectedRecord>,
    rejected_bytes: usize,
    hours: TouchedHours,
    newest_us: Option<i64>,
}

impl BatchBuilder {
    /// The empty batch.
    pub fn new() -> Self {
        Self {
            tuples: BytesMut::new(),
            rows: 0,
            rejected: vec![],
            rejected_bytes: 0,
            hours: TouchedHours::new(),
            newest_us: None,
        }
    }

    /// Adds a usage record.
    ///
    /// # Errors
    /// Why it cannot be stored.
    pub fn add(&mut self, record: &UsageRecord<'_>, encoder: &RecordEncoder) -> Result<(), Defect> {
        if self.tuples.capacity() == 0 {
            self.tuples.reserve(PIECE_BYTES + TUPLE_BYTES);
        }
        encoder.encode(record, &mut self.tuples)?;
        self.hours.insert(record.time_us);
        self.newest_us = self.newest_us.max(Some(record.time_us));
        self.rows += 1;
        Ok(())
    }

    /// Adds a record that cannot be stored.
    pub fn reject(&mut self, record: RejectedRecord) {
        self.rejected_bytes += record.raw.len() + record.detail.len() + size_of::<RejectedRecord>();
        self.rejected.push(record);
    }

    /// How many records there are, of either kind.
    pub fn records(&self) -> u64 {
        self.rows + self.rejected.len() as u64
    }

    /// How much the usage records weigh, those included that were taken as pieces.
    pub fn tuple_bytes(&self) -> u64 {
        self.rows * TUPLE_BYTES as u64
    }

    /// Whether the rejected records alone are reason enough to end the batch.
    pub fn is_full_of_rejects(&self) -> bool {
        self.rejected_bytes >= REJECTED_BYTES
    }

    /// The position of the last record, if it was rejected.
    pub fn last_rejected(&self) -> Option<i64> {
        self.rejected.last().map(|record| record.position)
    }

    /// The tuples that are not taken yet, once there are enough for a piece.
    pub fn take_piece(&mut self) -> Option<Bytes> {
        if self.tuples.len() < PIECE_BYTES {
            None
        } else {
            self.take_rest()
        }
    }

    /// The tuples that are not taken yet, if there are any.
    pub fn take_rest(&mut self) -> Option<Bytes> {
        (!self.tuples.is_empty()).then(|| std::mem::take(&mut self.tuples).freeze())
    }

    /// What completes the batch at `checkpoint`. The next one is empty.
    pub fn take_end(&mut self, checkpoint: Checkpoint) -> BatchEnd {
        self.rejected_bytes = 0;
        BatchEnd {
            rows: std::mem::take(&mut self.rows),
            rejected: std::mem::take(&mut self.rejected),
            hours: self.hours.take(),
            newest_record_at: self
                .newest_us
                .take()
                .and_then(DateTime::from_timestamp_micros),
            checkpoint,
        }
    }
}

/// How many records were rejected while reading.
#[derive(Debug, Default)]
pub(super) struct Rejects {
    total: u64,
    /// Whether nobody will find them in the database.
    forgotten: bool,
}

impl Rejects {
    /// Of a run that stores nothing.
    pub fn of_dry_run() -> Self {
        Self {
            total: 0,
            forgotten: true,
        }
    }

    /// Counts a rejected record, and says so in the log if it is one of the first.
    pub fn count(&mut self, defect: &Defect, place: std::fmt::Arguments<'_>) {
        self.total += 1;
        if self.total <= LOGGED_REJECTS {
            log::warn!("{place}: {}: {}", defect.reason, defect.detail);
        } else if self.total == LOGGED_REJECTS + 1 && self.forgotten {
            log::warn!("more records would be rejected; the summary counts them by their reasons");
        } else if self.total == LOGGED_REJECTS + 1 {
            log::warn!("more records are rejected; all are in the table rejected_records");
        }
    }

    /// The limit, if more were rejected than that.
    pub fn over(&self, limit: Option<u64>) -> Option<u64> {
        limit.filter(|&limit| self.total > limit)
    }
}
