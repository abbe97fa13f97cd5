//! The bucket boundaries of a time series, and the aggregates from which the buckets are read.
//!
//! Organizations have aggregates by UTC day and by quarter hour (slot), SIM cards by UTC day. A bucket
//! with other boundaries is assembled from whole days, whole slots and, where a boundary falls within
//! a slot, individual records.

use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};

use super::granularity::{Granularity, Unit};
use super::interval::{Interval, Parts};
use super::zone::Zone;

/// Buckets of several hours, days or weeks are counted from this Monday.
const ORIGIN: NaiveDateTime = NaiveDate::from_ymd_opt(2000, 1, 3)
    .expect("a date that exists")
    .and_time(NaiveTime::MIN);

const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 24 * HOUR_S;
const SLOT_S: i64 = 15 * 60;

/// A local time has a single instant if the offset does not change this long before and after it,
/// both times read as UTC: more than any offset.
const OFFSET_MARGIN_S: i64 = 26 * HOUR_S;

/// Shorter than any offset from UTC has been valid.
const OFFSET_STEP_S: i64 = 6 * HOUR_S;

/// Whole days between whole slots are read by day only if there are at least this many. Otherwise, a
/// long series would have a piece for each of its buckets.
const MIN_DAYS: i64 = 10;

/// The buckets that overlap an interval. The first may begin before the interval.
///
/// They are kept as runs at equal distances: a century of hours in UTC is one run, and in a zone
/// with daylight saving time it is two runs per year.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets {
    interval: Interval,
    starts: Runs,
}

/// Ascending instants, on whole seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Runs {
    runs: Vec<BucketRun>,
    len: usize,
}

/// Instants at equal distances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BucketRun {
    /// Index of the first instant among those of all runs.
    index: usize,
    /// The first instant, as a Unix time in seconds.
    first: i64,
    /// The distance in seconds, which means nothing if there is only one instant.
    step: i64,
    count: usize,
}

impl BucketRun {
    /// The instant at a position within the run.
    fn at(self, position: usize) -> i64 {
        self.first + self.step * i64::try_from(position).unwrap_or(i64::MAX)
    }

    fn last(self) -> i64 {
        self.at(self.count - 1)
    }
}

impl Runs {
    /// Adds an instant, which must be after the last one.
    fn push(&mut self, instant: i64) {
        self.push_run(instant, 0, 1);
    }

    /// Adds instants at equal distances, the first of which must be after the last one.
    fn push_run(&mut self, first: i64, step: i64, count: usize) {
        if count == 0 {
            return;
        }
        if let Some(last) = self.runs.last_mut() {
            let distance = first - last.last();
            if (last.count == 1 || last.step == distance) && (count == 1 || step == distance) {
                last.step = distance;
                last.count += count;
                self.len += count;
                return;
            }
        }
        let index = self.len;
        self.runs.push(BucketRun {
            index,
            first,
            step,
            count,
        });
        self.len += count;
    }

    /// Removes all instants before the last one that is not after `start`.
    fn start_at(&mut self, start: i64) {
        let run = self
            .runs
            .partition_point(|run| run.first <= start)
            .saturating_sub(1);
        let old = std::mem::take(self);
        for run in old.runs.into_iter().skip(run) {
            let before = number_of_starts(run.first, run.step, run.count, start).saturating_sub(1);
            self.push_run(run.at(before), run.step, run.count - before);
        }
    }

    fn get(&self, index: usize) -> Option<i64> {
        let run = self.runs.partition_point(|run| run.index <= index);
        let run = self.runs.get(run.checked_sub(1)?)?;
        let position = index - run.index;
        (position < run.count).then(|| run.at(position))
    }
}

/// How many instants of a run are not after `until`.
fn number_of_starts(first: i64, step: i64, count: usize, until: i64) -> usize {
    if until < first {
        0
    } else if count == 1 || step == 0 {
        1
    } else {
        let steps = (until - first) / step;
        usize::try_from(steps)
            .unwrap_or(usize::MAX)
            .saturating_add(1)
            .min(count)
    }
}

/// A series with more buckets than allowed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {0} buckets")]
pub struct TooManyBuckets(pub usize);

