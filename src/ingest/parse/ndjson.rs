//! Records as JSON objects, one a line.
//!
//! Nearly every line has the three fields and no others, in one of the plain forms that programs write. Such a line is
//! read in one pass; any other, and any that is wrong, by `serde_json`, whose word is the rule: what is read in one
//! pass is what it would have said.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::reject::{Defect, Reason};
use super::field::{date_time, few_digits, parse_bytes, parse_date};
use super::{UsageRecord, name};

/// The object with its values unread, so that each is judged, and quoted, as it was written.
#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow, rename = "sim-card-id", alias = "sim_card_id")]
    sim_card: Option<&'a RawValue>,
    #[serde(borrow, rename = "bytes-used", alias = "bytes_used")]
    bytes: Option<&'a RawValue>,
    #[serde(borrow)]
    date: Option<&'a RawValue>,
}

/// Reads one line.
pub(in crate::ingest) fn parse(line: &[u8]) -> Result<UsageRecord<'_>, Defect> {
    parse_plain(line).map_or_else(|| parse_any(line), Ok)
}

/// Reads a line whose fields are the three, in any order, as strings without an escape or as a number of digits; `None`
/// if it is another, or wrong.
fn parse_plain(line: &[u8]) -> Option<UsageRecord<'_>> {
    let (mut sim_card, mut bytes, mut time_us) = (None, None, None);
    let mut rest = line.strip_prefix(b"{")?;
    loop {
        let (field, behind) = plain_name(without_spaces(rest))?;
        let value = without_spaces(without_spaces(behind).strip_prefix(b":")?);
        let (text, behind) = match value {
            [b'"', rest @ ..] => {
                let (text, behind) = rest.split_at(memchr::memchr(b'"', rest)?);
                (text, &behind[1..])
            }
            _ if matches!(field, Field::Bytes) => plain_number(value)?,
            _ => return None,
        };
        let is_again = match field {
            Field::SimCard => sim_card.replace(plain_text(text)?).is_some(),
            // An escape is neither a digit nor a part of a date.
            Field::Bytes => bytes.replace(few_digits(text)?).is_some(),
            Field::Date => time_us.replace(date_time(text)?).is_some(),
        };
        rest = match without_spaces(behind) {
            _ if is_again => return None,
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

/// The field whose name `text` begins with, and what follows it.
fn plain_name(text: &[u8]) -> Option<(Field, &[u8])> {
    // Compared with each by a length that the compiler knows, which is faster than to look for the name's end first.
    let sim_card = || {
        text.strip_prefix(br#""sim-card-id""#)
            .or_else(|| text.strip_prefix(br#""sim_card_id""#))
    };
    let bytes = || {
        text.strip_prefix(br#""bytes-used""#)
            .or_else(|| text.strip_prefix(br#""bytes_used""#))
    };
    let date = || text.strip_prefix(br#""date""#);
    (sim_card().map(|behind| (Field::SimCard, behind)))
        .or_else(|| bytes().map(|behind| (Field::Bytes, behind)))
        .or_else(|| date().map(|behind| (Field::Date, behind)))
}

fn without_spaces(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = text {
        text = rest;
    }
    text
}

/// The inside of a string as its text, if it holds nothing that JSON has escaped.
fn plain_text(inside: &[u8]) -> Option<&str> {
    let is_plain = |&byte: &u8| byte >= b' ' && byte != b'\\';
    inside
        .iter()
        .all(is_plain)
        .then(|| std::str::from_utf8(inside).ok())?
}

/// The digits that `text` begins with, and what follows them.
fn plain_number(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (digits, behind) = text.split_at(text.iter().position(|byte| !byte.is_ascii_digit())?);
    // JSON has no number like 007.
    (digits.first() != Some(&b'0') || digits.len() == 1).then_some((digits, behind))
}

/// Reads any line.
pub(in crate::ingest) fn parse_any(line: &[u8]) -> Result<UsageRecord<'_>, Defect> {
    let object: Object<'_> = serde_json::from_slice(line).map_err(|error| {
        Defect::of_line(
            Reason::Malformed,
            format!("not a JSON object of a usage record: {error}"),
        )
    })?;
    let sim_card = present(object.sim_card, name::SIM_CARD)?;
    let bytes = present(object.bytes, name::BYTES)?;
    let date = present(object.date, name::DATE)?;
    let sim_card = text(sim_card).ok_or_else(|| {
        Defect::of_field(
            Reason::InvalidSimCard,
            name::SIM_CARD,
            sim_card,
            "is not a string",
        )
    })?;
    // The number comes as a string or as a number; either way its digits are what counts.
    let bytes = parse_bytes(&text(bytes).unwrap_or(Cow::Borrowed(bytes)))?;
    let time_us = parse_date(&text(date).unwrap_or(Cow::Borrowed(date)))?;
    Ok(UsageRecord {
        sim_card,
        bytes,
        time_us,
    })
}

fn present<'a>(value: Option<&'a RawValue>, field: &'static str) -> Result<&'a str, Defect> {
    value
        .map(RawValue::get)
        .ok_or_else(|| Defect::missing(field))
}

/// The text of a JSON string; `None` if the value is of another type.
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
    fn bytes_come_as_string_or_number() {
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
    fn every_defect_has_its_reason() {
        for line in [
            "",
            "{",
            "null",
            "7",
            "[]",
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

    /// The one pass says nothing, or what `serde_json` says.
    fn check_plain(line: &[u8]) -> bool {
        let plain = parse_plain(line);
        if let Some(record) = &plain {
            assert_eq!(
                parse_any(line).as_ref(),
                Ok(record),
                "{}",
                String::from_utf8_lossy(line)
            );
        }
        plain.is_some()
    }

    #[test]
    fn one_pass_reads_what_programs_write() {
        let date = "2022-02-18T00:00:00Z";
        for (line, is_plain) in [
            (
                format!(r#"{{"sim-card-id": "89440001", "bytes-used": "1024", "date": "{date}"}}"#),
                true,
            ),
            (
                format!(r#"{{"sim-card-id":"","bytes-used":0,"date":"{date}"}}"#),
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
            assert_eq!(check_plain(line.as_bytes()), is_plain, "{line}");
        }
    }

    proptest! {
        #[test]
        fn one_pass_agrees_with_serde_json(
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
            check_plain(line.as_bytes());
            for end in 0..line.len() {
                check_plain(&line.as_bytes()[..end]);
            }
        }

        #[test]
        fn no_line_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&line);
        }

        #[test]
        fn no_nearly_right_line_makes_it_panic(value in r#"[\[\]{}":,\\0-9a-z-]{0,20}"#) {
            let _ = parse(format!(r#"{{"sim-card-id":"1","bytes-used":{value},"date":{value}}}"#).as_bytes());
        }
    }
}
