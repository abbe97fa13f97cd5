//! Decompresses gzip and zstd, and tells which part of the content is verified: that of members
//! (frames, in zstd) whose end and checksum have been read. Frames may lack a checksum; then damage
//! that leaves them well-formed is not noticed.

use std::io::{self, BufRead, BufReader, Cursor, Read, Seek as _, Write as _};

use flate2::bufread::GzDecoder;

use super::lines::is_timeout;

/// The part of a zstd frame that tells whether the frame ends with a checksum: its magic number, and
/// one byte.
const ZSTD_HEADER_BYTES: usize = 5;

/// The bit of that byte.
const ZSTD_CHECKSUM_FLAG: u8 = 4;

/// The size of a read from a compressed file.
const READ_BYTES: usize = 128 * 1024;

/// The base-2 logarithm of the largest zstd window accepted, 128 MiB, which bounds memory. It is the
/// limit of the zstd program, unless `--long` or `--memory` raises it.
const ZSTD_WINDOW_LOG: u32 = 27;

/// How much of an unverified member is kept in memory; the rest goes to a temporary file.
const SPOOL_MEMORY_BYTES: usize = 4 * 1024 * 1024;

/// The number of bytes that [`is_compressed`] needs.
pub(super) const MAGIC_BYTES: usize = 4;

type Zstd<R> = zstd::stream::read::Decoder<'static, R>;

/// Keeps the first bytes that are read from it.
struct WithBeginning<R> {
    raw: BufReader<R>,
    beginning: Vec<u8>,
}

impl<R: Read> WithBeginning<R> {
    fn new(raw: BufReader<R>) -> Self {
        Self {
            raw,
            beginning: Vec::with_capacity(ZSTD_HEADER_BYTES),
        }
    }

    /// Whether this is a zstd frame of data, without a checksum.
    fn lacks_checksum(&self) -> bool {
        matches!(self.beginning[..], [0x28, 0xb5, 0x2f, 0xfd, flags] if flags & ZSTD_CHECKSUM_FLAG == 0)
    }
}

impl<R: Read> Read for WithBeginning<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl<R: Read> BufRead for WithBeginning<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.raw.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        let missing = ZSTD_HEADER_BYTES - self.beginning.len();
        let consumed = &self.raw.buffer()[..count];
        self.beginning
            .extend_from_slice(&consumed[..missing.min(count)]);
        self.raw.consume(count);
    }
}

/// Whether content that begins like this is gzip or zstd.
pub(super) fn is_compressed(beginning: &[u8]) -> bool {
    // The last is a skippable frame of zstd, which may come first.
    matches!(
        beginning,
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]
    )
}

/// Decompresses any number of gzip members and zstd frames. Zero bytes after a member are padding,
/// which tapes and some tools add.
pub(super) struct Members<R: Read> {
    state: State<R>,
    read: u64,
    verified: u64,
    /// The name for the warning about frames without a checksum, until that is logged.
    warn_as: Option<String>,
}

enum State<R: Read> {
    Between(BufReader<R>),
    Gzip(Box<GzDecoder<BufReader<R>>>),
    Zstd(Box<Zstd<WithBeginning<R>>>),
    Ended,
}

/// The result of reading from a member.
enum Piece {
    /// This many bytes were read, at least one.
    Bytes(usize),
    /// The member is complete, and its checksum correct, if it has one.
    MemberEnd,
    /// There are no more members.
    End,
}

impl<R: Read> Members<R> {
    pub fn new(raw: R) -> Self {
        Self {
            state: State::Between(BufReader::with_capacity(READ_BYTES, raw)),
            read: 0,
            verified: 0,
            warn_as: None,
        }
    }

    /// Logs a warning with this name if a frame has no checksum, once.
    pub fn warning_as(mut self, name: &str) -> Self {
        self.warn_as = Some(name.to_owned());
        self
    }

    /// How many bytes of the content are verified.
    pub fn verified(&self) -> u64 {
        self.verified
    }

