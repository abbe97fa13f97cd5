//! The reader thread: turns a source into batches.
//!
//! # An unfinished last line
//!
//! The last line of a source may have no line end. It may be a complete record or one that is still
//! being written; only a later run can tell.
//!
//! - If it is valid, it is stored and the source's position moves past it. Should the line grow
//!   later, the source is refused, because the stored record was incomplete.
//! - If it is invalid, it is rejected and the position stays before it. The next run reads the line
//!   again, and its result replaces the rejected record.
//!
//! So at every commit, each line that was read is stored once or rejected once.

use std::io::Read;
use std::sync::Arc;
use std::time::Instant;

use anyhow::anyhow;
use bytes::Bytes;
use tokio::sync::mpsc::Sender;

use super::batch_builder::{BatchBuilder, BatchLimits, Payload, RecordPosition, Rejects};
use super::identity::{refuse_grown_line, skip_stored};
use super::lines::{Lines, is_timeout};
use super::options::Options;
use super::parse::Format;
use super::pending_batch::Message;
use super::progress::Counters;
use super::record_encoder::RecordEncoder;
use super::source::OpenSource;
use crate::config::Config;
use crate::db::{KnownSource, TUPLE_BYTES};

pub(super) const READER_PANICKED: &str = "the reader thread panicked";

/// Reads sources one after the other.
pub(super) struct RecordReader {
    format: Option<Format>,
    limits: BatchLimits,
    max_record_bytes: usize,
    encoder: Arc<RecordEncoder>,
    counters: Arc<Counters>,
    rejects: Rejects,
}

/// The state of reading one source.
struct Reading {
    batch: BatchBuilder,
    sender: Sender<Message>,
    /// The position after the last batch that was sent.
    sent_to: i64,
    /// When the current batch began.
    began: Instant,
}

/// Why reading ended before the source did.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    /// What was read before has been sent.
    #[error("stopped at {place}: more than {limit} records were rejected")]
    TooManyRejects { place: String, limit: u64 },
    /// The receiver has failed, and reports why.
    #[error("the channel is closed")]
    ChannelClosed,
    /// The source is unreadable. What was read before has been sent.
    #[error(transparent)]
    Source(#[from] anyhow::Error),
}

impl RecordReader {
    pub fn new(config: &Config, options: &Options, encoder: RecordEncoder) -> Self {
        Self {
            format: options.format,
            limits: BatchLimits::of_file(&config.ingest),
            max_record_bytes: config.ingest.max_record_bytes,
            encoder: Arc::new(encoder),
            counters: Arc::clone(&options.counters),
            rejects: Rejects::new(options.max_rejects, options.dry_run),
        }
    }

    /// Reads a source from the position of `known` to its end, and sends its batches. Batches never
    /// contain records of two sources.
    ///
    /// # Errors
    /// See [`Stopped`].
    pub fn read(
        &mut self,
        mut opened: OpenSource,
        known: &KnownSource,
        sender: Sender<Message>,
    ) -> Result<(), Stopped> {
        let longest = self.max_record_bytes;
        let passed = skip_stored(&mut opened, known, longest)?;
        let input = std::mem::replace(&mut opened.input, Box::new(std::io::empty()));
        let unit = if opened.compressed {
            " (decompressed)"
        } else {
            ""
        };
        let failed = |error: std::io::Error, position: u64| {
            anyhow!(error).context(format!("reading {} at byte {position}{unit}", opened.name))
        };
        let start = passed.place.position;
        let mut lines =
            Lines::new(input, longest, passed.place).map_err(|error| failed(error, start))?;
        if passed.in_line {
            refuse_grown_line(&opened, known, lines.pending())?;
        }
        let beginning = if start > 0 {
            passed.beginning.as_slice()
        } else {
            lines.pending()
        };
        let beginning = beginning.strip_prefix(b"\xef\xbb\xbf").unwrap_or(beginning);
        let format = self
            .format
            .unwrap_or_else(|| opened.source.detect_format(beginning));
        let header = if !format.has_header() {
            None
        } else if start > 0 {
            beginning
                .split(|&byte| byte == b'\n')
                .next()
                .map(Bytes::copy_from_slice)
        } else {
            let header = read_header(&mut lines);
            match header.map_err(|error| failed(error, lines.read_to()))? {
                Some(header) => Some(header),
                None => return Ok(()),
            }
        };
        let name = Arc::clone(&opened.name);
        let batch = BatchBuilder::new(name, format, header, Arc::clone(&self.encoder))
            .map_err(|problem| anyhow!("{}:1: {problem}", opened.name))?;
        let mut reading = Reading {
            batch,
            sender,
            sent_to: known.position,
            began: Instant::now(),
        };
        let result = self.read_lines(&mut reading, &mut lines);
        let result = result.map_err(|error| match error {
            Interrupted::Unreadable(error) => failed(error, lines.read_to()).into(),
            Interrupted::Stopped(stopped) => stopped,
        });
        if !matches!(result, Err(Stopped::ChannelClosed)) {
            self.end_batch(&mut reading, &mut lines)?;
        }
        result
    }

