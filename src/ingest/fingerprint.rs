//! What the ledger keeps of a file's lines, so that a copy is recognised whatever was changed in
//! it.
//!
//! Lines are compared without their line ends, and without a byte order mark. A fingerprint has two
//! parts, both of bounded size:
//!
//! - **Digests**: 16 bits of the hash of all lines so far, after each of the first 65,536 lines, and
//!   then after every second line up to twice as many, every fourth up to four times as many, and so
//!   on. They tell whether one file is a prefix of another, and which line differs first.
//! - **Samples**: the hashes of some records. A record is sampled if its hash is among the lowest
//!   `16 / line number`, so that the first 16 records always are, and any two halves of a file have
//!   about as many. The same record is sampled in each file, because the hash decides. The samples
//!   tell how many records two files have in common, wherever they are.
//!
//! To look for common records, more records of the new file are used than are stored: those with the
//! lowest hashes of all.

use rustc_hash::FxHashMap;

/// The expected number of samples in any stretch from line `n` to line `2.7 n`.
const SAMPLE_RATE: u64 = 16;

/// The number of records with the lowest hashes that are looked up, or up to twice as many.
const LOOKED_UP: usize = 1_024;

/// Up to here, there is a digest after every line.
const EVERY_LINE: u64 = 65_536;

/// A record in a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    pub hash: u64,
    /// The number of the line where it occurs first, from 1.
    pub line: u64,
}

/// The fingerprint of a file.
#[derive(Debug, Clone)]
pub(super) struct Fingerprint {
    lines: u64,
    records: u64,
    chain: u64,
    digests: Vec<u16>,
    samples: FxHashMap<u64, u64>,
    /// The records whose hash is at most `threshold`.
    lowest: FxHashMap<u64, u64>,
    threshold: u64,
}

impl Default for Fingerprint {
    fn default() -> Self {
        Self {
            lines: 0,
            records: 0,
            chain: 0,
            digests: vec![],
            samples: FxHashMap::default(),
            lowest: FxHashMap::default(),
            threshold: u64::MAX,
        }
    }
}

impl Fingerprint {
    /// Adds a line. `is_record` is called for few lines of a long file; it tells whether the line
    /// can be parsed, because preambles and headers may be the same in different files.
    pub fn add(&mut self, line: &[u8], length: u64, is_record: impl FnOnce(&[u8]) -> bool) {
        self.lines += 1;
        self.records += u64::from(!line.is_empty());
        let hash = hash_line(line, length);
        self.chain = fold(self.chain.rotate_left(23) ^ hash, FACTORS[3]);
        if is_recorded(self.lines) {
            self.digests.push(digest(self.chain));
        }
        let is_sampled = is_sampled(hash, self.lines);
        if (is_sampled || hash <= self.threshold) && !line.is_empty() && is_record(line) {
            if is_sampled {
                self.samples.entry(hash).or_insert(self.lines);
            }
            if hash <= self.threshold {
                self.lowest.entry(hash).or_insert(self.lines);
                if self.lowest.len() >= 2 * LOOKED_UP {
                    self.threshold /= 2;
                    self.lowest.retain(|&hash, _| hash <= self.threshold);
                }
            }
        }
    }

    /// The number of lines, including a last one without a line end.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The number of lines that are not empty, including a header.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Equal for files with equal lines.
    pub fn identity(&self) -> String {
        format!("{}-{:016x}", self.lines, self.chain)
    }

    pub fn digests(&self) -> &[u16] {
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

    /// Estimates how many records after line `start` this file has in common with another, of which
    /// `found` are the samples that were looked up. Also returns how many of those there are.
    pub fn in_common(&self, found: &[Sample], start: u64) -> (usize, f64) {
        let mut count = 0;
        let mut estimate = 0.0;
        for sample in found {
            let line = self.lowest.get(&sample.hash);
            let Some(&line) = line.or_else(|| self.samples.get(&sample.hash)) else {
                continue;
            };
            if line <= start {
                continue;
            }
            count += 1;
            // Each stands for the records that were neither sampled there nor looked up here.
            let looked_up = as_float(self.threshold) / as_float(u64::MAX);
            let probability = sampled_share(sample.line).min(sampled_share(line).max(looked_up));
            estimate += 1.0 / probability;
        }
        (count, estimate)
    }

    /// The first line at which a digest differs from one of `others`, among the first `lines` lines.
    /// The digests after each line cover all lines before it.
    pub fn first_difference(&self, others: &[u16], lines: u64) -> Option<u64> {
        let compared = recorded_up_to(lines.min(self.lines));
        let both = self.digests.iter().zip(others).take(compared);
        let index = both.take_while(|(ours, theirs)| ours == theirs).count();
        let is_compared = index < compared.min(others.len());
        is_compared.then(|| recorded_line(index))
    }

    /// How many lines at the end are after the last digest.
    pub fn lines_after_digests(&self) -> u64 {
        self.lines - self.digests.len().checked_sub(1).map_or(0, recorded_line)
    }

    /// The digest of all lines.
    pub fn chain(&self) -> u64 {
        self.chain
    }
}

fn samples(of: &FxHashMap<u64, u64>) -> impl Iterator<Item = Sample> {
    of.iter().map(|(&hash, &line)| Sample { hash, line })
}

/// Whether a record with this hash is sampled at this line.
fn is_sampled(hash: u64, line: u64) -> bool {
    (u128::from(hash) * u128::from(line)) >> 64 < u128::from(SAMPLE_RATE)
}

/// The share of records that are sampled at this line.
fn sampled_share(line: u64) -> f64 {
    (as_float(SAMPLE_RATE) / as_float(line)).min(1.0)
}

#[expect(clippy::cast_precision_loss, reason = "for estimates only")]
fn as_float(number: u64) -> f64 {
    number as f64
}

#[expect(clippy::cast_possible_truncation, reason = "a part of the hash")]
fn digest(chain: u64) -> u16 {
    chain as u16
}

/// How many times the number of lines has doubled since [`EVERY_LINE`]: 1 after the first of them.
fn doublings(line: u64) -> u32 {
    ((line - 1) / EVERY_LINE)
        .checked_ilog2()
        .map_or(0, |log| log + 1)
}

/// Whether there is a digest after this line.
fn is_recorded(line: u64) -> bool {
    line <= EVERY_LINE || line.is_multiple_of(1 << doublings(line))
}

/// The number of digests after the first `lines` lines.
fn recorded_up_to(lines: u64) -> usize {
    let doublings = if lines == 0 { 0 } else { doublings(lines) };
    let count = if doublings == 0 {
        lines
    } else {
        let start = EVERY_LINE << (doublings - 1);
        EVERY_LINE + EVERY_LINE / 2 * u64::from(doublings - 1) + ((lines - start) >> doublings)
    };
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// The line after which the digest with this index is: the inverse of [`recorded_up_to`].
fn recorded_line(index: usize) -> u64 {
    let index = index as u64;
    let Some(later) = index.checked_sub(EVERY_LINE) else {
        return index + 1;
    };
    let (doublings, place) = (later / (EVERY_LINE / 2), later % (EVERY_LINE / 2));
    (EVERY_LINE << doublings) + ((place + 1) << (doublings + 1))
}

/// Odd numbers without a pattern (the digits of π).
const FACTORS: [u64; 4] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7345,
    0xa409_3822_299f_31d1,
    0x082e_fa98_ec4e_6c89,
];

/// Multiplies, and combines both halves of the product.
#[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    product as u64 ^ (product >> 64) as u64
}

