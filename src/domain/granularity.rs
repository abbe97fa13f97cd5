//! The granularity of a time series: the width of its buckets.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// The unit of a granularity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// From one full hour of local time to the next.
    Hour,
    /// From one local midnight to the next.
    Day,
    /// From Monday to Monday (ISO 8601).
    Week,
    /// From the first day of a month to the next.
    Month,
}

/// The width of a bucket: a number of units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Granularity {
    count: u32,
    unit: Unit,
}

/// A text that is not a valid granularity.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a granularity (e.g. 1day / 1hour)")]
pub struct UnknownGranularity(String);

impl Granularity {
    /// The maximum number of units.
    pub const MAX_COUNT: u32 = 10_000;

    /// One hour.
    pub const HOUR: Self = Self {
        count: 1,
        unit: Unit::Hour,
    };
    /// One day.
    pub const DAY: Self = Self {
        count: 1,
        unit: Unit::Day,
    };

    /// Returns `None` unless the count is from 1 to [`Self::MAX_COUNT`].
    #[must_use]
    pub fn new(count: u32, unit: Unit) -> Option<Self> {
        (1..=Self::MAX_COUNT)
            .contains(&count)
            .then_some(Self { count, unit })
    }

    /// The number of units.
    #[must_use]
    pub fn count(self) -> u32 {
        self.count
    }

    /// The unit.
    #[must_use]
    pub fn unit(self) -> Unit {
        self.unit
    }

    /// The approximate width in seconds.
    #[must_use]
    pub fn about_seconds(self) -> i64 {
        let unit = match self.unit {
            Unit::Hour => 3_600,
            Unit::Day => 86_400,
            Unit::Week => 7 * 86_400,
            Unit::Month => 30 * 86_400,
        };
        i64::from(self.count) * unit
    }
}

impl fmt::Display for Granularity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::Hour => "hour",
            Unit::Day => "day",
            Unit::Week => "week",
            Unit::Month => "month",
        };
        write!(formatter, "{}{unit}", self.count)
    }
}

impl Serialize for Granularity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Granularity {
    type Err = UnknownGranularity;

    /// Parses `6hour`, `day` (the same as `1day`), or an ISO 8601 duration with one unit, such as
    /// `PT6H`.
    fn from_str(text: &str) -> Result<Self, UnknownGranularity> {
        let read = match text.strip_prefix('P') {
            Some(duration) => iso_duration(duration),
            None => count_and_unit(text),
        };
        read.ok_or_else(|| UnknownGranularity(text.to_owned()))
    }
}

/// Parses the part of an ISO 8601 duration after its `P`.
fn iso_duration(text: &str) -> Option<Granularity> {
    let (count, unit) = match text.strip_prefix('T') {
        Some(time) => (time.strip_suffix('H')?, Unit::Hour),
        None => match text.split_at_checked(text.len().checked_sub(1)?)? {
            (count, "D") => (count, Unit::Day),
            (count, "W") => (count, Unit::Week),
            (count, "M") => (count, Unit::Month),
            _ => return None,
        },
    };
    Granularity::new(whole_number(count)?, unit)
}

fn count_and_unit(text: &str) -> Option<Granularity> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, word) = text.split_at(digits);
    let unit = match word {
        "hour" => Unit::Hour,
        "day" => Unit::Day,
        "week" => Unit::Week,
        "month" => Unit::Month,
        _ => return None,
    };
    Granularity::new(
        if count.is_empty() {
            1
        } else {
            whole_number(count)?
        },
        unit,
    )
}

/// Parses digits without a sign or leading zeros.
fn whole_number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_parsed() {
        for (text, canonical) in [
            ("1hour", "1hour"),
            ("hour", "1hour"),
            ("PT1H", "1hour"),
            ("6hour", "6hour"),
            ("PT36H", "36hour"),
            ("1day", "1day"),
            ("day", "1day"),
            ("P1D", "1day"),
            ("7day", "7day"),
            ("week", "1week"),
            ("P2W", "2week"),
            ("1month", "1month"),
            ("P1M", "1month"),
            ("10000month", "10000month"),
        ] {
            assert_eq!(text.parse::<Granularity>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "hello",
            "1hourx",
            "1 hour",
            "1hours",
            "0hour",
            "01hour",
            "1HOUR",
            "1day ",
            "-1day",
            "+1day",
            "1.5day",
            "10001day",
            "P",
            "PT",
            "PT1",
            "P1H",
            "P1DT1H",
            "PT1M",
            "P1Y",
            "PD",
            "P0D",
            "P1é",
            "99999999999day",
        ] {
            assert!(
                text.parse::<Granularity>().is_err(),
                "{text:?} was accepted"
            );
        }
    }
}
