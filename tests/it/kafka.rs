//! Every message of a topic is stored or rejected once, even if members join, leave or crash: against
//! librdkafka's mock cluster, which needs no installation and fails on demand. `kafka_broker.rs` has
//! the tests with Apache Kafka.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::support::kafka::{Kafka, signal};
use crate::support::program::{Run, load_inventory, simusage};
use crate::support::proxy::Proxy;
use crate::support::usage::{Files, ndjson};
use crate::support::{TestDatabase, require_native_server};

/// A database with an inventory, and a cluster with an empty topic.
async fn ready(partitions: i32) -> (TestDatabase, Kafka) {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    (database, Kafka::start(partitions))
}

/// Waits until `count` records are stored or rejected.
async fn until_stored(database: &TestDatabase, count: i64) {
    let rows =
        "select (select count(*) from all_usage_records) + (select count(*) from rejected_records)";
    database
        .until_at_least(rows, count, Duration::from_secs(30))
        .await;
}

#[tokio::test]
async fn a_topic_is_stored_to_its_end_and_later_runs_resume_there() {
    let (database, kafka) = ready(3).await;
    kafka.send(&ndjson(0..200));
    let run = kafka.ingest_to_end(database.url());
    assert_eq!((run.status, run.counts()), (3, (200, 180, 20)), "{run:?}");
    database.assert_has_exactly(200).await;
    let run = kafka.ingest_to_end(database.url());
    assert_eq!((run.status, run.counts()), (0, (0, 0, 0)), "{run:?}");
    kafka.send(&ndjson(200..301));
    let run = kafka.ingest_to_end(database.url());
    assert_eq!((run.status, run.counts().0), (3, 101), "{run:?}");
    database.assert_has_exactly(301).await;
    assert_eq!(
        database
            .number("select count(*) from ingest_sources where kind = 'kafka'")
            .await,
        3
    );
    assert_eq!(
        database
            .number("select sum(position)::bigint from ingest_sources")
            .await,
        301
    );
    let rejected = "select count(*) from rejected_records where source in ('usage/0', 'usage/1', 'usage/2') \
                  and raw like '{%89440099%' and line = position + 1 and format = 'ndjson'";
    assert_eq!(
        database
            .number(&rejected.replace("raw", "encode(raw, 'escape')"))
            .await,
        30
    );
}

#[tokio::test]
async fn partitions_can_be_written_directly_to_the_columnstore() {
    let (database, kafka) = ready(3).await;
    kafka.send(&ndjson(0..2_000));
    let mut ingest = kafka.ingest(database.url(), &["--until-end"]);
    let run = Run::from(ingest.output().unwrap());
    assert_eq!(
        (run.status, run.counts()),
        (3, (2_000, 1_800, 200)),
        "{run:?}"
    );
    assert!(!run.stderr.contains("trying again"), "{run:?}");
    database.assert_has_exactly(2_000).await;
}

#[tokio::test]
async fn another_group_reads_the_topic_from_the_start() {
    let (database, kafka) = ready(1).await;
    kafka.send(&ndjson(0..5));
    assert_eq!(kafka.ingest_to_end(database.url()).counts().1, 5);
    let other: Run = kafka
        .ingest(database.url(), &["--until-end"])
        .args(["--group", "x"])
        .output()
        .unwrap()
        .into();
    // An option given twice is an error, so the other group needs a new command line.
    assert_eq!(other.status, 2, "{other:?}");
    let brokers = kafka.brokers();
    let arguments = [
        "ingest",
        "--json",
        "--kafka",
        &brokers,
        "--topic",
        "usage",
        "--group",
        "x",
        "--until-end",
    ];
    assert_eq!(simusage(database.url(), &arguments).counts().1, 5);
}

#[tokio::test]
async fn a_message_that_is_not_a_record_is_rejected() {
    let (database, kafka) = ready(1).await;
    let long = format!("{{\"sim-card-id\": \"{}\"}}", "9".repeat(70_000));
    kafka.send(&format!("{}nonsense\n{{}}\n{long}\n\n", ndjson(0..2)));
    let run = kafka.ingest_to_end(database.url());
    assert_eq!((run.status, run.counts()), (3, (5, 2, 3)), "{run:?}");
    assert_eq!(
        run.json()["reasons"],
        serde_json::json!({"malformed": 1, "missing-field": 1, "too-long": 1}),
        "{run:?}"
    );
    assert_eq!(
        database
            .number("select max(octet_length(raw))::bigint from rejected_records")
            .await,
        65_536
    );
}

