//! Records as JSON objects, one a line.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::reject::{Defect, Reason};
use super::field::{parse_bytes, parse_date};
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
    let object: Object<'_> = serde_json::from_slice(line)
        .map_err(|error| Defect::of_line(Reason::Malformed, format!("not a JSON object of a usage record: {error}")))?;
    let sim_card = present(object.sim_card, name::SIM_CARD)?;
    let bytes = present(object.bytes, name::BYTES)?;
    let date = present(object.date, name::DATE)?;
    let sim_card = text(sim_card)
        .ok_or_else(|| Defect::of_field(Reason::InvalidSimCard, name::SIM_CARD, sim_card, "is not a string"))?;
    // The number comes as a string or as a number; either way its digits are what counts.
    let bytes = parse_bytes(&text(bytes).unwrap_or(Cow::Borrowed(bytes)))?;
    let time_us = parse_date(&text(date).unwrap_or(Cow::Borrowed(date)))?;
    Ok(UsageRecord { sim_card, bytes, time_us })
}

fn present<'a>(value: Option<&'a RawValue>, field: &'static str) -> Result<&'a str, Defect> {
    value.map(RawValue::get).ok_or_else(|| Defect::missing(field))
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
        let expected = UsageRecord { sim_card: "89440001".into(), bytes: 1024, time_us: 1_645_142_400_000_000 };
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
        for line in ["", "{", "null", "7", "[]", "{}x", r#"{"date":1,"date":2}"#, "{\"sim-card-id\":\"\u{0}\"}"] {
            assert_eq!(reason(line), (Reason::Malformed, None), "{line}");
        }
        assert_eq!(parse(b"{\"sim-card-id\":\"\xff\"}").unwrap_err().reason, Reason::Malformed);
        let fields = |sim_card: &str, bytes: &str, date: &str| {
            reason(&format!(r#"{{"sim-card-id":{sim_card},"bytes-used":{bytes},"date":{date}}}"#))
        };
        let date = r#""2022-02-18T00:00:00Z""#;
        assert_eq!(reason("{}"), (Reason::MissingField, Some("sim-card-id")));
        assert_eq!(fields("null", "1", date), (Reason::MissingField, Some("sim-card-id")));
        assert_eq!(fields("89440001", "1", date), (Reason::InvalidSimCard, Some("sim-card-id")));
        assert_eq!(fields(r#""1""#, "null", date), (Reason::MissingField, Some("bytes-used")));
        assert_eq!(fields(r#""1""#, "1.5", date), (Reason::InvalidBytes, Some("bytes-used")));
        assert_eq!(fields(r#""1""#, "true", date), (Reason::InvalidBytes, Some("bytes-used")));
        assert_eq!(fields(r#""1""#, "-1", date), (Reason::NegativeBytes, Some("bytes-used")));
        assert_eq!(fields(r#""1""#, "9223372036854775808", date), (Reason::BytesOverflow, Some("bytes-used")));
        assert_eq!(fields(r#""1""#, "1", "1645142400"), (Reason::InvalidDate, Some("date")));
        assert_eq!(fields(r#""1""#, "1", "null"), (Reason::MissingField, Some("date")));
    }

    proptest! {
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
