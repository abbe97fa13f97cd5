//! Answers while records are stored, closed and dropped: each counts every committed byte once.

use std::fmt::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::program::{command, load_inventory, simusage_with_input};
use crate::support::server::{Server, read, status};
use crate::support::usage::{Files, NEXT_SPAN};
use crate::support::{TestDatabase, require_native_server};

/// How long to store and ask. `SIMUSAGE_TEST_CONSISTENCY_S` sets another time in seconds.
const DURATION: Duration = Duration::from_secs(20);

/// Records of one byte, over ten days in any order. `seed` makes files differ.
fn file_of(count: u64, seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..count).fold(String::new(), |mut text, _| {
        let second = random.u32(0..86_400);
        writeln!(
            text,
            r#"{{"sim-card-id":"{}","bytes-used":1,"date":"2020-02-{:02}T{:02}:{:02}:{:02}.{:06}Z"}}"#,
            random.u32(1..=3),
            random.u32(1..=10),
            second / 3_600,
            second / 60 % 60,
            second % 60,
            random.u32(0..1_000_000)
        )
        .unwrap();
        text
    })
}

/// Stores one file after the other, with runs that are killed at any time and repeated.
fn write_until(deadline: Instant, url: &str, records: u64, batch_rows: &str, seed: u64) {
    let files = Files::new();
    let log = files.0.path().join("log");
    let mut random = fastrand::Rng::with_seed(seed);
    for number in 0.. {
        if Instant::now() > deadline {
            return;
        }
        let name = format!("{seed}-{number}.ndjson");
        let file = files.write(&name, file_of(records, seed * 1_000_000 + number));
        loop {
            let mut run = command(url, &["ingest", &file])
                .env("SIMUSAGE_INGEST_BATCH_ROWS", batch_rows)
                .env("SIMUSAGE_INGEST_PAGE_MS", "50")
                .env("SIMUSAGE_INGEST_PERIOD_RECORDS", "4000")
                .stdout(Stdio::null())
                .stderr(std::fs::File::create(&log).unwrap())
                .spawn()
                .unwrap();
            let kill_at = Instant::now() + Duration::from_millis(random.u64(50..2_000));
            let ended = loop {
                if let Some(status) = run.try_wait().unwrap() {
                    break Some(status);
                }
                if Instant::now() > kill_at {
                    break None;
                }
                std::thread::sleep(Duration::from_millis(5));
            };
            if let Some(status) = ended {
                let log = std::fs::read_to_string(&log).unwrap();
                assert!(status.success(), "{status}: {log}");
                break;
            }
            run.kill().unwrap();
            run.wait().unwrap();
        }
    }
}

/// The paths of answers that include every record, and how to add up the bytes of each.
const ALL: &[&[&str]] = &[
    &["/api/v1/organization/o/usage?start=2020-02-01&end=2020-02-10&every=1day"],
    &["/api/v1/organization/o/usage?start=2020-01-31&end=2020-02-12&every=1hour&tz=Asia/Kathmandu"],
    &[
        "/api/v1/organization/o/usage?start=2020-01-31T10:07:01Z&end=2020-02-12T00:00:01Z&every=1week",
    ],
    &["/api/v1/usage/organizations"],
    &["/api/v1/usage/simcards?size=1&start=2020-01-31T10:07:01Z"],
    &["/api/v1/usage/simcards?size=1&sort=id&organization=o"],
    &["/api/v1/usage/simcards?format=csv"],
    &[
        "/api/v1/simcard/1/usage?start=2020-02-01&end=2020-02-10&every=1day",
        "/api/v1/simcard/2/usage?start=2020-01-31&end=2020-02-12&every=1day&tz=Asia/Kolkata",
        "/api/v1/simcard/3/usage?start=2020-02-01&end=2020-02-10&every=1hour",
    ],
];

