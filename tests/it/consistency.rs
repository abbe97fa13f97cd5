//! Answers while records are stored, closed and dropped: each counts every committed byte once.

use std::fmt::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::program::command;
use crate::support::server::{Server, read, status};
use crate::support::usage::Files;
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
    while Instant::now() < deadline || !writers.iter().all(std::thread::JoinHandle::is_finished) {
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
    assert!(
        answers > 20 && periods > 3,
        "{answers} answers, {periods} periods"
    );
    println!("{answers} answers while {periods} periods were closed");
    database.assert_answers_match().await;
}
