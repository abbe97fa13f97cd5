//! The reader thread: turns a source into batches.
//!
//! # An unfinished last line
//!
//! The last line of a source may have no line end. It may be a complete record or one that is still
//! being written; only a later run can tell.
//!
//! - If it is a JSON object, which its last byte closes, it is stored and the source's position moves
//!   past it. Should the line grow later, the source is refused.
//! - Otherwise it is rejected and the position stays before it. The next run reads the line again,
//!   and its result replaces the rejected record. A stream without a name may have been cut there, and
//!   has no next run: the rejected record stays.
//!
//! In sources that are said to be complete, it is a line like any other.
//!
//! So at every commit, each line that was read is stored once or rejected once.

use std::io::Read;
use std::sync::Arc;
use std::time::Instant;

use anyhow::anyhow;
use bytes::Bytes;
use tokio::sync::mpsc::Sender;

use super::batch::Batch;
use super::batch_builder::{BatchBuilder, BatchLimits, Payload, RecordPosition, Rejects};
use super::identity::{refuse_grown_line, skip_stored};
use super::inventory::SharedEncoder;
use super::lines::{Lines, is_timeout};
use super::options::Options;
use super::parse::{Format, json_layout};
use super::progress::Counters;
use super::source::{ErrorReader, OpenSource};
use crate::config::Config;
use crate::db::KnownSource;

/// What to do about an unfinished line of a source that a later run continues.
const END_LINE: &str = "end the line, or pass --complete if nothing will be appended";

/// The same for a stream without a name, of which everything else is stored.
const SEND_AGAIN: &str = "send only this line again, whole and below the header; for input that ends without a \
                          line ending, pass --complete";

pub(super) const READER_PANICKED: &str = "the reader thread panicked";

/// Reads sources one after the other.
pub(super) struct RecordReader {
    format: Option<Format>,
    limits: BatchLimits,
    max_record_bytes: usize,
    is_complete: bool,
    /// Whether standard input has a name in the ledger.
    is_named: bool,
    encoder: Arc<SharedEncoder>,
    counters: Arc<Counters>,
    rejects: Rejects,
}

/// The state of reading one source.
struct Reading {
    batch: BatchBuilder,
    sender: Sender<Batch>,
    /// The position after the last batch that was sent.
    sent_to: i64,
    /// What to do about a last line without a line end; `None` if it is complete.
    unfinished_advice: Option<&'static str>,
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
    pub fn new(config: &Config, options: &Options, encoder: Arc<SharedEncoder>) -> Self {
        Self {
            format: options.format,
            limits: BatchLimits::of_file(&config.ingest),
            max_record_bytes: config.ingest.max_record_bytes,
            is_complete: options.complete,
            is_named: options.source_id.is_some(),
            encoder,
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
        sender: Sender<Batch>,
    ) -> Result<(), Stopped> {
        let longest = self.max_record_bytes;
        let can_continue = opened.scan.is_some() || self.is_named;
        let advice = if can_continue { END_LINE } else { SEND_AGAIN };
        let unfinished_advice = (!self.is_complete).then_some(advice);
        let passed = skip_stored(&mut opened, known, longest)?;
        let input = std::mem::replace(&mut opened.input, Box::new(std::io::empty()));
        // A line that continues in the damaged part is neither stored nor rejected.
        let damage = opened.scan.as_mut().and_then(|scan| scan.error.take());
        let input = input.chain(ErrorReader(damage));
        let failed = |error: std::io::Error, position: u64| opened.unreadable(error, position);
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
        if format == Format::Ndjson && start == 0 && opened.scan.is_none() {
            lines
                .read_until(json_layout::is_enough)
                .map_err(|error| failed(error, lines.read_to()))?;
            refuse_array(&opened, lines.pending())?;
        }
        let name = Arc::clone(&opened.name);
        let batch = BatchBuilder::new(name, format, header, self.encoder.get())
            .map_err(|problem| anyhow!("{}:1: {problem}", opened.name))?;
        let mut reading = Reading {
            batch,
            sender,
            sent_to: known.position,
            unfinished_advice,
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
        let mut encoder_version = u64::MAX;
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
                // A carriage return may be followed by something else than a line feed.
                if line.unfinished && reading.unfinished_advice.is_some() {
                    let position = i64::try_from(line.position).unwrap_or(i64::MAX);
                    lines.leave_unfinished(position);
                }
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
            // At every line, because it may have come much later than the one before.
            let newest = self.encoder.version();
            if newest != encoder_version {
                reading.batch.set_encoder(&self.encoder.get());
                encoder_version = newest;
            }
            let batch = &mut reading.batch;
            let rejected = match reading.unfinished_advice {
                Some(advice) if line.unfinished => batch.push_unfinished(payload, position, advice),
                _ => batch.push(payload, position),
            };
            if let Some(rejected) = rejected {
                let place = format_args!("{}:{number}", rejected.source);
                self.rejects.count(rejected, place);
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

    /// Ends the batch and sends it. An empty batch is sent only if it moves the position of a
    /// source that has stored records.
    fn end_batch(
        &mut self,
        reading: &mut Reading,
        lines: &mut Lines<impl Read>,
    ) -> Result<(), Stopped> {
        reading.began = Instant::now();
        let is_empty = reading.batch.is_empty();
        if is_empty
            && (reading.sent_to == 0 || u64::try_from(reading.sent_to) == Ok(lines.position()))
        {
            return Ok(());
        }
        if let Some(position) = reading.batch.last_rejected()
            && reading.unfinished_advice.is_some()
        {
            lines.leave_unfinished(position);
        }
        let checkpoint = lines.checkpoint();
        if is_empty && checkpoint.position == reading.sent_to {
            return Ok(());
        }
        reading.sent_to = checkpoint.position;
        self.counters.add_records(reading.batch.size().records);
        reading
            .sender
            .blocking_send(reading.batch.take(checkpoint))
            .map_err(|_| Stopped::ChannelClosed)
    }
}

/// Refuses a stream that begins with JSON which is not one object per line.
fn refuse_array(opened: &OpenSource, beginning: &[u8]) -> anyhow::Result<()> {
    let (line, rest) = json_layout::first_line(beginning);
    if json_layout::may_span_lines(line)
        && let Some(problem) = json_layout::problem(line, rest, true)
    {
        return Err(anyhow!("{}: {problem}", opened.name));
    }
    Ok(())
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
