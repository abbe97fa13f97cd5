//! Splits a byte stream into lines with their positions. Memory is bounded whatever the stream
//! contains.

use std::io::{self, Read};

use super::line_hash::{LineHasher, hash_line};
use crate::db::Checkpoint;

/// The minimum size of the buffer. Larger ones were not faster.
const BLOCK_BYTES: usize = 256 * 1024;

/// A line without its line end (`\n` or `\r\n`).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// The line, cut at the maximum length.
    pub bytes: &'a [u8],
    /// The offset of its first byte in the stream.
    pub position: u64,
    /// The line number, counted from 1.
    pub number: u64,
    /// The full length in bytes, even if the line is cut.
    pub length: u64,
    /// Whether the stream ended without a line end.
    pub unfinished: bool,
    /// The whole line, unless it is longer than the buffer.
    whole: Result<&'a [u8], LongLine>,
}

/// A line that is longer than the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LongLine {
    hash: u64,
}

impl Line<'_> {
    /// The hash of the whole line, wherever it is cut.
    pub fn hash(&self) -> u64 {
        self.whole.map_or_else(|long| long.hash, hash_line)
    }
}

/// A position in a stream, with a hash of everything before it.
#[derive(Debug, Clone, Default)]
pub(super) struct StreamPosition {
    /// The offset in bytes.
    pub position: u64,
    /// The number of line ends before it.
    pub lines: u64,
    /// The state after hashing all bytes before it.
    pub hasher: blake3::Hasher,
}

impl StreamPosition {
    fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            position: i64::try_from(self.position).unwrap_or(i64::MAX),
            line: i64::try_from(self.lines).unwrap_or(i64::MAX),
            prefix_hash: Some(*self.hasher.finalize().as_bytes()),
        }
    }
}

/// Splits a stream into lines and skips a byte order mark at its start.
pub(super) struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    /// The bytes of `buffer` that are read but not returned as lines yet.
    filled: std::ops::Range<usize>,
    /// Everything before this position is hashed. It lags behind the lines returned, because
    /// hashing many lines at once is cheaper; only its line count is up to date.
    hashed: StreamPosition,
    /// Whether the bytes are hashed. If not, there are no checkpoints.
    is_hashed: bool,
    /// The index of that position in `buffer`.
    hashed_index: usize,
    max_line_bytes: usize,
    ended: bool,
    /// The beginning of a line that is longer than the buffer.
    cut: Vec<u8>,
    /// The checkpoint before the last line, if that line is unfinished.
    before_unfinished: Option<Checkpoint>,
    /// The same, if the unfinished line is left for a later run.
    left: Option<Checkpoint>,
    reads: u64,
}

impl<R: Read> Lines<R> {
    /// Splits `input`, whose first byte is at `start`. Lines are cut at `max_line_bytes`.
    ///
    /// # Errors
    /// Returns an error if the stream cannot be read.
    pub fn new(input: R, max_line_bytes: usize, start: StreamPosition) -> io::Result<Self> {
        let at_start = start.position == 0;
        let mut lines = Self {
            input,
            buffer: vec![0; BLOCK_BYTES.max(2 * max_line_bytes)],
            filled: 0..0,
            hashed: start,
            is_hashed: true,
            hashed_index: 0,
            max_line_bytes,
            ended: false,
            cut: vec![],
            before_unfinished: None,
            left: None,
            reads: 0,
        };
        while lines.filled.len() < 3 && !lines.ended {
            match lines.fill() {
                Err(error) if is_timeout(&error) => {}
                other => other?,
            }
        }
        if at_start && lines.pending().starts_with(b"\xef\xbb\xbf") {
            lines.filled.start += 3;
        }
        Ok(lines)
    }

    /// Splits `input` from its start, without hashing it for checkpoints.
    ///
    /// # Errors
    /// Returns an error if the stream cannot be read.
    pub fn without_checkpoints(input: R, max_line_bytes: usize) -> io::Result<Self> {
        let mut lines = Self::new(input, max_line_bytes, StreamPosition::default())?;
        lines.is_hashed = false;
        Ok(lines)
    }

    /// The bytes that are read but not returned yet. Before the first line these are at least
    /// three, unless the stream is shorter.
    pub fn pending(&self) -> &[u8] {
        &self.buffer[self.filled.clone()]
    }

