//! Generates numbered usage records that all differ, and asserts that each was stored once.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::TestDatabase;

/// The views of the continuous aggregates.
pub const AGGREGATES: [&str; 4] = [
    "usage_hourly",
    "usage_daily",
    "organization_usage_hourly",
    "organization_usage_daily",
];

/// One in this many records belongs to an unknown SIM card.
const UNKNOWN_EVERY: u64 = 10;

/// A temporary folder with files to ingest.
pub struct Files(pub tempfile::TempDir);

impl Files {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes a file, and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path: PathBuf = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// The date of the record with this number; no two are equal.
fn time(number: u64) -> DateTime<Utc> {
    let start: DateTime<Utc> = "2020-02-01T00:00:00Z".parse().unwrap();
    start + TimeDelta::seconds(i64::try_from(number * 97).unwrap())
}

fn sim_card(number: u64) -> &'static str {
    if number % UNKNOWN_EVERY == UNKNOWN_EVERY - 1 {
        "89440099"
    } else {
        "89440001"
    }
}

/// The records with these numbers, as NDJSON.
pub fn ndjson(numbers: std::ops::Range<u64>) -> String {
    numbers.fold(String::new(), |mut text, number| {
        let (sim_card, date) = (sim_card(number), time(number).to_rfc3339());
        writeln!(
            text,
            r#"{{"sim-card-id": "{sim_card}", "bytes-used": {}, "date": "{date}"}}"#,
            number + 1
        )
        .unwrap();
        text
    })
}

/// The records with these numbers, as CSV with a header.
pub fn csv(numbers: std::ops::Range<u64>) -> String {
    numbers.fold(
        "date,sim-card-id,bytes-used\n".to_owned(),
        |mut text, number| {
            writeln!(
                text,
                "{},{},{}",
                time(number).to_rfc3339(),
                sim_card(number),
                number + 1
            )
            .unwrap();
            text
        },
    )
}

/// The number of rejected records among the first `count`.
pub fn rejected_among_first(count: u64) -> u64 {
    count / UNKNOWN_EVERY
}

impl TestDatabase {
    /// Waits until a query returns at least `expected`. Fails once the pauses between the attempts
    /// add up to `timeout`.
    pub async fn until_at_least(&self, query: &str, expected: i64, timeout: Duration) {
        const PAUSE: Duration = Duration::from_millis(10);
        let mut paused = Duration::ZERO;
        while self.number(query).await < expected {
            assert!(paused < timeout, "{query} is not yet {expected}");
            tokio::time::sleep(PAUSE).await;
            paused += PAUSE;
        }
    }

    /// Asserts that each of the first `count` records is stored or rejected once, and that every
    /// aggregate includes it.
    pub async fn assert_has_exactly(&self, count: u64) {
        let rejected = rejected_among_first(count);
        let number = |count: u64| i64::try_from(count).unwrap();
        let stored = number(count - rejected);
        assert_eq!(
            self.number("select count(*) from usage_records").await,
            stored,
            "stored"
        );
        assert_eq!(
            self.number("select count(distinct time) from usage_records")
                .await,
            stored,
            "stored more than once"
        );
        assert_eq!(
            self.number("select count(*) from rejected_records").await,
            number(rejected),
            "rejected"
        );
        let rejected_once = "select count(distinct raw) from rejected_records";
        assert_eq!(
            self.number(rejected_once).await,
            number(rejected),
            "rejected more than once"
        );
        self.assert_aggregates_match().await;
    }

    /// Asserts that every aggregate adds up to the usage records.
    pub async fn assert_aggregates_match(&self) {
        let raw =
            "select (coalesce(sum(bytes), 0) * 1000000 + count(*))::bigint from usage_records";
        let expected = self.number(raw).await;
        for view in AGGREGATES {
            let sums = format!(
                "select (coalesce(sum(bytes), 0) * 1000000 + coalesce(sum(records), 0))::bigint from {view}"
            );
            assert_eq!(self.number(&sums).await, expected, "{view}");
        }
        assert_eq!(
            self.number("select count(*) from stale_hours").await,
            0,
            "hours are still to be refreshed"
        );
    }
}
