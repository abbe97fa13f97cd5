//! Parses the values of a record's fields.

use chrono::NaiveDate;

use super::super::reject::{Defect, Reason};
use super::record::name;

/// Parses a number of bytes, which may contain decimal digits only.
pub(super) fn parse_bytes(text: &str) -> Result<i64, Defect> {
    if let Some(bytes) = few_digits(text.as_bytes()) {
        return Ok(bytes);
    }
    let defect = |reason, problem| Err(Defect::of_field(reason, name::BYTES, text, problem));
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return defect(Reason::InvalidBytes, "is not a whole number (e.g. 1024)");
    }
    // -0 is zero.
    if unsigned.len() < text.len() && unsigned.bytes().any(|digit| digit != b'0') {
        return defect(Reason::NegativeBytes, "is negative; it must be 0 or more");
    }
    match unsigned.parse() {
        Ok(bytes) => Ok(bytes),
        Err(_) => defect(Reason::BytesOverflow, "is larger than 9223372036854775807"),
    }
}

/// Parses a number of 1 to 18 digits, which cannot overflow. Real records have no more.
pub(super) fn few_digits(digits: &[u8]) -> Option<i64> {
    let number = |number, digit: &u8| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + i64::from(digit - b'0'))
    };
    (1..=18)
        .contains(&digits.len())
        .then(|| digits.iter().try_fold(0, number))?
}

/// Parses an RFC 3339 date-time into microseconds since 1970; finer fractions are truncated.
///
/// The offset is required, because a local time does not determine the hour. Leap seconds are
/// rejected, because neither chrono nor PostgreSQL represents them.
pub(super) fn parse_date(text: &str) -> Result<i64, Defect> {
    date_time(text.as_bytes()).ok_or_else(|| {
        let problem = "is not a date-time with an offset (e.g. 2022-02-18T00:00:00Z)";
        Defect::of_field(Reason::InvalidDate, name::DATE, text, problem)
    })
}

/// Like [`parse_date`], but returns `None` for an invalid date-time.
pub(super) fn date_time(text: &[u8]) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let (time, rest) = rest.split_at_checked(9)?;
    let (
        &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2],
        &[b'T' | b't' | b' ', h1, h2, b':', i1, i2, b':', s1, s2],
    ) = (date, time)
    else {
        return None;
    };
    let year = number(&[y1, y2, y3, y4])?;
    let (month, day) = (number(&[m1, m2])?, number(&[d1, d2])?);
    let (hour, minute, second) = (number(&[h1, h2])?, number(&[i1, i2])?, number(&[s1, s2])?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?.to_epoch_days();
    let (fraction_us, rest) = fraction(rest)?;
    let seconds =
        i64::from(days) * 86_400 + i64::from(hour * 3_600 + minute * 60 + second) - offset(rest)?;
    Some(seconds * 1_000_000 + i64::from(fraction_us))
}

/// Parses a few decimal digits; more than nine may overflow.
fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + u32::from(digit - b'0'))
    })
}

/// Parses an optional fraction such as `.123456789`. Returns its microseconds and the text after
/// it.
fn fraction(text: &[u8]) -> Option<(u32, &[u8])> {
    let Some(text) = text.strip_prefix(b".") else {
        return Some((0, text));
    };
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(count);
    if !(1..=9).contains(&count) {
        return None;
    }
    let mut microseconds = [b'0'; 6];
    let kept = count.min(6);
    microseconds[..kept].copy_from_slice(&digits[..kept]);
    Some((number(&microseconds)?, rest))
}

