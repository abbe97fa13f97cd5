//! Encodes a parsed record as a COPY tuple, with the keys of its SIM card and of the organization
//! that owned the SIM card at the record's date.

use std::sync::Arc;

use bytes::BytesMut;

use super::parse::{UsageRecord, name};
use super::reject::{Defect, Reason};
use crate::db::{InventoryIndex, LookupError, RecordIds, encode_usage_record};
use crate::domain::Interval;

/// Looks records up in the inventory and encodes them.
pub(super) struct RecordEncoder {
    /// `None`: SIM cards are not checked.
    inventory: Option<Arc<InventoryIndex>>,
    /// Records older than this instant, in microseconds since 1970, are rejected.
    oldest_us: Option<i64>,
}

impl RecordEncoder {
    /// Accepts records of the last `retention_days`; 0 means no limit.
    pub fn new(inventory: Arc<InventoryIndex>, retention_days: u32) -> Self {
        Self {
            inventory: Some(inventory),
            ..Self::unchecked(retention_days)
        }
    }

    /// Checks dates only. The encoded keys are 0, so the tuples must not be stored.
    pub fn unchecked(retention_days: u32) -> Self {
        let age = chrono::TimeDelta::days(retention_days.into());
        let oldest_us = (retention_days > 0).then(|| (chrono::Utc::now() - age).timestamp_micros());
        Self {
            inventory: None,
            oldest_us,
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
        if self.oldest_us.is_some_and(|oldest_us| time_us < oldest_us) {
            return date_defect(
                Reason::OlderThanRetention,
                "is older than storage.retention_records_days allows; raise that setting and run \
                 simusage migrate",
            );
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
