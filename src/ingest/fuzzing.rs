//! Entry points of the fuzz targets in `fuzz/`: each feeds arbitrary bytes to a parser and checks
//! its invariants. A test also runs the corpora through them; no other code uses them.

use std::ops::Range;

use super::inventory_file::parse_inventory;
use super::lines::{Lines, StreamPosition};
use super::parse::Format;
use super::parse::{Parser, UsageRecord, ndjson};
use super::reject::Defect;

/// Every instant that a four-digit year and an offset can express, in microseconds since 1970. The
/// range that can be stored is smaller; the record encoder checks it.
const TIMES_US: Range<i64> = -62_167_305_600_000_000..253_402_387_200_000_000;

/// A record has values in range, and a defect has a message.
fn check(parsed: Result<UsageRecord<'_>, Defect>) {
    match parsed {
        Ok(record) => assert!(
            record.bytes >= 0 && TIMES_US.contains(&record.time_us),
            "{record:?}"
        ),
        Err(defect) => assert!(!defect.detail.is_empty()),
    }
}

/// Parses a line of NDJSON.
///
/// # Panics
/// Panics if the fast parser and `serde_json` disagree.
pub fn ndjson_record(line: &[u8]) {
    let mut parser = Parser::Ndjson;
    let parsed = parser.parse(line);
    assert_eq!(parsed, ndjson::parse_any(line));
    check(parsed);
}

/// Parses lines of CSV below a header with all columns and an additional one.
pub fn csv_record(lines: &[u8]) {
    let header = b"date,bytes-used,note,sim-card-id";
    let mut parser = Parser::new(Format::Csv, Some(header)).expect("the header has all columns");
    for line in lines.split(|&byte| byte == b'\n') {
        check(parser.parse(line));
    }
}

/// Parses a CSV header, and then the same bytes as a line below it.
pub fn csv_header(header: &[u8]) {
    match Parser::new(Format::Csv, Some(header)) {
        Ok(mut parser) => {
            for name in ["sim-card-id", "bytes-used", "date"] {
                let lower = String::from_utf8_lossy(header)
                    .to_ascii_lowercase()
                    .replace('_', "-");
                // A name that contains quotes does not appear literally.
                assert!(lower.contains('"') || lower.contains(name), "{lower}");
            }
            check(parser.parse(header));
        }
        Err(error) => assert!(error.to_string().starts_with("the header "), "{error}"),
    }
}

/// Parses an inventory in JSON or CSV.
pub fn inventory(file: &[u8]) {
    for is_complete in [false, true] {
        if let Ok(assignments) = parse_inventory(file, is_complete) {
            // An entry has at least one byte, so there cannot be more entries than bytes.
            assert!(assignments.len() <= file.len());
        }
    }
}

/// Splits a stream into lines; the first byte is the maximum length of a line.
///
/// # Panics
/// Panics if a line, position or hash differs from a plain split at line ends.
pub fn lines(stream: &[u8]) {
    let Some((&max_bytes, stream)) = stream.split_first() else {
        return;
    };
    let max_bytes = usize::from(max_bytes).max(1);
    let mut lines =
        Lines::new(stream, max_bytes, StreamPosition::default()).expect("a slice can be read");
    let start = if stream.starts_with(b"\xef\xbb\xbf") {
        3
    } else {
        0
    };
    let mut position = start;
    let mut expected = stream[start..].split(|&byte| byte == b'\n');
    let mut number = 0;
    while let Some(line) = lines.next().expect("a slice can be read") {
        let whole = expected
            .next()
            .expect("there are no more lines than in the stream");
        let text = whole.strip_suffix(b"\r").unwrap_or(whole);
        number += 1;
        assert_eq!(line.bytes, &text[..text.len().min(max_bytes)]);
        assert_eq!(
            (line.position, line.number, line.length),
            (position as u64, number, text.len() as u64)
        );
        position += whole.len() + 1;
        assert_eq!(line.unfinished, position > stream.len());
    }
    // Nothing follows the last line end.
    assert!(expected.all(<[u8]>::is_empty));
    let checkpoint = lines.checkpoint();
    assert_eq!(usize::try_from(checkpoint.position), Ok(stream.len()));
    assert_eq!(
        checkpoint.prefix_hash,
        Some(*blake3::hash(stream).as_bytes())
    );
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_are_handled(bytes in vec(any::<u8>(), 0..200)) {
            for target in [ndjson_record, csv_record, csv_header, inventory, lines] {
                target(&bytes);
            }
        }

        #[test]
        fn nearly_valid_headers_are_handled(names in vec("(sim[-_]card[-_]id|BYTES-USED|date|\"date\"|x?) ?", 0..6)) {
            csv_header(names.join(",").as_bytes());
        }

        #[test]
        fn nearly_valid_inventories_are_handled(
            entries in vec("\\{\"sim-card-id\": ?\"[1-3]\",\"org_id\":\"[ab]?\"(,\"valid-from\":\"2020-0[12]-3[01]\")?\\}", 0..5),
            rows in vec("[1-3],[ab]?,(2020-0[12]-3[01](T00:00:00Z)?)?", 0..5),
        ) {
            inventory(format!("[{}]", entries.join(",")).as_bytes());
            inventory(format!("sim-card-id,org-id,valid-from\n{}", rows.join("\n")).as_bytes());
        }

        #[test]
        fn streams_with_many_line_ends_are_handled(max_bytes in any::<u8>(), text in "\u{feff}?[ab\r\n]{0,600}") {
            lines(&[&[max_bytes], text.as_bytes()].concat());
        }
    }
}
