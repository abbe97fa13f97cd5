//! Reads a file once before anything of it is stored, to recognise it and to refuse it as a whole if
//! it is damaged or cannot contain usage records.

use std::io::{self, Read};

use anyhow::{Context as _, anyhow};

use super::fingerprint::Fingerprint;
use super::lines::Lines;
use super::parse::{Format, Parser, json_layout};
use super::reject::Reason;

/// How many lines of a file are examined for JSON that spans several lines.
const EXAMINED_LINES: u32 = 100;

/// The result of a scan.
#[derive(Debug)]
pub(super) struct Scan {
    /// How many bytes of the decompressed content may be stored.
    pub bytes: u64,
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
        fingerprint: Fingerprint::default(),
        has_records: false,
        error: None,
    };
    let lines = Lines::without_checkpoints(input, max_record_bytes);
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
            scan.fingerprint.add(line.bytes, line.length, |_| false);
            continue;
        };
        scan.fingerprint.add(line.bytes, line.length, |line| {
            let is_record = |defect: &super::reject::Defect| defect.reason != Reason::Malformed;
            parser.parse(line).as_ref().err().is_none_or(is_record)
        });
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
    Ok(scan)
}
