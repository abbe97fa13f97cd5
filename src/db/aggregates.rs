//! The tables of usage records, and the continuous aggregates. Closing, retention and the privileges
//! of `serve` follow this table.

use crate::config::Storage;

/// The tables of usage records.
pub(super) const RECORD_TABLES: [&str; 2] = ["usage_records", "usage_records_recent"];

/// The continuous aggregates.
pub(super) const AGGREGATES: [&str; 7] = [
    "organization_usage_recent",
    "organization_usage",
    "organization_usage_daily",
    "sim_card_usage",
    "sim_card_usage_merged",
    "large_usage",
    "detailed_usage",
];

/// The age at which retention drops the rows of a level of `usage_levels`, in days; 0 for never.
/// `None` for a level that only has rows until they are archived.
pub(super) fn retention_days(level: &str, storage: &Storage) -> Option<u32> {
    match level {
        "organization_usage_recent" => None,
        "usage_records" => Some(storage.retention_records_days),
        "organization_usage" => Some(storage.retention_hourly_days),
        _ => Some(storage.retention_daily_days),
    }
}
