//! Reasons for which a record is rejected.

use std::fmt;

/// Why a record was rejected. The codes are stable; scripts may rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The line is not a JSON object, or not a CSV record with the header's columns.
    Malformed,
    /// The line is longer than `ingest.max_record_bytes`.
    TooLong,
    /// The source ends within the line, or may.
    UnfinishedLine,
    /// A field is absent, empty or null.
    MissingField,
    /// `sim-card-id` is not a string.
    InvalidSimCard,
    /// `bytes-used` is not a whole number.
    InvalidBytes,
    /// `bytes-used` is negative.
    NegativeBytes,
    /// `bytes-used` exceeds 2^63 - 1.
    BytesOverflow,
    /// `date` is not an RFC 3339 date-time, or does not exist in the calendar.
    InvalidDate,
    /// `date` is outside the years 1970 to 2199.
    DateOutOfRange,
    /// `date` is further in the future than `ingest.max_future_hours`.
    FutureDate,
    /// `bytes-used` exceeds `ingest.max_record_bytes_used`.
    ImplausibleBytes,
    /// `date` is older than what the database keeps.
    OlderThanRetention,
    /// The SIM card is not in the inventory.
    UnknownSimCard,
    /// The SIM card belonged to no organization at the record's date.
    UnassignedSimCard,
}

impl Reason {
    /// The code that is stored with the record and printed in the summary.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLong => "too-long",
            Self::UnfinishedLine => "unfinished-line",
            Self::MissingField => "missing-field",
            Self::InvalidSimCard => "invalid-sim-card",
            Self::InvalidBytes => "invalid-bytes",
            Self::NegativeBytes => "negative-bytes",
            Self::BytesOverflow => "bytes-overflow",
            Self::InvalidDate => "invalid-date",
            Self::DateOutOfRange => "date-out-of-range",
            Self::FutureDate => "future-date",
            Self::ImplausibleBytes => "implausible-bytes",
            Self::OlderThanRetention => "older-than-retention",
            Self::UnknownSimCard => "unknown-sim-card",
            Self::UnassignedSimCard => "unassigned-sim-card",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.code())
    }
}

/// Why one record is rejected: the reason, the field if only one is wrong, and a message for
/// people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Defect {
    pub reason: Reason,
    pub field: Option<&'static str>,
    pub detail: String,
}

impl Defect {
    /// A defect that concerns the whole line.
    pub fn of_line(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            field: None,
            detail: detail.into(),
        }
    }

    /// A defect of one field. The message reads `{field} '{value}' {problem}`, with the value
    /// escaped and cut so that it can be logged.
    pub fn of_field(reason: Reason, field: &'static str, value: &str, problem: &str) -> Self {
        Self {
            reason,
            field: Some(field),
            detail: format!("{field} {} {problem}", quoted(value)),
        }
    }

    pub fn missing(field: &'static str) -> Self {
        Self {
            reason: Reason::MissingField,
            field: Some(field),
            detail: format!("{field} is missing; a record needs sim-card-id, bytes-used and date"),
        }
    }
}

/// The value in quotes, with control characters escaped, cut after 80 characters.
fn quoted(value: &str) -> String {
    const MAX_CHARS: usize = 80;
    let shown: String = value
        .chars()
        .take(MAX_CHARS)
        .flat_map(char::escape_debug)
        .collect();
    let rest = if value.chars().nth(MAX_CHARS).is_some() {
        "…"
    } else {
        ""
    };
    format!("'{shown}{rest}'")
}
