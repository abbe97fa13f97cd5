//! From a line to a usage record, or to what is wrong with it.

mod csv;
mod field;
pub(super) mod ndjson;

use super::reject::Defect;
use super::source::Format;
use csv::{CsvHeader, CsvParser};

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

/// A parser of one source's lines.
pub(super) enum Parser {
    /// Of JSON objects.
    Ndjson,
    /// Of CSV under a header.
    Csv(Box<CsvParser>),
}

impl Parser {
    /// A parser of lines of `format`, under `header` if that is CSV.
    ///
    /// # Errors
    /// What is wrong with the header.
    pub fn new(format: Format, header: Option<&[u8]>) -> Result<Self, String> {
        Ok(match format {
            Format::Ndjson => Self::Ndjson,
            Format::Csv => Self::Csv(Box::new(CsvParser::new(CsvHeader::parse(
                header.unwrap_or_default(),
            )?))),
        })
    }

    /// Reads one line.
    pub fn parse<'a>(&'a mut self, line: &'a [u8]) -> Result<UsageRecord<'a>, Defect> {
        match self {
            Self::Ndjson => ndjson::parse(line),
            Self::Csv(parser) => parser.parse(line),
        }
    }
}
