//! `[storage]`

use serde::Deserialize;

use super::error::{InvalidValue, check_positive};

/// How `migrate` configures chunks, columnstore, background refresh and retention. 0 means never,
/// except for chunk intervals.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    /// Time span of a chunk of usage records.
    pub chunk_interval_hours: u32,
    /// Time span of a chunk of the hourly aggregates.
    pub hourly_chunk_interval_days: u32,
    /// Time span of a chunk of the daily aggregates.
    pub daily_chunk_interval_days: u32,
    /// Age at which usage records move to the columnstore.
    pub columnstore_after_days: u32,
    /// Interval of the background refresh.
    pub refresh_every_minutes: u32,
    /// Age at which usage records are dropped.
    pub retention_records_days: u32,
    /// Age at which hourly aggregates are dropped.
    pub retention_hourly_days: u32,
    /// Age at which daily aggregates are dropped.
    pub retention_daily_days: u32,
}

impl Storage {
    pub(super) fn validate(&self) -> Result<(), InvalidValue> {
        let hourly = self.hourly_chunk_interval_days;
        let daily = self.daily_chunk_interval_days;
        check_positive([
            ("chunk_interval_hours", self.chunk_interval_hours.into()),
            ("hourly_chunk_interval_days", hourly.into()),
            ("daily_chunk_interval_days", daily.into()),
        ])?;
        for (key, days) in [
            ("retention_records_days", self.retention_records_days),
            ("retention_hourly_days", self.retention_hourly_days),
            ("retention_daily_days", self.retention_daily_days),
        ] {
            // A refresh ends one day inside retention, and must still cover a whole daily bucket.
            if (1..3).contains(&days) {
                let problem = format!("{days} is too low; use at least 3, or 0 to keep everything");
                return Err(InvalidValue::new(key, problem));
            }
        }
        Ok(())
    }
}
