//! The bucket boundaries of a time series, and the aggregates from which the buckets are read.
//!
//! Aggregates exist per UTC hour and UTC day. A bucket with other boundaries is assembled from
//! whole UTC days, whole UTC hours and, where a boundary falls within an hour, individual records.

use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};

use super::granularity::{Granularity, Unit};
use super::interval::{Interval, Parts};
use super::zone::Zone;

/// Buckets of several hours, days or weeks are counted from this Monday.
const ORIGIN: NaiveDateTime = NaiveDate::from_ymd_opt(2000, 1, 3)
    .expect("a date that exists")
    .and_time(NaiveTime::MIN);

/// Whole days between whole hours are read from the daily aggregate only if there are at least this
/// many. Reading fewer from the hourly aggregate costs less than starting another piece.
const MIN_DAYS: i64 = 10;

/// The buckets that overlap an interval. The first may begin before the interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets {
    interval: Interval,
    /// Not empty, ascending, and all before the end of the interval.
    starts: Vec<DateTime<Utc>>,
}

/// A series with more buckets than allowed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {0} buckets")]
pub struct TooManyBuckets(pub usize);

/// The intervals to read from each table or aggregate. No bucket boundary falls within an hour or
/// day that is read as a whole. Each list is ascending, with gaps between its pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pieces {
    /// Read from the records.
    pub records: Vec<Interval>,
    /// Read from the hourly aggregate.
    pub hours: Vec<Interval>,
    /// Read from the daily aggregate.
    pub days: Vec<Interval>,
}

impl Pieces {
    /// The total number of pieces.
    #[must_use]
    pub fn count(&self) -> usize {
        self.records.len() + self.hours.len() + self.days.len()
    }

    /// The start of the first piece that is read from records, if any.
    #[must_use]
    pub fn first_record(&self) -> Option<DateTime<Utc>> {
        self.records.first().map(|piece| piece.start())
    }
}