#[tokio::test]
async fn a_byte_order_mark_at_the_beginning_of_a_message_is_skipped() {
    let (database, kafka) = ready(1).await;
    let [first, second] = [ndjson(0..1), ndjson(1..2)];
    // Not at the end.
    kafka.send(&format!("\u{feff}{first}{}\u{feff}\n", second.trim_end()));
    let run = kafka.ingest_to_end(database.url());
    assert_eq!((run.status, run.counts()), (3, (2, 1, 1)), "{run:?}");
    assert_eq!(
        run.json()["reasons"],
        serde_json::json!({"malformed": 1}),
        "{run:?}"
    );
}

#[tokio::test]
async fn a_signal_ends_the_ingest_after_committing_and_refreshing() {
    for name in ["TERM", "INT"] {
        let (database, kafka) = ready(2).await;
        kafka.send(&ndjson(0..50));
        let child = kafka.ingest(database.url(), &[]).spawn().unwrap();
        until_stored(&database, 50).await;
        kafka.send(&ndjson(50..90));
        until_stored(&database, 60).await;
        signal(&child, name);
        let run: Run = child.wait_with_output().unwrap().into();
        assert_eq!(run.status, 3, "{run:?}");
        let (read, ..) = run.counts();
        database.assert_answers_match().await;
        let run = kafka.ingest_to_end(database.url());
        assert_eq!(read + run.counts().0, 90, "{run:?}");
        database.assert_has_exactly(90).await;
    }
}

