//! Encodes a parsed record as a COPY tuple, with the keys of its SIM card and of the organization
//! that owned the SIM card at the record's date.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::BytesMut;
use chrono::TimeDelta;

use super::parse::{UsageRecord, name};
use super::reject::{Defect, Reason};
use crate::db::{InventoryIndex, LookupError, RecordIds, Retention, encode_usage_record};
use crate::domain::Interval;
use crate::{clock, config};

/// Which dates and bytes are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub retention: Retention,
    /// How far in the future a date may be, in hours; 0 for any distance.
    pub max_future_hours: u32,
    /// The most bytes of a record.
    pub max_bytes: i64,
}

impl Limits {
    pub fn new(config: &config::Ingest, retention: Retention) -> Self {
        Self {
            retention,
            max_future_hours: config.max_future_hours,
            max_bytes: config.max_record_bytes_used,
        }
    }
}

/// Looks records up in the inventory and encodes them.
pub(super) struct RecordEncoder {
    /// `None`: SIM cards are not checked.
    inventory: Option<Arc<InventoryIndex>>,
    limits: Limits,
    /// Records older than this instant, in microseconds since 1970, are rejected.
    oldest_us: AtomicI64,
    /// And records after this one.
    newest_us: AtomicI64,
}

impl RecordEncoder {
    /// Accepts records within `limits`.
    pub fn new(inventory: Arc<InventoryIndex>, limits: Limits) -> Self {
        Self {
            inventory: Some(inventory),
            ..Self::unchecked(limits)
        }
    }

    /// Checks dates and bytes only. The encoded keys are 0, so the tuples must not be stored.
    pub fn unchecked(limits: Limits) -> Self {
        let encoder = Self {
            inventory: None,
            limits,
            oldest_us: AtomicI64::new(i64::MIN),
            newest_us: AtomicI64::new(i64::MAX),
        };
        encoder.follow_clock();
        encoder
    }

    /// Moves the dates outside of which records are rejected, which a long run must do.
    pub fn follow_clock(&self) {
        let now = clock::now();
        if let Some(oldest) = self.limits.retention.oldest(now) {
            self.oldest_us
                .store(oldest.timestamp_micros(), Ordering::Relaxed);
        }
        if self.limits.max_future_hours > 0 {
            let future = TimeDelta::hours(self.limits.max_future_hours.into());
            let newest = now.checked_add_signed(future);
            self.newest_us.store(
                newest.map_or(i64::MAX, |newest| newest.timestamp_micros()),
                Ordering::Relaxed,
            );
        }
    }

    /// Appends the record's tuple to `tuples`.
    pub fn encode(&self, record: &UsageRecord<'_>, tuples: &mut BytesMut) -> Result<(), Defect> {
        let time_us = record.time_us;
        let date_defect = |reason, problem: &str| {
            let date = chrono::DateTime::from_timestamp_micros(time_us)
                .map_or_else(String::new, |date| date.to_rfc3339());
            Err(Defect::of_field(reason, name::DATE, &date, problem))
        };
        let recordable = Interval::RECORDABLE;
        if !(recordable.start().timestamp_micros()..recordable.end().timestamp_micros())
            .contains(&time_us)
        {
            return date_defect(
                Reason::DateOutOfRange,
                "is outside the years 1970 to 2199; check the clock that wrote it",
            );
        }
        if time_us < self.oldest_us.load(Ordering::Relaxed) {
            return date_defect(
                Reason::OlderThanRetention,
                "is older than what the database keeps; raise storage.retention_daily_days and run \
                 simusage migrate, unless its day has been dropped already",
            );
        }
        if time_us > self.newest_us.load(Ordering::Relaxed) {
            return date_defect(
                Reason::FutureDate,
                "is further in the future than ingest.max_future_hours allows; correct the clock that \
                 wrote it, or raise that setting",
            );
        }
        if record.bytes > self.limits.max_bytes {
            return Err(Defect::of_field(
                Reason::ImplausibleBytes,
                name::BYTES,
                &record.bytes.to_string(),
                "is more than ingest.max_record_bytes_used allows; raise that setting if the record is \
                 right",
            ));
        }
        let Some(inventory) = &self.inventory else {
            encode_usage_record(
                tuples,
                time_us,
                RecordIds {
                    sim_card: 0,
                    organization: 0,
                },
                record.bytes,
            );
            return Ok(());
        };
        let stamp = inventory.look_up(&record.sim_card, time_us).map_err(|why| {
            let (reason, problem) = match why {
                LookupError::Unknown => (
                    Reason::UnknownSimCard,
                    "is not in the inventory; load it with --inventory FILE",
                ),
                LookupError::Unassigned => (
                    Reason::UnassignedSimCard,
                    "belonged to no organization at the record's date; load an assignment with an \
                     earlier valid-from",
                ),
            };
            Defect::of_field(reason, name::SIM_CARD, &record.sim_card, problem)
        })?;
        encode_usage_record(tuples, time_us, stamp, record.bytes);
        Ok(())
    }
}
