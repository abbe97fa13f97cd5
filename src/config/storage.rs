//! `[storage]`

use serde::Deserialize;

use super::error::InvalidValue;

/// How long usage is kept. `migrate` stores it in the database. 0 means forever.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    /// Age at which usage records are dropped.
    pub retention_records_days: u32,
    /// Age at which the quarter hours of organizations are dropped.
    pub retention_hourly_days: u32,
    /// Age at which the days of SIM cards and organizations are dropped.
    pub retention_daily_days: u32,
}

impl Storage {
    pub(super) fn validate(&self) -> Result<(), InvalidValue> {
        for (key, days) in [
            ("retention_records_days", self.retention_records_days),
            ("retention_hourly_days", self.retention_hourly_days),
            ("retention_daily_days", self.retention_daily_days),
        ] {
            if (1..3).contains(&days) {
                let problem = format!("{days} is too low; use at least 3, or 0 to keep everything");
                return Err(InvalidValue::new(key, problem));
            }
        }
        Ok(())
    }
}
