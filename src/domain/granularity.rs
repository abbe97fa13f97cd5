//! The width of a bucket.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// The width of the buckets of a time series. Buckets begin on whole UTC hours or days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granularity {
    /// One hour.
    Hour,
    /// One UTC day.
    Day,
}

/// A text that names no granularity.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no granularity (ex: 1day / 1hour)")]
pub struct UnknownGranularity(String);

impl Granularity {
    /// The name that answers carry.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "1hour",
            Self::Day => "1day",
        }
    }
}

impl fmt::Display for Granularity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Serialize for Granularity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl FromStr for Granularity {
    type Err = UnknownGranularity;

    /// Reads `1hour` and `1day`, without the number, or as an ISO 8601 duration.
    fn from_str(text: &str) -> Result<Self, UnknownGranularity> {
        match text {
            "1hour" | "hour" | "PT1H" => Ok(Self::Hour),
            "1day" | "day" | "P1D" => Ok(Self::Day),
            _ => Err(UnknownGranularity(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_read() {
        for (text, expected) in [
            ("1hour", Granularity::Hour),
            ("hour", Granularity::Hour),
            ("PT1H", Granularity::Hour),
            ("1day", Granularity::Day),
            ("day", Granularity::Day),
            ("P1D", Granularity::Day),
        ] {
            assert_eq!(text.parse(), Ok(expected));
        }
    }

    #[test]
    fn trailing_junk_is_refused() {
        for text in ["", "hello", "1hourx", "1 hour", "1hours", "0hour", "1HOUR", "1day "] {
            assert!(text.parse::<Granularity>().is_err(), "{text:?} was accepted");
        }
    }
}
