//! `--format`

use clap::ValueEnum;

use crate::ingest::Format;

/// The value of `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// Detected on input; NDJSON on output.
    Auto,
    /// One JSON object per line.
    Ndjson,
    /// CSV with a header line.
    Csv,
}

impl FormatArg {
    /// The format, or `None` for auto.
    pub(super) fn into_format(self) -> Option<Format> {
        match self {
            Self::Auto => None,
            Self::Ndjson => Some(Format::Ndjson),
            Self::Csv => Some(Format::Csv),
        }
    }
}
