//! Lines of a byte stream with their place in it, in memory that is bounded whatever the stream holds.

use std::io::{self, Read};

use crate::db::Checkpoint;

/// How much is read at once. Larger blocks measured no faster.
const BLOCK_BYTES: usize = 256 * 1024;

/// A line without its line end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// The line, or its first bytes where it is longer than a record may be.
    pub bytes: &'a [u8],
    /// Offset of its first byte in the stream.
    pub position: u64,
    /// Its number, from 1.
    pub number: u64,
    /// Its full length in bytes.
    pub length: u64,
    /// Whether the stream ended before the line did.
    pub unfinished: bool,
}

/// A place in a stream, with a hash of everything before it.
#[derive(Debug, Clone, Default)]
pub(super) struct StreamPosition {
    /// How many bytes are before it.
    pub position: u64,
    /// How many lines end before it.
    pub lines: u64,
    /// Has been fed all bytes before it.
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

/// Splits a stream into lines. A byte order mark at the start is passed over.
pub(super) struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    /// The part of `buffer` that holds bytes not yet handed out.
    filled: std::ops::Range<usize>,
    /// The place of `buffer[hashed]`, from which on no byte is hashed yet: many lines at once cost less.
    place: StreamPosition,
    hashed: usize,
    longest: usize,
    ended: bool,
    /// The beginning of a line that is longer than the buffer.
    cut: Vec<u8>,
    /// The place before the last line, if that is unfinished.
    before_unfinished: Option<Checkpoint>,
    /// The same, once that line is left.
    left: Option<Checkpoint>,
    reads: u64,
}

