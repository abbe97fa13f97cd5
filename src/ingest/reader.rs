//! From lines to batches: the thread that reads, parses, stamps and encodes.
//!
//! # The last line of a source that has no line end
//! It may be a whole record or a half-written one, and only a later run can know. If it can be stored, it is, and the
//! source's position moves behind it; should the line go on later, the source is refused, because the record was
//! not what it seemed. If it cannot be stored, it is rejected, but the position stays before it: the next run reads
//! the line again, whole or not, and what comes of it takes the place of the rejected record. So at every commit
//! each line is either stored or rejected, and once.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use bytes::Bytes;
use tokio::sync::mpsc::Sender;

use super::batch_builder::{BatchBuilder, Rejects};
use super::identity::{pass_over, refuse_grown_line};
use super::lines::{Line, Lines, is_silence};
use super::options::Options;
use super::parse::Parser;
use super::pending_batch::Message;
use super::progress::Counters;
use super::record_encoder::RecordEncoder;
use super::reject::{Defect, Reason};
use super::source::{Format, Opened};
use crate::config::Config;
use crate::db::{KnownSource, RejectedRecord, TUPLE_BYTES};

/// A batch ends when the usage records in it weigh this much: until it is committed they stay in memory, because a
/// lost connection loses what was sent.
const BATCH_BYTES: u64 = 32 * 1024 * 1024;

pub(super) const READER_PANICKED: &str = "the reader thread panicked";

/// What the reading thread is told.
pub(super) struct ReaderSettings {
    pub format: Option<Format>,
    pub batch_rows: u64,
    /// A source that comes slowly ends its batches at this age.
    pub batch_age: Duration,
    pub max_record_bytes: usize,
    pub max_rejects: Option<u64>,
    /// Whether nobody stores what is read.
    pub dry_run: bool,
}

impl ReaderSettings {
    /// What the configuration and the command line say.
    pub fn new(config: &Config, options: &Options) -> Self {
        Self {
            format: options.format,
            batch_rows: config.ingest.batch_rows,
            batch_age: Duration::from_millis(config.ingest.batch_age_ms),
            max_record_bytes: config.ingest.max_record_bytes,
            max_rejects: options.max_rejects,
            dry_run: options.dry_run,
        }
    }
}

/// Reads sources one after the other and sends their records on.
pub(super) struct RecordReader {
    settings: ReaderSettings,
    encoder: RecordEncoder,
    counters: Arc<Counters>,
    rejects: Rejects,
    batch: BatchBuilder,
}

/// What is being read, and where its records go.
struct Reading {
    name: Arc<str>,
    format: Format,
    /// The header of CSV.
    header: Option<Bytes>,
    sender: Sender<Message>,
    /// The position behind the last batch.
    sent_to: i64,
    began: Instant,
}

/// Why reading ended before the source did.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    /// `--max-rejects` is exceeded. What was read is sent on.
    #[error("stopped at {place}: more than {limit} records were rejected")]
    TooManyRejects { place: String, limit: u64 },
    /// The other side failed, and says why itself.
    #[error("the database side ended")]
    ChannelClosed,
    /// The source cannot be read. What was read before is sent on.
    #[error(transparent)]
    Source(#[from] anyhow::Error),
}

impl RecordReader {
    /// A reader of records that `encoder` stamps.
    pub fn new(settings: ReaderSettings, encoder: RecordEncoder, counters: Arc<Counters>) -> Self {
        let rejects = if settings.dry_run {
            Rejects::of_dry_run()
        } else {
            Rejects::default()
        };
        Self {
            settings,
            encoder,
            counters,
            rejects,
            batch: BatchBuilder::new(),
        }
    }

