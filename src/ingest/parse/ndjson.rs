//! Records as JSON objects, one per line.
//!
//! Nearly every line has exactly the three fields, written without escapes. A fast parser reads
//! such lines in one pass. All other lines, valid or not, go to `serde_json`. Both parsers return
//! the same record for every line that the fast one accepts.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::reject::{Defect, Reason};
use super::field::{date_time, few_digits, parse_bytes, parse_date};
use super::record::{UsageRecord, name};

/// The object with raw values, so that errors can quote them as written.
#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow, rename = "sim-card-id", alias = "sim_card_id")]
    sim_card: Option<&'a RawValue>,
    #[serde(borrow, rename = "bytes-used", alias = "bytes_used")]
    bytes: Option<&'a RawValue>,
    #[serde(borrow)]
    date: Option<&'a RawValue>,
}

pub(in crate::ingest) fn parse(line: &[u8]) -> Result<UsageRecord<'_>, Defect> {
    parse_fast(line).map_or_else(|| parse_any(line), Ok)
}

/// Parses a line that has exactly the three fields, in any order, as strings without escapes (or
/// digits, for `bytes-used`). Returns `None` for any other line and for an invalid one.
fn parse_fast(line: &[u8]) -> Option<UsageRecord<'_>> {
    let (mut sim_card, mut bytes, mut time_us) = (None, None, None);
    let mut rest = line.strip_prefix(b"{")?;
    loop {
        let (field, after) = plain_name(trim_spaces(rest))?;
        let value = trim_spaces(trim_spaces(after).strip_prefix(b":")?);
        let (text, after) = match value {
            [b'"', rest @ ..] => {
                let (text, after) = rest.split_at(memchr::memchr(b'"', rest)?);
                (text, &after[1..])
            }
            _ if matches!(field, Field::Bytes) => plain_number(value)?,
            _ => return None,
        };
        let is_duplicate = match field {
            Field::SimCard if text.is_empty() => return None,
            Field::SimCard => sim_card.replace(plain_text(text)?).is_some(),
            // An escape is not a digit or part of a date, so these two reject it themselves.
            Field::Bytes => bytes.replace(few_digits(text)?).is_some(),
            Field::Date => time_us.replace(date_time(text)?).is_some(),
        };
        rest = match trim_spaces(after) {
            _ if is_duplicate => return None,
            [b',', rest @ ..] => rest,
            b"}" => break,
            _ => return None,
        };
    }
    Some(UsageRecord {
        sim_card: Cow::Borrowed(sim_card?),
        bytes: bytes?,
        time_us: time_us?,
    })
}

enum Field {
    SimCard,
    Bytes,
    Date,
}