#[tokio::test]
async fn rows_and_metrics_are_visible_during_the_ingest() {
    let (database, kafka) = ready(1).await;
    let arguments = ["--metrics-listen", "127.0.0.1:0"];
    let mut child = kafka
        .ingest(database.url(), &arguments)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let metrics_at = log
        .find_map(|line| {
            Some(
                line.unwrap()
                    .split_once("metrics on http://")?
                    .1
                    .trim_end_matches("/metrics")
                    .to_owned(),
            )
        })
        .unwrap();
    // Keep reading, or the program blocks once the pipe is full.
    std::thread::spawn(move || log.for_each(drop));
    // The last of these are late: older than the records before.
    for (numbers, shown) in [(500..504, 4), (504..508, 8), (0..4, 12)] {
        kafka.send(&ndjson(numbers));
        let sum = crate::support::usage::SHOWN_RECORDS;
        database
            .until_at_least(sum, shown, Duration::from_secs(20))
            .await;
    }
    let mut attempts_left = 100;
    loop {
        let mut answer = String::new();
        let mut connection = TcpStream::connect(&metrics_at).unwrap();
        connection
            .write_all(b"GET /metrics HTTP/1.0\r\n\r\n")
            .unwrap();
        connection.read_to_string(&mut answer).unwrap();
        assert!(
            answer.contains("\nsimusage_ingest_stored_total 12\n"),
            "{answer}"
        );
        assert!(
            answer.contains("\nsimusage_ingest_rejected_total 0\n"),
            "{answer}"
        );
        // The offset is committed to Kafka a moment later.
        if answer.contains("\nsimusage_ingest_lag_records 0\n") {
            break;
        }
        attempts_left -= 1;
        assert!(attempts_left > 0, "{answer}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    signal(&child, "TERM");
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn a_running_ingest_notices_the_new_owner_of_a_sim_card_within_seconds() {
    let (database, kafka) = ready(1).await;
    let files = Files::new();
    let mut child = kafka
        .ingest(database.url(), &[])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    kafka.send(&ndjson(0..9));
    until_stored(&database, 9).await;
    let moved = files.write(
        "moved.csv",
        "sim-card-id,org-id\n89440001,elsewhere\n89440099,elsewhere\n",
    );
    assert_eq!(
        simusage(database.url(), &["ingest", "--inventory", &moved]).status,
        0
    );
    tokio::time::sleep(Duration::from_secs(4)).await;
    kafka.send(&ndjson(9..20));
    until_stored(&database, 20).await;
    signal(&child, "TERM");
    assert!(child.wait().unwrap().success());
    let owned = "select count(*) from all_usage_records join organizations on id = organization_id where name = 'elsewhere'";
    assert_eq!(database.number(owned).await, 11);
    assert_eq!(
        database
            .number("select count(*) from all_usage_records")
            .await,
        20
    );
}

#[tokio::test]
async fn too_many_rejects_stop_the_run_after_committing_the_records_before() {
    let (database, kafka) = ready(1).await;
    kafka.send(&ndjson(0..100));
    let run: Run = kafka
        .ingest(database.url(), &["--until-end", "--max-rejects", "3"])
        .output()
        .unwrap()
        .into();
    assert_eq!(run.status, 1, "{run:?}");
    assert!(
        run.stderr
            .contains("stopped at usage/0, offset 39: more than 3 records were rejected"),
        "{run:?}"
    );
    database.assert_has_exactly(40).await;
    assert_eq!(kafka.ingest_to_end(database.url()).status, 3);
    database.assert_has_exactly(100).await;
}

#[tokio::test]
async fn common_mistakes_are_explained() {
    let (database, kafka) = ready(1).await;
    let brokers = kafka.brokers();
    let mistake = |brokers: &str, topic: &str| {
        simusage(
            database.url(),
            &[
                "ingest", "--kafka", brokers, "--topic", topic, "--group", "g",
            ],
        )
    };
    // A mock cluster creates any requested topic unless it has an error for it.
    kafka
        .cluster
        .topic_error(
            "missing",
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
        )
        .unwrap();
    let run = mistake(&brokers, "missing");
    assert_eq!(run.status, 1, "{run:?}");
    assert!(
        run.stderr.contains(&format!(
            "ingesting missing from {brokers}: there is no topic missing"
        )),
        "{run:?}"
    );
    let url = database.url();
    assert_eq!(
        simusage(url, &["ingest", "--kafka", "x:1", "--topic", "t"]).status,
        2
    );
    assert_eq!(
        simusage(
            url,
            &[
                "ingest", "--kafka", "x:1", "--topic", "t", "--group", "g", "file"
            ]
        )
        .status,
        2
    );
    let csv = [
        "ingest", "--kafka", "x:1", "--topic", "t", "--group", "g", "--format", "csv",
    ];
    assert!(simusage(url, &csv).stderr.contains("--kafka reads JSON"));
    let run = mistake("127.0.0.1:1", "usage");
    assert_eq!(run.status, 1, "{run:?}");
    assert!(run.stderr.contains("cannot query the brokers"), "{run:?}");
}

#[tokio::test]
async fn temporary_broker_failures_lose_nothing() {
    let (database, kafka) = ready(2).await;
    kafka.send(&ndjson(0..100));
    let child = kafka.ingest(database.url(), &[]).spawn().unwrap();
    until_stored(&database, 100).await;
    // Leaders change, responses are slow, and heartbeats and fetches fail.
    for partition in 0..2 {
        kafka
            .cluster
            .partition_leader("usage", partition, Some(3))
            .unwrap();
    }
    for broker in 1..=3 {
        kafka
            .cluster
            .broker_round_trip_time(broker, Duration::from_millis(50))
            .unwrap();
    }
    let failures = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_COORDINATOR; 3];
    kafka
        .cluster
        .request_errors(RDKafkaApiKey::Heartbeat, &failures);
    kafka.cluster.request_errors(
        RDKafkaApiKey::Fetch,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION],
    );
    kafka.send(&ndjson(100..300));
    until_stored(&database, 300).await;
    signal(&child, "TERM");
    let run: Run = child.wait_with_output().unwrap().into();
    assert_eq!((run.status, run.counts().0), (3, 300), "{run:?}");
    database.assert_has_exactly(300).await;
}

#[cfg(debug_assertions)]
#[tokio::test]
async fn the_run_after_a_crash_at_any_point_stores_the_missing_records() {
    for point in ["after-copy", "before-commit", "after-commit"] {
        let (database, kafka) = ready(2).await;
        kafka.send(&ndjson(0..200));
        let mut dying = kafka.ingest(database.url(), &["--until-end"]);
        let died = dying
            .env("SIMUSAGE_FAILPOINT", format!("{point}:1"))
            .output()
            .unwrap();
        assert_eq!(died.status.code(), None, "{point}: {died:?}");
        let run = kafka.ingest_to_end(database.url());
        assert!([0, 3].contains(&run.status), "{point}: {run:?}");
        database.assert_has_exactly(200).await;
    }
}

#[tokio::test]
async fn kills_at_random_moments_lose_and_duplicate_nothing() {
    let rounds: u64 = std::env::var("SIMUSAGE_TEST_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(4);
    let (database, kafka) = ready(3).await;
    let mut count = 0;
    for round in 0..rounds {
        kafka.send(&ndjson(count..count + 500));
        count += 500;
        let mut child = kafka
            .ingest(database.url(), &[])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let before = database
            .number("select count(*) from all_usage_records")
            .await;
        let mut attempts_left = 200;
        while database
            .number("select count(*) from all_usage_records")
            .await
            == before
            && attempts_left > 0
        {
            attempts_left -= 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_millis(round * 37 % 90)).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let run = kafka.ingest_to_end(database.url());
    assert!([0, 3].contains(&run.status), "{run:?}");
    database.assert_has_exactly(count).await;
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn members_share_partitions_and_take_over_from_a_killed_one() {
    require_native_server();
    let (database, kafka) = ready(4).await;
    let start = || kafka.ingest(database.url(), &[]).spawn().unwrap();
    kafka.send(&ndjson(0..1_000));
    let mut one = start();
    until_stored(&database, 500).await;
    let two = start();
    let mut sent = 1_000;
    for _ in 0..20 {
        kafka.send(&ndjson(sent..sent + 200));
        sent += 200;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let writers = "select count(distinct writer) from ingest_sources";
    let mut attempts_left = 100;
    while database.number(writers).await < 2 {
        attempts_left -= 1;
        assert!(
            attempts_left > 0,
            "the second member was assigned no partition"
        );
        kafka.send(&ndjson(sent..sent + 200));
        sent += 200;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    one.kill().unwrap();
    one.wait().unwrap();
    kafka.send(&ndjson(sent..sent + 1_000));
    sent += 1_000;
    until_stored(&database, i64::try_from(sent).unwrap()).await;
    let three = start();
    kafka.send(&ndjson(sent..sent + 200));
    sent += 200;
    until_stored(&database, i64::try_from(sent).unwrap()).await;
    for child in [two, three] {
        signal(&child, "TERM");
        let run: Run = child.wait_with_output().unwrap().into();
        assert!([0, 3].contains(&run.status), "{run:?}");
    }
    database.assert_has_exactly(sent).await;
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn a_member_without_a_database_gives_up_its_partitions() {
    require_native_server();
    let (database, kafka) = ready(4).await;
    let proxy = Proxy::start(database.url());
    kafka.send(&ndjson(0..200));
    let start = |url: &str| {
        kafka
            .ingest(url, &[])
            .env("SIMUSAGE_INGEST_RETRY_FOR_MS", "3600000")
            .spawn()
            .unwrap()
    };
    let mut cut_off = start(proxy.url());
    until_stored(&database, 200).await;
    proxy.go_down();
    // Enough for several batches: one being stored, one queued, and one that does not fit.
    kafka.send(&ndjson(200..1_200));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let other = start(database.url());
    let writers = "select count(distinct writer) from ingest_sources";
    database
        .until_at_least(writers, 2, Duration::from_secs(40))
        .await;
    // The member gives up its partitions without waiting for the database, even though the group
    // has already removed it.
    tokio::time::sleep(Duration::from_secs(20)).await;
    cut_off.kill().unwrap();
    let cut_off: Run = cut_off.wait_with_output().unwrap().into();
    assert!(
        cut_off
            .stderr
            .contains("partitions were revoked before their records were committed"),
        "{cut_off:?}"
    );
    until_stored(&database, 1_200).await;
    signal(&other, "TERM");
    let run: Run = other.wait_with_output().unwrap().into();
    assert!([0, 3].contains(&run.status), "{run:?}");
    database.assert_has_exactly(1_200).await;
}
