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
    /// Maximum age of an incomplete batch before it is committed.
    pub batch_age_ms: u64,
    /// Minimum interval between two refreshes of the aggregates.
    pub refresh_every_ms: u64,
    /// Connections that copy in parallel, and as many again for the refresh.
    pub connections: usize,
    /// Whether COPY writes into the columnstore directly.
    pub direct_compress: DirectCompress,
    /// Age at which rejected records are deleted. 0: never.
    pub keep_rejected_days: u32,
    /// How long to retry when the connection to the database is lost. 0 disables retries.
    pub retry_for_ms: u64,
}

/// Whether COPY writes into the columnstore directly, on servers that support it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DirectCompress {
    /// Follow the server's `timescaledb.enable_direct_compress_copy`.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

impl Ingest {
    pub(super) fn validate(&self) -> Result<(), InvalidValue> {
        check_positive([
            ("batch_rows", self.batch_rows),
            ("batch_age_ms", self.batch_age_ms),
            ("refresh_every_ms", self.refresh_every_ms),
            ("connections", self.connections as u64),
        ])?;
        // Longer than any retention, and still an interval of PostgreSQL.
        check_range(
            "keep_rejected_days",
            self.keep_rejected_days.into(),
            0..=36_500,
        )?;
        let bytes = self.max_record_bytes as u64;
        check_range("max_record_bytes", bytes, 1_024..=16_777_216)
    }
}
