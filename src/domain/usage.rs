//! Usage as it is answered. Bytes are 64-bit and never negative.

use chrono::{DateTime, Utc};

use super::{OrganizationId, SimCardId};

/// Whose usage is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// That of a SIM card.
    SimCard(SimCardId),
    /// That of an organization.
    Organization(OrganizationId),
}

/// The usage of one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageBucket {
    /// The bucket's place in [`super::Buckets::starts`].
    pub index: usize,
    /// Bytes used in the bucket.
    pub bytes: i64,
    /// Usage records in the bucket.
    pub records: i64,
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

/// The order of a list of totals. Equals are ordered by identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// Most bytes first.
    MostBytes,
    /// Fewest bytes first.
    FewestBytes,
    /// By identifier.
    Id,
}

impl Order {
    /// A number that grows along the order, for a total of so many bytes.
    #[must_use]
    pub fn place(self, bytes: i64) -> i64 {
        bytes * i64::from(self.factor())
    }

    /// What bytes are multiplied by for their place.
    #[must_use]
    pub fn factor(self) -> i32 {
        match self {
            Self::MostBytes => -1,
            Self::FewestBytes => 1,
            Self::Id => 0,
        }
    }
}

/// How fresh an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// Grows whenever the usage in the answer's interval has changed.
    pub version: i64,
    /// Grows whenever the inventory was loaded.
    pub inventory_version: i64,
    /// Whether all that is stored of the interval is in the aggregates.
    pub is_settled: bool,
    /// Up to here, what ingest has read is in the answer. `None`: nothing was ingested.
    pub complete_through: Option<DateTime<Utc>>,
    /// When ingest has last moved on.
    pub last_ingested_at: Option<DateTime<Utc>>,
}
