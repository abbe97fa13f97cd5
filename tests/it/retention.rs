//! Retention: what is dropped, what is still accepted, and what is answered afterwards.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use simusage::config::Storage;
use simusage::db;

use crate::support::TestDatabase;
use crate::support::api::Api;
use crate::support::program::{Run, command, load_inventory, simusage_with_input};
use crate::support::usage::Files;

/// The start of a UTC hour some days ago.
fn hour(days: i64) -> DateTime<Utc> {
    let midnight = Utc::now().date_naive().and_hms_opt(0, 0, 0).unwrap();
    midnight.and_utc() - TimeDelta::days(days) + TimeDelta::hours(5)
}

fn ndjson(records: impl IntoIterator<Item = (DateTime<Utc>, i64)>) -> String {
    let line = |(date, bytes): (DateTime<Utc>, i64)| {
        let date = date.to_rfc3339();
        format!(
            "{}\n",
            json!({"sim-card-id": "89440001", "bytes-used": bytes, "date": date})
        )
    };
    records.into_iter().map(line).collect()
}

/// A database with a retention of records in days, and of totals by day.
async fn keeping(records: u32, daily: u32) -> TestDatabase {
    let database = TestDatabase::migrated().await;
    keep(&database, records, daily).await;
    load_inventory(database.url());
    database
}

async fn keep(database: &TestDatabase, records: u32, daily: u32) {
    let storage = Storage {
        retention_records_days: records,
        retention_hourly_days: records,
        retention_daily_days: daily,
    };
    db::migrate::migrate(
        &database.config().database,
        &storage,
        &database.config().feeds,
    )
    .await
    .unwrap();
}

fn ingest(database: &TestDatabase, records: impl IntoIterator<Item = (DateTime<Utc>, i64)>) {
    let run = simusage_with_input(database.url(), &["ingest", "-"], &ndjson(records));
    assert_eq!(run.status, 0, "{run:?}");
}

async fn drop_old(database: &TestDatabase) {
    let connection = database.connect().await;
    db::drop_old(&connection).await.unwrap();
}

fn series(hour: DateTime<Utc>, every: &str) -> String {
    let day = hour.date_naive();
    format!("/api/v1/organization/a01b7/usage?start={day}&end={day}&every={every}")
}

#[actix_web::test]
async fn a_late_record_adds_to_a_total_whose_records_are_gone() {
    let database = keeping(30, 0).await;
    let old = hour(60);
    let minutes = (0..60).map(|minute| (old + TimeDelta::minutes(minute), 1_000_000));
    ingest(&database, minutes);
    database.end_chunk().await;
    drop_old(&database).await;
    assert_eq!(
        database.number("select count(*) from usage_records").await,
        0
    );
    let api = Api::new(&database.config()).await;
    let day = series(old, "1day");
    assert_eq!(api.ok(&day).await["bytes-used-total"], 60_000_000);

    // Raising the retention does not bring the records back.
    keep(&database, 90, 0).await;
    ingest(&database, [(old, 5)]);
    for _ in 0..2 {
        assert_eq!(api.ok(&day).await["bytes-used-total"], 60_000_005);
        let sim_card = day.replace("organization/a01b7", "simcard/89440001");
        assert_eq!(api.ok(&sim_card).await["bytes-used-total"], 60_000_005);
        // What needs the records, or the quarter hours, says so instead of showing less.
        let kept_from = (old.date_naive() + TimeDelta::days(1)).to_string();
        for path in [
            series(old, "1hour"),
            sim_card.replace("1day", "1hour"),
            format!("{day}&tz=Europe/Berlin"),
            format!("{day}&tz=Asia/Kolkata"),
            format!(
                "/api/v1/usage/simcards?start={}",
                (old + TimeDelta::minutes(7)).format("%FT%TZ")
            ),
            format!(
                "/api/v1/usage/organizations?end={}",
                (old + TimeDelta::minutes(7)).format("%FT%TZ")
            ),
        ] {
            let (status, detail) = api.problem(&path).await;
            assert!(
                status == 422 && detail.contains(&kept_from),
                "{path}: {status} {detail}"
            );
        }
        for list in ["simcards", "organizations"] {
            let path = format!("/api/v1/usage/{list}?start={}", old.date_naive());
            assert_eq!(api.ok(&path).await["bytes-used-total"], 60_000_005);
        }
        database.end_chunk().await;
    }
}

