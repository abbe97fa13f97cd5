//! Opens files and standard input, decompresses them, and detects the format of their records.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::Context as _;

use super::parse::Format;
use super::progress::Counters;
use crate::db::HEAD_BYTES;

/// The size of a read from a compressed file or from standard input.
const READ_BYTES: usize = 128 * 1024;

/// The base-2 logarithm of the largest zstd window accepted, 64 MiB, which bounds memory. Only
/// `--ultra -22` and `--long=27` or more exceed it.
const ZSTD_WINDOW_LOG: u32 = 26;

/// A file or stream of usage records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Standard input.
    Stdin,
    /// A file, plain or compressed with gzip or zstd.
    File(PathBuf),
}

/// An open source.
pub(super) struct OpenSource {
    pub source: Source,
    /// See [`Source::name`].
    pub name: Arc<str>,
    /// The decompressed content, from its first byte.
    pub input: Box<dyn Read + Send>,
    /// The first [`HEAD_BYTES`] of a file's content, or all of it if it is shorter. Empty for
    /// standard input.
    pub head: Vec<u8>,
    pub compressed: bool,
}

impl Source {
    /// The name used in messages and stored with rejected records.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        match self {
            Self::Stdin => "stdin".into(),
            Self::File(path) => path.display().to_string().into(),
        }
    }

    /// The size in bytes before decompression; `None` for anything but a regular file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be opened.
    pub(super) fn size(&self) -> anyhow::Result<Option<u64>> {
        let Self::File(path) = self else {
            return Ok(None);
        };
        let metadata = open_file(path)?
            .metadata()
            .with_context(|| format!("opening {}", path.display()))?;
        Ok(metadata.is_file().then_some(metadata.len()))
    }

    /// Opens the source. If standard input is idle for `timeout`, its `read` returns
    /// [`io::ErrorKind::TimedOut`] and can be called again.
    ///
    /// # Errors
    /// Returns an error if the file cannot be opened or read.
    pub(super) fn open(
        &self,
        counters: Arc<Counters>,
        timeout: Duration,
    ) -> anyhow::Result<OpenSource> {
        let name = self.name();
        let raw: Box<dyn Read + Send> = match self {
            Self::Stdin => Box::new(TimeoutReader::new(io::stdin(), timeout)),
            Self::File(path) => Box::new(open_file(path)?),
        };
        let (mut input, compressed) = decompress(CountingReader {
            inner: raw,
            counters,
        })
        .with_context(|| format!("reading {name}"))?;
        let mut head = vec![];
        if let Self::File(_) = self {
            // The bytes before an error are valid content; the error is returned again after them.
            let failed = input
                .by_ref()
                .take(HEAD_BYTES as u64)
                .read_to_end(&mut head)
                .err();
            if head.is_empty()
                && let Some(error) = failed
            {
                return Err(error).with_context(|| format!("reading {name}"));
            }
            let rest = ErrorReader(failed).chain(input);
            input = Box::new(Cursor::new(head.clone()).chain(rest));
        }
        Ok(OpenSource {
            source: self.clone(),
            name,
            input,
            head,
            compressed,
        })
    }

    /// Detects the format from the file's extension, or else from the first bytes of its content.
    pub(super) fn detect_format(&self, content: &[u8]) -> Format {
        let by_extension = match self {
            Self::File(path) => Format::by_extension(path),
            Self::Stdin => None,
        };
        by_extension.unwrap_or_else(|| Format::by_content(content))
    }
}

fn open_file(path: &Path) -> anyhow::Result<File> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let metadata = file
        .metadata()
        .with_context(|| format!("opening {}", path.display()))?;
    anyhow::ensure!(
        !metadata.is_dir(),
        "opening {}: it is a directory; give the files in it",
        path.display()
    );
    Ok(file)
}

/// Decompresses `raw` if its first bytes are those of gzip or zstd. Also returns whether they were.
fn decompress(mut raw: impl Read + Send + 'static) -> io::Result<(Box<dyn Read + Send>, bool)> {
    let mut magic = [0; 4];
    let mut length = 0;
    while length < magic.len() {
        match raw.read(&mut magic[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::TimedOut
                ) => {}
            Err(error) => return Err(error),
        }
    }
    let whole = Cursor::new(magic[..length].to_vec()).chain(raw);
    let buffered = |whole| BufReader::with_capacity(READ_BYTES, whole);
    Ok(match magic[..length] {
        [0x1f, 0x8b, ..] => (
            Box::new(flate2::bufread::MultiGzDecoder::new(buffered(whole))),
            true,
        ),
        // A zstd frame, or a skippable frame, which may come first.
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered(whole))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            (Box::new(decoder), true)
        }
        _ => (Box::new(whole), false),
    })
}