    /// Reads until [`Self::pending`] satisfies a condition, the buffer is full, or the stream ends.
    ///
    /// # Errors
    /// Returns an error if the stream cannot be read.
    pub fn read_until(&mut self, is_enough: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        while !is_enough(self.pending()) && self.filled.len() < self.buffer.len() && !self.ended {
            match self.fill() {
                Err(error) if is_timeout(&error) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// The position after the lines returned so far.
    pub fn position(&self) -> u64 {
        self.hashed.position + (self.filled.start - self.hashed_index) as u64
    }

    /// The position after the bytes read so far.
    pub fn read_to(&self) -> u64 {
        self.position() + self.filled.len() as u64
    }

    /// The number of reads from the stream.
    pub fn reads(&self) -> u64 {
        self.reads
    }

    /// Keeps [`Self::checkpoint`] before the line at `position` if that line is unfinished, so that
    /// a later run reads it again.
    pub fn leave_unfinished(&mut self, position: i64) {
        self.left = self.left.or(self
            .before_unfinished
            .filter(|before| before.position == position));
    }

    /// The position after the lines returned so far, without a line that is left for a later run.
    pub fn checkpoint(&mut self) -> Checkpoint {
        self.left.unwrap_or_else(|| self.checkpoint_here())
    }

    fn checkpoint_here(&mut self) -> Checkpoint {
        self.update_hash();
        self.hashed.checkpoint()
    }

    /// Returns the next line, or `None` at the end of the stream.
    ///
    /// # Errors
    /// Returns an error if the stream cannot be read. After a timeout ([`is_timeout`]) it can be
    /// called again.
    pub fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        let mut searched = 0;
        loop {
            if let Some(found) = memchr::memchr(b'\n', &self.pending()[searched..]) {
                let length = searched + found;
                return Ok(Some(self.take(length)));
            }
            searched = self.filled.len();
            if searched == self.buffer.len() {
                return self.take_cut().map(Some);
            }
            if self.ended {
                return Ok((searched > 0).then(|| self.take_unfinished(searched)));
            }
            self.fill()?;
        }
    }

    /// Returns the next `length` bytes as a line and skips the line end after them.
    fn take(&mut self, length: usize) -> Line<'_> {
        let (start, position) = (self.filled.start, self.position());
        self.filled.start += length + 1;
        self.hashed.lines += 1;
        let bytes = trim_carriage_return(&self.buffer[start..start + length]);
        let kept = &bytes[..bytes.len().min(self.max_line_bytes)];
        Line {
            bytes: kept,
            position,
            number: self.hashed.lines,
            length: bytes.len() as u64,
            unfinished: false,
            whole: Ok(bytes),
        }
    }

    /// Returns the last `length` bytes of the stream, which have no line end. The line count stays
    /// the same, because anything appended to the stream later continues this line.
    fn take_unfinished(&mut self, length: usize) -> Line<'_> {
        let (start, position) = (self.filled.start, self.position());
        self.before_unfinished = Some(self.checkpoint_here());
        self.filled.start += length;
        let bytes = trim_carriage_return(&self.buffer[start..start + length]);
        let kept = &bytes[..bytes.len().min(self.max_line_bytes)];
        Line {
            bytes: kept,
            position,
            number: self.hashed.lines + 1,
            length: bytes.len() as u64,
            unfinished: true,
            whole: Ok(bytes),
        }
    }

