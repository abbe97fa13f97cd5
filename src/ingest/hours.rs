//! The hours over which the aggregates must be refreshed, because records in them were stored.

use chrono::{DateTime, TimeDelta};

use crate::domain::Interval;

const HOUR_US: i64 = 3_600_000_000;

/// The maximum number of intervals to refresh. Each costs one statement per aggregate, whereas
/// untouched hours inside an interval cost nothing.
const MAX_INTERVALS: usize = 32;

/// A set of hours within [`Interval::RECORDABLE`], as one bit per hour since 1970: at most 256 KiB.
pub(super) struct TouchedHours {
    bits: Vec<u64>,
    /// The hour that was inserted last; -1 if the set is empty.
    last: i64,
}

impl TouchedHours {
    pub fn new() -> Self {
        Self {
            bits: vec![],
            last: -1,
        }
    }

    /// Adds the hour of an instant in microseconds since 1970, within [`Interval::RECORDABLE`].
    pub fn insert(&mut self, time_us: i64) {
        let hour = time_us / HOUR_US;
        // Records are roughly in time order, so most are in the same hour as the previous one.
        if hour != self.last {
            self.last = hour;
            let index = usize::try_from(hour / 64).unwrap_or_default();
            if index >= self.bits.len() {
                self.bits.resize(index + 1, 0);
            }
            self.bits[index] |= 1 << (hour % 64);
        }
    }

    /// Empties the set and returns its hours as intervals in time order, at most [`MAX_INTERVALS`].
    pub fn take(&mut self) -> Vec<Interval> {
        let mut runs: Vec<(i64, i64)> = vec![];
        if self.last >= 0 {
            for (first, word) in (0..).step_by(64).zip(&mut self.bits) {
                let mut rest = std::mem::take(word);
                while rest != 0 {
                    let hour = first + i64::from(rest.trailing_zeros());
                    rest &= rest - 1;
                    match runs.last_mut() {
                        Some((_, end)) if *end == hour => *end = hour + 1,
                        _ => runs.push((hour, hour + 1)),
                    }
                }
            }
        }
        self.last = -1;
        intervals(&runs)
    }
}

/// Covers `given`, which may overlap and be in any order, with at most [`MAX_INTERVALS`] intervals.
pub(super) fn joined(given: &[Interval]) -> Vec<Interval> {
    let hour = TimeDelta::hours(1);
    let mut hours: Vec<(i64, i64)> = given
        .iter()
        .map(|interval| interval.rounded_out(hour))
        .map(|interval| {
            (
                interval.start().timestamp() / 3_600,
                interval.end().timestamp() / 3_600,
            )
        })
        .collect();
    hours.sort_unstable();
    let mut runs: Vec<(i64, i64)> = vec![];
    for (start, end) in hours {
        match runs.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => runs.push((start, end)),
        }
    }
    intervals(&runs)
}

/// Converts runs of hours, which must be sorted and disjoint, to intervals.
fn intervals(runs: &[(i64, i64)]) -> Vec<Interval> {
    let at = |hour: i64| DateTime::UNIX_EPOCH + TimeDelta::hours(hour);
    join_shortest_gaps(runs, MAX_INTERVALS)
        .into_iter()
        .filter_map(|(start, end)| Interval::new(at(start), at(end)).ok())
        .collect()
}

/// Joins runs, which must be sorted and disjoint, across the shortest gaps until at most `max` are
/// left.
fn join_shortest_gaps(runs: &[(i64, i64)], max: usize) -> Vec<(i64, i64)> {
    let mut gaps: Vec<i64> = runs.windows(2).map(|pair| pair[1].0 - pair[0].1).collect();
    gaps.sort_unstable_by(|a, b| b.cmp(a));
    // This also joins gaps of equal length, which may leave fewer runs than allowed.
    let longest_joined = gaps.get(max - 1).copied().unwrap_or(0);
    let mut joined: Vec<(i64, i64)> = vec![];
    for &(start, end) in runs {
        match joined.last_mut() {
            Some(last) if start - last.1 <= longest_joined => last.1 = end,
            _ => joined.push((start, end)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_hours_are_one_interval() {
        let mut hours = TouchedHours::new();
        for hour in [5, 4, 5, 6, 100, 8] {
            hours.insert(hour * HOUR_US + 7);
        }
        let intervals: Vec<_> = hours
            .take()
            .iter()
            .map(|interval| {
                (
                    interval.start().timestamp() / 3_600,
                    interval.end().timestamp() / 3_600,
                )
            })
            .collect();
        assert_eq!(intervals, [(4, 7), (8, 9), (100, 101)]);
        assert!(hours.take().is_empty());
        hours.insert(100 * HOUR_US);
        assert_eq!(hours.take().len(), 1);
    }

    #[test]
    fn the_first_and_last_recordable_hours_fit() {
        let mut hours = TouchedHours::new();
        hours.insert(0);
        hours.insert(Interval::RECORDABLE.end().timestamp_micros() - 1);
        let intervals = hours.take();
        assert_eq!(intervals.len(), 2);
        assert_eq!(intervals[0].start(), Interval::RECORDABLE.start());
        assert_eq!(intervals[1].end(), Interval::RECORDABLE.end());
    }

    #[test]
    fn overlapping_and_adjacent_intervals_are_joined() {
        let interval = |start: i64, end: i64| {
            let at = |hour: i64| DateTime::from_timestamp(hour * 3_600, 0).unwrap();
            Interval::new(at(start), at(end)).unwrap()
        };
        let given = [
            interval(7, 9),
            interval(1, 3),
            interval(20, 21),
            interval(2, 5),
            interval(5, 6),
            interval(1, 2),
        ];
        assert_eq!(
            joined(&given),
            [interval(1, 6), interval(7, 9), interval(20, 21)]
        );
        assert!(joined(&[]).is_empty());
    }

    #[test]
    fn many_runs_are_joined_across_the_shortest_gaps() {
        let runs = [(0, 1), (2, 3), (13, 14), (16, 17)];
        assert_eq!(join_shortest_gaps(&runs, 4), runs);
        assert_eq!(join_shortest_gaps(&runs, 2), [(0, 3), (13, 17)]);
        assert_eq!(join_shortest_gaps(&runs, 1), [(0, 17)]);
        assert_eq!(join_shortest_gaps(&[], 1), []);
    }
}