    fn read_lines(
        &mut self,
        reading: &mut Reading,
        lines: &mut Lines<impl Read>,
    ) -> Result<(), Interrupted> {
        let mut reads = lines.reads();
        loop {
            let line = match lines.next() {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(()),
                Err(error) if is_timeout(&error) => {
                    self.end_batch(reading, lines)?;
                    if reading.sender.is_closed() {
                        return Err(Stopped::ChannelClosed.into());
                    }
                    continue;
                }
                Err(error) => return Err(Interrupted::Unreadable(error)),
            };
            if line.bytes.is_empty() {
                continue;
            }
            let payload = Payload {
                bytes: line.bytes,
                length: line.length,
            };
            let position = RecordPosition {
                offset: line.position,
                line: line.number,
            };
            let number = line.number;
            if let Some(rejected) = reading.batch.push(payload, position) {
                let place = format_args!("{}:{number}", rejected.source);
                self.rejects.count(rejected, place);
            }
            if let Some(piece) = reading.batch.take_piece() {
                self.send_tuples(reading, piece)?;
            }
            if let Some(limit) = self.rejects.exceeded_limit() {
                let place = format!("{}:{number}", reading.batch.source());
                return Err(Stopped::TooManyRejects { place, limit }.into());
            }
            // Reading the clock is expensive. A slow source has many reads, so checking after each
            // of them is enough.
            let is_old = lines.reads() != reads && self.limits.is_old(reading.began);
            reads = lines.reads();
            if self.limits.is_full(reading.batch.size()) || is_old {
                self.end_batch(reading, lines)?;
            }
        }
    }

    fn send_tuples(&mut self, reading: &Reading, tuples: Bytes) -> Result<(), Stopped> {
        self.counters
            .add_records((tuples.len() / TUPLE_BYTES) as u64);
        reading
            .sender
            .blocking_send(Message::Tuples(tuples))
            .map_err(|_| Stopped::ChannelClosed)
    }

    /// Ends the batch and sends it. An empty batch is sent only if it moves the position of a
    /// source that has stored records.
    fn end_batch(
        &mut self,
        reading: &mut Reading,
        lines: &mut Lines<impl Read>,
    ) -> Result<(), Stopped> {
        if let Some(rest) = reading.batch.take_rest() {
            self.send_tuples(reading, rest)?;
        }
        reading.began = Instant::now();
        let is_empty = reading.batch.is_empty();
        if is_empty
            && (reading.sent_to == 0 || u64::try_from(reading.sent_to) == Ok(lines.position()))
        {
            return Ok(());
        }
        if let Some(position) = reading.batch.last_rejected() {
            lines.leave_unfinished(position);
        }
        let checkpoint = lines.checkpoint();
        if is_empty && checkpoint.position == reading.sent_to {
            return Ok(());
        }
        reading.sent_to = checkpoint.position;
        let end = reading.batch.take_end(checkpoint);
        self.counters.add_records(end.rejected.len() as u64);
        reading
            .sender
            .blocking_send(Message::End(end))
            .map_err(|_| Stopped::ChannelClosed)
    }
}

/// The first line; `None` if the source is empty.
fn read_header(lines: &mut Lines<impl Read>) -> std::io::Result<Option<Bytes>> {
    loop {
        match lines.next() {
            Err(error) if is_timeout(&error) => {}
            line => return Ok(line?.map(|line| Bytes::copy_from_slice(line.bytes))),
        }
    }
}

/// Why no more lines are read.
enum Interrupted {
    Stopped(Stopped),
    Unreadable(std::io::Error),
}

impl From<Stopped> for Interrupted {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}