    fn read_piece(&mut self, buffer: &mut [u8]) -> io::Result<Piece> {
        let read = match &mut self.state {
            State::Between(raw) => {
                let first = skip_padding(raw)?;
                let State::Between(raw) = std::mem::replace(&mut self.state, State::Ended) else {
                    return Ok(Piece::End);
                };
                self.state = match first {
                    None => return Ok(Piece::End),
                    Some(0x1f) => State::Gzip(Box::new(GzDecoder::new(raw))),
                    Some(0x28 | 0x50..=0x5f) => {
                        let mut decoder =
                            Zstd::with_buffer(WithBeginning::new(raw))?.single_frame();
                        decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                        State::Zstd(Box::new(decoder))
                    }
                    Some(_) => {
                        let problem = "the compressed data is followed by other data; remove it";
                        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
                    }
                };
                return self.read_piece(buffer);
            }
            State::Gzip(decoder) => decoder.read(buffer)?,
            State::Zstd(decoder) => decoder.read(buffer).map_err(explain_window)?,
            State::Ended => return Ok(Piece::End),
        };
        self.read += read as u64;
        if read > 0 {
            return Ok(Piece::Bytes(read));
        }
        self.verified = self.read;
        self.state = State::Between(match std::mem::replace(&mut self.state, State::Ended) {
            State::Gzip(decoder) => decoder.into_inner(),
            State::Zstd(decoder) => {
                let frame = decoder.finish();
                if frame.lacks_checksum()
                    && let Some(name) = self.warn_as.take()
                {
                    log::warn!(
                        "{name}: it has zstd data without a checksum, in which damage may go unnoticed; \
                         compress with a checksum (zstd --check)"
                    );
                }
                frame.raw
            }
            State::Between(raw) => raw,
            State::Ended => return Ok(Piece::End),
        });
        Ok(Piece::MemberEnd)
    }
}

impl<R: Read> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.read_piece(buffer)? {
                Piece::Bytes(read) => return Ok(read),
                Piece::MemberEnd => {}
                Piece::End => return Ok(0),
            }
        }
    }
}

/// Skips zero bytes, and returns the next byte without skipping it.
fn skip_padding(raw: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let bytes = raw.fill_buf()?;
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        if first != 0 {
            return Ok(Some(first));
        }
        let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
        raw.consume(zeros);
    }
}

/// Says what to do about a window that is too large.
fn explain_window(error: io::Error) -> io::Error {
    if error.to_string().contains("too much memory") {
        let problem = "its zstd window is larger than 128 MiB; decompress it with zstd -d --long=31, or \
                       with a pipe: zstd -dc --long=31 FILE | simusage ingest --source-id NAME -";
        io::Error::new(error.kind(), problem)
    } else {
        error
    }
}

/// Returns the content of each member only after the whole member was verified. Until then it is
/// kept in a temporary file.
pub(super) struct VerifiedMembers<R: Read> {
    members: Members<IdleAsWouldBlock<R>>,
    spool: tempfile::SpooledTempFile,
    /// Whether `spool` has a verified member, which is being returned.
    is_verified: bool,
    block: Vec<u8>,
}

impl<R: Read> VerifiedMembers<R> {
    /// `name` is for warnings.
    pub fn new(raw: R, name: &str) -> Self {
        Self {
            members: Members::new(IdleAsWouldBlock(raw)).warning_as(name),
            spool: tempfile::spooled_tempfile(SPOOL_MEMORY_BYTES),
            is_verified: false,
            block: vec![0; READ_BYTES],
        }
    }
}

impl<R: Read> Read for VerifiedMembers<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.is_verified {
                let read = self.spool.read(buffer)?;
                if read > 0 || buffer.is_empty() {
                    return Ok(read);
                }
                self.spool = tempfile::spooled_tempfile(SPOOL_MEMORY_BYTES);
                self.is_verified = false;
            }
            let piece = self.members.read_piece(&mut self.block);
            match piece.map_err(would_block_as_idle)? {
                Piece::Bytes(read) => self.spool.write_all(&self.block[..read])?,
                Piece::MemberEnd => {
                    self.spool.rewind()?;
                    self.is_verified = true;
                }
                Piece::End => return Ok(0),
            }
        }
    }
}

/// Returns a timeout as [`io::ErrorKind::WouldBlock`], after which flate2 can continue to read a
/// header.
struct IdleAsWouldBlock<R>(R);

impl<R: Read> Read for IdleAsWouldBlock<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| {
            if is_timeout(&error) {
                io::ErrorKind::WouldBlock.into()
            } else {
                error
            }
        })
    }
}

fn would_block_as_idle(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        io::ErrorKind::TimedOut.into()
    } else {
        error
    }
}

