//! What the ledger keeps of a file's lines, so that a copy is recognised whatever was changed in
//! it.
//!
//! Lines are compared without their line ends, and without a byte order mark. A fingerprint has two
//! parts, both of bounded size:
//!
//! - **Digests**: the hashes of the first 16,384 lines, and then hashes of all lines so far, 1,024
//!   from there up to twice as many lines, 1,024 up to four times as many, and so on. They tell
//!   whether one file is a prefix of another, which line differs first, and exactly which of the first
//!   lines are in both.
//! - **Samples**: the hashes of some records. A record is sampled if its hash is among the lowest
//!   (see [`sampled_share`]): the first 32 records always are, and at least one in 64 of those up to
//!   line 32,768. The same record is sampled in each file, because the hash decides. They find the files
//!   that have records in common, and tell how many of the later records are, wherever they are.
//!
//! To look for common records, more records of the new file are used than are stored: those with the
//! lowest hashes of all.

use std::ops::RangeInclusive;

use rustc_hash::FxHashMap;

use super::line_hash::chain;

/// The number of records with the lowest hashes that are looked up, or up to twice as many.
const LOOKED_UP: usize = 1_024;

/// Up to here, the hash of every line is kept.
const EVERY_LINE: u64 = 16_384;

/// The number of digests in each doubling of lines after that.
const PER_DOUBLING: u64 = 1_024;

/// The bit of a line's hash that tells whether the line is a record.
const IS_RECORD: u64 = 1;

/// A record in a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    pub hash: u64,
    /// The number of the line where it occurs first, from 1.
    pub line: u64,
}

/// Where a record occurs in a file.
#[derive(Debug, Clone, Copy)]
struct Occurrence {
    first: u64,
    last: u64,
}

/// The fingerprint of a file.
#[derive(Debug, Clone)]
pub(super) struct Fingerprint {
    lines: u64,
    records: u64,
    chain: u64,
    chain_before_last: u64,
    digests: Vec<u64>,
    samples: FxHashMap<u64, Occurrence>,
    /// The records whose hash is at most `threshold`.
    lowest: FxHashMap<u64, Occurrence>,
    threshold: u64,
    /// Whether the last line has no line end and may be the beginning of a record.
    pub last_is_cut: bool,
}

impl Default for Fingerprint {
    fn default() -> Self {
        Self {
            lines: 0,
            records: 0,
            chain: 0,
            chain_before_last: 0,
            digests: vec![],
            samples: FxHashMap::default(),
            lowest: FxHashMap::default(),
            threshold: u64::MAX,
            last_is_cut: false,
        }
    }
}

impl Fingerprint {
    /// Adds a line by its hash. `is_record` tells whether the line can be parsed, because preambles
    /// and headers may be the same in different files. After the first lines, it is called for few.
    pub fn add(&mut self, hash: u64, is_empty: bool, is_record: impl FnOnce() -> bool) {
        self.lines += 1;
        let hash = hash & !IS_RECORD;
        self.chain_before_last = self.chain;
        self.chain = chain(self.chain, hash);
        let is_sampled = is_sampled(hash, self.lines);
        let is_examined = self.lines <= EVERY_LINE || is_sampled || hash <= self.threshold;
        let is_record = !is_empty && (!is_examined || is_record());
        self.records += u64::from(is_record);
        if self.lines <= EVERY_LINE {
            self.digests.push(hash | u64::from(is_record));
        } else if is_recorded(self.lines) {
            self.digests.push(self.chain);
        }
        if !is_examined || !is_record {
            return;
        }
        let line = self.lines;
        let occurs = |map: &mut FxHashMap<u64, Occurrence>| {
            let new = Occurrence {
                first: line,
                last: line,
            };
            map.entry(hash).or_insert(new).last = line;
        };
        if is_sampled || self.samples.contains_key(&hash) {
            occurs(&mut self.samples);
        }
        if hash <= self.threshold {
            occurs(&mut self.lowest);
            if self.lowest.len() >= 2 * LOOKED_UP {
                self.threshold /= 2;
                self.lowest.retain(|&hash, _| hash <= self.threshold);
            }
        }
    }

    /// The number of lines, including a last one without a line end.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The number of records after line `start`. After the first lines, every line that is not empty
    /// counts.
    pub fn records_after(&self, start: u64) -> u64 {
        let before = records_up_to(&self.digests, start);
        self.records.saturating_sub(before)
    }

    /// Equal for files with equal lines.
    pub fn identity(&self) -> String {
        format!("{}-{:016x}", self.lines, self.chain)
    }

    pub fn digests(&self) -> &[u64] {
        &self.digests
    }

