//! `simusage generate usage`: made-up usage arrives where it is sent, and stops when it is told to.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use crate::support::TestDatabase;
use crate::support::kafka::{Kafka, signal};
use crate::support::program::{Run, command, inventory, load_inventory, simusage};

const NOBODY: &str = "postgresql://nobody@127.0.0.1:1/nothing";

#[test]
fn usage_of_the_present_is_written_until_a_signal_comes() {
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
    let began = chrono::Utc::now();
    let mut child = command(NOBODY, &arguments)
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
    assert!(dates.is_sorted() && dates[0] > began - second, "{dates:?}");
    assert!(
        dates[119] - dates[0] >= second,
        "120 records at 50 a second take longer than a second"
    );
    signal(&child, "TERM");
    assert!(child.wait().unwrap().success());
    assert!(
        lines.all(|line| line.starts_with("8944")),
        "what was written ends with a whole line"
    );
}

#[tokio::test]
async fn a_topic_gets_a_message_for_each_record() {
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
    let run = simusage(NOBODY, &[&usage[..], &["--records", "1000"]].concat());
    assert_eq!(run.status, 0, "{run:?}");
    assert_eq!(
        kafka.ingest_to_end(database.url()).counts(),
        (1_000, 1_000, 0)
    );

    let following = command(
        NOBODY,
        &[&usage[..], &["--follow", "--rate", "200"]].concat(),
    )
    .spawn()
    .unwrap();
    let ingesting = kafka.ingest(database.url(), &[]).spawn().unwrap();
    let rows = "select count(*) from usage_records where time > now() - interval '5 minutes'";
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
fn brokers_that_are_not_there_are_an_error() {
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
        NOBODY,
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
            simusage(NOBODY, &[&usage[..5], wrong].concat()).status,
            2,
            "{wrong:?}"
        );
    }
}