    /// Reads a source from where `known` says to its end. Its last batch is sent, too: no batch holds records of two
    /// sources.
    pub fn read(
        &mut self,
        mut opened: Opened,
        known: &KnownSource,
        sender: Sender<Message>,
    ) -> Result<(), Stopped> {
        let longest = self.settings.max_record_bytes;
        let passed = pass_over(&mut opened, known, longest)?;
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
            .settings
            .format
            .unwrap_or_else(|| opened.source.detect_format(beginning));
        let header = match format {
            Format::Csv if start > 0 => beginning
                .split(|&byte| byte == b'\n')
                .next()
                .map(Bytes::copy_from_slice),
            Format::Csv => {
                let header = loop {
                    match lines
                        .next()
                        .map(|line| line.map(|line| Bytes::copy_from_slice(line.bytes)))
                    {
                        Err(error) if is_silence(&error) => {}
                        other => break other,
                    }
                };
                match header.map_err(|error| failed(error, lines.read_to()))? {
                    Some(header) => Some(header),
                    None => return Ok(()),
                }
            }
            Format::Ndjson => None,
        };
        let name = Arc::clone(&opened.name);
        let mut parser = Parser::new(format, header.as_deref())
            .map_err(|problem| anyhow!("{name}:1: {problem}"))?;
        let mut reading = Reading {
            name,
            format,
            header,
            sender,
            sent_to: known.position,
            began: Instant::now(),
        };
        let result = self.read_lines(&mut reading, &mut lines, &mut parser);
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
        parser: &mut Parser,
    ) -> Result<(), Interrupted> {
        let mut reads = lines.reads();
        loop {
            let line = match lines.next() {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(()),
                Err(error) if is_silence(&error) => {
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
            let number = line.number;
            self.add(reading, &line, parser);
            if let Some(piece) = self.batch.take_piece() {
                self.send_tuples(reading, piece)?;
            }
            if let Some(limit) = self.rejects.over(self.settings.max_rejects) {
                let place = format!("{}:{number}", reading.name);
                return Err(Stopped::TooManyRejects { place, limit }.into());
            }
            // Looking at the clock costs, and a source that comes slowly is read often.
            let is_old =
                lines.reads() != reads && reading.began.elapsed() >= self.settings.batch_age;
            reads = lines.reads();
            if self.batch.records() >= self.settings.batch_rows
                || self.batch.tuple_bytes() >= BATCH_BYTES
                || self.batch.is_full_of_rejects()
                || is_old
            {
                self.end_batch(reading, lines)?;
            }
        }
    }

    /// Takes one line into the batch, as a usage record or as a rejected one.
    fn add(&mut self, reading: &Reading, line: &Line<'_>, parser: &mut Parser) {
        let result = if line.is_cut() {
            let longest = self.settings.max_record_bytes;
            let detail = format!(
                "{} bytes, of which the first {longest} are kept",
                line.length
            );
            Err(Defect::of_line(Reason::TooLong, detail))
        } else {
            parser
                .parse(line.bytes)
                .and_then(|record| self.batch.add(&record, &self.encoder))
        };
        if let Err(defect) = result {
            self.reject(reading, line, defect);
        }
    }

    fn reject(&mut self, reading: &Reading, line: &Line<'_>, defect: Defect) {
        self.rejects
            .count(&defect, format_args!("{}:{}", reading.name, line.number));
        self.batch.reject(RejectedRecord {
            source: Arc::clone(&reading.name),
            position: i64::try_from(line.position).unwrap_or(i64::MAX),
            line: i64::try_from(line.number).unwrap_or(i64::MAX),
            format: reading.format.name(),
            header: reading.header.clone(),
            reason: defect.reason.code(),
            field: defect.field,
            detail: defect.detail,
            raw: line.bytes.to_vec(),
        });
    }

    fn send_tuples(&mut self, reading: &Reading, tuples: Bytes) -> Result<(), Stopped> {
        self.counters
            .add_records((tuples.len() / TUPLE_BYTES) as u64);
        reading
            .sender
            .blocking_send(Message::Tuples(tuples))
            .map_err(|_| Stopped::ChannelClosed)
    }

    /// Sends the end of the batch, unless there is nothing to say: neither a record, nor that a source of which
    /// records are stored has been read further.
    fn end_batch(
        &mut self,
        reading: &mut Reading,
        lines: &mut Lines<impl Read>,
    ) -> Result<(), Stopped> {
        if let Some(rest) = self.batch.take_rest() {
            self.send_tuples(reading, rest)?;
        }
        reading.began = Instant::now();
        let is_empty = self.batch.records() == 0;
        if is_empty
            && (reading.sent_to == 0 || u64::try_from(reading.sent_to) == Ok(lines.position()))
        {
            return Ok(());
        }
        if let Some(position) = self.batch.last_rejected() {
            lines.leave_unfinished(position);
        }
        let checkpoint = lines.checkpoint();
        if is_empty && checkpoint.position == reading.sent_to {
            return Ok(());
        }
        reading.sent_to = checkpoint.position;
        let end = self.batch.take_end(checkpoint);
        self.counters.add_records(end.rejected.len() as u64);
        reading
            .sender
            .blocking_send(Message::End(end))
            .map_err(|_| Stopped::ChannelClosed)
    }
}

/// Why lines are read no further.
enum Interrupted {
    Stopped(Stopped),
    Unreadable(std::io::Error),
}

impl From<Stopped> for Interrupted {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}
