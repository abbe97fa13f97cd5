//! Time zones: local time, and the start of a local day.
//!
//! The rules come from the IANA database compiled into the program, so results do not depend on the
//! version installed on the database server.

use std::fmt;
use std::str::FromStr;

use chrono::{
    DateTime, MappedLocalTime, NaiveDate, NaiveDateTime, Offset as _, SecondsFormat, TimeDelta,
    TimeZone, Utc,
};
use chrono_tz::Tz;
use serde::{Serialize, Serializer};

/// More than any UTC offset since 1900.
const MAX_OFFSET: TimeDelta = TimeDelta::hours(26);

/// A time zone of the IANA database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Zone(Tz);

/// A text that is not the name of a time zone.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a time zone (e.g. UTC, Europe/Berlin)")]
pub struct UnknownZone(String);

impl Zone {
    /// Coordinated Universal Time.
    pub const UTC: Self = Self(Tz::UTC);

    /// The local time at an instant.
    #[must_use]
    pub fn wall_time(self, instant: DateTime<Utc>) -> NaiveDateTime {
        instant.with_timezone(&self.0).naive_local()
    }

    /// The offset from UTC at an instant, in seconds.
    pub(super) fn offset_s(self, instant: DateTime<Utc>) -> i64 {
        let offset = self.0.offset_from_utc_datetime(&instant.naive_utc());
        offset.fix().local_minus_utc().into()
    }

    /// The first instant of a local day. If midnight occurs twice this is the first one; if clocks
    /// skip midnight it is the instant at which they change.
    #[must_use]
    pub fn day_start(self, date: NaiveDate) -> DateTime<Utc> {
        self.instants(date.and_time(chrono::NaiveTime::MIN))[0]
    }

    /// The instants with a local time, in ascending order: two if clocks were set back over it. If
    /// clocks skip it, returns the instant at which they change.
    pub(super) fn instants(self, wall_time: NaiveDateTime) -> Vec<DateTime<Utc>> {
        match self.0.from_local_datetime(&wall_time) {
            MappedLocalTime::Single(instant) => vec![instant.to_utc()],
            MappedLocalTime::Ambiguous(first, second) => vec![first.to_utc(), second.to_utc()],
            MappedLocalTime::None => vec![self.skip_instant(wall_time)],
        }
    }

    /// The instant at which clocks were set forward over a local time.
    fn skip_instant(self, wall_time: NaiveDateTime) -> DateTime<Utc> {
        let (mut before, mut after) = (
            wall_time.and_utc() - MAX_OFFSET,
            wall_time.and_utc() + MAX_OFFSET,
        );
        // Clocks change on a whole second.
        while after - before > TimeDelta::seconds(1) {
            let middle = before + TimeDelta::seconds((after - before).num_seconds() / 2);
            if self.wall_time(middle) < wall_time {
                before = middle;
            } else {
                after = middle;
            }
        }
        after
    }

    /// Formats an instant as RFC 3339 with the local offset. RFC 3339 has no seconds in offsets, so
    /// where a local offset has some the result is in UTC.
    #[must_use]
    pub fn write(self, instant: DateTime<Utc>) -> String {
        let local = instant.with_timezone(&self.0);
        if self == Self::UTC || local.offset().fix().local_minus_utc() % 60 != 0 {
            instant.to_rfc3339_opts(SecondsFormat::AutoSi, true)
        } else {
            local.to_rfc3339_opts(SecondsFormat::AutoSi, false)
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.name())
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name())
    }
}

impl FromStr for Zone {
    type Err = UnknownZone;

    fn from_str(text: &str) -> Result<Self, UnknownZone> {
        text.parse()
            .map(Self)
            .map_err(|_| UnknownZone(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> Zone {
        name.parse().unwrap()
    }

    fn day_start(name: &str, date: &str) -> String {
        zone(name)
            .day_start(date.parse().unwrap())
            .to_rfc3339_opts(SecondsFormat::Secs, true)
    }

    #[test]
    fn a_day_begins_at_local_midnight() {
        assert_eq!(day_start("UTC", "2020-02-01"), "2020-02-01T00:00:00Z");
        assert_eq!(
            day_start("Europe/Berlin", "2020-02-01"),
            "2020-01-31T23:00:00Z"
        );
        assert_eq!(
            day_start("Asia/Kolkata", "2020-02-01"),
            "2020-01-31T18:30:00Z"
        );
        assert_eq!(
            day_start("Asia/Kathmandu", "2020-02-01"),
            "2020-01-31T18:15:00Z"
        );
    }

    #[test]
    fn a_day_without_midnight_begins_when_clocks_change() {
        // 00:00 became 01:00.
        assert_eq!(
            day_start("America/Sao_Paulo", "2017-10-15"),
            "2017-10-15T03:00:00Z"
        );
        // 23:30 became 00:30.
        assert_eq!(
            day_start("America/Toronto", "1919-03-31"),
            "1919-03-31T04:30:00Z"
        );
        // Samoa skipped December 30.
        assert_eq!(
            day_start("Pacific/Apia", "2011-12-30"),
            day_start("Pacific/Apia", "2011-12-31")
        );
    }

    #[test]
    fn a_day_with_two_midnights_begins_at_the_first() {
        // 01:00 became 00:00.
        assert_eq!(
            day_start("America/Havana", "2020-11-01"),
            "2020-11-01T04:00:00Z"
        );
    }

    #[test]
    fn instants_have_the_local_offset() {
        let instant = "2020-07-01T12:00:00.5Z".parse().unwrap();
        assert_eq!(zone("UTC").write(instant), "2020-07-01T12:00:00.500Z");
        assert_eq!(
            zone("Europe/Berlin").write(instant),
            "2020-07-01T14:00:00.500+02:00"
        );
        assert_eq!(
            zone("Asia/Kathmandu").write(instant),
            "2020-07-01T17:45:00.500+05:45"
        );
        // Until 1972, Monrovia was at -00:44:30.
        assert_eq!(
            zone("Africa/Monrovia").write(DateTime::UNIX_EPOCH),
            "1970-01-01T00:00:00Z"
        );
    }

    #[test]
    fn unknown_zones_are_refused() {
        for text in [
            "",
            "Berlin",
            "europe/berlin",
            "+02:00",
            "UTC+2",
            "Europe/Berlin ",
        ] {
            assert_eq!(text.parse::<Zone>(), Err(UnknownZone(text.to_owned())));
        }
    }
}
