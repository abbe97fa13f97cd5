//! Usage as queries return it. Bytes are never negative.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::id::{OrganizationId, SimCardId};

/// The SIM card or organization whose usage is requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A SIM card.
    SimCard(SimCardId),
    /// An organization.
    Organization(OrganizationId),
}

/// The usage in one bucket of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct UsageBucket {
    /// The bucket's index in [`super::Buckets::start`].
    pub index: usize,
    /// The sum of `bytes-used`.
    pub bytes: i64,
    /// The number of usage records.
    pub records: i64,
}

/// The usage of one organization or SIM card over an interval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsageTotal {
    /// The identifier of the organization or SIM card.
    pub id: String,
    /// The sum of `bytes-used`, which may exceed 64 bits.
    pub bytes: i128,
    /// The number of usage records.
    pub records: i64,
}

/// The order of a list of totals. Ties are ordered by identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// Most bytes first.
    MostBytes,
    /// Fewest bytes first.
    FewestBytes,
    /// By identifier only.
    Id,
}

impl Order {
    /// The sort key of a total: ascending keys are in this order, ties aside.
    #[must_use]
    pub fn place(self, bytes: i128) -> i128 {
        bytes * i128::from(self.factor())
    }

    /// The factor by which bytes are multiplied to get the sort key.
    #[must_use]
    pub fn factor(self) -> i32 {
        match self {
            Self::MostBytes => -1,
            Self::FewestBytes => 1,
            Self::Id => 0,
        }
    }
}

/// How current a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// Differs whenever the usage in the requested interval does, even between the states before
    /// and after a backup was restored.
    pub version: i64,
    /// Differs whenever the inventory does.
    pub inventory_version: i64,
    /// The result includes all ingested records before this instant. `None`: nothing is ingested
    /// yet.
    pub complete_through: Option<DateTime<Utc>>,
    /// The time of the last ingest commit.
    pub last_ingested_at: Option<DateTime<Utc>>,
}
