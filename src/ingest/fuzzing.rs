//! What the fuzz targets in `fuzz/` feed with arbitrary bytes: the parsers, each with what must hold for whatever it
//! takes. The corpora are run through these by a test, too. No other code uses them.

use std::ops::Range;

use super::inventory_file::parse_inventory;
use super::lines::{Lines, StreamPosition};
use super::parse::{Parser, UsageRecord, ndjson};
use super::reject::Defect;
use super::source::Format;

/// The microseconds of years of four digits, whatever the offset. Which of them can be stored is found out later, when
/// the record gets its stamp.
const TIMES_US: Range<i64> = -62_167_305_600_000_000..253_402_387_200_000_000;

/// A record that is taken has what its line may say; one that is not is told with a reason.
fn check(parsed: Result<UsageRecord<'_>, Defect>) {
    match parsed {
        Ok(record) => assert!(
            record.bytes >= 0 && TIMES_US.contains(&record.time_us),
            "{record:?}"
        ),
        Err(defect) => assert!(!defect.detail.is_empty()),
    }
}

/// A line of NDJSON, which is read as `serde_json` reads it.
///
/// # Panics
/// It is not.
pub fn ndjson_record(line: &[u8]) {
    let mut parser = Parser::Ndjson;
    let parsed = parser.parse(line);
    assert_eq!(parsed, ndjson::parse_any(line));
    check(parsed);
}

/// Lines of CSV under a header that has all columns, and one more.
pub fn csv_record(lines: &[u8]) {
    let header = b"date,bytes-used,note,sim-card-id";
    let mut parser = Parser::new(Format::Csv, Some(header)).expect("the header has all columns");
    for line in lines.split(|&byte| byte == b'\n') {
        check(parser.parse(line));
    }
}

/// A header of CSV, and a line under it.
pub fn csv_header(header: &[u8]) {
    match Parser::new(Format::Csv, Some(header)) {
        Ok(mut parser) => {
            for name in ["sim-card-id", "bytes-used", "date"] {
                let lower = String::from_utf8_lossy(header)
                    .to_ascii_lowercase()
                    .replace('_', "-");
                // With the quotes that CSV allows within a name, it is not there letter by letter.
                assert!(lower.contains('"') || lower.contains(name), "{lower}");
            }
            check(parser.parse(header));
        }
        Err(problem) => assert!(problem.starts_with("the header "), "{problem}"),
    }
}

/// An inventory, JSON or CSV.
pub fn inventory(file: &[u8]) {
    let Ok(text) = std::str::from_utf8(file) else {
        return;
    };
    if let Ok(assignments) = parse_inventory(text) {
        // It is either kept whole or refused: an entry takes more than a line end.
        assert!(assignments.len() <= text.len());
    }
}

/// A stream of lines, of which none is kept longer than the first byte says. Every byte is a line's or its end.
///
/// # Panics
/// A line is not what splitting at line ends makes of the stream, or a place or hash is wrong.
pub fn lines(stream: &[u8]) {
    let Some((&longest, stream)) = stream.split_first() else {
        return;
    };
    let longest = usize::from(longest).max(1);
    let mut lines =
        Lines::new(stream, longest, StreamPosition::default()).expect("a slice can be read");
    let start = if stream.starts_with(b"\xef\xbb\xbf") {
        3
    } else {
        0
    };
    let mut position = start;
    let mut expected = stream[start..].split(|&byte| byte == b'\n');
    let mut number = 0;
    while let Some(line) = lines.next().expect("a slice can be read") {
        let whole = expected.next().expect("no line is made up");
        let text = whole.strip_suffix(b"\r").unwrap_or(whole);
        number += 1;
        assert_eq!(line.bytes, &text[..text.len().min(longest)]);
        assert_eq!(
            (line.position, line.number, line.length),
            (position as u64, number, text.len() as u64)
        );
        position += whole.len() + 1;
        assert_eq!(line.unfinished, position > stream.len());
    }
    // What is behind the last line end is a line only if there is anything.
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
        fn any_bytes_hold(bytes in vec(any::<u8>(), 0..200)) {
            for target in [ndjson_record, csv_record, csv_header, inventory, lines] {
                target(&bytes);
            }
        }

        #[test]
        fn nearly_right_headers_hold(names in vec("(sim[-_]card[-_]id|BYTES-USED|date|\"date\"|x?) ?", 0..6)) {
            csv_header(names.join(",").as_bytes());
        }

        #[test]
        fn nearly_right_inventories_hold(
            entries in vec("\\{\"sim-card-id\": ?\"[1-3]\",\"org_id\":\"[ab]?\"(,\"valid-from\":\"2020-0[12]-3[01]\")?\\}", 0..5),
            rows in vec("[1-3],[ab]?,(2020-0[12]-3[01](T00:00:00Z)?)?", 0..5),
        ) {
            inventory(format!("[{}]", entries.join(",")).as_bytes());
            inventory(format!("sim-card-id,org-id,valid-from\n{}", rows.join("\n")).as_bytes());
        }

        #[test]
        fn streams_of_line_ends_hold(longest in any::<u8>(), text in "\u{feff}?[ab\r\n]{0,600}") {
            lines(&[&[longest], text.as_bytes()].concat());
        }
    }
}
