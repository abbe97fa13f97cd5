//! The UTC days of the records of a batch.

use chrono::{DateTime, NaiveDate};
use rustc_hash::FxHashMap;

use crate::db::RecordDays;

const DAY_US: i64 = 24 * 3_600 * 1_000_000;

/// Counts records by day.
#[derive(Debug, Default)]
pub(super) struct DayCounts {
    /// By the number of the day since 1970, without `last`.
    counts: FxHashMap<i64, i64>,
    /// The day of the last record, with the number of records of it since another day came.
    last: (i64, i64),
    most_bytes: i64,
}

impl DayCounts {
    /// Adds a record, by its time in microseconds since 1970.
    pub fn add(&mut self, time_us: i64, bytes: i64) {
        let day = time_us.div_euclid(DAY_US);
        // Records are roughly in time order, so most are of the same day as the previous one.
        if self.last.0 != day {
            self.store_last();
            self.last = (day, 0);
        }
        self.last.1 += 1;
        self.most_bytes = self.most_bytes.max(bytes);
    }

    fn store_last(&mut self) {
        let (day, count) = self.last;
        if count > 0 {
            *self.counts.entry(day).or_default() += count;
        }
    }

    /// Takes the counts, and starts again at zero.
    pub fn take(&mut self) -> RecordDays {
        self.store_last();
        let mut days: Vec<(NaiveDate, i64)> = self
            .counts
            .drain()
            .filter_map(|(day, count)| {
                let start = DateTime::from_timestamp_micros(day * DAY_US)?;
                Some((start.date_naive(), count))
            })
            .collect();
        days.sort_unstable();
        self.last = (0, 0);
        RecordDays::new(days, std::mem::take(&mut self.most_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_by_utc_day() {
        let mut counts = DayCounts::default();
        for (time, bytes) in [
            ("2020-02-29T23:59:59.999999Z", 1),
            ("2020-03-01T00:00:00Z", 1 << 38),
            ("2020-02-29T00:00:00Z", 3),
            ("2199-12-31T23:59:59Z", 0),
        ] {
            let time: DateTime<chrono::Utc> = time.parse().unwrap();
            counts.add(time.timestamp_micros(), bytes);
        }
        let day = |text: &str| text.parse::<NaiveDate>().unwrap();
        let expected = [
            (day("2020-02-29"), 2),
            (day("2020-03-01"), 1),
            (day("2199-12-31"), 1),
        ];
        assert_eq!(counts.take(), RecordDays::new(expected, 1 << 38));
        assert_eq!(counts.take(), RecordDays::default());
    }
}
