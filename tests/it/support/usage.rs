//! Generates numbered usage records that all differ, and asserts that each was stored once.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use simusage::db;

use super::TestDatabase;

/// The continuous aggregates that have every record of closed periods.
pub const AGGREGATES: [&str; 3] = [
    "organization_usage",
    "organization_usage_daily",
    "sim_card_usage",
];

/// The bytes, and the records, that organizations used according to the API.
pub const SHOWN_BYTES: &str = "select coalesce(sum(bytes), 0)::bigint \
     from organization_list(null, '{}', '{}', '{1970-01-01, 2200-01-01}')";
pub const SHOWN_RECORDS: &str = "select coalesce(sum(records), 0)::bigint \
     from organization_list(null, '{}', '{}', '{1970-01-01, 2200-01-01}')";

/// Begins the next span of 32 periods. Nothing may be closing a period.
pub const NEXT_SPAN: &str =
    "select setval('posting_numbers', ((last_value >> 45) + 1) << 45, false) from posting_numbers";

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

    /// Closes the current period, and moves on to the next chunk, so that retention can drop the last.
    pub async fn end_chunk(&self) {
        let mut connection = self.connect().await;
        db::close_period(&mut connection, None).await.unwrap();
        let next = "select setval('posting_numbers', ((last_value >> 46) + 1) << 46, false) from posting_numbers";
        connection.batch_execute(next).await.unwrap();
        let closed = "update usage_levels set closed_before = (select last_value from posting_numbers) \
                      where closed_before > 0";
        connection.batch_execute(closed).await.unwrap();
    }

    /// Asserts that each of the first `count` records is stored or rejected once, and that every
    /// answer includes it.
    pub async fn assert_has_exactly(&self, count: u64) {
        let rejected = rejected_among_first(count);
        let number = |count: u64| i64::try_from(count).unwrap();
        let stored = number(count - rejected);
        assert_eq!(
            self.number("select count(*) from all_usage_records").await,
            stored,
            "stored"
        );
        assert_eq!(
            self.number("select count(distinct time) from all_usage_records")
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
        self.assert_answers_match().await;
    }

    /// Asserts that every answer adds up to the usage records: before and after the page and the
    /// period are closed, and then every aggregate.
    pub async fn assert_answers_match(&self) {
        const SUM: &str = "(coalesce(sum(bytes), 0) * 1000000 + coalesce(sum(records), 0))::bigint";
        let raw =
            "select (coalesce(sum(bytes), 0) * 1000000 + count(*))::bigint from all_usage_records";
        let expected = self.number(raw).await;
        let all = "'{1970-01-01, 2200-01-01}'";
        let answers = [
            format!("organization_list(null, '{{}}', '{{}}', {all})"),
            format!("organization_list(null, '{{}}', {all}, '{{}}')"),
            format!("organization_list(null, {all}, '{{}}', '{{}}')"),
            format!("sim_card_list(null, '{{}}', {all}, -1, null, null, null, 0)"),
            format!("sim_card_list(null, '{{}}', {all}, 0, null, null, 1000000, 0)"),
            format!("sim_card_list(null, {all}, '{{}}', 1, null, null, 1000000, 0)"),
        ];
        let mut connection = self.connect().await;
        for state in ["open", "with a closed page", "closed"] {
            for answer in &answers {
                let sum = format!("select {SUM} from {answer}");
                assert_eq!(self.number(&sum).await, expected, "{state}: {answer}");
            }
            if state == "open" {
                db::close_page(&connection).await.unwrap();
            } else if state == "with a closed page" {
                db::close_period(&mut connection, None).await.unwrap();
            }
        }
        for view in AGGREGATES {
            let sum = format!("select {SUM} from {view}");
            assert_eq!(self.number(&sum).await, expected, "{view}");
        }
    }
}
