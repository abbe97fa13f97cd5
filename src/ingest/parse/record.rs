//! A parsed usage record, which every format produces.

use std::borrow::Cow;

/// The names of a record's fields.
pub(in crate::ingest) mod name {
    pub const SIM_CARD: &str = "sim-card-id";
    pub const BYTES: &str = "bytes-used";
    pub const DATE: &str = "date";
}

/// A usage record as parsed from its line; the SIM card is not checked against the inventory yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ingest) struct UsageRecord<'a> {
    /// The SIM card's ICCID; any text.
    pub sim_card: Cow<'a, str>,
    /// Never negative.
    pub bytes: i64,
    /// Microseconds since 1970-01-01T00:00:00Z.
    pub time_us: i64,
}
