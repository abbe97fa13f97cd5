//! Lines of a byte stream with their place in it, in memory that is bounded whatever the stream holds.

use std::io::{self, Read};

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
}

impl Line<'_> {
    /// Whether `bytes` is only the beginning.
    pub fn is_cut(&self) -> bool {
        self.length > self.bytes.len() as u64
    }
}

/// Splits a stream into lines. A byte order mark at the start is passed over.
pub(super) struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    /// The part of `buffer` that holds bytes not yet handed out.
    filled: std::ops::Range<usize>,
    /// Offset in the stream of `buffer[filled.start]`.
    position: u64,
    number: u64,
    longest: usize,
    ended: bool,
    /// The beginning of a line that is longer than the buffer.
    cut: Vec<u8>,
}

impl<R: Read> Lines<R> {
    /// Lines of `input`, cut at `longest` bytes.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub fn new(input: R, longest: usize) -> io::Result<Self> {
        let mut lines = Self {
            input,
            buffer: vec![0; BLOCK_BYTES.max(2 * longest)],
            filled: 0..0,
            position: 0,
            number: 0,
            longest,
            ended: false,
            cut: vec![],
        };
        while lines.filled.len() < 3 && !lines.ended {
            lines.fill()?;
        }
        if lines.pending().starts_with(b"\xef\xbb\xbf") {
            lines.consume(3);
        }
        Ok(lines)
    }

    /// The bytes at hand that are not handed out yet; at least three of them unless the stream is shorter.
    pub fn pending(&self) -> &[u8] {
        &self.buffer[self.filled.clone()]
    }

    /// How many bytes of the stream have been handed out.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        let mut searched = 0;
        loop {
            if let Some(found) = memchr::memchr(b'\n', &self.pending()[searched..]) {
                let length = searched + found;
                return Ok(Some(self.take(length, 1)));
            }
            searched = self.filled.len();
            if searched == self.buffer.len() {
                return self.take_cut().map(Some);
            }
            if self.ended {
                return Ok((searched > 0).then(|| self.take(searched, 0)));
            }
            self.fill()?;
        }
    }

    /// Hands out the next `length` bytes as a line and passes over the line end behind them.
    fn take(&mut self, length: usize, line_end: usize) -> Line<'_> {
        let (start, position) = (self.filled.start, self.position);
        self.consume(length + line_end);
        self.number += 1;
        let bytes = &self.buffer[start..start + length];
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let kept = &bytes[..bytes.len().min(self.longest)];
        Line { bytes: kept, position, number: self.number, length: bytes.len() as u64 }
    }

    /// A line that is longer than the buffer: its beginning is kept, the rest only counted.
    fn take_cut(&mut self) -> io::Result<Line<'_>> {
        self.cut = self.pending()[..self.longest].to_vec();
        let position = self.position;
        let mut length = 0;
        loop {
            if let Some(found) = memchr::memchr(b'\n', self.pending()) {
                length += found;
                self.consume(found + 1);
                break;
            }
            length += self.filled.len();
            self.consume(self.filled.len());
            if self.ended {
                break;
            }
            self.fill()?;
        }
        self.number += 1;
        Ok(Line { bytes: &self.cut, position, number: self.number, length: length as u64 })
    }

    fn consume(&mut self, bytes: usize) {
        self.filled.start += bytes;
        self.position += bytes as u64;
    }

    /// Reads more, after moving what is left to the front.
    fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.filled.clone(), 0);
        self.filled = 0..self.filled.len();
        let read = loop {
            match self.input.read(&mut self.buffer[self.filled.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.filled.end += read;
        self.ended = read == 0;
        Ok(())
    }
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
        let mut lines = Lines::new(Pieces { rest: input, size }, longest).unwrap();
        let mut all = vec![];
        while let Some(line) = lines.next().unwrap() {
            all.push((line.bytes.to_vec(), line.position, line.number, line.length));
        }
        assert_eq!(lines.position(), input.len() as u64);
        all
    }

    #[test]
    fn line_ends_of_both_kinds_and_none_at_the_end() {
        let lines = collect(b"a\r\n\nbc", 1, 10);
        assert_eq!(lines, [(b"a".to_vec(), 0, 1, 1), (vec![], 3, 2, 0), (b"bc".to_vec(), 4, 3, 2)]);
    }

    #[test]
    fn a_byte_order_mark_is_passed_over() {
        assert_eq!(collect(b"\xef\xbb\xbfx\n", 1, 10), [(b"x".to_vec(), 3, 1, 1)]);
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