fn bytes_of(server: &Server, path: &str) -> i64 {
    let response = read(server.send(path));
    assert_eq!(status(&response), 200, "{path}: {response}");
    let (_, body) = response.split_once("\r\n\r\n").unwrap();
    if path.ends_with("csv") {
        let bytes = |line: &str| line.split(',').nth(1)?.parse::<i64>().ok();
        return body.lines().filter_map(bytes).sum();
    }
    let start = body
        .find('{')
        .unwrap_or_else(|| panic!("{path}: {response}"));
    let end = body.rfind('}').unwrap();
    let body: Value = serde_json::from_str(&body[start..=end]).unwrap();
    body["bytes-used-total"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a native TimescaleDB"]
async fn every_answer_during_ingests_has_each_committed_byte_once() {
    require_native_server();
    let duration = std::env::var("SIMUSAGE_TEST_CONSISTENCY_S").map_or(DURATION, |seconds| {
        Duration::from_secs(seconds.parse().expect("a number of seconds"))
    });
    let database = TestDatabase::migrated().await;
    let files = Files::new();
    let inventory = files.write("inventory.csv", "sim-card-id,org-id\n1,o\n2,o\n3,o\n");
    let loaded = command(database.url(), &["ingest", "--inventory", &inventory]).status();
    assert!(loaded.unwrap().success());
    let server = Server::start(database.url());
    let deadline = Instant::now() + duration;
    let writers: Vec<_> = [(3_000, "60", 1), (3_000, "150", 2), (45_000, "22000", 3)]
        .into_iter()
        .map(|(records, batch_rows, seed)| {
            let url = database.url().to_owned();
            std::thread::spawn(move || write_until(deadline, &url, records, batch_rows, seed))
        })
        .collect();
    let committed = "select coalesce(sum(stored), 0)::bigint from ingest_sources";
    let connection = database.connect().await;
    let committed = async || -> i64 { connection.query_one(committed, &[]).await.unwrap().get(0) };
    let mut answers = 0;
    // So that spans are merged, too: after a quarter of the time, the next span begins.
    let mut next_span_at = Instant::now() + duration / 4;
    while Instant::now() < deadline || !writers.iter().all(std::thread::JoinHandle::is_finished) {
        if Instant::now() > next_span_at {
            connection.batch_execute(NEXT_SPAN).await.unwrap();
            next_span_at += duration / 4;
        }
        for paths in ALL {
            let before = committed().await;
            let bytes: i64 = paths
                .iter()
                .map(|path| tokio::task::block_in_place(|| bytes_of(&server, path)))
                .sum();
            let after = committed().await;
            assert!(
                before <= bytes && bytes <= after,
                "{paths:?}: {bytes}, but {before} were committed before and {after} after"
            );
            answers += 1;
        }
    }
    for writer in writers {
        writer.join().expect("the writer stores its files");
    }
    let periods = "select count(*) from posting_closings where closed_before & 1099511627775 = 0";
    let periods = database.number(periods).await;
    let spans = "select count(*) from sim_card_spans where is_merged";
    let spans = database.number(spans).await;
    assert!(
        // A busy machine closes too few periods to merge.
        answers > 20 && periods > 1 && (spans > 0 || periods < 12),
        "{answers} answers, {periods} periods, {spans} spans"
    );
    println!("{answers} answers while {periods} periods were closed and {spans} spans merged");
    database.assert_answers_match().await;
}

/// What `serve` answers about all records.
#[derive(Debug, PartialEq)]
struct Answer {
    bytes: i64,
    complete_through: Value,
    last_ingested_at: Value,
    tag: String,
}

/// Asks for JSON as a client that has `tag`; `None` for 304.
fn ask_with(server: &Server, path: &str, tag: &str) -> Option<Answer> {
    let response = read(server.send_with(path, &format!("if-none-match: {tag}\r\n")));
    if status(&response) == 304 {
        return None;
    }
    assert_eq!(status(&response), 200, "{path}: {response}");
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: "));
    let body: Value = serde_json::from_str(body).unwrap();
    Some(Answer {
        bytes: body["bytes-used-total"].as_i64().unwrap(),
        complete_through: body["complete-through"].clone(),
        last_ingested_at: body["last-ingested-at"].clone(),
        tag: tag.unwrap().to_owned(),
    })
}

/// An ingest that is killed after a commit leaves pages and periods open, or half closed. Nothing that
/// the API says depends on that, and the next ingest closes them, even if it stores nothing.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_right_at_once_after_a_kill_between_commit_and_closing() {
    // One SIM card and organization, so that each of these answers includes every record.
    const PATHS: [&str; 5] = [
        "/api/v1/organization/o/usage?start=2020-02-01&end=2020-02-10&every=1day",
        "/api/v1/organization/o/usage?start=2020-01-31T10:07:01Z&end=2020-02-12&every=1hour&size=1",
        "/api/v1/simcard/1/usage?start=2020-02-01&end=2020-02-10&every=1day",
        "/api/v1/usage/organizations?start=2020-02-01",
        "/api/v1/usage/simcards?start=2020-02-01",
    ];
    let (database, files) = (TestDatabase::migrated().await, Files::new());
    let inventory = files.write("inventory.csv", "sim-card-id,org-id\n1,o\n");
    let loaded = command(database.url(), &["ingest", "--inventory", &inventory]).status();
    assert!(loaded.unwrap().success());
    let server = Server::start(database.url());
    let mut tags = PATHS.map(|_| "\"none\"".to_owned());
    let everything = "select coalesce(sum(bytes), 0)::bigint from all_usage_records";
    let open = "select count(*) from posting_days where is_recent and posting >= (
                    select max(closed_before) from usage_levels
                    where level in ('usage_records', 'organization_usage_recent')
                )";
    let open_periods = "select count(*) from posting_days where posting >= (
                            select min(closed_before) from usage_levels
                            where level in ('organization_usage', 'organization_usage_daily', 'sim_card_usage')
                        )";
    let ingest = |file: &str, failpoint: &str, period_records: &str| {
        let mut ingest = command(database.url(), &["ingest", file]);
        ingest
            .env("SIMUSAGE_FAILPOINT", failpoint)
            .env("SIMUSAGE_INGEST_BATCH_ROWS", "20")
            .env("SIMUSAGE_INGEST_PERIOD_RECORDS", period_records)
            .stdin(Stdio::null());
        ingest.output().unwrap()
    };
    for (day, (failpoint, period_records)) in (1..).zip([
        ("after-commit:2", "1000000"),
        ("before-refresh", "1000000"),
        ("before-closing-page", "1000000"),
        ("after-refresh", "1000000"),
        ("after-archiving", "30"),
        ("before-closing-period:1", "30"),
        ("before-closing-period:3", "30"),
        ("after-refresh", "30"),
    ]) {
        let header = "sim-card-id,bytes-used,date\n".to_owned();
        let records = (0..50).fold(header, |mut text, second| {
            writeln!(text, "1,{day},2020-02-{day:02}T12:00:{second:02}Z").unwrap();
            text
        });
        let file = files.write(&format!("{day}.csv"), records);
        let killed = ingest(&file, failpoint, period_records);
        assert_eq!(killed.status.code(), None, "{failpoint}: {killed:?}");
        let bytes = database.number(everything).await;
        let newest = "select max(extract(second from time))::bigint from all_usage_records
                      where time >= '2020-02-01'::date + ";
        let second = database.number(&format!("{newest}{}", day - 1)).await;
        let complete_through = format!("2020-02-{day:02}T12:00:{second:02}Z");
        let mut ask = |state: &str| {
            let mut ingested_at = vec![];
            for (path, tag) in PATHS.iter().zip(&mut tags) {
                let answer = ask_with(&server, path, tag)
                    .unwrap_or_else(|| panic!("{failpoint}, {state}, {path}: 304"));
                assert_eq!(answer.bytes, bytes, "{failpoint}, {state}, {path}");
                assert_eq!(
                    answer.complete_through, *complete_through,
                    "{failpoint}, {path}"
                );
                ingested_at.push(answer.last_ingested_at);
                *tag = answer.tag;
                assert_eq!(
                    ask_with(&server, path, tag),
                    None,
                    "{failpoint}, {state}, {path}"
                );
            }
            assert!(
                ingested_at.iter().all(|at| *at == ingested_at[0]),
                "{ingested_at:?}"
            );
        };
        ask("killed");
        // The next ingest stores the rest, if any, and closes what was left.
        let finished = ingest(&file, "none", period_records);
        assert!(finished.status.success(), "{failpoint}: {finished:?}");
        assert_eq!(database.number(open).await, 0, "{failpoint}");
        if period_records == "30" {
            assert_eq!(database.number(open_periods).await, 0, "{failpoint}");
        }
        let stored = database.number(everything).await;
        for (path, tag) in PATHS.iter().zip(&mut tags) {
            let answer = ask_with(&server, path, tag);
            // Closing changes nothing that a client could notice.
            assert_eq!(answer.is_some(), stored > bytes, "{failpoint}, {path}");
            let answer = answer
                .or_else(|| ask_with(&server, path, "\"none\""))
                .unwrap();
            assert_eq!(answer.bytes, stored, "{failpoint}, {path}");
            *tag = answer.tag;
        }
    }
    database.assert_answers_match().await;
}

