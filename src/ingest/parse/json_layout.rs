//! Recognises JSON that is not one object per line: arrays, and objects that span several lines.
//!
//! Read as NDJSON, most of its lines would be rejected, but not all: the last object of an array has
//! no comma after it. So such a file is refused as a whole.

use serde::de::IgnoredAny;

/// How much after a line is examined.
const EXAMINED_BYTES: usize = 64 * 1024;

/// Whether [`problem`] should be called for this line: it ends as no object does, or begins an
/// array.
pub(in crate::ingest) fn may_span_lines(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    matches!(line.last(), Some(b'{' | b'[' | b',')) || line.first() == Some(&b'[')
}

/// Why a file with this line cannot be read as NDJSON. `rest` is what follows the line, or its
/// beginning. `is_first` is whether only empty lines come before it.
pub(in crate::ingest) fn problem(line: &[u8], rest: &[u8], is_first: bool) -> Option<&'static str> {
    const ARRAY: &str = "this is a JSON array; write one object per line, without commas between \
                         them (ex: jq -c '.[]' FILE | simusage ingest --source-id NAME -)";
    const SPANS_LINES: &str = "this JSON value spans several lines; write each object on a line of \
                               its own (ex: jq -c . FILE | simusage ingest --source-id NAME -)";
    let line = line.trim_ascii();
    let begins_array = line
        .strip_prefix(b"[")
        .is_some_and(|inner| matches!(inner.trim_ascii_start().first(), None | Some(b'{')));
    if begins_array && (is_first || !is_value(line)) {
        let spans = is_first || spans_lines(line, rest);
        return spans.then_some(ARRAY);
    }
    if is_first
        && let Some(element) = line.strip_suffix(b",")
        && element.starts_with(b"{")
        && is_value(element)
    {
        return Some(ARRAY);
    }
    (line.starts_with(b"{") && spans_lines(line, rest)).then_some(SPANS_LINES)
}

/// The first line of a stream that is not empty, and what follows it.
pub(in crate::ingest) fn first_line(beginning: &[u8]) -> (&[u8], &[u8]) {
    let beginning = beginning.trim_ascii_start();
    let end = memchr::memchr(b'\n', beginning).unwrap_or(beginning.len());
    beginning.split_at(end)
}

/// Whether this much of a stream is enough for [`problem`]: the first line, and more if that might
/// be the beginning of a longer value.
pub(in crate::ingest) fn is_enough(beginning: &[u8]) -> bool {
    let (line, rest) = first_line(beginning);
    !rest.is_empty() && (!may_span_lines(line) || !rest.trim_ascii().is_empty())
}

fn is_value(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// Whether a JSON value begins with this line and continues in the next.
fn spans_lines(line: &[u8], rest: &[u8]) -> bool {
    let rest = &rest[..rest.len().min(EXAMINED_BYTES)];
    let text = [line, b"\n", rest].concat();
    let mut values = serde_json::Deserializer::from_slice(&text).into_iter::<IgnoredAny>();
    match values.next() {
        Some(Ok(_)) => values.byte_offset() > line.len(),
        // The value continues after the examined part.
        Some(Err(error)) => error.is_eof() && !rest.trim_ascii().is_empty(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Option<&'static str> {
        let mut is_first = true;
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let line = &rest[..end];
            rest = rest.get(end + 1..).unwrap_or_default();
            if may_span_lines(line)
                && let Some(problem) = problem(line, rest, is_first)
            {
                return Some(problem);
            }
            is_first &= line.is_empty();
        }
        None
    }

    const RECORD: &str = r#"{"sim-card-id": "1", "bytes-used": 1, "date": "2020-02-01T00:00:00Z"}"#;

    #[test]
    fn arrays_and_values_over_several_lines_are_recognised() {
        let pretty = RECORD
            .replace('{', "{\n  ")
            .replace(", ", ",\n  ")
            .replace('}', "\n}");
        for text in [
            format!("[{RECORD},\n{RECORD}]\n"),
            format!("[\n{RECORD},\n{RECORD}\n]\n"),
            format!("\n [ \n{RECORD}\n]\n"),
            format!("[{RECORD}]"),
            "[".to_owned(),
            format!("{RECORD},\n{RECORD}\n"),
            format!("{pretty}\n{pretty}\n"),
            "{\"sim-card-id\": \"1\",\n\"bytes-used\": 1}\n".to_owned(),
            format!("{{\"records\": [\n{}\n]}}", vec![RECORD; 2_000].join(",\n")),
            format!("{RECORD}\n{pretty}\n"),
            format!("{RECORD}\n[\n{RECORD},\n{RECORD}\n]\n"),
        ] {
            assert!(check(&text).is_some(), "{text}");
        }
    }

    #[test]
    fn malformed_lines_are_left_to_be_rejected_one_by_one() {
        for text in [
            format!("{RECORD}\n{RECORD}\n"),
            format!("{RECORD}\n{RECORD},\n{RECORD}\n"),
            format!("{{\"sim-card-id\": \"1\",\n{RECORD}\n"),
            format!("[\"1\", 5, \"2020-02-01T00:00:00Z\"]\n{RECORD}\n"),
            format!("nonsense,\n{RECORD}\n"),
            format!("{RECORD}\n{{"),
            format!("{{\n{RECORD}\n{RECORD}\n"),
        ] {
            assert_eq!(check(&text), None, "{text}");
        }
    }
}
