//! Opens files and standard input, decompresses them, and detects the format of their records.
//!
//! A file is read twice: [`scan`] comes first, so that a file is recognised, and a damaged or
//! unsuitable one refused, before anything of it is stored.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::Context as _;

use super::block_hashes::VerifyingReader;
use super::compression::{Members, VerifiedMembers, is_compressed, peek};
use super::parse::Format;
use super::progress::Counters;
use super::scan::{Scan, scan};

/// The size of a read from standard input.
const READ_BYTES: usize = 128 * 1024;

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
    /// The decompressed content, from its first byte. Of a file, only what was scanned: it fails before
    /// a part that has changed since.
    pub input: Box<dyn Read + Send>,
    /// The result of reading a file once; `None` for standard input.
    pub scan: Option<Scan>,
    pub compressed: bool,
}

/// How sources are opened.
#[derive(Debug, Clone)]
pub(super) struct OpenOptions {
    /// See [`super::options::Options::format`].
    pub format: Option<Format>,
    /// The length at which lines are cut.
    pub max_record_bytes: usize,
    /// How long a read from standard input waits.
    pub timeout: Duration,
    pub counters: Arc<Counters>,
}

impl OpenSource {
    /// Returns the error that the scan found, if any.
    ///
    /// # Errors
    /// Returns that error.
    pub(super) fn refuse_damaged(&mut self) -> anyhow::Result<()> {
        let scan = self.scan.as_mut();
        match scan.and_then(|scan| Some((scan.bytes, scan.error.take()?))) {
            Some((position, error)) => Err(self.unreadable(error, position)),
            None => Ok(()),
        }
    }

    /// The error for a source that cannot be read at `position` of its content.
    pub(super) fn unreadable(&self, error: io::Error, position: u64) -> anyhow::Error {
        let unit = if self.compressed {
            " (decompressed)"
        } else {
            ""
        };
        let context = format!("reading {} at byte {position}{unit}", self.name);
        anyhow::Error::new(error).context(context)
    }
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

    /// Opens the source, and scans it if it is a file. If standard input is idle for `timeout`, its
    /// `read` returns [`io::ErrorKind::TimedOut`] and can be called again.
    ///
    /// # Errors
    /// Returns an error if the file cannot be opened or read, or cannot contain usage records.
    pub(super) fn open(&self, options: &OpenOptions) -> anyhow::Result<OpenSource> {
        let name = self.name();
        let reading = || format!("reading {name}");
        let (input, compressed, scan): (Box<dyn Read + Send>, _, _) = match self {
            Self::Stdin => {
                let raw = CountingReader {
                    inner: TimeoutReader::new(io::stdin(), options.timeout),
                    counters: Arc::clone(&options.counters),
                };
                let (beginning, raw) = peek(raw).with_context(reading)?;
                if is_compressed(&beginning) {
                    (Box::new(VerifiedMembers::new(raw, &name)), true, None)
                } else {
                    (Box::new(raw), false, None)
                }
            }
            Self::File(path) => {
                let file = as_regular(open_file(path)?).with_context(reading)?;
                let (mut scan, compressed) = self.scan(&file, options)?;
                let raw = CountingReader {
                    inner: from_start(&file).with_context(reading)?,
                    counters: Arc::clone(&options.counters),
                };
                // What was not scanned, because the file has grown since, is left for a later run.
                let hashes = std::mem::take(&mut scan.hashes);
                let input: Box<dyn Read + Send> = if compressed {
                    Box::new(VerifyingReader::new(Members::new(raw), hashes))
                } else {
                    Box::new(VerifyingReader::new(raw, hashes))
                };
                (input, compressed, Some(scan))
            }
        };
        Ok(OpenSource {
            source: self.clone(),
            name,
            input,
            scan,
            compressed,
        })
    }

    /// Scans a regular file, and returns whether it is compressed.
    fn scan(&self, file: &File, options: &OpenOptions) -> anyhow::Result<(Scan, bool)> {
        let name = self.name();
        let reading = || format!("reading {name}");
        let detect_format = |content: &[u8]| {
            let format = options.format;
            format.unwrap_or_else(|| self.detect_format(content))
        };
        let longest = options.max_record_bytes;
        let (beginning, raw) =
            peek(from_start(file).with_context(reading)?).with_context(reading)?;
        let compressed = is_compressed(&beginning);
        if !compressed {
            return Ok((scan(raw, &name, longest, detect_format)?, compressed));
        }
        let mut members = Members::new(raw).warning_as(&name);
        let scanned = scan(&mut members, &name, longest, detect_format)?;
        if scanned.error.is_none() {
            return Ok((scanned, compressed));
        }
        // Only the members before the damaged one may be stored.
        let members =
            Members::new(from_start(file).with_context(reading)?).take(members.verified());
        let verified = scan(members, &name, longest, detect_format)?;
        let error = scanned.error;
        Ok((Scan { error, ..verified }, compressed))
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
        "opening {}: it is a directory; pass the files in it instead",
        path.display()
    );
    Ok(file)
}

/// The file itself if it is a regular one, else a temporary copy of its content.
fn as_regular(mut file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    let mut copy = tempfile::tempfile()?;
    io::copy(&mut file, &mut copy)?;
    Ok(copy)
}

/// Another handle of the file, at its start. The position is shared by all handles.
fn from_start(file: &File) -> io::Result<File> {
    let mut file = file.try_clone()?;
    file.rewind()?;
    Ok(file)
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
pub(super) struct ErrorReader(pub Option<io::Error>);

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