/// A stream that nothing arrives on closes what a killed ingest has left.
#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn an_idle_ingest_closes_what_a_killed_one_has_left() {
    require_native_server();
    let (database, files) = (TestDatabase::migrated().await, Files::new());
    let inventory = files.write("inventory.csv", "sim-card-id,org-id\n1,o\n2,o\n3,o\n");
    let loaded = command(database.url(), &["ingest", "--inventory", &inventory]).status();
    assert!(loaded.unwrap().success());
    let file = files.write("usage.ndjson", file_of(50, 1));
    let killed = command(database.url(), &["ingest", &file])
        .env("SIMUSAGE_FAILPOINT", "before-refresh")
        .env("SIMUSAGE_INGEST_BATCH_ROWS", "20")
        .status();
    assert_eq!(killed.unwrap().code(), None);
    let mut idle = command(database.url(), &["ingest", "-"])
        .env("SIMUSAGE_INGEST_PAGE_MS", "20")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let closed = "select count(*) from usage_levels
                  where level = 'organization_usage_recent' and closed_before > 1099511627776";
    let timeout = Duration::from_secs(20);
    database.until_at_least(closed, 1, timeout).await;
    drop(idle.stdin.take());
    assert!(idle.wait().unwrap().success());
    database.assert_answers_match().await;
}

#[tokio::test]
async fn records_are_not_changed_by_sql() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let record = "sim-card-id,bytes-used,date\n89440001,5,2020-02-01T10:00:00Z\n";
    let run = simusage_with_input(database.url(), &["ingest", "--format", "csv", "-"], record);
    assert_eq!(run.status, 0, "{run:?}");
    let connection = database.connect().await;
    for table in ["usage_records", "usage_records_recent"] {
        for change in [
            format!("update {table} set bytes = 1"),
            format!("delete from {table} where bytes > 100"),
            format!("truncate {table}"),
        ] {
            let error = connection.batch_execute(&change).await.unwrap_err();
            let message = error.as_db_error().map(|error| error.message().to_owned());
            let expected = "usage records are never changed or deleted";
            assert_eq!(message.as_deref(), Some(expected), "{change}");
        }
    }
    database.assert_answers_match().await;
}
