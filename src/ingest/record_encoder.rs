//! From a record as it was read to the tuple that is stored: which SIM card, and which organization at its date.

use std::sync::Arc;

use bytes::BytesMut;

use super::parse::{UsageRecord, name};
use super::reject::{Defect, Reason};
use crate::db::{InventoryIndex, LookupError, RecordIds, encode_usage_record};
use crate::domain::Interval;

/// Stamps records by the inventory.
pub(super) struct RecordEncoder {
    /// Without one, whatever SIM card a record names will do.
    directory: Option<Arc<InventoryIndex>>,
    /// Records older than this, in microseconds since 1970, are rejected.
    oldest_us: Option<i64>,
}

impl RecordEncoder {
    /// A encoder by `directory`, for records of the last `retention_days`, or of all time if that is 0.
    pub fn new(directory: Arc<InventoryIndex>, retention_days: u32) -> Self {
        Self {
            directory: Some(directory),
            ..Self::without_inventory(retention_days)
        }
    }

    /// A encoder that looks at dates alone, and whose stamps are worth nothing.
    pub fn without_inventory(retention_days: u32) -> Self {
        let age = chrono::TimeDelta::days(retention_days.into());
        let oldest_us = (retention_days > 0).then(|| (chrono::Utc::now() - age).timestamp_micros());
        Self {
            directory: None,
            oldest_us,
        }
    }

    /// Appends a record to `tuples` as it is stored.
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
            return date_defect(Reason::DateOutOfRange, "is not from 1970 to 2199");
        }
        if self.oldest_us.is_some_and(|oldest_us| time_us < oldest_us) {
            return date_defect(
                Reason::OlderThanRetention,
                "is older than storage.retention_records_days",
            );
        }
        let Some(directory) = &self.directory else {
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
        let ids = directory
            .look_up(&record.sim_card, time_us)
            .map_err(|why| {
                let (reason, problem) = match why {
                    LookupError::Unknown => (Reason::UnknownSimCard, "is not in the inventory"),
                    LookupError::Unassigned => (
                        Reason::UnassignedSimCard,
                        "belonged to no organization at the record's date",
                    ),
                };
                Defect::of_field(reason, name::SIM_CARD, &record.sim_card, problem)
            })?;
        encode_usage_record(tuples, time_us, ids, record.bytes);
        Ok(())
    }
}