    /// Returns a line that is longer than the buffer: keeps its beginning and counts the rest.
    fn take_cut(&mut self) -> io::Result<Line<'_>> {
        self.cut = self.pending()[..self.max_line_bytes].to_vec();
        let before = self.checkpoint_here();
        let position = self.position();
        let mut length = 0;
        let mut hasher = LineHasher::new();
        let unfinished = loop {
            if let Some(found) = memchr::memchr(b'\n', self.pending()) {
                length += found;
                hasher.update(&self.pending()[..found]);
                self.filled.start += found + 1;
                break false;
            }
            length += self.filled.len();
            hasher.update(self.pending());
            self.filled.start = self.filled.end;
            if self.ended {
                break true;
            }
            match self.fill() {
                Err(error) if is_timeout(&error) => {}
                other => other?,
            }
        };
        let number = self.hashed.lines + 1;
        if unfinished {
            self.before_unfinished = Some(before);
        } else {
            self.hashed.lines = number;
        }
        Ok(Line {
            bytes: &self.cut,
            position,
            number,
            length: length as u64,
            unfinished,
            whole: Err(LongLine {
                hash: hasher.finish(),
            }),
        })
    }

    /// Hashes the bytes of the lines returned since the last call.
    fn update_hash(&mut self) {
        let fresh = &self.buffer[self.hashed_index..self.filled.start];
        if self.is_hashed {
            self.hashed.hasher.update(fresh);
        }
        self.hashed.position += fresh.len() as u64;
        self.hashed_index = self.filled.start;
    }

    /// Moves the pending bytes to the front of the buffer and reads more behind them.
    fn fill(&mut self) -> io::Result<()> {
        self.update_hash();
        self.buffer.copy_within(self.filled.clone(), 0);
        self.filled = 0..self.filled.len();
        self.hashed_index = 0;
        let read = loop {
            match self.input.read(&mut self.buffer[self.filled.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.reads += 1;
        self.filled.end += read;
        self.ended = read == 0;
        Ok(())
    }
}

/// Whether a read timed out because the stream is idle. Reading can continue.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut
}

pub(super) fn trim_carriage_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns few bytes per read, as a pipe does.
    struct SmallReads<'a> {
        rest: &'a [u8],
        size: usize,
    }

    impl Read for SmallReads<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let size = self.size.min(buffer.len()).min(self.rest.len());
            let (piece, rest) = self.rest.split_at(size);
            buffer[..size].copy_from_slice(piece);
            self.rest = rest;
            Ok(size)
        }
    }

    fn collect(input: &[u8], size: usize, max_line_bytes: usize) -> Vec<(Vec<u8>, u64, u64, u64)> {
        let mut lines = Lines::new(
            SmallReads { rest: input, size },
            max_line_bytes,
            StreamPosition::default(),
        )
        .unwrap();
        let mut all = vec![];
        while let Some(line) = lines.next().unwrap() {
            all.push((line.bytes.to_vec(), line.position, line.number, line.length));
        }
        assert_eq!(lines.position(), input.len() as u64);
        let checkpoint = lines.checkpoint();
        assert_eq!(checkpoint.position, i64::try_from(input.len()).unwrap());
        assert_eq!(
            checkpoint.line,
            i64::try_from(input.split(|&byte| byte == b'\n').count() - 1).unwrap()
        );
        assert_eq!(
            checkpoint.prefix_hash,
            Some(*blake3::hash(input).as_bytes())
        );
        all
    }

    #[test]
    fn an_unfinished_line_can_be_left_and_continued() {
        for (input, max_line_bytes) in [
            (&b"one\ntw"[..], 10),
            (&[&b"one\n"[..], &b"x".repeat(600_000)].concat(), 1_024),
        ] {
            let mut lines = Lines::new(input, max_line_bytes, StreamPosition::default()).unwrap();
            assert!(!lines.next().unwrap().unwrap().unfinished);
            assert!(lines.next().unwrap().unwrap().unfinished);
            assert!(lines.next().unwrap().is_none());
            lines.leave_unfinished(0);
            let taken = lines.checkpoint();
            assert_eq!(
                (taken.position, taken.line),
                (i64::try_from(input.len()).unwrap(), 1)
            );
            lines.leave_unfinished(4);
            let left = lines.checkpoint();
            assert_eq!((left.position, left.line), (4, 1));
            assert_eq!(left.prefix_hash, Some(*blake3::hash(b"one\n").as_bytes()));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"one\ntw");
        let start = StreamPosition {
            position: 6,
            lines: 1,
            hasher,
        };
        let mut lines = Lines::new(&b"\nthree\n"[..], 10, start).unwrap();
        assert_eq!(lines.next().unwrap().unwrap().number, 2);
        assert_eq!(lines.next().unwrap().unwrap().number, 3);
        assert_eq!(
            lines.checkpoint().prefix_hash,
            Some(*blake3::hash(b"one\ntw\nthree\n").as_bytes())
        );
    }

    #[test]
    fn both_line_ends_and_a_missing_one_are_accepted() {
        let lines = collect(b"a\r\n\nbc", 1, 10);
        assert_eq!(
            lines,
            [
                (b"a".to_vec(), 0, 1, 1),
                (vec![], 3, 2, 0),
                (b"bc".to_vec(), 4, 3, 2)
            ]
        );
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert_eq!(
            collect(b"\xef\xbb\xbfx\n", 1, 10),
            [(b"x".to_vec(), 3, 1, 1)]
        );
    }

    #[test]
    fn a_line_longer_than_the_buffer_is_cut_and_the_next_is_complete() {
        let mut input = vec![b'x'; 1_000_000];
        input.extend(b"\nnext\n");
        let lines = collect(&input, 100_000, 1_024);
        assert_eq!(lines[0], (vec![b'x'; 1_024], 0, 1, 1_000_000));
        assert_eq!(lines[1], (b"next".to_vec(), 1_000_001, 2, 4));
    }

    #[test]
    fn the_hash_of_a_line_does_not_depend_on_where_it_is_cut() {
        for end in ["", "\n", "\r\n"] {
            for length in [10, 2_000, 300_000] {
                let input = "x".repeat(length) + end;
                let hashes = [1_024, 500_000].map(|max_line_bytes| {
                    let start = StreamPosition::default();
                    let mut lines = Lines::new(input.as_bytes(), max_line_bytes, start).unwrap();
                    lines.next().unwrap().unwrap().hash()
                });
                assert_eq!(hashes, [hash_line("x".repeat(length).as_bytes()); 2]);
            }
        }
    }

    proptest! {
        #[test]
        fn lines_agree_with_the_standard_library(
            text in "[ab\n]{0,200}",
            size in 1_usize..50,
        ) {
            let lines: Vec<_> = collect(text.as_bytes(), size, 1_024).into_iter().map(|line| line.0).collect();
            let expected: Vec<_> = text.lines().map(|line| line.as_bytes().to_vec()).collect();
            prop_assert_eq!(lines, expected);
        }
    }
}
