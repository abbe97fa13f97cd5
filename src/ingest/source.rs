//! Where usage records come from: files and standard input, plain or compressed, and which format they are in.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::Context as _;

use super::progress::Counters;
use crate::db::HEAD_BYTES;

/// How much of a compressed file is read at once.
const COMPRESSED_BYTES: usize = 128 * 1024;

/// The binary logarithm of the largest window that a zstd file may ask for: 64 MiB. All levels but
/// `--ultra -22` and `--long=27` and beyond stay below it, and memory stays bounded.
const ZSTD_WINDOW_LOG: u32 = 26;

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A JSON object a line.
    Ndjson,
    /// CSV under a header.
    Csv,
}

impl Format {
    /// The name that is stored with a rejected record.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
        }
    }

    /// The format of that name.
    pub(super) fn by_name(name: &str) -> Option<Self> {
        [Self::Ndjson, Self::Csv]
            .into_iter()
            .find(|format| format.name() == name)
    }
}

/// A place that usage records are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

/// A source that is open, its content decompressed.
pub(super) struct Opened {
    pub source: Source,
    /// The name that messages and rejected records carry.
    pub name: Arc<str>,
    /// The content from its first byte on.
    pub input: Box<dyn Read + Send>,
    /// The first bytes of a file's content: [`HEAD_BYTES`], or all there are.
    pub head: Vec<u8>,
    pub compressed: bool,
}

impl Source {
    /// The name that messages and rejected records carry.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        match self {
            Self::Stdin => "stdin".into(),
            Self::File(path) => path.display().to_string().into(),
        }
    }

    /// The size in bytes, where that is known beforehand.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(super) fn size(&self) -> anyhow::Result<Option<u64>> {
        let Self::File(path) = self else {
            return Ok(None);
        };
        let metadata = open_file(path)?
            .metadata()
            .with_context(|| format!("opening {}", path.display()))?;
        Ok(metadata.is_file().then_some(metadata.len()))
    }

    /// Opens the source. A silence of standard input for longer than `patience` is an error of the kind `TimedOut`,
    /// after which one can go on reading.
    ///
    /// # Errors
    /// The file cannot be opened or read.
    pub(super) fn open(
        &self,
        counters: Arc<Counters>,
        patience: Duration,
    ) -> anyhow::Result<Opened> {
        let name = self.name();
        let raw: Box<dyn Read + Send> = match self {
            Self::Stdin => Box::new(Awaited::new(io::stdin(), patience)),
            Self::File(path) => Box::new(open_file(path)?),
        };
        let (mut input, compressed) = decompressed(Counted {
            inner: raw,
            counters,
        })
        .with_context(|| format!("reading {name}"))?;
        let mut head = vec![];
        if let Self::File(_) = self {
            // What can be read before an error belongs to the content, and the error comes back behind it.
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
            let rest = Failing(failed).chain(input);
            input = Box::new(Cursor::new(head.clone()).chain(rest));
        }
        Ok(Opened {
            source: self.clone(),
            name,
            input,
            head,
            compressed,
        })
    }

    /// The format that the file's name, or else the first bytes of its content, tell.
    pub(super) fn detect_format(&self, content: &[u8]) -> Format {
        let by_name = match self {
            Self::File(path) => by_extension(path),
            Self::Stdin => None,
        };
        by_name.unwrap_or_else(
            || match content.iter().find(|byte| !byte.is_ascii_whitespace()) {
                Some(b'{' | b'[') | None => Format::Ndjson,
                Some(_) => Format::Csv,
            },
        )
    }
}

fn open_file(path: &Path) -> anyhow::Result<File> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let metadata = file
        .metadata()
        .with_context(|| format!("opening {}", path.display()))?;
    anyhow::ensure!(
        !metadata.is_dir(),
        "opening {}: it is a folder",
        path.display()
    );
    Ok(file)
}

fn by_extension(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "ndjson" | "jsonl" | "json" => Some(Format::Ndjson),
        "csv" => Some(Format::Csv),
        "gz" | "zst" => by_extension(Path::new(path.file_stem()?)),
        _ => None,
    }
}

/// The content of `raw`, and whether it was compressed. Its first bytes tell, whatever its name is.
fn decompressed(mut raw: impl Read + Send + 'static) -> io::Result<(Box<dyn Read + Send>, bool)> {
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
    let buffered = |whole| BufReader::with_capacity(COMPRESSED_BYTES, whole);
    Ok(match magic[..length] {
        [0x1f, 0x8b, ..] => (
            Box::new(flate2::bufread::MultiGzDecoder::new(buffered(whole))),
            true,
        ),
        // A frame of data, or one to be skipped, which may stand in front.
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered(whole))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            (Box::new(decoder), true)
        }
        _ => (Box::new(whole), false),
    })
}

/// Counts what passes through.
struct Counted<R> {
    inner: R,
    counters: Arc<Counters>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.counters.add_bytes(read as u64);
        Ok(read)
    }
}

/// Fails once, if there is an error; then it is at its end.
struct Failing(Option<io::Error>);

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// Reads in a thread of its own, so that one can stop waiting for a stream that is silent.
struct Awaited {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Cursor<Vec<u8>>,
    patience: Duration,
}

impl Awaited {
    fn new(mut input: impl Read + Send + 'static, patience: Duration) -> Self {
        let (sender, pieces) = sync_channel(2);
        std::thread::spawn(move || {
            let mut buffer = vec![0; COMPRESSED_BYTES];
            loop {
                let piece = match input.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(read) => Ok(buffer[..read].to_vec()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let failed = piece.is_err();
                if sender.send(piece).is_err() || failed {
                    break;
                }
            }
        });
        Self {
            pieces,
            piece: Cursor::default(),
            patience,
        }
    }
}

impl Read for Awaited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.piece.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            self.piece = match self.pieces.recv_timeout(self.patience) {
                Ok(piece) => Cursor::new(piece?),
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
    fn the_name_tells_the_format_or_else_the_content_does() {
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
        let (mut input, compressed) = decompressed(Cursor::new(raw)).unwrap();
        let mut content = vec![];
        let error = input
            .read_to_end(&mut content)
            .err()
            .map(|error| error.kind());
        (content, error, compressed)
    }

    #[test]
    fn compression_is_told_by_the_content() {
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
    fn compressed_content_that_ends_too_early_is_an_error_behind_what_there_is() {
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
    fn a_silent_stream_can_be_waited_for_again() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut awaited = Awaited::new(reader, Duration::from_millis(20));
        let mut buffer = [0; 10];
        assert_eq!(
            awaited.read(&mut buffer).unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
        writer.write_all(b"late").unwrap();
        drop(writer);
        let mut content = vec![];
        while content.len() < 4 {
            content.extend(
                awaited
                    .read(&mut buffer)
                    .map_or(&[][..], |read| &buffer[..read]),
            );
        }
        assert_eq!(
            (content.as_slice(), awaited.read(&mut buffer).unwrap()),
            (&b"late"[..], 0)
        );
    }
}