/// Reads the first bytes of a stream, and returns them and a stream that begins with them.
pub(super) fn peek<R: Read>(mut raw: R) -> io::Result<(Vec<u8>, impl Read + use<R>)> {
    let mut magic = [0; MAGIC_BYTES];
    let mut length = 0;
    while length < magic.len() {
        match raw.read(&mut magic[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted || is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let magic = magic[..length].to_vec();
    Ok((magic.clone(), Cursor::new(magic).chain(raw)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// zstd with a checksum, as the zstd program writes it, and a window of 2 to the power of
    /// `window_log` bytes.
    fn zstd(content: &[u8], window_log: u32) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(vec![], 1).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn frames_without_a_checksum_are_found() {
        let unchecked = zstd::stream::encode_all(&b"content"[..], 1).unwrap();
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"any"].concat();
        for (raw, is_found) in [
            (zstd(b"content", 20), false),
            (unchecked.clone(), true),
            (
                [&*gzip(b"a"), &skippable, &zstd(b"b", 20), &unchecked].concat(),
                true,
            ),
            ([&*gzip(b"a"), &skippable, &zstd(b"b", 20)].concat(), false),
        ] {
            // As a pipe returns it.
            let raw = raw
                .chunks(1)
                .fold(Box::new(io::empty()) as Box<dyn Read>, |all, byte| {
                    Box::new(all.chain(byte))
                });
            let mut members = Members::new(raw).warning_as("name");
            members.read_to_end(&mut vec![]).unwrap();
            assert_eq!(members.warn_as.is_none(), is_found);
        }
    }

    fn text() -> Vec<u8> {
        (0..100_000_u32)
            .flat_map(|number| format!("{number}\n").into_bytes())
            .collect()
    }

    /// The content, how much of it is verified, and the content that is returned verified.
    fn read(raw: &[u8]) -> (Vec<u8>, u64, Vec<u8>, Option<String>) {
        assert!(is_compressed(raw));
        let (mut all, mut verified) = (vec![], vec![]);
        let mut members = Members::new(raw);
        let error = members.read_to_end(&mut all).err();
        let _ = VerifiedMembers::new(raw, "test").read_to_end(&mut verified);
        assert_eq!(members.verified(), verified.len() as u64);
        let error = error.map(|error| error.to_string());
        (all, members.verified(), verified, error)
    }

    #[test]
    fn members_frames_and_padding_are_read() {
        let text = text();
        let (some, rest) = text.split_at(300_000);
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"any"].concat();
        for raw in [
            gzip(&text),
            zstd(&text, 20),
            zstd(&text, 27),
            [gzip(some), gzip(b""), gzip(rest)].concat(),
            [gzip(some), vec![0; 200_000], gzip(rest), vec![0; 512]].concat(),
            [skippable, zstd(some, 20), zstd(rest, 20), vec![0; 10]].concat(),
            [zstd(some, 20), gzip(rest)].concat(),
        ] {
            let (all, verified, safe, error) = read(&raw);
            assert_eq!((error, verified), (None, text.len() as u64));
            assert!(all == text && safe == text);
        }
    }

    #[test]
    fn nothing_of_a_damaged_or_incomplete_member_is_verified() {
        let text = text();
        let (some, rest) = text.split_at(300_000);
        for [first, second] in [[gzip(some), gzip(rest)], [zstd(some, 20), zstd(rest, 20)]] {
            let whole = [first.clone(), second.clone()].concat();
            let mut damages = vec![];
            for cut in [1, 4, second.len() / 2, second.len() - 1] {
                damages.push(whole[..whole.len() - cut].to_vec());
            }
            for at in [1, 3, 20, second.len() / 2] {
                let mut changed = whole.clone();
                let at = whole.len() - at;
                changed[at] ^= 0x10;
                damages.push(changed);
            }
            damages.push([first.as_slice(), b"other data"].concat());
            for raw in damages {
                let (all, verified, safe, error) = read(&raw);
                assert!(error.is_some());
                assert_eq!(verified, some.len() as u64);
                assert!(all.starts_with(some) && safe == some);
            }
        }
    }

    #[test]
    fn a_window_that_is_too_large_is_explained() {
        let (_, verified, _, error) = read(&zstd(&text(), 28));
        assert_eq!(verified, 0);
        assert!(
            error
                .unwrap()
                .contains("FILE | simusage ingest --source-id NAME -")
        );
    }
}
