//! Usage as it is answered. Bytes are 64-bit and never negative.

use chrono::{DateTime, Utc};

/// The usage of one bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageBucket {
    /// The bucket's start.
    pub start: DateTime<Utc>,
    /// Bytes used in the bucket.
    pub bytes: i64,
    /// Usage records in the bucket.
    pub records: i64,
}

/// One page of a time series, with the totals of the whole interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageSeries {
    /// The buckets of the page, by time. Buckets without a record are left out.
    pub buckets: Vec<UsageBucket>,
    /// How many buckets the whole series has.
    pub total: i64,
    /// Bytes used in the whole interval.
    pub bytes: i64,
}

/// The usage of one organization or SIM card over an interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageTotal {
    /// The organization's or SIM card's identifier.
    pub id: String,
    /// Bytes used in the interval.
    pub bytes: i64,
    /// Usage records in the interval.
    pub records: i64,
}

/// One page of a list of totals, with the totals of the whole list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageTotals {
    /// The page, most bytes first, then by identifier.
    pub items: Vec<UsageTotal>,
    /// How many rows the whole list has.
    pub total: i64,
    /// Bytes used by all rows of the whole list.
    pub bytes: i64,
}
