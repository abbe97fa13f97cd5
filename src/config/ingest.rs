//! `[ingest]`

use serde::Deserialize;

use super::error::{InvalidValue, check_positive, check_range};

/// How records are stored.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingest {
    /// Maximum records per transaction.
    pub batch_rows: u64,
    /// Maximum length of a record; longer lines are rejected.
    pub max_record_bytes: usize,
    /// How far in the future a record's date may be. 0: any distance.
    pub max_future_hours: u32,
    /// Maximum bytes that a record may have used.
    pub max_record_bytes_used: i64,
    /// Maximum age of an incomplete batch before it is committed.
    pub batch_age_ms: u64,
    /// Time between two pages: how often the recent records of organizations are added up.
    pub page_ms: u64,
    /// Number of records after which a period is closed.
    pub period_records: u64,
    /// Age at which a period with fewer records is closed.
    pub period_minutes: u64,
    /// Connections that copy in parallel.
    pub connections: usize,
    /// Age at which rejected records are deleted. 0: never.
    pub keep_rejected_days: u32,
    /// How long to retry when the connection to the database is lost. 0 disables retries.
    pub retry_for_ms: u64,
}

impl Ingest {
    pub(super) fn validate(&self) -> Result<(), InvalidValue> {
        check_positive([
            ("batch_age_ms", self.batch_age_ms),
            ("page_ms", self.page_ms),
            ("period_minutes", self.period_minutes),
            ("connections", self.connections as u64),
        ])?;
        // Longer than any retention, and still an interval of PostgreSQL.
        check_range(
            "keep_rejected_days",
            self.keep_rejected_days.into(),
            0..=36_500,
        )?;
        // Sums of a period fit into 64 bits up to 2^25 records.
        check_range("period_records", self.period_records, 1..=16_000_000)?;
        check_range("batch_rows", self.batch_rows, 1..=1_000_000)?;
        check_positive([(
            "max_record_bytes_used",
            self.max_record_bytes_used.max(0).cast_unsigned(),
        )])?;
        let bytes = self.max_record_bytes as u64;
        check_range("max_record_bytes", bytes, 1_024..=16_777_216)
    }
}
