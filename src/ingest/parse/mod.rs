//! Parses a line into a usage record, or into the defect for which it is rejected.

mod csv;
mod field;
pub(super) mod ndjson;
mod record;

use super::csv_line::HeaderError;
use super::reject::Defect;
use super::source::Format;
use csv::{CsvHeader, CsvParser};

pub(super) use record::{UsageRecord, name};

/// Parses the lines of one source.
pub(super) enum Parser {
    Ndjson,
    Csv(Box<CsvParser>),
}

impl Parser {
    /// `header` is the first line of CSV, and ignored for NDJSON.
    ///
    /// # Errors
    /// Returns an error if the CSV header is missing or lacks a column.
    pub fn new(format: Format, header: Option<&[u8]>) -> Result<Self, HeaderError> {
        Ok(match format {
            Format::Ndjson => Self::Ndjson,
            Format::Csv => Self::Csv(Box::new(CsvParser::new(CsvHeader::parse(
                header.unwrap_or_default(),
            )?))),
        })
    }

    pub fn parse<'a>(&'a mut self, line: &'a [u8]) -> Result<UsageRecord<'a>, Defect> {
        match self {
            Self::Ndjson => ndjson::parse(line),
            Self::Csv(parser) => parser.parse(line),
        }
    }
}