    pub fn samples(&self) -> impl Iterator<Item = Sample> {
        samples(&self.samples)
    }

    /// The records to look up in the ledger.
    pub fn looked_up(&self) -> impl Iterator<Item = Sample> {
        let others = samples(&self.samples).filter(|sample| sample.hash > self.threshold);
        samples(&self.lowest).chain(others)
    }

    /// The known records after line `start`.
    pub fn known_after(&self, start: u64) -> KnownRecords {
        let skipped = first(&self.digests, start).len();
        self.known(&first(&self.digests, EVERY_LINE)[skipped..], |occurrence| {
            occurrence.last > start.max(EVERY_LINE)
        })
    }

    /// The known records up to line `end`.
    pub fn known_up_to(&self, end: u64) -> KnownRecords {
        self.known(first(&self.digests, end), |occurrence| {
            occurrence.first > EVERY_LINE && occurrence.first <= end
        })
    }

    fn known(&self, digests: &[u64], later: impl Fn(&Occurrence) -> bool) -> KnownRecords {
        let mut known = KnownRecords::of_lines(digests);
        let looked_up = as_float(self.threshold) / as_float(u64::MAX);
        for (map, share) in [(&self.lowest, looked_up), (&self.samples, 0.0)] {
            for (&hash, occurrence) in map.iter().filter(|(_, occurrence)| later(occurrence)) {
                let share = sampled_share(occurrence.first).max(share);
                known.add_sample(hash, 1, share);
            }
        }
        known
    }

    /// The lines between which a digest differs from one of `others` for the first time, among the
    /// first `lines` lines.
    pub fn first_difference(&self, others: &[u64], lines: u64) -> Option<RangeInclusive<u64>> {
        let compared = recorded_up_to(lines.min(self.lines));
        let both = self.digests.iter().zip(others).take(compared);
        // Formats may have been guessed differently.
        let index = both
            .take_while(|(ours, theirs)| *ours | IS_RECORD == *theirs | IS_RECORD)
            .count();
        let is_compared = index < compared.min(others.len());
        is_compared.then(|| {
            let same = index.checked_sub(1).map_or(0, recorded_line);
            same + 1..=recorded_line(index)
        })
    }

    /// The hash of all lines.
    pub fn chain(&self) -> u64 {
        self.chain
    }

    /// The hash of all lines but the last.
    pub fn chain_before_last(&self) -> u64 {
        self.chain_before_last
    }
}

/// The records that are known of a part of a file, and how many each stands for.
#[derive(Debug, Default)]
pub(super) struct KnownRecords(FxHashMap<u64, Known>);

#[derive(Debug, Clone, Copy)]
struct Known {
    /// How often it occurs.
    count: u64,
    /// The share of such records that are known.
    share: f64,
}

/// How many records two parts of files have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Overlap {
    /// How many of those that are known.
    pub found: u64,
    /// The estimate for all.
    pub records: f64,
    /// The standard deviation of the estimate; 0 if it is exact.
    pub deviation: f64,
}

impl KnownRecords {
    /// The records among the first lines of a file.
    fn of_lines(digests: &[u64]) -> Self {
        let mut known = Self::default();
        for digest in digests.iter().filter(|&digest| digest & IS_RECORD != 0) {
            let new = Known {
                count: 0,
                share: 1.0,
            };
            known.0.entry(digest & !IS_RECORD).or_insert(new).count += 1;
        }
        known
    }

    /// The known records among the first `lines` lines of a file with these digests, of which the
    /// ledger has found these samples.
    pub fn of_stored(digests: &[u64], found: impl Iterator<Item = Sample>, lines: u64) -> Self {
        let mut known = Self::of_lines(first(digests, lines));
        for sample in found.filter(|sample| sample.line > EVERY_LINE && sample.line <= lines) {
            known.add_sample(sample.hash, 1, sampled_share(sample.line));
        }
        known
    }

    /// Adds a sampled record, unless it is known better.
    fn add_sample(&mut self, hash: u64, count: u64, share: f64) {
        self.0.entry(hash).or_insert(Known { count, share });
    }

    /// Adds a record that was found in several files, at the earliest in this line.
    pub fn add_found(&mut self, sample: Sample, count: u64) {
        self.add_sample(sample.hash, count, sampled_share(sample.line));
    }

    /// How many records these stand for.
    pub fn records(&self) -> f64 {
        let known = self.0.values();
        known.map(|known| as_float(known.count) / known.share).sum()
    }

