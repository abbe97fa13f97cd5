//! Half-open time intervals, and their division into whole days, whole quarter hours and remainders.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

/// A half-open interval `[start, end)`. Never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Interval {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
}

/// An interval whose end is not after its start.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the interval is empty: {start} is not before {end}")]
pub struct EmptyInterval {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
}

/// An interval divided by the table or aggregate that each part is read from: six ascending
/// instants.
///
/// ```text
/// start    slots    days                      days_end  slots_end  end
///   │ records │ slots │          days            │  slots  │ records │
/// ```
///
/// A slot is a quarter hour. A part between two equal instants is empty. Each record is counted once, in the coarsest
/// aggregate whose bucket lies entirely within the interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// The interval's start.
    pub start: DateTime<Utc>,
    /// The first whole quarter hour.
    pub slots: DateTime<Utc>,
    /// The first whole day.
    pub days: DateTime<Utc>,
    /// The end of the last whole day.
    pub days_end: DateTime<Utc>,
    /// The end of the last whole quarter hour.
    pub slots_end: DateTime<Utc>,
    /// The interval's end.
    pub end: DateTime<Utc>,
}

impl Interval {
    /// The dates that a usage record may have: 1970 to 2199. Dates outside come from wrong clocks
    /// and are rejected, so queries never need to read beyond this interval.
    pub const RECORDABLE: Self = Self {
        start: DateTime::UNIX_EPOCH,
        end: DateTime::from_timestamp(7_258_118_400, 0).expect("chrono goes beyond the year 2200"),
    };

    /// Creates `[start, end)`.
    ///
    /// # Errors
    /// Returns an error unless `start` is before `end`.
    pub fn new(start: DateTime<Utc>, end: DateTime<Utc>) -> Result<Self, EmptyInterval> {
        if start < end {
            Ok(Self { start, end })
        } else {
            Err(EmptyInterval { start, end })
        }
    }

    /// The first instant of the interval.
    #[must_use]
    pub fn start(self) -> DateTime<Utc> {
        self.start
    }

    /// The first instant after the interval.
    #[must_use]
    pub fn end(self) -> DateTime<Utc> {
        self.end
    }

    /// Whether the instant is in the interval.
    #[must_use]
    pub fn contains(self, instant: DateTime<Utc>) -> bool {
        self.start <= instant && instant < self.end
    }

    /// Divides the interval into whole days, whole quarter hours around them, and the remainders at
    /// both ends.
    #[must_use]
    pub fn parts(self) -> Parts {
        let (slots, slots_end) = whole(self.start, self.end, TimeDelta::minutes(15));
        let (days, days_end) = whole(slots, slots_end, TimeDelta::days(1));
        Parts {
            start: self.start,
            slots,
            days,
            days_end,
            slots_end,
            end: self.end,
        }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "[{}, {})", self.start, self.end)
    }
}

/// The part of `[start, end)` that consists of whole `unit`s; `(end, end)` if there is none.
fn whole(
    start: DateTime<Utc>,
    end: DateTime<Utc>,
    unit: TimeDelta,
) -> (DateTime<Utc>, DateTime<Utc>) {
    let last = floor(end, unit);
    let floor = floor(start, unit);
    let first = if floor < start { floor + unit } else { floor };
    if first < last {
        (first, last)
    } else {
        (end, end)
    }
}

/// Rounds an instant down to a whole `unit`. chrono's `duration_trunc` supports only the years 1677
/// to 2262, because it counts nanoseconds in 64 bits.
fn floor(instant: DateTime<Utc>, unit: TimeDelta) -> DateTime<Utc> {
    let seconds = unit.num_seconds();
    DateTime::from_timestamp(instant.timestamp().div_euclid(seconds) * seconds, 0)
        .unwrap_or(instant)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn parts(start: &str, end: &str) -> Parts {
        Interval::new(at(start), at(end)).unwrap().parts()
    }

    #[test]
    fn whole_days_are_read_from_days_only() {
        let parts = parts("2020-01-01T00:00:00Z", "2020-02-01T00:00:00Z");
        assert_eq!((parts.start, parts.end), (parts.days, parts.days_end));
    }

    #[test]
    fn an_interval_within_one_quarter_hour_is_read_from_records_only() {
        let parts = parts("2020-01-01T00:01:00Z", "2020-01-01T00:14:00Z");
        assert_eq!((parts.slots, parts.slots_end), (parts.end, parts.end));
        assert_eq!((parts.days, parts.days_end), (parts.end, parts.end));
    }

    #[test]
    fn unaligned_edges_are_divided_twice() {
        let parts = parts("2020-01-01T22:31:00Z", "2020-01-03T01:20:00Z");
        assert_eq!(parts.slots, at("2020-01-01T22:45:00Z"));
        assert_eq!(parts.days, at("2020-01-02T00:00:00Z"));
        assert_eq!(parts.days_end, at("2020-01-03T00:00:00Z"));
        assert_eq!(parts.slots_end, at("2020-01-03T01:15:00Z"));
    }

    #[test]
    fn distant_years_are_divided_alike() {
        let parts = parts("0001-01-01T00:30:00.5Z", "9998-12-31T01:30:00.000001Z");
        assert_eq!(parts.slots, at("0001-01-01T00:45:00Z"));
        assert_eq!(parts.days, at("0001-01-02T00:00:00Z"));
        assert_eq!(parts.days_end, at("9998-12-31T00:00:00Z"));
        assert_eq!(parts.slots_end, at("9998-12-31T01:30:00Z"));
    }

    #[test]
    fn records_may_be_dated_1970_to_2199() {
        for (text, inside) in [
            ("1969-12-31T23:59:59.999999Z", false),
            ("1970-01-01T00:00:00Z", true),
            ("2199-12-31T23:59:59.999999Z", true),
            ("2200-01-01T00:00:00Z", false),
        ] {
            assert_eq!(Interval::RECORDABLE.contains(at(text)), inside, "{text}");
        }
    }

    #[test]
    fn an_empty_interval_is_refused() {
        let instant = at("2020-01-01T00:00:00Z");
        assert!(Interval::new(instant, instant).is_err());
    }

    proptest! {
        #[test]
        fn parts_are_ordered_and_aligned(start in -2_000_000_000_i64..4_000_000_000, length in 1_i64..10_000_000) {
            let start = DateTime::from_timestamp_micros(start * 1_000).unwrap();
            let interval = Interval::new(start, start + TimeDelta::milliseconds(length)).unwrap();
            let Parts { start, slots, days, days_end, slots_end, end } = interval.parts();
            prop_assert!(start <= slots && slots <= days && days <= days_end && days_end <= slots_end && slots_end <= end);
            if days < days_end {
                prop_assert_eq!(days.timestamp() % 86_400, 0);
                prop_assert_eq!(days_end.timestamp() % 86_400, 0);
            }
            if slots < slots_end {
                prop_assert_eq!(slots.timestamp() % 900, 0);
                prop_assert_eq!(slots_end.timestamp() % 900, 0);
            }
        }
    }
}