#[actix_web::test]
async fn a_chunk_is_kept_while_anything_in_it_is_young_enough() {
    let database = keeping(30, 0).await;
    ingest(&database, [(hour(60), 5), (hour(29), 6)]);
    database.end_chunk().await;
    drop_old(&database).await;
    let api = Api::new(&database.config()).await;
    assert_eq!(
        api.ok(&series(hour(60), "1hour")).await["bytes-used-total"],
        5
    );
    let tag = api
        .get(&series(hour(60), "1hour"))
        .await
        .header("etag")
        .to_owned();
    keep(&database, 20, 0).await;
    drop_old(&database).await;
    // A client that has the answer learns that it is no longer kept.
    let again = api
        .get_with(&series(hour(60), "1hour"), &[("if-none-match", &tag)])
        .await;
    assert_eq!(again.status, 422);
    let first = hour(28).date_naive();
    assert_eq!(again.body["complete-from"], first.to_string());
}

#[tokio::test]
async fn records_of_days_that_are_dropped_are_rejected_whatever_the_configuration_says() {
    let database = keeping(0, 50).await;
    let run = |records: &[(DateTime<Utc>, i64)]| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("usage.ndjson");
        std::fs::write(&file, ndjson(records.iter().copied())).unwrap();
        // This process has no retention configured; the database has.
        let output = command(database.url(), &["ingest", "--json"])
            .arg(&file)
            .output();
        Run::from(output.unwrap())
    };
    let first = run(&[(hour(40), 1), (hour(60), 1)]);
    assert_eq!((first.status, first.counts()), (3, (2, 1, 1)), "{first:?}");
    assert_eq!(first.json()["reasons"]["older-than-retention"], 1);
    database.end_chunk().await;
    keep(&database, 0, 30).await;
    drop_old(&database).await;
    // Day 40 has been dropped. If it were accepted again, its total would be too low.
    keep(&database, 0, 0).await;
    let second = run(&[(hour(40), 2), (hour(20), 2)]);
    assert_eq!(
        (second.status, second.counts()),
        (3, (2, 1, 1)),
        "{second:?}"
    );
    assert!(
        second.stderr.contains("older than what the database keeps"),
        "{second:?}"
    );
}

#[tokio::test]
async fn a_run_that_has_waited_for_days_knows_the_time() {
    let database = keeping(0, 50).await;
    let files = Files::new();
    let clock = files.write("clock", "0");
    let mut child = command(database.url(), &["ingest", "--json", "-"])
        .env("SIMUSAGE_CLOCK_FILE", &clock)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let old = hour(45);
    stdin
        .write_all(ndjson([(old, 1), (Utc::now(), 1)]).as_bytes())
        .unwrap();
    let stored = "select count(*) from usage_records_recent";
    database
        .until_at_least(stored, 2, Duration::from_mins(1))
        .await;
    // The host waits for ten days, and its database did not drop anything yet.
    let ten_days = TimeDelta::days(10);
    std::fs::write(&clock, ten_days.num_seconds().to_string()).unwrap();
    stdin
        .write_all(ndjson([(Utc::now() + ten_days, 1), (old, 1)]).as_bytes())
        .unwrap();
    drop(stdin);
    let run = Run::from(child.wait_with_output().unwrap());
    assert_eq!((run.status, run.counts()), (3, (4, 3, 1)), "{run:?}");
    assert_eq!(run.json()["reasons"]["older-than-retention"], 1, "{run:?}");
}
