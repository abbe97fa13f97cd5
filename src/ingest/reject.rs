//! Why a record is not stored.

use std::fmt;

/// The reason of a rejection, as a code that scripts can count on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The line is not a JSON object, or not a CSV record of the header's columns.
    Malformed,
    /// The line is longer than `ingest.max_record_bytes`.
    TooLong,
    /// A field is not there, or null.
    MissingField,
    /// `sim-card-id` is not text.
    InvalidSimCard,
    /// `bytes-used` is not a whole number.
    InvalidBytes,
    /// `bytes-used` is below zero.
    NegativeBytes,
    /// `bytes-used` does not fit into 64 bits.
    BytesOverflow,
    /// `date` is no date-time of RFC 3339, or one that the calendar does not have.
    InvalidDate,
    /// `date` lies outside the years that are stored.
    DateOutOfRange,
    /// `date` is older than usage records are kept.
    OlderThanRetention,
    /// The SIM card is not in the inventory.
    UnknownSimCard,
    /// The SIM card belonged to no organization at the record's date.
    UnassignedSimCard,
}

impl Reason {
    /// The code that is stored and printed.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLong => "too-long",
            Self::MissingField => "missing-field",
            Self::InvalidSimCard => "invalid-sim-card",
            Self::InvalidBytes => "invalid-bytes",
            Self::NegativeBytes => "negative-bytes",
            Self::BytesOverflow => "bytes-overflow",
            Self::InvalidDate => "invalid-date",
            Self::DateOutOfRange => "date-out-of-range",
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

/// What is wrong with a record: the reason, the field at fault and the value in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Defect {
    pub reason: Reason,
    pub field: Option<&'static str>,
    pub detail: String,
}

impl Defect {
    /// A defect of the line as a whole.
    pub fn of_line(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            field: None,
            detail: detail.into(),
        }
    }

    /// A defect of one field. The value is quoted and cut, so that it can be logged and stored as text.
    pub fn of_field(reason: Reason, field: &'static str, value: &str, problem: &str) -> Self {
        Self {
            reason,
            field: Some(field),
            detail: format!("{field} {} {problem}", quoted(value)),
        }
    }

    /// A field that is not there.
    pub fn missing(field: &'static str) -> Self {
        Self {
            reason: Reason::MissingField,
            field: Some(field),
            detail: format!("{field} is missing"),
        }
    }
}

/// The value in quotes, free of control characters, and not longer than a log line bears.
fn quoted(value: &str) -> String {
    const LONGEST: usize = 80;
    let shown: String = value
        .chars()
        .take(LONGEST)
        .flat_map(char::escape_debug)
        .collect();
    let rest = if value.chars().nth(LONGEST).is_some() {
        "…"
    } else {
        ""
    };
    format!("'{shown}{rest}'")
}
