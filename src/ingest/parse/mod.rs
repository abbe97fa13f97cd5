//! From a line to a usage record, or to what is wrong with it.

mod csv;
mod field;
mod ndjson;

pub(super) use csv::{CsvHeader, CsvParser};
pub(super) use ndjson::parse as parse_ndjson;

/// The names of a record's fields.
pub(super) mod name {
    pub const SIM_CARD: &str = "sim-card-id";
    pub const BYTES: &str = "bytes-used";
    pub const DATE: &str = "date";
}

/// One usage record, as its line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UsageRecord<'a> {
    /// The SIM card's ICCID; any text.
    pub sim_card: std::borrow::Cow<'a, str>,
    /// Bytes used, from 0 on.
    pub bytes: i64,
    /// When, in microseconds since 1970-01-01T00:00:00Z.
    pub time_us: i64,
}