    /// Estimates how many of these records are among `others`. A record that occurs several times in
    /// both counts as often.
    pub fn overlap(&self, others: &Self) -> Overlap {
        let (mut found, mut records, mut variance) = (0, 0.0, 0.0);
        for (hash, known) in &self.0 {
            let Some(other) = others.0.get(hash) else {
                continue;
            };
            let count = known.count.min(other.count);
            // Either is known if its hash is low enough, so both are if the lower share is.
            let share = known.share.min(other.share);
            found += count;
            records += as_float(count) / share;
            variance += as_float(count) * (1.0 - share) / (share * share);
        }
        Overlap {
            found,
            records,
            deviation: variance.sqrt(),
        }
    }
}

/// The number of records among the first `lines` lines of a file with these digests. After the first
/// lines, every line counts.
pub(super) fn records_up_to(digests: &[u64], lines: u64) -> u64 {
    records_of(first(digests, lines)) + lines.saturating_sub(EVERY_LINE)
}

fn records_of(digests: &[u64]) -> u64 {
    digests.iter().map(|digest| digest & IS_RECORD).sum()
}

/// The hashes of the first `lines` lines, as far as there are any.
fn first(digests: &[u64], lines: u64) -> &[u64] {
    let lines = usize::try_from(lines.min(EVERY_LINE)).unwrap_or(usize::MAX);
    &digests[..digests.len().min(lines)]
}

fn samples(of: &FxHashMap<u64, Occurrence>) -> impl Iterator<Item = Sample> {
    of.iter().map(|(&hash, occurrence)| Sample {
        hash,
        line: occurrence.first,
    })
}

/// The share of records that are sampled at this line, as a fraction. It never grows.
fn sampled_fraction(line: u64) -> (u64, u64) {
    match line {
        0..=32 => (1, 1),
        33..=2_048 => (32, line),
        2_049..=32_768 => (1, 64),
        _ => (512, line),
    }
}

fn sampled_share(line: u64) -> f64 {
    let (part, of) = sampled_fraction(line);
    as_float(part) / as_float(of)
}

/// Whether a record with this hash is sampled at this line.
fn is_sampled(hash: u64, line: u64) -> bool {
    let (part, of) = sampled_fraction(line);
    u128::from(hash) * u128::from(of) < u128::from(part) << 64
}

#[expect(clippy::cast_precision_loss, reason = "for estimates only")]
pub(super) fn as_float(number: u64) -> f64 {
    number as f64
}

/// How many times the number of lines has doubled since [`EVERY_LINE`]: 1 after the first of them.
fn doublings(line: u64) -> u32 {
    ((line - 1) / EVERY_LINE)
        .checked_ilog2()
        .map_or(0, |log| log + 1)
}

/// Whether there is a digest after this line.
fn is_recorded(line: u64) -> bool {
    line <= EVERY_LINE || line.is_multiple_of(distance(doublings(line)))
}

/// How many lines apart the digests are, after this many doublings.
fn distance(doublings: u32) -> u64 {
    (EVERY_LINE / PER_DOUBLING) << (doublings - 1)
}