/// The pieces of all kinds, in ascending order.
#[derive(Default)]
struct PieceList(Vec<(PieceKind, Interval)>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum PieceKind {
    Records,
    Hours,
    Days,
}

impl PieceList {
    /// Adds the parts of a bucket, which must not begin before the previous one ends.
    fn add_bucket(&mut self, parts: Parts) {
        let Parts {
            start,
            hours,
            days,
            days_end,
            hours_end,
            end,
        } = parts;
        self.add(PieceKind::Records, start, hours);
        self.add(PieceKind::Hours, hours, days);
        self.add(PieceKind::Days, days, days_end);
        self.add(PieceKind::Hours, days_end, hours_end);
        self.add(PieceKind::Records, hours_end, end);
    }

    /// Adds a piece unless it is empty, merging it with the last one if they are adjacent and of
    /// the same kind.
    fn add(&mut self, kind: PieceKind, start: DateTime<Utc>, end: DateTime<Utc>) {
        let Ok(piece) = Interval::new(start, end) else {
            return;
        };
        match self.0.last_mut() {
            Some((last_kind, last)) if *last_kind == kind && last.end() == start => {
                *last = Interval::new(last.start(), end).unwrap_or(piece);
            }
            _ => self.0.push((kind, piece)),
        }
    }

    /// Turns fewer than [`MIN_DAYS`] days between hours into hours.
    fn with_short_days_as_hours(self) -> Self {
        let mut merged = Self::default();
        for (index, &(kind, piece)) in self.0.iter().enumerate() {
            let is_hours = |at: Option<usize>| {
                at.and_then(|at| self.0.get(at))
                    .is_some_and(|(kind, _)| *kind == PieceKind::Hours)
            };
            let is_between = is_hours(index.checked_sub(1)) && is_hours(Some(index + 1));
            let is_short = (piece.end() - piece.start()).num_days() < MIN_DAYS;
            let kind = if kind == PieceKind::Days && is_between && is_short {
                PieceKind::Hours
            } else {
                kind
            };
            merged.add(kind, piece.start(), piece.end());
        }
        merged
    }

    fn by_kind(self) -> Pieces {
        let mut pieces = Pieces::default();
        for (kind, piece) in self.0 {
            let list = match kind {
                PieceKind::Records => &mut pieces.records,
                PieceKind::Hours => &mut pieces.hours,
                PieceKind::Days => &mut pieces.days,
            };
            list.push(piece);
        }
        pieces
    }
}

impl Buckets {
    /// Divides the interval into buckets of local time in `zone`. Buckets of several hours, days or
    /// weeks are counted from Monday, 2000-01-03, and buckets of several months from January 2000,
    /// so that boundaries do not depend on the interval.
    ///
    /// # Errors
    /// Returns an error if there are more than `max` buckets.
    pub fn new(
        interval: Interval,
        width: Granularity,
        zone: Zone,
        max: usize,
    ) -> Result<Self, TooManyBuckets> {
        let seconds = (interval.end() - interval.start()).num_seconds();
        // An estimate far above the limit avoids the work; near the limit the exact count decides.
        if usize::try_from(seconds / width.about_seconds()).is_ok_and(|about| about / 2 > max) {
            return Err(TooManyBuckets(max));
        }
        let mut starts = match width.unit() {
            Unit::Hour => hours(interval, width.count(), zone),
            Unit::Day => days(interval, width.count(), zone),
            Unit::Week => days(interval, width.count() * 7, zone),
            Unit::Month => months(interval, width.count(), zone),
        };
        starts.sort_unstable();
        starts.dedup();
        // The first bucket is the last one that does not begin after the interval's start.
        let first = starts
            .partition_point(|&start| start <= interval.start())
            .saturating_sub(1);
        starts.drain(..first);
        if starts.len() > max {
            Err(TooManyBuckets(max))
        } else {
            Ok(Self { interval, starts })
        }
    }

    /// The start of each bucket, ascending.
    #[must_use]
    pub fn starts(&self) -> &[DateTime<Utc>] {
        &self.starts
    }

    /// The pieces to read for the buckets from index `from` on, limited to
    /// [`Interval::RECORDABLE`].
    #[must_use]
    pub fn pieces(&self, from: usize) -> Pieces {
        let mut pieces = PieceList::default();
        for (index, &start) in self.starts.iter().enumerate().skip(from) {
            let end = self
                .starts
                .get(index + 1)
                .copied()
                .unwrap_or(self.interval.end());
            let start = start
                .max(self.interval.start())
                .max(Interval::RECORDABLE.start());
            if let Ok(bucket) = Interval::new(start, end.min(Interval::RECORDABLE.end())) {
                pieces.add_bucket(bucket.parts());
            }
        }
        pieces.with_short_days_as_hours().by_kind()
    }
}

/// The leading starts that are before the interval's end.
fn before_end(
    interval: Interval,
    starts: impl Iterator<Item = DateTime<Utc>>,
) -> Vec<DateTime<Utc>> {
    starts.take_while(|&start| start < interval.end()).collect()
}

fn hours(interval: Interval, count: u32, zone: Zone) -> Vec<DateTime<Utc>> {
    let width = TimeDelta::hours(count.into());
    // A day earlier, because some local times occur twice.
    let from = zone.wall_time(interval.start()) - TimeDelta::days(1) - width;
    let steps = (from - ORIGIN)
        .num_seconds()
        .div_euclid(width.num_seconds());
    let walls = (steps..)
        .map_while(|step| ORIGIN.checked_add_signed(TimeDelta::hours(step * i64::from(count))));
    if zone == Zone::UTC {
        return before_end(interval, walls.map(|wall| wall.and_utc()));
    }
    // Where clocks were set back, instants may be out of order by less than a day.
    let until = interval.end() + TimeDelta::days(1);
    let around = walls
        .flat_map(|wall| zone.instants(wall))
        .take_while(|&start| start < until);
    around.filter(|&start| start < interval.end()).collect()
}

fn days(interval: Interval, count: u32, zone: Zone) -> Vec<DateTime<Utc>> {
    let first = zone.wall_time(interval.start()).date();
    let steps = (first - ORIGIN.date()).num_days().div_euclid(count.into()) - 1;
    let dates = (steps..).map_while(|step| {
        let days = TimeDelta::try_days(step * i64::from(count))?;
        ORIGIN.date().checked_add_signed(days)
    });
    before_end(interval, dates.map(|date| zone.day_start(date)))
}

fn months(interval: Interval, count: u32, zone: Zone) -> Vec<DateTime<Utc>> {
    let first = zone.wall_time(interval.start()).date();
    let month = (i64::from(first.year()) - 2000) * 12 + i64::from(first.month0());
    let steps = month.div_euclid(count.into()) - 1;
    let january = NaiveDate::from_ymd_opt(2000, 1, 1).expect("a date that exists");
    let dates = (steps..).map_while(|step| {
        let months = step * i64::from(count);
        let distance = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
        if months < 0 {
            january.checked_sub_months(distance)
        } else {
            january.checked_add_months(distance)
        }
    });
    before_end(interval, dates.map(|date| zone.day_start(date)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn buckets(start: &str, end: &str, every: &str, zone: &str) -> Buckets {
        let interval = Interval::new(at(start), at(end)).unwrap();
        Buckets::new(
            interval,
            every.parse().unwrap(),
            zone.parse().unwrap(),
            1_000_000,
        )
        .unwrap()
    }

    fn starts(start: &str, end: &str, every: &str, zone: &str) -> Vec<String> {
        let parsed: Zone = zone.parse().unwrap();
        buckets(start, end, every, zone)
            .starts()
            .iter()
            .map(|&start| parsed.write(start))
            .collect()
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first() {
        assert_eq!(
            starts(
                "2020-02-01T00:00:00Z",
                "2020-02-12T00:00:00Z",
                "week",
                "UTC"
            ),
            [
                "2020-01-27T00:00:00Z",
                "2020-02-03T00:00:00Z",
                "2020-02-10T00:00:00Z"
            ]
        );
        assert_eq!(
            starts(
                "2019-12-31T22:30:00Z",
                "2020-03-01T00:00:00Z",
                "month",
                "Europe/Berlin"
            ),
            [
                "2019-12-01T00:00:00+01:00",
                "2020-01-01T00:00:00+01:00",
                "2020-02-01T00:00:00+01:00",
                "2020-03-01T00:00:00+01:00"
            ]
        );
        assert_eq!(
            starts(
                "2019-05-05T00:00:00Z",
                "2019-05-06T00:00:00Z",
                "3month",
                "UTC"
            ),
            ["2019-04-01T00:00:00Z"]
        );
        assert_eq!(
            starts(
                "1999-05-05T00:00:00Z",
                "1999-05-06T00:00:00Z",
                "12month",
                "UTC"
            ),
            ["1999-01-01T00:00:00Z"]
        );
    }

    #[test]
    fn an_hour_that_occurs_twice_is_two_buckets() {
        assert_eq!(
            starts(
                "2020-10-24T23:00:00Z",
                "2020-10-25T03:00:00Z",
                "hour",
                "Europe/Berlin"
            ),
            [
                "2020-10-25T01:00:00+02:00",
                "2020-10-25T02:00:00+02:00",
                "2020-10-25T02:00:00+01:00",
                "2020-10-25T03:00:00+01:00"
            ]
        );
    }

    #[test]
    fn an_hour_that_is_skipped_is_no_bucket() {
        assert_eq!(
            starts(
                "2020-03-29T00:00:00Z",
                "2020-03-29T03:00:00Z",
                "hour",
                "Europe/Berlin"
            ),
            [
                "2020-03-29T01:00:00+01:00",
                "2020-03-29T03:00:00+02:00",
                "2020-03-29T04:00:00+02:00"
            ]
        );
    }

    #[test]
    fn six_hour_buckets_begin_at_the_same_local_times_every_day() {
        let days = starts(
            "2020-03-28T23:00:00Z",
            "2020-03-30T22:00:00Z",
            "6hour",
            "Europe/Berlin",
        );
        let times: Vec<&str> = days.iter().map(|start| &start[11..16]).collect();
        assert_eq!(
            times,
            [
                "00:00", "06:00", "12:00", "18:00", "00:00", "06:00", "12:00", "18:00"
            ]
        );
    }

    #[test]
    fn clocks_set_back_by_half_an_hour_lose_nothing() {
        assert_eq!(
            starts(
                "2020-04-04T14:00:00Z",
                "2020-04-04T17:30:00Z",
                "hour",
                "Australia/Lord_Howe"
            ),
            [
                "2020-04-05T01:00:00+11:00",
                "2020-04-05T02:00:00+10:30",
                "2020-04-05T03:00:00+10:30"
            ]
        );
    }

    #[test]
    fn a_day_that_was_skipped_is_no_bucket() {
        assert_eq!(
            starts(
                "2011-12-29T10:00:00Z",
                "2011-12-31T10:00:00Z",
                "day",
                "Pacific/Apia"
            ),
            ["2011-12-29T00:00:00-10:00", "2011-12-31T00:00:00+14:00"]
        );
    }

    #[test]
    fn too_many_buckets_are_refused_near_the_limit_and_far_beyond_it() {
        let year = Interval::new(at("2020-01-01T00:00:00Z"), at("2021-01-01T00:00:00Z")).unwrap();
        assert!(Buckets::new(year, Granularity::DAY, Zone::UTC, 366).is_ok());
        for (granularity, max) in [
            (Granularity::DAY, 365),
            (Granularity::HOUR, 8_783),
            (Granularity::HOUR, 5),
        ] {
            assert_eq!(
                Buckets::new(year, granularity, Zone::UTC, max),
                Err(TooManyBuckets(max))
            );
        }
    }

    fn piece(start: &str, end: &str) -> Interval {
        Interval::new(at(start), at(end)).unwrap()
    }

    #[test]
    fn whole_utc_days_and_hours_are_read_from_aggregates() {
        let records = vec![
            piece("2020-01-01T22:30:00Z", "2020-01-01T23:00:00Z"),
            piece("2020-01-15T01:00:00Z", "2020-01-15T01:15:00Z"),
        ];
        let days = buckets("2020-01-01T22:30:00Z", "2020-01-15T01:15:00Z", "day", "UTC").pieces(0);
        let around = vec![
            piece("2020-01-01T23:00:00Z", "2020-01-02T00:00:00Z"),
            piece("2020-01-15T00:00:00Z", "2020-01-15T01:00:00Z"),
        ];
        let whole = vec![piece("2020-01-02T00:00:00Z", "2020-01-15T00:00:00Z")];
        assert_eq!(
            days,
            Pieces {
                records: records.clone(),
                hours: around,
                days: whole
            }
        );
        let hours = buckets(
            "2020-01-01T22:30:00Z",
            "2020-01-15T01:15:00Z",
            "hour",
            "UTC",
        )
        .pieces(0);
        let whole = vec![piece("2020-01-01T23:00:00Z", "2020-01-15T01:00:00Z")];
        assert_eq!(
            hours,
            Pieces {
                records,
                hours: whole,
                days: vec![]
            }
        );
    }

    #[test]
    fn hours_in_a_half_hour_zone_are_read_from_records_only() {
        let pieces = buckets(
            "2020-01-01T18:30:00Z",
            "2020-01-02T18:30:00Z",
            "hour",
            "Asia/Kolkata",
        )
        .pieces(0);
        let records = vec![piece("2020-01-01T18:30:00Z", "2020-01-02T18:30:00Z")];
        assert_eq!(
            pieces,
            Pieces {
                records,
                ..Pieces::default()
            }
        );
    }

    #[test]
    fn days_in_a_half_hour_zone_read_only_split_hours_from_records() {
        let buckets = buckets(
            "2020-01-01T18:30:00Z",
            "2020-01-03T18:30:00Z",
            "day",
            "Asia/Kolkata",
        );
        let expected = Pieces {
            records: vec![
                piece("2020-01-01T18:30:00Z", "2020-01-01T19:00:00Z"),
                piece("2020-01-02T18:00:00Z", "2020-01-02T19:00:00Z"),
                piece("2020-01-03T18:00:00Z", "2020-01-03T18:30:00Z"),
            ],
            hours: vec![
                piece("2020-01-01T19:00:00Z", "2020-01-02T18:00:00Z"),
                piece("2020-01-02T19:00:00Z", "2020-01-03T18:00:00Z"),
            ],
            days: vec![],
        };
        assert_eq!(buckets.pieces(0), expected);
    }

    #[test]
    fn few_days_between_hours_are_read_as_hours() {
        let around = [
            ("2020-01-01T22:00:00Z", "2020-01-02T00:00:00Z"),
            ("2020-01-11T00:00:00Z", "2020-01-11T01:00:00Z"),
        ];
        let pieces = buckets(around[0].0, around[1].1, "month", "UTC").pieces(0);
        let hours = vec![piece(around[0].0, around[1].1)];
        assert_eq!(
            pieces,
            Pieces {
                hours,
                ..Pieces::default()
            }
        );
        let pieces = buckets(around[0].0, "2020-01-12T01:00:00Z", "month", "UTC").pieces(0);
        let days = vec![piece("2020-01-02T00:00:00Z", "2020-01-12T00:00:00Z")];
        let hours = vec![
            piece(around[0].0, around[0].1),
            piece("2020-01-12T00:00:00Z", "2020-01-12T01:00:00Z"),
        ];
        assert_eq!(
            pieces,
            Pieces {
                hours,
                days,
                ..Pieces::default()
            }
        );
        assert_eq!(pieces.count(), 3);
        let pieces = buckets(
            "1995-01-01T00:00:00Z",
            "2020-01-01T00:00:00Z",
            "76hour",
            "UTC",
        )
        .pieces(0);
        assert_eq!(
            pieces.hours,
            [piece("1995-01-01T00:00:00Z", "2020-01-01T00:00:00Z")]
        );
    }

    #[test]
    fn nothing_outside_the_recordable_interval_is_read() {
        let pieces = buckets(
            "0304-01-11T12:00:00Z",
            "3501-07-10T00:00:00Z",
            "week",
            "UTC",
        )
        .pieces(0);
        assert_eq!(
            pieces,
            Pieces {
                days: vec![Interval::RECORDABLE],
                ..Pieces::default()
            }
        );
        assert_eq!(
            buckets(
                "0304-01-11T12:00:00Z",
                "1970-01-01T00:00:00Z",
                "week",
                "UTC"
            )
            .pieces(0)
            .count(),
            0
        );
    }

    #[test]
    fn buckets_before_the_requested_index_are_not_read() {
        let buckets = buckets("2020-01-01T00:00:00Z", "2020-01-05T00:00:00Z", "day", "UTC");
        let days = vec![piece("2020-01-04T00:00:00Z", "2020-01-05T00:00:00Z")];
        assert_eq!(
            buckets.pieces(3),
            Pieces {
                days,
                ..Pieces::default()
            }
        );
        assert_eq!(buckets.pieces(4), Pieces::default());
    }

    const ZONES: [&str; 12] = [
        "UTC",
        "Europe/Berlin",
        "Asia/Kolkata",
        "Asia/Kathmandu",
        "America/Sao_Paulo",
        "America/St_Johns",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "Pacific/Chatham",
        "Africa/Monrovia",
        "America/Havana",
        "Africa/Cairo",
    ];

    proptest! {
        #[test]
        fn buckets_cover_the_interval_and_each_instant_is_read_once(
            start in 0_i64..7_218_118_400, length in 1_i64..40_000_000, zone in 0..ZONES.len(), width in 0..7_usize,
        ) {
            let every = ["hour", "5hour", "6hour", "day", "10day", "week", "month"][width];
            let start = DateTime::from_timestamp(start, 0).unwrap();
            let interval = Interval::new(start, start + TimeDelta::seconds(length)).unwrap();
            let zone: Zone = ZONES[zone].parse().unwrap();
            let buckets = Buckets::new(interval, every.parse().unwrap(), zone, usize::MAX).unwrap();
            let starts = buckets.starts();
            prop_assert!(starts[0] <= interval.start() && starts.iter().skip(1).all(|&start| interval.contains(start)));
            prop_assert!(starts.is_sorted_by(|one, next| one < next));
            for (index, &start) in starts.iter().enumerate() {
                // A bucket begins at a full hour of local time, or when clocks were set forward.
                let wall = zone.wall_time(start);
                let skipped = wall - zone.wall_time(start - TimeDelta::seconds(1)) > TimeDelta::seconds(1);
                prop_assert!(wall.format("%M:%S").to_string() == "00:00" || skipped, "bucket {} begins at {}", index, wall);
            }
            let Pieces { records, hours, days } = buckets.pieces(0);
            let of = |unit, list: Vec<Interval>| list.into_iter().map(move |piece| (unit, piece));
            let mut pieces: Vec<_> = of(1, records).chain(of(3_600, hours)).chain(of(86_400, days)).collect();
            pieces.sort_by_key(|(_, piece)| piece.start());
            let mut reached = interval.start();
            for (unit, piece) in pieces {
                prop_assert_eq!(piece.start(), reached);
                reached = piece.end();
                prop_assert!(piece.start().timestamp() % unit == 0 && piece.end().timestamp() % unit == 0);
                // No bucket may begin within an hour or day that is read as a whole.
                let inside = |&&edge: &&DateTime<Utc>| piece.contains(edge);
                prop_assert!(starts.iter().filter(inside).all(|edge| edge.timestamp() % unit == 0));
            }
            prop_assert_eq!(reached, interval.end());
        }
    }
}