/// Parses `Z` or an offset such as `+01:00` into seconds east of UTC.
fn offset(text: &[u8]) -> Option<i64> {
    match text {
        b"Z" | b"z" => Some(0),
        &[sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[h1, h2])?, number(&[m1, m2])?);
            let seconds = i64::from(hours * 3_600 + minutes * 60);
            (hours <= 23 && minutes <= 59).then_some(if sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, SecondsFormat};
    use proptest::prelude::*;

    #[test]
    fn bytes_are_exact_up_to_the_maximum() {
        assert_eq!(parse_bytes("0").unwrap(), 0);
        assert_eq!(parse_bytes("0010").unwrap(), 10);
        assert_eq!(parse_bytes("-0").unwrap(), 0);
        assert_eq!(parse_bytes("-0000000000000000000000").unwrap(), 0);
        assert_eq!(parse_bytes("9223372036854775807").unwrap(), i64::MAX);
        assert_eq!(parse_bytes("00000000000000000000007").unwrap(), 7);
    }

    #[test]
    fn invalid_bytes_have_distinct_reasons() {
        for (text, reason) in [
            ("9223372036854775808", Reason::BytesOverflow),
            ("99999999999999999999999", Reason::BytesOverflow),
            ("-1", Reason::NegativeBytes),
            ("-01", Reason::NegativeBytes),
            ("", Reason::InvalidBytes),
            ("-", Reason::InvalidBytes),
            ("+1", Reason::InvalidBytes),
            (" 1", Reason::InvalidBytes),
            ("1.0", Reason::InvalidBytes),
            ("1e3", Reason::InvalidBytes),
            ("0x10", Reason::InvalidBytes),
            ("ten", Reason::InvalidBytes),
            ("１", Reason::InvalidBytes),
        ] {
            assert_eq!(parse_bytes(text).unwrap_err().reason, reason, "{text:?}");
        }
    }

    #[test]
    fn offsets_and_fractions_are_applied() {
        let at = |text: &str| parse_date(text).unwrap();
        assert_eq!(at("1970-01-01T00:00:00Z"), 0);
        assert_eq!(at("1970-01-01T05:45:00+05:45"), 0);
        assert_eq!(at("1969-12-31 23:30:00.5-00:30"), 500_000);
        assert_eq!(at("1970-01-01t00:00:00.123456789z"), 123_456);
        assert_eq!(at("1969-12-31T23:59:59.999999Z"), -1);
        assert_eq!(at("2020-02-29T00:00:00Z"), 1_582_934_400_000_000);
    }

    #[test]
    fn invalid_dates_are_rejected() {
        for text in [
            "",
            "2022-02-18",
            "2022-02-18T00:00:00",
            "2022-02-30T00:00:00Z",
            "2021-02-29T00:00:00Z",
            "2022-13-01T00:00:00Z",
            "2022-02-18T24:00:00Z",
            "2022-02-18T00:60:00Z",
            "2016-12-31T23:59:60Z",
            "2022-02-18T00:00:00.Z",
            "2022-02-18T00:00:00.1234567890Z",
            "2022-02-18T00:00:00Zx",
            "2022-02-18T00:00:00+0100",
            "2022-02-18T00:00:00+24:00",
            "22-02-18T00:00:00Z",
            "+2022-02-18T00:00:00Z",
            "1645142400",
        ] {
            assert_eq!(
                parse_date(text).unwrap_err().reason,
                Reason::InvalidDate,
                "{text:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn dates_agree_with_chrono(seconds in 0_i64..7_000_000_000, nanos in 0_u32..1_000_000_000, offset in -86_340..86_340) {
            let zone = chrono::FixedOffset::east_opt(offset / 60 * 60).unwrap();
            let time = DateTime::from_timestamp(seconds, nanos).unwrap().with_timezone(&zone);
            for format in [SecondsFormat::Secs, SecondsFormat::Millis, SecondsFormat::Nanos] {
                let text = time.to_rfc3339_opts(format, true);
                let expected = DateTime::parse_from_rfc3339(&text).unwrap().timestamp_micros();
                prop_assert_eq!(parse_date(&text).unwrap(), expected, "{}", text);
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse_bytes(&text);
            let _ = parse_date(&text);
        }
    }
}