impl<R: Read> Lines<R> {
    /// Lines of `input`, cut at `longest` bytes. The stream's first byte is at `place`.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub fn new(input: R, longest: usize, place: StreamPosition) -> io::Result<Self> {
        let at_start = place.position == 0;
        let mut lines = Self {
            input,
            buffer: vec![0; BLOCK_BYTES.max(2 * longest)],
            filled: 0..0,
            place,
            hashed: 0,
            longest,
            ended: false,
            cut: vec![],
            before_unfinished: None,
            left: None,
            reads: 0,
        };
        while lines.filled.len() < 3 && !lines.ended {
            match lines.fill() {
                Err(error) if is_silence(&error) => {}
                other => other?,
            }
        }
        if at_start && lines.pending().starts_with(b"\xef\xbb\xbf") {
            lines.filled.start += 3;
        }
        Ok(lines)
    }

    /// The bytes at hand that are not handed out yet; at first, at least three of them unless the stream is shorter.
    pub fn pending(&self) -> &[u8] {
        &self.buffer[self.filled.clone()]
    }

    /// How many bytes of the stream have been handed out.
    pub fn position(&self) -> u64 {
        self.place.position + (self.filled.start - self.hashed) as u64
    }

    /// How many bytes of the stream have been read.
    pub fn read_to(&self) -> u64 {
        self.position() + self.filled.len() as u64
    }

    /// How often the stream was read.
    pub fn reads(&self) -> u64 {
        self.reads
    }

    /// Leaves the line at `position` to whoever reads the stream again, if it is unfinished.
    pub fn leave_unfinished(&mut self, position: i64) {
        self.left = self.left.or(self
            .before_unfinished
            .filter(|before| before.position == position));
    }

    /// The place behind all lines that were handed out, but for one that is left.
    pub fn checkpoint(&mut self) -> Checkpoint {
        self.left.unwrap_or_else(|| self.checkpoint_here())
    }

    fn checkpoint_here(&mut self) -> Checkpoint {
        self.hash_up();
        self.place.checkpoint()
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// The stream cannot be read. After [`is_silence`], this can be called again.
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

    /// Hands out the next `length` bytes as a line and passes over the line end behind them.
    fn take(&mut self, length: usize) -> Line<'_> {
        let (start, position) = (self.filled.start, self.position());
        self.filled.start += length + 1;
        self.place.lines += 1;
        let bytes = without_return(&self.buffer[start..start + length]);
        let kept = &bytes[..bytes.len().min(self.longest)];
        Line {
            bytes: kept,
            position,
            number: self.place.lines,
            length: bytes.len() as u64,
            unfinished: false,
        }
    }

    /// Hands out the last `length` bytes of the stream, behind which there is no line end. So no line more has
    /// ended: where the stream goes on one day, it goes on in this line.
    fn take_unfinished(&mut self, length: usize) -> Line<'_> {
        let (start, position) = (self.filled.start, self.position());
        self.before_unfinished = Some(self.checkpoint_here());
        self.filled.start += length;
        let bytes = without_return(&self.buffer[start..start + length]);
        let kept = &bytes[..bytes.len().min(self.longest)];
        Line {
            bytes: kept,
            position,
            number: self.place.lines + 1,
            length: bytes.len() as u64,
            unfinished: true,
        }
    }

    /// A line that is longer than the buffer: its beginning is kept, the rest only counted.
    fn take_cut(&mut self) -> io::Result<Line<'_>> {
        self.cut = self.pending()[..self.longest].to_vec();
        let before = self.checkpoint_here();
        let position = self.position();
        let mut length = 0;
        let unfinished = loop {
            if let Some(found) = memchr::memchr(b'\n', self.pending()) {
                length += found;
                self.filled.start += found + 1;
                break false;
            }
            length += self.filled.len();
            self.filled.start = self.filled.end;
            if self.ended {
                break true;
            }
            match self.fill() {
                Err(error) if is_silence(&error) => {}
                other => other?,
            }
        };
        let number = self.place.lines + 1;
        if unfinished {
            self.before_unfinished = Some(before);
        } else {
            self.place.lines = number;
        }
        Ok(Line {
            bytes: &self.cut,
            position,
            number,
            length: length as u64,
            unfinished,
        })
    }

    /// Hashes what has been handed out since the last time.
    fn hash_up(&mut self) {
        let fresh = &self.buffer[self.hashed..self.filled.start];
        self.place.hasher.update(fresh);
        self.place.position += fresh.len() as u64;
        self.hashed = self.filled.start;
    }

    /// Reads more, after moving what is left to the front.
    fn fill(&mut self) -> io::Result<()> {
        self.hash_up();
        self.buffer.copy_within(self.filled.clone(), 0);
        self.filled = 0..self.filled.len();
        self.hashed = 0;
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

/// Whether the stream is only silent for a while.
pub(super) fn is_silence(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads in pieces, as a pipe does.
    struct Pieces<'a> {
        rest: &'a [u8],
        size: usize,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let size = self.size.min(buffer.len()).min(self.rest.len());
            let (piece, rest) = self.rest.split_at(size);
            buffer[..size].copy_from_slice(piece);
            self.rest = rest;
            Ok(size)
        }
    }

    fn collect(input: &[u8], size: usize, longest: usize) -> Vec<(Vec<u8>, u64, u64, u64)> {
        let mut lines = Lines::new(
            Pieces { rest: input, size },
            longest,
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
    fn an_unfinished_line_can_be_left_and_gone_on_with() {
        for (input, longest) in [
            (&b"one\ntw"[..], 10),
            (&[&b"one\n"[..], &b"x".repeat(600_000)].concat(), 1_024),
        ] {
            let mut lines = Lines::new(input, longest, StreamPosition::default()).unwrap();
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
        let place = StreamPosition {
            position: 6,
            lines: 1,
            hasher,
        };
        let mut lines = Lines::new(&b"\nthree\n"[..], 10, place).unwrap();
        assert_eq!(lines.next().unwrap().unwrap().number, 2);
        assert_eq!(lines.next().unwrap().unwrap().number, 3);
        assert_eq!(
            lines.checkpoint().prefix_hash,
            Some(*blake3::hash(b"one\ntw\nthree\n").as_bytes())
        );
    }

    #[test]
    fn line_ends_of_both_kinds_and_none_at_the_end() {
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
    fn a_byte_order_mark_is_passed_over() {
        assert_eq!(
            collect(b"\xef\xbb\xbfx\n", 1, 10),
            [(b"x".to_vec(), 3, 1, 1)]
        );
    }

    #[test]
    fn a_line_longer_than_memory_is_cut_and_the_next_one_whole() {
        let mut input = vec![b'x'; 1_000_000];
        input.extend(b"\nnext\n");
        let lines = collect(&input, 100_000, 1_024);
        assert_eq!(lines[0], (vec![b'x'; 1_024], 0, 1, 1_000_000));
        assert_eq!(lines[1], (b"next".to_vec(), 1_000_001, 2, 4));
    }

    proptest! {
        #[test]
        fn lines_are_those_of_the_standard_library(
            text in "[ab\n]{0,200}",
            size in 1_usize..50,
        ) {
            let lines: Vec<_> = collect(text.as_bytes(), size, 1_024).into_iter().map(|line| line.0).collect();
            let expected: Vec<_> = text.lines().map(|line| line.as_bytes().to_vec()).collect();
            prop_assert_eq!(lines, expected);
        }
    }
}