/// Hashes a line of `length` bytes, which may be cut. The ledger contains these hashes, so the
/// function must not change.
fn hash_line(line: &[u8], length: u64) -> u64 {
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    let mut hash = length ^ FACTORS[0];
    let (pairs, rest) = line.as_chunks::<16>();
    for pair in pairs {
        hash = fold(word(&pair[..8]) ^ FACTORS[1], word(&pair[8..]) ^ hash);
    }
    if !rest.is_empty() {
        let (left, right) = rest.split_at(rest.len().min(8));
        hash = fold(word(left) ^ FACTORS[1], word(right) ^ hash);
    }
    fold(hash ^ FACTORS[2], FACTORS[3])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(lines: impl IntoIterator<Item = &'a str>) -> Fingerprint {
        let mut fingerprint = Fingerprint::default();
        for line in lines {
            fingerprint.add(line.as_bytes(), line.len() as u64, |_| true);
        }
        fingerprint
    }

    fn numbered(lines: std::ops::Range<u64>) -> Fingerprint {
        let mut fingerprint = Fingerprint::default();
        for number in lines {
            let line = format!("{{\"sim-card-id\":\"89440001\",\"bytes-used\":{number}}}");
            fingerprint.add(line.as_bytes(), line.len() as u64, |_| true);
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
    }

    #[test]
    fn the_first_different_line_is_found() {
        let stored = of(["a", "b", "c", "d"]);
        let difference = |lines: &[&str], stored_lines| {
            of(lines.iter().copied()).first_difference(stored.digests(), stored_lines)
        };
        assert_eq!(difference(&["a", "b", "c", "d", "e"], 4), None);
        assert_eq!(difference(&["a", "b"], 4), None);
        assert_eq!(difference(&["a", "x", "c", "d"], 4), Some(2));
        assert_eq!(difference(&["a", "b", "x"], 4), Some(3));
        assert_eq!(difference(&["a", "b", "x"], 2), None);
    }

    #[test]
    fn hashes_never_change() {
        assert_eq!(
            of(["a,b", "", "0123456789abcdef!"]).identity(),
            "3-2e467b080cc64109"
        );
        let different = [
            &b""[..],
            b"a",
            b"b",
            b"\0",
            b"\0\0",
            b"12345678",
            b"123456789",
            b"0123456789abcdef",
        ];
        let hashes: std::collections::HashSet<u64> = different
            .iter()
            .map(|line| hash_line(line, line.len() as u64))
            .collect();
        assert_eq!(hashes.len(), different.len());
    }

    #[test]
    fn the_number_of_common_records_is_estimated() {
        let found = |stored: &Fingerprint, new: &Fingerprint| -> Vec<Sample> {
            let looked_up: std::collections::HashSet<u64> =
                new.looked_up().map(|sample| sample.hash).collect();
            let is_found = |sample: &Sample| looked_up.contains(&sample.hash);
            stored.samples().filter(is_found).collect()
        };
        for (stored, new, start, common) in [
            (0..200, 0..200, 0, 200.0),
            (0..200, 100..300, 0, 100.0),
            (0..200, 0..300, 200, 0.0),
            (0..100_000, 0..1_000, 0, 1_000.0),
            (0..100_000, 50_000..150_000, 0, 50_000.0),
            (50_000..100_000, 0..100_000, 0, 50_000.0),
            (0..1_000, 1_000..2_000, 0, 0.0),
        ] {
            let (stored, new) = (numbered(stored), numbered(new));
            let (count, estimate) = new.in_common(&found(&stored, &new), start);
            assert!(
                (estimate - common).abs() <= common * 0.6,
                "{estimate} instead of {common}"
            );
            assert_eq!(count >= 8, common > 0.0, "{count}");
        }
        assert!(numbered(0..1_000_000).samples().count() < 300);
        assert!(numbered(0..1_000_000).looked_up().count() < 2_400);
    }
}