/// The number of digests after the first `lines` lines.
fn recorded_up_to(lines: u64) -> usize {
    let doublings = if lines == 0 { 0 } else { doublings(lines) };
    let count = if doublings == 0 {
        lines
    } else {
        let start = EVERY_LINE << (doublings - 1);
        let before = EVERY_LINE + PER_DOUBLING * u64::from(doublings - 1);
        before + (lines - start) / distance(doublings)
    };
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// How many lines among the first `lines` are after the last digest.
pub(super) fn lines_after_digests(lines: u64) -> u64 {
    let recorded = recorded_up_to(lines);
    lines - recorded.checked_sub(1).map_or(0, recorded_line)
}

/// The line after which the digest with this index is: the inverse of [`recorded_up_to`].
fn recorded_line(index: usize) -> u64 {
    let index = index as u64;
    let Some(later) = index.checked_sub(EVERY_LINE) else {
        return index + 1;
    };
    let doublings = u32::try_from(later / PER_DOUBLING).unwrap_or(u32::MAX);
    let start = EVERY_LINE << doublings;
    start + (later % PER_DOUBLING + 1) * distance(doublings + 1)
}

#[cfg(test)]
mod tests {
    use super::super::line_hash::hash_line;
    use super::*;

    fn of<'a>(lines: impl IntoIterator<Item = &'a str>) -> Fingerprint {
        let mut fingerprint = Fingerprint::default();
        for line in lines {
            fingerprint.add(hash_line(line.as_bytes()), line.is_empty(), || true);
        }
        fingerprint
    }

    fn numbered(lines: std::ops::Range<u64>) -> Fingerprint {
        let mut fingerprint = Fingerprint::default();
        for number in lines {
            let line = format!("{{\"sim-card-id\":\"89440001\",\"bytes-used\":{number}}}");
            fingerprint.add(hash_line(line.as_bytes()), false, || true);
        }
        fingerprint
    }

    #[test]
    fn digests_are_where_they_are_expected() {
        let mut count = 0;
        for line in 1..=EVERY_LINE * 9 {
            if is_recorded(line) {
                assert_eq!(recorded_line(count), line);
                count += 1;
            }
            assert_eq!(recorded_up_to(line), count, "{line}");
        }
        assert_eq!(recorded_up_to(0), 0);
        assert_eq!(numbered(0..EVERY_LINE + 100).digests().len(), 16_390);
    }

    #[test]
    fn the_first_different_line_is_found() {
        let stored = of(["a", "b", "c", "d"]);
        let difference = |lines: &[&str], stored_lines| {
            of(lines.iter().copied()).first_difference(stored.digests(), stored_lines)
        };
        assert_eq!(difference(&["a", "b", "c", "d", "e"], 4), None);
        assert_eq!(difference(&["a", "b"], 4), None);
        assert_eq!(difference(&["a", "x", "c", "d"], 4), Some(2..=2));
        assert_eq!(difference(&["a", "b", "x"], 4), Some(3..=3));
        assert_eq!(difference(&["a", "b", "x"], 2), None);
        let others = numbered(0..20_000);
        let mut changed = numbered(0..EVERY_LINE + 20);
        changed.add(0, false, || true);
        for _ in EVERY_LINE + 21..20_000 {
            changed.add(1, false, || true);
        }
        let range = changed.first_difference(others.digests(), 20_000);
        assert_eq!(range, Some(EVERY_LINE + 17..=EVERY_LINE + 32));
    }

    #[test]
    fn records_are_counted_as_often_as_they_occur() {
        let stored = of(["a", "a", "a", "b", "c"]);
        let new = of(["a", "a", "x", "c", "c"]);
        let known = KnownRecords::of_stored(stored.digests(), std::iter::empty(), 4);
        let overlap = new.known_after(0).overlap(&known);
        assert_eq!(overlap.found, 2);
        assert!(overlap.deviation < f64::EPSILON);
        assert!((new.known_after(1).records() - 4.0).abs() < f64::EPSILON);
        let doubled = of(["a", "b", "c", "a", "b", "c"]);
        let overlap = doubled.known_after(3).overlap(&doubled.known_up_to(3));
        assert_eq!(overlap.found, 3);
        assert_eq!(doubled.records_after(3), 3);
    }

    #[test]
    fn the_number_of_common_records_is_estimated() {
        let common = |stored: &Fingerprint, new: &Fingerprint, start| {
            let looked_up: std::collections::HashSet<u64> =
                new.looked_up().map(|sample| sample.hash).collect();
            let is_found = |sample: &Sample| looked_up.contains(&sample.hash);
            let found = stored.samples().filter(is_found);
            let known = KnownRecords::of_stored(stored.digests(), found, stored.lines());
            new.known_after(start).overlap(&known)
        };
        for (stored, new, start, expected) in [
            (0..200, 0..200, 0, 200.0),
            (0..200, 100..300, 0, 100.0),
            (0..200, 0..300, 200, 0.0),
            (0..100_000, 0..1_000, 0, 1_000.0),
            (0..100_000, 50_000..150_000, 0, 50_000.0),
            (50_000..100_000, 0..100_000, 0, 50_000.0),
            (0..24_000, 22_000..23_000, 0, 1_000.0),
            (0..1_000, 1_000..2_000, 0, 0.0),
        ] {
            let (stored, new) = (numbered(stored), numbered(new));
            let overlap = common(&stored, &new, start);
            let is_exact = stored.lines() <= EVERY_LINE && new.lines() <= EVERY_LINE;
            let allowed = if is_exact { 0.0 } else { expected * 0.6 };
            assert!(
                (overlap.records - expected).abs() <= allowed,
                "{overlap:?} instead of {expected}"
            );
            assert_eq!(overlap.found >= 8, expected > 0.0, "{overlap:?}");
        }
        let mut doubled = numbered(0..60_000);
        for number in 0..60_000 {
            let line = format!("{{\"sim-card-id\":\"89440001\",\"bytes-used\":{number}}}");
            doubled.add(hash_line(line.as_bytes()), false, || true);
        }
        let overlap = doubled
            .known_after(60_000)
            .overlap(&doubled.known_up_to(60_000));
        assert!((overlap.records - 60_000.0).abs() < 20_000.0, "{overlap:?}");
        assert!(numbered(0..1_000_000).samples().count() < 2_600);
        assert!(numbered(0..1_000_000).looked_up().count() < 5_000);
        assert!(numbered(0..1_000_000).digests().len() < 23_000);
    }
}
