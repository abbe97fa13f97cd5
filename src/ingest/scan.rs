//! Reads a file once before anything of it is stored, to recognise it and to refuse it as a whole if
//! it is damaged or cannot contain usage records.

use std::io::{self, Read};

use anyhow::{Context as _, anyhow};

use super::block_hashes::{BlockHashes, HashingReader};
use super::fingerprint::Fingerprint;
use super::lines::{Line, Lines};
use super::parse::{Format, Parser, json_layout};
use super::reject::{Defect, Reason};

/// How many lines of a file are examined for JSON that spans several lines.
const EXAMINED_LINES: u32 = 100;

/// The result of a scan.
#[derive(Debug)]
pub(super) struct Scan {
    /// How many bytes of the decompressed content may be stored.
    pub bytes: u64,
    /// The hashes of these bytes.
    pub hashes: BlockHashes,
    pub fingerprint: Fingerprint,
    /// Whether there are lines that may be records.
    pub has_records: bool,
    /// Why the content after `bytes` cannot be read.
    pub error: Option<io::Error>,
}

/// Scans the decompressed content of a file. If it becomes unreadable, the result covers what was
/// read before.
///
/// # Errors
/// Returns an error if the file cannot contain usage records.
pub(super) fn scan(
    input: impl Read,
    name: &str,
    max_record_bytes: usize,
    detect_format: impl FnOnce(&[u8]) -> Format,
) -> anyhow::Result<Scan> {
    let mut scan = Scan {
        bytes: 0,
        hashes: BlockHashes::default(),
        fingerprint: Fingerprint::default(),
        has_records: false,
        error: None,
    };
    let mut input = HashingReader::new(input);
    let lines = Lines::without_checkpoints(&mut input, max_record_bytes);
    let mut lines = match lines {
        Ok(lines) => lines,
        Err(error) => {
            scan.error = Some(error);
            return Ok(scan);
        }
    };
    let format = detect_format(lines.pending());
    let mut parser = match format {
        Format::Ndjson => Some(Parser::Ndjson),
        Format::Csv => None,
    };
    let mut examined = 0;
    loop {
        let line = match lines.next() {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) => {
                scan.error = Some(error);
                break;
            }
        };
        let place = |number: u64| format!("{name}:{number}");
        let Some(parser) = &mut parser else {
            let header = Parser::new(format, Some(line.bytes));
            parser = Some(header.with_context(|| place(line.number))?);
            let hash = line.hash();
            scan.fingerprint.add(hash, line.bytes.is_empty(), || false);
            continue;
        };
        let is_empty = line.bytes.is_empty();
        scan.fingerprint
            .add(line.hash(), is_empty, || is_record(parser, &line));
        scan.fingerprint.last_is_cut = line.unfinished && !is_finished(format, parser, &line);
        if line.bytes.is_empty() {
            continue;
        }
        let is_first = !scan.has_records;
        scan.has_records = true;
        if format == Format::Ndjson
            && examined < EXAMINED_LINES
            && json_layout::may_span_lines(line.bytes)
        {
            examined += 1;
            let (number, line) = (line.number, line.bytes.to_vec());
            if let Some(problem) = json_layout::problem(&line, lines.pending(), is_first) {
                return Err(anyhow!("{}: {problem}", place(number)));
            }
        }
    }
    scan.bytes = lines.read_to();
    scan.hashes = input.into_hashes();
    Ok(scan)
}

/// Whether a line is a record, even one that is rejected for one of its fields.
fn is_record(parser: &mut Parser, line: &Line<'_>) -> bool {
    let is_of_field = |defect: &Defect| defect.reason != Reason::Malformed;
    let is_cut = line.length > line.bytes.len() as u64;
    is_cut
        || parser
            .parse(line.bytes)
            .as_ref()
            .err()
            .is_none_or(is_of_field)
}

/// Whether a line without a line end is a whole record, because no byte after it could make it another.
fn is_finished(format: Format, parser: &mut Parser, line: &Line<'_>) -> bool {
    format.closes_records() && parser.parse(line.bytes).is_ok()
}