/// Counts the bytes read.
struct CountingReader<R> {
    inner: R,
    counters: Arc<Counters>,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.counters.add_bytes(read as u64);
        Ok(read)
    }
}

/// Returns the error, if any, from the first read, and then the end of the stream.
struct ErrorReader(Option<io::Error>);

impl Read for ErrorReader {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// Reads on another thread, so that waiting for an idle stream can time out.
struct TimeoutReader {
    blocks: Receiver<io::Result<Vec<u8>>>,
    block: Cursor<Vec<u8>>,
    timeout: Duration,
}

impl TimeoutReader {
    fn new(mut input: impl Read + Send + 'static, timeout: Duration) -> Self {
        let (sender, blocks) = sync_channel(2);
        std::thread::spawn(move || {
            let mut buffer = vec![0; READ_BYTES];
            loop {
                let block = match input.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(read) => Ok(buffer[..read].to_vec()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let failed = block.is_err();
                if sender.send(block).is_err() || failed {
                    break;
                }
            }
        });
        Self {
            blocks,
            block: Cursor::default(),
            timeout,
        }
    }
}

impl Read for TimeoutReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.block.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            self.block = match self.blocks.recv_timeout(self.timeout) {
                Ok(block) => Cursor::new(block?),
                Err(RecvTimeoutError::Timeout) => return Err(io::ErrorKind::TimedOut.into()),
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn the_format_is_detected_from_the_name_or_else_the_content() {
        let format =
            |name: &str, content: &str| Source::File(name.into()).detect_format(content.as_bytes());
        assert_eq!(format("a.CSV", "{"), Format::Csv);
        assert_eq!(format("a.ndjson", "a,b"), Format::Ndjson);
        assert_eq!(format("a.csv.gz", "{"), Format::Csv);
        assert_eq!(format("a.ndjson.zst", "a,b"), Format::Ndjson);
        assert_eq!(format("a.gz", "a,b"), Format::Csv);
        assert_eq!(format("a.txt", "\n {\"a\":1}"), Format::Ndjson);
        assert_eq!(format("a", "sim-card-id,date"), Format::Csv);
        assert_eq!(Source::Stdin.detect_format(b""), Format::Ndjson);
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn read(raw: Vec<u8>) -> (Vec<u8>, Option<io::ErrorKind>, bool) {
        let (mut input, compressed) = decompress(Cursor::new(raw)).unwrap();
        let mut content = vec![];
        let error = input
            .read_to_end(&mut content)
            .err()
            .map(|error| error.kind());
        (content, error, compressed)
    }

    #[test]
    fn compression_is_detected_from_the_content() {
        let text = b"one\ntwo\n".repeat(10_000);
        let frames = [
            zstd::encode_all(&text[..80], 0).unwrap(),
            zstd::encode_all(&text[80..], 19).unwrap(),
        ]
        .concat();
        for (raw, compressed) in [
            (text.clone(), false),
            (gzip(&text), true),
            (
                [gzip(&text[..7]), gzip(&[]), gzip(&text[7..])].concat(),
                true,
            ),
            (zstd::encode_all(&text[..], 3).unwrap(), true),
            (frames, true),
        ] {
            assert_eq!(read(raw), (text.clone(), None, compressed));
        }
        for short in [&b""[..], b"a", b"abc"] {
            assert_eq!(read(short.to_vec()), (short.to_vec(), None, false));
        }
    }

    #[test]
    fn truncated_compressed_content_is_returned_before_the_error() {
        let text: Vec<u8> = (0..200_000_u32)
            .flat_map(|number| format!("{number}\n").into_bytes())
            .collect();
        for whole in [gzip(&text), zstd::encode_all(&text[..], 3).unwrap()] {
            for cut in [whole.len() / 2, whole.len() - 1] {
                let (content, error, _) = read(whole[..cut].to_vec());
                assert_eq!(error, Some(io::ErrorKind::UnexpectedEof));
                assert!(!content.is_empty());
                assert!(text.starts_with(&content));
            }
        }
    }

    #[test]
    fn an_idle_stream_times_out_and_can_be_read_again() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut input = TimeoutReader::new(reader, Duration::from_millis(20));
        let mut buffer = [0; 10];
        assert_eq!(
            input.read(&mut buffer).unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
        writer.write_all(b"late").unwrap();
        drop(writer);
        let mut content = vec![];
        while content.len() < 4 {
            content.extend(
                input
                    .read(&mut buffer)
                    .map_or(&[][..], |read| &buffer[..read]),
            );
        }
        assert_eq!(
            (content.as_slice(), input.read(&mut buffer).unwrap()),
            (&b"late"[..], 0)
        );
    }
}