/// The intervals to read from each table or aggregate. No bucket boundary falls within a slot or day
/// that is read as a whole. Each list is ascending, with gaps between its pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pieces {
    /// Read from the records.
    pub records: Vec<Interval>,
    /// Read from the aggregate by quarter hour.
    pub slots: Vec<Interval>,
    /// Read from an aggregate by day.
    pub days: Vec<Interval>,
}

impl Pieces {
    /// The same intervals, with those of slots among the records: SIM cards have no slots.
    #[must_use]
    pub fn without_slots(self) -> Self {
        let Self {
            mut records,
            slots,
            days,
        } = self;
        records.extend(slots);
        records.sort_unstable_by_key(|piece| piece.start());
        let mut merged: Vec<Interval> = vec![];
        for piece in records {
            match merged.last_mut() {
                Some(last) if last.end() == piece.start() => {
                    *last = Interval::new(last.start(), piece.end()).unwrap_or(piece);
                }
                _ => merged.push(piece),
            }
        }
        Self {
            records: merged,
            slots: vec![],
            days,
        }
    }
}

impl From<Parts> for Pieces {
    fn from(parts: Parts) -> Self {
        let mut pieces = PieceList::default();
        pieces.add_bucket(parts);
        pieces.by_kind()
    }
}

/// The pieces of all kinds, in ascending order.
#[derive(Default)]
struct PieceList(Vec<(PieceKind, Interval)>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum PieceKind {
    Records,
    Slots,
    Days,
}

impl PieceList {
    /// Adds the parts of a bucket, which must not begin before the previous one ends.
    fn add_bucket(&mut self, parts: Parts) {
        let Parts {
            start,
            slots,
            days,
            days_end,
            slots_end,
            end,
        } = parts;
        self.add(PieceKind::Records, start, slots);
        self.add(PieceKind::Slots, slots, days);
        self.add(PieceKind::Days, days, days_end);
        self.add(PieceKind::Slots, days_end, slots_end);
        self.add(PieceKind::Records, slots_end, end);
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

    /// Turns fewer than [`MIN_DAYS`] days between slots into slots.
    fn with_short_days_as_slots(self) -> Self {
        let mut merged = Self::default();
        for (index, &(kind, piece)) in self.0.iter().enumerate() {
            let is_slots = |at: Option<usize>| {
                at.and_then(|at| self.0.get(at))
                    .is_some_and(|(kind, _)| *kind == PieceKind::Slots)
            };
            let is_between = is_slots(index.checked_sub(1)) && is_slots(Some(index + 1));
            let is_short = (piece.end() - piece.start()).num_days() < MIN_DAYS;
            let kind = if kind == PieceKind::Days && is_between && is_short {
                PieceKind::Slots
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
                PieceKind::Slots => &mut pieces.slots,
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
        // An estimate far above the limit avoids the work; near the limit the exact count decides.
        if Self::about(interval, width) / 2 > max {
            return Err(TooManyBuckets(max));
        }
        let mut starts = match width.unit() {
            Unit::Hour => hours(interval, width.count(), zone),
            Unit::Day => days(interval, width.count(), zone),
            Unit::Week => days(interval, width.count() * 7, zone),
            Unit::Month => months(interval, width.count(), zone),
        };
        // The first bucket is the last one that does not begin after the interval's start.
        starts.start_at(interval.start().timestamp());
        if starts.len > max {
            Err(TooManyBuckets(max))
        } else {
            Ok(Self { interval, starts })
        }
    }

    /// The approximate number of buckets, without the work of finding their starts.
    #[must_use]
    pub fn about(interval: Interval, width: Granularity) -> usize {
        let seconds = (interval.end() - interval.start()).num_seconds();
        usize::try_from(seconds / width.about_seconds()).unwrap_or(usize::MAX)
    }

    /// The number of buckets, which is at least 1.
    #[expect(clippy::len_without_is_empty, reason = "there is always a bucket")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len
    }

    /// The start of the bucket at an index.
    #[must_use]
    pub fn start(&self, index: usize) -> Option<DateTime<Utc>> {
        self.starts.get(index).map(instant)
    }

    /// The start of each bucket, ascending.
    pub fn starts(&self) -> impl Iterator<Item = DateTime<Utc>> {
        let each = |run: &BucketRun| {
            let run = *run;
            (0..run.count).map(move |position| instant(run.at(position)))
        };
        self.starts.runs.iter().flat_map(each)
    }

    /// The starts as runs at equal distances: the first start of each in seconds since 1970, the distance
    /// in seconds, and their number.
    pub fn runs(&self) -> impl Iterator<Item = (i64, i64, i64)> {
        let runs = self.starts.runs.iter();
        runs.map(|run| {
            (
                run.first,
                run.step,
                i64::try_from(run.count).unwrap_or(i64::MAX),
            )
        })
    }

    /// The pieces to read for the buckets from index `from` on, limited to
    /// [`Interval::RECORDABLE`].
    #[must_use]
    pub fn pieces(&self, from: usize) -> Pieces {
        let mut pieces = PieceList::default();
        for (number, run) in self.starts.runs.iter().enumerate() {
            let last = run.count - 1;
            let next = self.starts.runs.get(number + 1);
            let end = next.map_or(self.interval.end(), |next| instant(next.first));
            let mut position = from.saturating_sub(run.index);
            while position < last {
                let start = run.at(position);
                // Whole slots of less than a day are one piece, however many buckets they are.
                let is_slots = start % SLOT_S == 0 && run.step % SLOT_S == 0 && run.step < DAY_S;
                // The first bucket may begin before the interval.
                let is_first = run.index + position == 0;
                let next = if is_slots && !is_first {
                    last
                } else {
                    position + 1
                };
                self.add_bucket(&mut pieces, instant(start), instant(run.at(next)), is_slots);
                position = next;
            }
            if position == last {
                self.add_bucket(&mut pieces, instant(run.last()), end, false);
            }
        }
        pieces.with_short_days_as_slots().by_kind()
    }

    /// Adds a bucket, or several buckets that are read as slots.
    fn add_bucket(
        &self,
        pieces: &mut PieceList,
        start: DateTime<Utc>,
        end: DateTime<Utc>,
        is_slots: bool,
    ) {
        let start = start
            .max(self.interval.start())
            .max(Interval::RECORDABLE.start());
        let end = end.min(Interval::RECORDABLE.end());
        let Ok(bucket) = Interval::new(start, end) else {
            return;
        };
        if is_slots && start.timestamp_subsec_nanos() == 0 && start.timestamp() % SLOT_S == 0 {
            pieces.add(PieceKind::Slots, start, end);
        } else {
            pieces.add_bucket(bucket.parts());
        }
    }
}

/// The instant of a Unix time that was calculated from instants.
fn instant(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// Collects the leading starts that are before the interval's end.
fn before_end(interval: Interval, starts: impl Iterator<Item = DateTime<Utc>>) -> Runs {
    let mut runs = Runs::default();
    let mut last = None;
    for start in starts.take_while(|&start| start < interval.end()) {
        // A skipped day starts with the next one.
        if last.replace(start) != Some(start) {
            runs.push(start.timestamp());
        }
    }
    runs
}

/// The starts of buckets of hours. A local time that occurs twice, because clocks were set back, begins
/// two buckets of one hour, but only one of several hours, as for days. Local times that are far from a change of the zone's
/// offset have one instant each, at equal distances; only those near a change are looked up.
fn hours(interval: Interval, count: u32, zone: Zone) -> Runs {
    let width = TimeDelta::hours(count.into());
    // A day earlier, because some local times occur twice.
    let from = zone.wall_time(interval.start()) - TimeDelta::days(1) - width;
    let width = width.num_seconds();
    let origin = ORIGIN.and_utc().timestamp();
    let mut wall = origin + (from - ORIGIN).num_seconds().div_euclid(width) * width;
    // The last start is before the interval's end, which may be within a second.
    let last = (interval.end() - TimeDelta::nanoseconds(1)).timestamp();
    let mut runs = Runs::default();
    if zone == Zone::UTC {
        let walls = number_of_starts(wall, width, usize::MAX, last);
        runs.push_run(wall, width, walls);
        return runs;
    }
    let mut offsets = Offsets::new(zone, last + 2 * OFFSET_MARGIN_S);
    let mut near = vec![];
    // Where clocks were set back, instants may be out of order by less than a day.
    while wall - OFFSET_MARGIN_S <= last {
        // The search for changes pays only if there are many buckets between them.
        let (offset, until) = if width < DAY_S {
            offsets.constant_from(wall - OFFSET_MARGIN_S)
        } else {
            (0, i64::MIN)
        };
        if wall + OFFSET_MARGIN_S <= until {
            push_sorted(&mut runs, &mut near);
            let walls = number_of_starts(wall, width, usize::MAX, until - OFFSET_MARGIN_S);
            let first = wall - offset;
            runs.push_run(
                first,
                width,
                walls.min(number_of_starts(first, width, usize::MAX, last)),
            );
            wall += width * i64::try_from(walls).unwrap_or(i64::MAX);
        } else {
            let instants = zone.instants(instant(wall).naive_utc()).into_iter();
            near.extend(
                instants
                    .take(if count == 1 { 2 } else { 1 })
                    .map(|start| start.timestamp())
                    .filter(|&start| start <= last),
            );
            wall += width;
        }
    }
    push_sorted(&mut runs, &mut near);
    runs
}

/// Moves instants to the runs, each of them once.
fn push_sorted(runs: &mut Runs, instants: &mut Vec<i64>) {
    instants.sort_unstable();
    instants.dedup();
    for instant in instants.drain(..) {
        runs.push(instant);
    }
}

/// Finds intervals in which the offset of a zone does not change.
struct Offsets {
    zone: Zone,
    /// No offset is looked up after this instant.
    end: i64,
    offset: i64,
    start: i64,
    until: i64,
}

impl Offsets {
    fn new(zone: Zone, end: i64) -> Self {
        Self {
            zone,
            end,
            offset: 0,
            start: 0,
            until: i64::MIN,
        }
    }

    /// The offset from UTC at an instant, in seconds, and an instant up to which it does not
    /// change. It is compared every [`OFFSET_STEP_S`], because no zone has had an offset for a
    /// shorter time.
    fn constant_from(&mut self, from: i64) -> (i64, i64) {
        if from < self.start || from > self.until {
            self.start = from;
            self.offset = self.zone.offset_s(instant(from));
            self.until = from;
            while self.until < self.end
                && self.zone.offset_s(instant(self.until + OFFSET_STEP_S)) == self.offset
            {
                self.until += OFFSET_STEP_S;
            }
        }
        (self.offset, self.until)
    }
}

fn days(interval: Interval, count: u32, zone: Zone) -> Runs {
    let first = zone.wall_time(interval.start()).date();
    let steps = (first - ORIGIN.date()).num_days().div_euclid(count.into()) - 1;
    let dates = (steps..).map_while(|step| {
        let days = TimeDelta::try_days(step * i64::from(count))?;
        ORIGIN.date().checked_add_signed(days)
    });
    before_end(interval, dates.map(|date| zone.day_start(date)))
}

fn months(interval: Interval, count: u32, zone: Zone) -> Runs {
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
            .map(|start| parsed.write(start))
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
    fn several_hours_are_one_bucket_however_long_clocks_take_for_them() {
        let bucket = |width| {
            let (start, end) = ("2020-10-24T22:00:00Z", "2020-10-25T05:00:00Z");
            starts(start, end, width, "Europe/Berlin")
        };
        let expected = [
            "2020-10-25T00:00:00+02:00",
            "2020-10-25T02:00:00+02:00",
            "2020-10-25T04:00:00+01:00",
        ];
        assert_eq!(bucket("2hour"), expected);
        let expected = ["2020-10-25T00:00:00+02:00", "2020-10-25T03:00:00+01:00"];
        assert_eq!(bucket("3hour"), expected);
        assert_eq!(bucket("6hour"), ["2020-10-25T00:00:00+02:00"]);
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
    fn buckets_at_equal_distances_cost_no_memory_each() {
        let century = |zone| buckets("1970-01-01T00:00:00Z", "2083-12-31T00:00:00Z", "hour", zone);
        let utc = century("UTC");
        assert_eq!((utc.len(), utc.starts.runs.len()), (999_288, 1));
        assert_eq!(utc.start(999_287).unwrap(), at("2083-12-30T23:00:00Z"));
        assert_eq!(utc.start(999_288), None);
        assert_eq!(utc.pieces(0).slots.len(), 1);
        let berlin = century("Europe/Berlin");
        assert_eq!(berlin.len(), 999_288);
        assert!(
            berlin.starts.runs.len() < 300,
            "{}",
            berlin.starts.runs.len()
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
    fn whole_utc_days_and_slots_are_read_from_aggregates() {
        let (start, end) = ("2020-01-01T22:31:00Z", "2020-01-15T01:20:00Z");
        let records = vec![
            piece(start, "2020-01-01T22:45:00Z"),
            piece("2020-01-15T01:15:00Z", end),
        ];
        let days = Pieces {
            records: records.clone(),
            slots: vec![
                piece("2020-01-01T22:45:00Z", "2020-01-02T00:00:00Z"),
                piece("2020-01-15T00:00:00Z", "2020-01-15T01:15:00Z"),
            ],
            days: vec![piece("2020-01-02T00:00:00Z", "2020-01-15T00:00:00Z")],
        };
        assert_eq!(buckets(start, end, "day", "UTC").pieces(0), days);
        assert_eq!(Pieces::from(piece(start, end).parts()), days);
        let hours = Pieces {
            records,
            slots: vec![piece("2020-01-01T22:45:00Z", "2020-01-15T01:15:00Z")],
            days: vec![],
        };
        assert_eq!(buckets(start, end, "hour", "UTC").pieces(0), hours);
        let whole = |edges: &[(&str, &str)]| -> Vec<_> {
            edges.iter().map(|edge| piece(edge.0, edge.1)).collect()
        };
        assert_eq!(
            days.without_slots(),
            Pieces {
                records: whole(&[
                    (start, "2020-01-02T00:00:00Z"),
                    ("2020-01-15T00:00:00Z", end)
                ]),
                slots: vec![],
                days: whole(&[("2020-01-02T00:00:00Z", "2020-01-15T00:00:00Z")]),
            }
        );
        assert_eq!(hours.without_slots().records, whole(&[(start, end)]));
    }

    #[test]
    fn zones_with_half_and_quarter_hours_read_slots_like_others() {
        for (zone, start, end) in [
            (
                "Asia/Kolkata",
                "2020-01-01T18:30:00Z",
                "2020-01-03T18:30:00Z",
            ),
            (
                "Asia/Kathmandu",
                "2020-01-01T18:15:00Z",
                "2020-01-03T18:15:00Z",
            ),
            (
                "Europe/Berlin",
                "2020-01-01T23:00:00Z",
                "2020-01-03T23:00:00Z",
            ),
        ] {
            for every in ["hour", "day"] {
                let expected = Pieces {
                    slots: vec![piece(start, end)],
                    ..Pieces::default()
                };
                assert_eq!(buckets(start, end, every, zone).pieces(0), expected);
            }
        }
    }

    #[test]
    fn few_days_between_slots_are_read_as_slots() {
        let around = [
            ("2020-01-01T22:00:00Z", "2020-01-02T00:00:00Z"),
            ("2020-01-11T00:00:00Z", "2020-01-11T01:00:00Z"),
        ];
        let pieces = buckets(around[0].0, around[1].1, "month", "UTC").pieces(0);
        let slots = vec![piece(around[0].0, around[1].1)];
        assert_eq!(
            pieces,
            Pieces {
                slots,
                ..Pieces::default()
            }
        );
        let pieces = buckets(around[0].0, "2020-01-12T01:00:00Z", "month", "UTC").pieces(0);
        let days = vec![piece("2020-01-02T00:00:00Z", "2020-01-12T00:00:00Z")];
        let slots = vec![
            piece(around[0].0, around[0].1),
            piece("2020-01-12T00:00:00Z", "2020-01-12T01:00:00Z"),
        ];
        assert_eq!(
            pieces,
            Pieces {
                slots,
                days,
                ..Pieces::default()
            }
        );
        let pieces = buckets(
            "1995-01-01T00:00:00Z",
            "2020-01-01T00:00:00Z",
            "76hour",
            "UTC",
        )
        .pieces(0);
        assert_eq!(
            pieces.slots,
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
            .pieces(0),
            Pieces::default()
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

    /// The starts of hourly buckets, found by looking up each local time.
    fn looked_up(interval: Interval, count: u32, zone: Zone) -> Vec<DateTime<Utc>> {
        let width = TimeDelta::hours(count.into());
        let from = zone.wall_time(interval.start()) - TimeDelta::days(1) - width;
        let steps = (from - ORIGIN)
            .num_seconds()
            .div_euclid(width.num_seconds());
        let mut starts: Vec<_> = (steps..i64::MAX)
            .map(|step| ORIGIN + TimeDelta::hours(step * i64::from(count)))
            .flat_map(|wall| {
                let most = if count == 1 { 2 } else { 1 };
                zone.instants(wall).into_iter().take(most)
            })
            .take_while(|&start| start < interval.end() + TimeDelta::days(2))
            .filter(|&start| start < interval.end())
            .collect();
        starts.sort_unstable();
        starts.dedup();
        let first = starts.partition_point(|&start| start <= interval.start());
        starts.drain(..first.saturating_sub(1));
        starts
    }

    proptest! {
        #[test]
        fn calculated_hours_are_those_that_a_lookup_finds(
            start in -1_000_000_000_i64..5_000_000_000, length in 1_i64..40_000_000, zone in 0..ZONES.len(), count in 1_u32..30,
        ) {
            let start = DateTime::from_timestamp(start, 0).unwrap();
            let interval = Interval::new(start, start + TimeDelta::seconds(length)).unwrap();
            let zone: Zone = ZONES[zone].parse().unwrap();
            let every = Granularity::new(count, Unit::Hour).unwrap();
            let buckets = Buckets::new(interval, every, zone, usize::MAX).unwrap();
            let expected = looked_up(interval, count, zone);
            prop_assert_eq!(buckets.len(), expected.len());
            prop_assert!(buckets.starts().eq(expected.iter().copied()));
            let indexed = (0..buckets.len()).map(|index| buckets.start(index).unwrap());
            prop_assert!(indexed.eq(expected));
        }

        #[test]
        fn buckets_cover_the_interval_and_each_instant_is_read_once(
            start in 0_i64..7_218_118_400, length in 1_i64..40_000_000, zone in 0..ZONES.len(), width in 0..7_usize,
        ) {
            let every = ["hour", "5hour", "6hour", "day", "10day", "week", "month"][width];
            let start = DateTime::from_timestamp(start, 0).unwrap();
            let interval = Interval::new(start, start + TimeDelta::seconds(length)).unwrap();
            let zone: Zone = ZONES[zone].parse().unwrap();
            let buckets = Buckets::new(interval, every.parse().unwrap(), zone, usize::MAX).unwrap();
            let starts: Vec<_> = buckets.starts().collect();
            prop_assert!(starts[0] <= interval.start() && starts.iter().skip(1).all(|&start| interval.contains(start)));
            prop_assert!(starts.is_sorted_by(|one, next| one < next));
            for (index, &start) in starts.iter().enumerate() {
                // A bucket begins at a full hour of local time, or when clocks were set forward.
                let wall = zone.wall_time(start);
                let skipped = wall - zone.wall_time(start - TimeDelta::seconds(1)) > TimeDelta::seconds(1);
                prop_assert!(wall.format("%M:%S").to_string() == "00:00" || skipped, "bucket {} begins at {}", index, wall);
            }
            let Pieces { records, slots, days } = buckets.pieces(0);
            let of = |unit, list: Vec<Interval>| list.into_iter().map(move |piece| (unit, piece));
            let mut pieces: Vec<_> = of(1, records).chain(of(900, slots)).chain(of(86_400, days)).collect();
            pieces.sort_by_key(|(_, piece)| piece.start());
            let mut reached = interval.start();
            for (unit, piece) in pieces {
                prop_assert_eq!(piece.start(), reached);
                reached = piece.end();
                prop_assert!(piece.start().timestamp() % unit == 0 && piece.end().timestamp() % unit == 0);
                // No bucket may begin within a slot or day that is read as a whole.
                let inside = |&&edge: &&DateTime<Utc>| piece.contains(edge);
                prop_assert!(starts.iter().filter(inside).all(|edge| edge.timestamp() % unit == 0));
            }
            prop_assert_eq!(reached, interval.end());
        }
    }
}
