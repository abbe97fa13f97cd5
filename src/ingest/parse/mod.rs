//! The formats of usage records. Each has a parser in this directory and an entry in [`Format`].
//!
//! A parser turns a line into a usage record, or into the defect for which it is rejected.

mod csv;
mod field;
pub(super) mod json_layout;
pub(super) mod ndjson;
mod record;

use std::path::Path;

use super::csv_line::HeaderError;
use super::reject::Defect;
use csv::{CsvHeader, CsvParser};

pub(super) use record::{UsageRecord, name};

/// The format of usage records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line.
    Ndjson,
    /// CSV with a header.
    Csv,
}

struct Properties {
    /// The value of `--format`, also stored with rejected records.
    name: &'static str,
    extensions: &'static [&'static str],
    /// Whether the first line names the fields. Such a format cannot be used with Kafka.
    has_header: bool,
    /// Whether a valid record ends with its last byte. Otherwise it ends with its line.
    closes_records: bool,
}

impl Format {
    /// All formats, in the order in which help texts list them.
    pub const ALL: [Self; 2] = [Self::Ndjson, Self::Csv];

    fn properties(self) -> Properties {
        match self {
            Self::Ndjson => Properties {
                name: "ndjson",
                extensions: &["ndjson", "jsonl", "json"],
                has_header: false,
                closes_records: true,
            },
            Self::Csv => Properties {
                name: "csv",
                extensions: &["csv"],
                has_header: true,
                closes_records: false,
            },
        }
    }

    /// The value of `--format`, also stored with rejected records.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.properties().name
    }

    /// Whether the first line of a file names the fields.
    #[must_use]
    pub fn has_header(self) -> bool {
        self.properties().has_header
    }

    /// Whether nothing that is appended to a valid record can belong to it, as with the brace of a JSON
    /// object. A CSV line may continue until its line end, whatever its last column is.
    pub(super) fn closes_records(self) -> bool {
        self.properties().closes_records
    }

    /// The inverse of [`Self::name`].
    pub(super) fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The format of a file by its extension, which may be followed by that of a compression.
    pub(super) fn by_extension(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        if ["gz", "zst"].contains(&&*extension) {
            return Self::by_extension(Path::new(path.file_stem()?));
        }
        Self::ALL
            .into_iter()
            .find(|format| format.properties().extensions.contains(&&*extension))
    }

    /// The format of a file by its first bytes.
    pub(super) fn by_content(content: &[u8]) -> Self {
        match content.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'{' | b'[') | None => Self::Ndjson,
            Some(_) => Self::Csv,
        }
    }
}

/// Parses the lines of one source.
pub(super) enum Parser {
    Ndjson,
    Csv(Box<CsvParser>),
}

impl Parser {
    /// `header` is the first line of a format with a header.
    ///
    /// # Errors
    /// Returns an error if the header is missing or lacks a column.
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
