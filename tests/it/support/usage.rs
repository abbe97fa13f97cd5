//! Made-up usage of which every record is told from every other, and the proof that each was stored once.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::TestDatabase;

/// Every so many records there is one of a SIM card that nobody knows.
const UNKNOWN_EVERY: u64 = 10;

/// A folder with files to ingest.
pub struct Files(pub tempfile::TempDir);

impl Files {
    /// An empty folder.
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

/// When the record of that number was used; no two at once, over some days.
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

/// The records of these numbers, as NDJSON.
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

/// The records of these numbers, as CSV under a header.
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

/// How many of the first `count` records are rejected.
pub fn rejected_of(count: u64) -> u64 {
    count / UNKNOWN_EVERY
}

impl TestDatabase {
    /// Waits until a query answers with so much, and fails if the pauses between the attempts add up to `patience`.
    pub async fn until_at_least(&self, query: &str, expected: i64, patience: Duration) {
        const PAUSE: Duration = Duration::from_millis(10);
        let mut paused = Duration::ZERO;
        while self.number(query).await < expected {
            assert!(paused < patience, "{query} is not yet {expected}");
            tokio::time::sleep(PAUSE).await;
            paused += PAUSE;
        }
    }

    /// Asserts that the first `count` records are stored or rejected, each once, and that every aggregate says so.
    pub async fn assert_has_exactly(&self, count: u64) {
        let rejected = rejected_of(count);
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
            "once"
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
            "rejected once"
        );
        self.assert_shows_everything().await;
    }

    /// Asserts that every aggregate has what the usage records have.
    pub async fn assert_shows_everything(&self) {
        let raw =
            "select (coalesce(sum(bytes), 0) * 1000000 + count(*))::bigint from usage_records";
        let expected = self.number(raw).await;
        for view in [
            "usage_hourly",
            "usage_daily",
            "organization_usage_hourly",
            "organization_usage_daily",
        ] {
            let sums = format!(
                "select (coalesce(sum(bytes), 0) * 1000000 + coalesce(sum(records), 0))::bigint from {view}"
            );
            assert_eq!(self.number(&sums).await, expected, "{view}");
        }
        assert_eq!(
            self.number("select count(*) from stale_hours").await,
            0,
            "hours left to refresh"
        );
    }
}
