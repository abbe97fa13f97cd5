//! `simusage generate usage` writes sample usage to standard output or a topic.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use crate::support::kafka::{Kafka, signal};
use crate::support::program::{Run, command, inventory, load_inventory, simusage};
use crate::support::{TestDatabase, UNREACHABLE};

#[test]
fn follow_writes_current_usage_until_a_signal_arrives() {
    let inventory = inventory();
    let arguments = [
        "generate",
        "usage",
        "--inventory",
        inventory.to_str().unwrap(),
        "--follow",
        "--rate",
        "50",
        "--format",
        "csv",
    ];
    let start = chrono::Utc::now();
    let mut child = command(UNREACHABLE, &arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert_eq!(lines.next().unwrap(), "sim-card-id,bytes-used,date");
    let dates: Vec<chrono::DateTime<chrono::Utc>> = lines
        .by_ref()
        .take(120)
        .map(|line| line.rsplit_once(',').unwrap().1.parse().unwrap())
        .collect();
    let second = chrono::TimeDelta::seconds(1);
    assert!(dates.is_sorted() && dates[0] > start - second, "{dates:?}");
    assert!(
        dates[119] - dates[0] >= second,
        "120 records at 50 per second took less than a second"
    );
    signal(&child, "TERM");
    assert!(child.wait().unwrap().success());
    assert!(
        lines.all(|line| line.starts_with("8944")),
        "the output ends within a line"
    );
}

#[tokio::test]
async fn a_topic_receives_one_message_per_record() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let kafka = Kafka::start(3);
    let (inventory, brokers) = (inventory(), kafka.brokers());
    let usage = [
        "generate",
        "usage",
        "--inventory",
        inventory.to_str().unwrap(),
        "--kafka",
        &brokers,
        "--topic",
        "usage",
    ];
    let run = simusage(UNREACHABLE, &[&usage[..], &["--records", "1000"]].concat());
    assert_eq!(run.status, 0, "{run:?}");
    assert_eq!(
        kafka.ingest_to_end(database.url()).counts(),
        (1_000, 1_000, 0)
    );

    let following = command(
        UNREACHABLE,
        &[&usage[..], &["--follow", "--rate", "200"]].concat(),
    )
    .spawn()
    .unwrap();
    let ingesting = kafka.ingest(database.url(), &[]).spawn().unwrap();
    let rows = "select count(*) from all_usage_records where time > now() - interval '5 minutes'";
    database
        .until_at_least(rows, 300, Duration::from_secs(30))
        .await;
    signal(&following, "INT");
    assert!(following.wait_with_output().unwrap().status.success());
    signal(&ingesting, "TERM");
    let run: Run = ingesting.wait_with_output().unwrap().into();
    assert_eq!(run.status, 0, "{run:?}");
}

#[test]
fn unreachable_brokers_and_incompatible_options_are_errors() {
    let inventory = inventory();
    let usage = [
        "generate",
        "usage",
        "--inventory",
        inventory.to_str().unwrap(),
        "--records",
        "1",
    ];
    let run = simusage(
        UNREACHABLE,
        &[&usage[..], &["--kafka", "127.0.0.1:1", "--topic", "usage"]].concat(),
    );
    assert_eq!(run.status, 1, "{run:?}");
    assert!(run.stderr.contains("writing usage: "), "{run:?}");
    for wrong in [
        &["--kafka", "127.0.0.1:1"][..],
        &["--follow", "--days", "3"],
        &["--rate", "3"],
    ] {
        assert_eq!(
            simusage(UNREACHABLE, &[&usage[..5], wrong].concat()).status,
            2,
            "{wrong:?}"
        );
    }
}