/// Parses a quoted field name. Returns the field and the text after it.
fn plain_name(text: &[u8]) -> Option<(Field, &[u8])> {
    // Comparing with constants of known length is faster than finding the closing quote first.
    let sim_card = || {
        text.strip_prefix(br#""sim-card-id""#)
            .or_else(|| text.strip_prefix(br#""sim_card_id""#))
    };
    let bytes = || {
        text.strip_prefix(br#""bytes-used""#)
            .or_else(|| text.strip_prefix(br#""bytes_used""#))
    };
    let date = || text.strip_prefix(br#""date""#);
    (sim_card().map(|after| (Field::SimCard, after)))
        .or_else(|| bytes().map(|after| (Field::Bytes, after)))
        .or_else(|| date().map(|after| (Field::Date, after)))
}

fn trim_spaces(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = text {
        text = rest;
    }
    text
}

/// The content of a JSON string; `None` if it has escapes, control characters or invalid UTF-8.
fn plain_text(content: &[u8]) -> Option<&str> {
    let is_plain = |&byte: &u8| byte >= b' ' && byte != b'\\';
    content
        .iter()
        .all(is_plain)
        .then(|| std::str::from_utf8(content).ok())?
}

/// Splits `text` after its leading digits.
fn plain_number(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (digits, after) = text.split_at(text.iter().position(|byte| !byte.is_ascii_digit())?);
    // JSON does not allow leading zeros.
    (digits.first() != Some(&b'0') || digits.len() == 1).then_some((digits, after))
}

/// Parses any line with `serde_json`.
pub(in crate::ingest) fn parse_any(line: &[u8]) -> Result<UsageRecord<'_>, Defect> {
    let malformed = |problem: &dyn std::fmt::Display| {
        Defect::of_line(
            Reason::Malformed,
            format!(
                "not a usage record in JSON: {problem}; expected {{\"sim-card-id\": \"…\", \"bytes-used\": \"…\", \"date\": \"…\"}}"
            ),
        )
    };
    // serde would also accept an array with the fields in order.
    if line.trim_ascii_start().first() == Some(&b'[') {
        return Err(malformed(&"it is an array, not an object"));
    }
    let object: Object<'_> = serde_json::from_slice(line).map_err(|error| malformed(&error))?;
    let sim_card = present(object.sim_card, name::SIM_CARD)?;
    let bytes = present(object.bytes, name::BYTES)?;
    let date = present(object.date, name::DATE)?;
    let sim_card = text(sim_card).ok_or_else(|| {
        Defect::of_field(
            Reason::InvalidSimCard,
            name::SIM_CARD,
            sim_card,
            "is not a string; put it in double quotes",
        )
    })?;
    // Accepted as a string and as a number; the digits are the same.
    let bytes = parse_bytes(&text(bytes).unwrap_or(Cow::Borrowed(bytes)))?;
    let time_us = parse_date(&text(date).unwrap_or(Cow::Borrowed(date)))?;
    Ok(UsageRecord {
        sim_card,
        bytes,
        time_us,
    })
}

/// The value as it is written. An empty string is missing, as it is in CSV.
fn present<'a>(value: Option<&'a RawValue>, field: &'static str) -> Result<&'a str, Defect> {
    value
        .map(RawValue::get)
        .filter(|json| *json != "\"\"")
        .ok_or_else(|| Defect::missing(field))
}

/// The text of a JSON string; `None` if the value has another type.
fn text(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(json).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reason(line: &str) -> (Reason, Option<&'static str>) {
        let defect = parse(line.as_bytes()).unwrap_err();
        (defect.reason, defect.field)
    }

    #[test]
    fn bytes_may_be_a_string_or_a_number() {
        let expected = UsageRecord {
            sim_card: "89440001".into(),
            bytes: 1024,
            time_us: 1_645_142_400_000_000,
        };
        for line in [
            r#"{"sim-card-id": "89440001", "bytes-used": "1024", "date": "2022-02-18T00:00:00Z"}"#,
            r#"{"sim-card-id":"89440001","bytes-used":1024,"date":"2022-02-18T00:00:00Z"}"#,
            r#"{"more":{"x":[1,"}"]},"date":"2022-02-18T01:00:00+01:00","bytes_used":1024,"sim_card_id":"8944000\u0031"}"#,
        ] {
            assert_eq!(parse(line.as_bytes()).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn each_defect_has_its_reason() {
        for line in [
            "",
            "{",
            "null",
            "7",
            "[]",
            r#"["1",5,"2026-05-01T12:00:00Z"]"#,
            r#" ["1",5,"2026-05-01T12:00:00Z"] "#,
            "{}x",
            r#"{"date":1,"date":2}"#,
            "{\"sim-card-id\":\"\u{0}\"}",
        ] {
            assert_eq!(reason(line), (Reason::Malformed, None), "{line}");
        }
        assert_eq!(
            parse(b"{\"sim-card-id\":\"\xff\"}").unwrap_err().reason,
            Reason::Malformed
        );
        let fields = |sim_card: &str, bytes: &str, date: &str| {
            reason(&format!(
                r#"{{"sim-card-id":{sim_card},"bytes-used":{bytes},"date":{date}}}"#
            ))
        };
        let date = r#""2022-02-18T00:00:00Z""#;
        assert_eq!(reason("{}"), (Reason::MissingField, Some("sim-card-id")));
        assert_eq!(
            fields("null", "1", date),
            (Reason::MissingField, Some("sim-card-id"))
        );
        for (sim_card, bytes, date, field) in [
            (r#""""#, "1", date, "sim-card-id"),
            (r#""1""#, r#""""#, date, "bytes-used"),
            (r#""1""#, "1", r#""""#, "date"),
        ] {
            assert_eq!(
                fields(sim_card, bytes, date),
                (Reason::MissingField, Some(field))
            );
        }
        assert_eq!(
            fields("89440001", "1", date),
            (Reason::InvalidSimCard, Some("sim-card-id"))
        );
        assert_eq!(
            fields(r#""1""#, "null", date),
            (Reason::MissingField, Some("bytes-used"))
        );
        assert_eq!(
            fields(r#""1""#, "1.5", date),
            (Reason::InvalidBytes, Some("bytes-used"))
        );
        assert_eq!(
            fields(r#""1""#, "true", date),
            (Reason::InvalidBytes, Some("bytes-used"))
        );
        assert_eq!(
            fields(r#""1""#, "-1", date),
            (Reason::NegativeBytes, Some("bytes-used"))
        );
        assert_eq!(
            fields(r#""1""#, "9223372036854775808", date),
            (Reason::BytesOverflow, Some("bytes-used"))
        );
        assert_eq!(
            fields(r#""1""#, "1", "1645142400"),
            (Reason::InvalidDate, Some("date"))
        );
        assert_eq!(
            fields(r#""1""#, "1", "null"),
            (Reason::MissingField, Some("date"))
        );
    }

    /// Asserts that the fast parser agrees with `serde_json`. Returns whether it accepted the line.
    fn check_fast(line: &[u8]) -> bool {
        let fast = parse_fast(line);
        if let Some(record) = &fast {
            assert_eq!(
                parse_any(line).as_ref(),
                Ok(record),
                "{}",
                String::from_utf8_lossy(line)
            );
        }
        fast.is_some()
    }

    #[test]
    fn the_fast_parser_reads_common_lines() {
        let date = "2022-02-18T00:00:00Z";
        for (line, is_fast) in [
            (
                format!(r#"{{"sim-card-id": "89440001", "bytes-used": "1024", "date": "{date}"}}"#),
                true,
            ),
            (
                format!(r#"{{"sim-card-id":"","bytes-used":0,"date":"{date}"}}"#),
                false,
            ),
            (
                format!(r#"{{"sim-card-id":"1","bytes-used":0,"date":"{date}"}}"#),
                true,
            ),
            (
                format!(r#"{{ "date" :"{date}", "bytes-used":"007" , "sim-card-id":"a~b" }}"#),
                true,
            ),
            (
                format!(r#"{{"sim-card-id":"1","bytes-used":007,"date":"{date}"}}"#),
                false,
            ),
            (
                format!(r#"{{"sim-card-id":"1","bytes-used":,"date":"{date}"}}"#),
                false,
            ),
            (
                format!(r#"{{"sim-card-id":"1","bytes-used":1.5,"date":"{date}"}}"#),
                false,
            ),
            (
                format!(r#"{{"sim-card-id":"1","bytes-used":1,"date":"{date}"}} "#),
                false,
            ),
            (
                format!(r#"{{"sim-card-id":"1","bytes-used":1,"date":"{date}",}}"#),
                false,
            ),
            (
                format!(r#"{{"sim-card-id":"1","bytes-used":1,"date":"{date}","date":"{date}"}}"#),
                false,
            ),
            (
                format!(r#"{{"sim-card-id":"1","bytes-used":1,"date":"{date}","more":"x"}}"#),
                false,
            ),
            (
                format!(r#"{{"sim_card_id":"1","bytes_used":1,"date":"{date}"}}"#),
                true,
            ),
            (
                format!(
                    r#"{{"sim_card_id":"1","sim-card-id":"1","bytes_used":1,"date":"{date}"}}"#
                ),
                false,
            ),
            (
                format!("{{\"sim-card-id\":\"\t\",\"bytes-used\":1,\"date\":\"{date}\"}}"),
                false,
            ),
            (
                format!(r#"{{"sim-card-id":"é","bytes-used":1,"date":"{date}"}}"#),
                true,
            ),
            (
                format!(r#"{{"sim-card-id":"\n","bytes-used":1,"date":"{date}"}}"#),
                false,
            ),
            (
                format!(r#"{{"sim-card-id":1,"bytes-used":1,"date":"{date}"}}"#),
                false,
            ),
            (r#"{"sim-card-id":"1","bytes-used":1}"#.to_owned(), false),
        ] {
            assert_eq!(check_fast(line.as_bytes()), is_fast, "{line}");
        }
    }

    proptest! {
        #[test]
        fn the_fast_parser_agrees_with_serde_json(
            fields in (
                r#""sim[-_]card[-_]id" ?: ?("[ -~]{0,8}"|"é"|"\\\\n"|7)"#,
                r#""bytes[-_]used" ?: ?("?[0-9]{1,20}"?|"?[1-9][0-9]{0,8}"?|-1|1[.]5|null)"#,
                r#""date": {0,2}"2020-0[0-3]-[0-3][0-9]T12:00:00(Z|Z|[.][0-9]{1,10}Z|[+]05:45|)""#,
                r#"("more":"x"|"date":1|[ \t]{0,2}|)"#,
            )
                .prop_map(|(sim_card, bytes, date, more)| [sim_card, bytes, date, more])
                .prop_shuffle(),
            comma in "(,|,|,| , |\t,| )",
        ) {
            let written = fields.iter().filter(|field| !field.is_empty()).map(String::as_str);
            let line = format!("{{{}}}", written.collect::<Vec<_>>().join(&comma));
            check_fast(line.as_bytes());
            for end in 0..line.len() {
                check_fast(&line.as_bytes()[..end]);
            }
        }

        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&line);
        }

        #[test]
        fn no_nearly_valid_line_panics(value in r#"[\[\]{}":,\\0-9a-z-]{0,20}"#) {
            let _ = parse(format!(r#"{{"sim-card-id":"1","bytes-used":{value},"date":{value}}}"#).as_bytes());
        }
    }
}
