//! A primary is killed under load and its standby promoted, and a backup is recovered to a point in
//! time, with servers of the tests' own.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::Range;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use simusage::db::Connection;

use crate::support::cluster::{Cluster, ClusterServer};
use crate::support::kafka::{Kafka, signal};
use crate::support::program::{Run, command, simusage, simusage_with_input};
use crate::support::require_native_server;
use crate::support::server::{Server, read, status};
use crate::support::usage::{Files, rejected_among_first};

/// Far longer than anything here takes, even on a busy machine.
const TIMEOUT: Duration = Duration::from_mins(2);

/// How soon answers must come again after a failover. It takes a second on an idle machine.
const UNAVAILABLE: Duration = Duration::from_secs(20);

const FOLLOWS: &str = "?target_session_attrs=read-write";

/// Answers that include every record. Each has one byte.
const PATHS: [&str; 5] = [
    "/api/v1/organization/o/usage?start=2020-02-01&end=2020-06-01&every=1day",
    "/api/v1/organization/o/usage?start=2020-01-31T10:07:01Z&end=2020-06-02&every=1week",
    "/api/v1/simcard/1/usage?start=2020-02-01&end=2020-06-01&every=1day",
    "/api/v1/usage/organizations",
    "/api/v1/usage/simcards?start=2020-01-31T10:07:01Z",
];

/// How many records are stored.
const STORED: &str = "select coalesce(sum(stored), 0)::bigint from ingest_sources";

/// The records with these numbers, all different. Every tenth is rejected.
fn records(numbers: Range<u64>) -> String {
    let start: DateTime<Utc> = "2020-02-01T00:00:00Z".parse().unwrap();
    numbers.fold(String::new(), |mut text, number| {
        let sim_card = if number % 10 == 9 { 2 } else { 1 };
        let date = start + TimeDelta::seconds(i64::try_from(number * 61).unwrap());
        let date = date.to_rfc3339();
        writeln!(
            text,
            r#"{{"sim-card-id":"{sim_card}","bytes-used":1,"date":"{date}"}}"#
        )
        .unwrap();
        text
    })
}

fn load_inventory(url: &str, files: &Files, text: &str) {
    let file = files.write("inventory.csv", format!("sim-card-id,org-id\n{text}"));
    let run = simusage(url, &["ingest", "--inventory", &file]);
    assert_eq!(run.status, 0, "{run:?}");
}

/// Starts an ingest in small batches, with pages and periods that are closed again and again.
fn start_ingest(url: &str, arguments: &[&str]) -> Child {
    command(url, &[&["ingest", "--json"], arguments].concat())
        .env("SIMUSAGE_INGEST_BATCH_ROWS", "20")
        .env("SIMUSAGE_INGEST_PAGE_MS", "100")
        .env("SIMUSAGE_INGEST_PERIOD_RECORDS", "2000")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn finish(child: Child) -> Run {
    child.wait_with_output().unwrap().into()
}

/// Feeds records to the program's standard input: slowly until `hurry` is set.
fn feed(
    child: &mut Child,
    numbers: Range<u64>,
    hurry: &Arc<AtomicBool>,
) -> std::thread::JoinHandle<()> {
    let mut stdin = child.stdin.take().unwrap();
    let hurry = Arc::clone(hurry);
    std::thread::spawn(move || {
        for first in numbers.clone().step_by(20) {
            let piece = records(first..numbers.end.min(first + 20));
            // Fails if the program has ended.
            if stdin.write_all(piece.as_bytes()).is_err() {
                return;
            }
            if !hurry.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(40));
            }
        }
    })
}

async fn number(connection: &Connection, query: &str) -> i64 {
    connection.query_one(query, &[]).await.expect(query).get(0)
}

async fn until(connection: &Connection, query: &str, expected: i64) {
    let deadline = Instant::now() + TIMEOUT;
    while number(connection, query).await < expected {
        assert!(Instant::now() < deadline, "{query} is not yet {expected}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Makes a standby the primary.
async fn promote(standby: &Connection) {
    let promoted = standby.query_one("select pg_promote(true, 60)", &[]).await;
    assert!(promoted.unwrap().get::<_, bool>(0), "it is not promoted");
}

/// The bytes and the tag of an answer; `None` if it is 503.
fn ask(server: &Server, path: &str) -> Option<(i64, String)> {
    let response = tokio::task::block_in_place(|| read(server.send(path)));
    if status(&response) == 503 {
        return None;
    }
    assert_eq!(status(&response), 200, "{path}: {response}");
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: "));
    let (start, end) = (body.find('{').unwrap(), body.rfind('}').unwrap());
    let body: Value = serde_json::from_str(&body[start..=end]).unwrap();
    let bytes = body["bytes-used-total"].as_i64();
    Some((bytes.expect("a total"), tag.unwrap().to_owned()))
}

/// Asks for each path until it is answered.
fn until_answered(server: &Server) -> Vec<(i64, String)> {
    let deadline = Instant::now() + UNAVAILABLE;
    let answer = |path: &&str| {
        loop {
            if let Some(answer) = ask(server, path) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{:?}", server.logged());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    PATHS.iter().map(answer).collect()
}

/// Asserts that each answer has what the database behind it had at one instant.
async fn assert_one_state(connection: &Connection, server: &Server, what: &str) {
    for path in PATHS {
        let before = number(connection, STORED).await;
        let (bytes, _) = ask(server, path).unwrap_or_else(|| panic!("{what}, {path}: 503"));
        let after = number(connection, STORED).await;
        assert!(
            before <= bytes && bytes <= after,
            "{what}, {path}: {bytes}, but {before} were stored before and {after} after"
        );
    }
}

/// Asserts that answers have exactly these bytes, and that no tag is valid for them that is from
/// before.
fn assert_answers(server: &Server, bytes: u64, before: &[(i64, String)]) {
    for (path, (_, old_tag)) in PATHS.iter().zip(before) {
        let (now, tag) = ask(server, path).expect("an answer");
        assert_eq!(now, i64::try_from(bytes).unwrap(), "{path}");
        for (tag, expected) in [(old_tag, 200), (&tag, 304)] {
            let headers = format!("if-none-match: {tag}\r\n");
            let response = read(server.send_with(path, &headers));
            assert_eq!(status(&response), expected, "{path}: {response}");
        }
    }
}

/// A primary with the schema and an inventory, and a standby that follows it.
async fn primary_and_standby(cluster: &Cluster, files: &Files) -> (ClusterServer, ClusterServer) {
    let primary = cluster.primary(&[]).await;
    cluster.back_up(&primary, "standby", true);
    let standby = cluster.start("standby", &[]);
    let url = primary.url_with(&standby, FOLLOWS);
    let migrated = simusage(&url, &["migrate"]);
    assert_eq!(migrated.status, 0, "{migrated:?}");
    load_inventory(&url, files, "1,o\n");
    until_replayed(&primary, &standby).await;
    (primary, standby)
}

/// Lets the standby receive nothing more.
async fn detach(primary: &Connection, standby: &Connection) {
    for statement in [
        "alter system set primary_conninfo = ''",
        "select pg_reload_conf()",
    ] {
        standby.batch_execute(statement).await.unwrap();
    }
    let is_detached = "select (not exists (select from pg_stat_replication))::integer::bigint";
    until(primary, is_detached, 1).await;
}

/// Waits until the standby has everything that the primary has now.
async fn until_replayed(primary: &ClusterServer, standby: &ClusterServer) {
    let position = "select pg_current_wal_lsn()::text";
    let primary = primary.database().connect().await;
    let position: String = primary.query_one(position, &[]).await.unwrap().get(0);
    let replayed = format!(
        "select (pg_last_wal_replay_lsn() >= '{position}'::pg_lsn)::integer::bigint as replayed"
    );
    // Of the database postgres, because that of the test may not be there yet.
    until(&standby.maintenance().await, &replayed, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a native TimescaleDB"]
async fn a_failover_under_load_loses_nothing_with_synchronous_replication() {
    const FILE: u64 = 40_000;
    const TOTAL: u64 = 46_000;
    const FILE_THIRD: i64 = 13_000;
    require_native_server();
    let Some(cluster) = Cluster::new_or_skip("a failover with synchronous replication").await
    else {
        return;
    };
    let files = Files::new();
    let (mut primary, standby) = primary_and_standby(&cluster, &files).await;
    let on_primary = primary.database().connect().await;
    for statement in [
        "alter system set synchronous_standby_names = 'standby'",
        "select pg_reload_conf()",
    ] {
        on_primary.batch_execute(statement).await.unwrap();
    }
    let is_synchronous = "select count(*) from pg_stat_replication where sync_state = 'sync'";
    until(&on_primary, is_synchronous, 1).await;

    let url = primary.url_with(&standby, FOLLOWS);
    let server = Server::start(&url);
    let replica =
        Server::start(&primary.url_with(&standby, "?target_session_attrs=prefer-standby"));
    let on_standby = standby.database().connect().await;
    let sessions = "select count(*) from pg_stat_activity where application_name = 'simusage' \
                    and pid <> pg_backend_pid()";
    until_answered(&replica);
    assert!(
        number(&on_standby, sessions).await > 0,
        "not on the standby"
    );

    let file = files.write("usage.ndjson", records(0..FILE));
    let mut from_file = start_ingest(&url, &[&file]);
    // Of several hosts, an ingest uses one that accepts writes.
    let standby_first = standby.url_with(&primary, "");
    let mut stream = start_ingest(&standby_first, &["--source-id", "stream", "-"]);
    let hurry = Arc::new(AtomicBool::new(false));
    let feeding = feed(&mut stream, FILE..TOTAL, &hurry);
    let mut last = vec![];
    let mut rounds = 0;
    while number(&on_primary, STORED).await < FILE_THIRD {
        assert_one_state(&on_primary, &server, "primary").await;
        assert_one_state(&on_standby, &replica, "replica").await;
        last = until_answered(&server);
        rounds += 1;
    }
    let periods = "select count(*) from posting_closings where closed_before & 1099511627775 = 0";
    let periods = number(&on_primary, periods).await;
    for run in [&mut from_file, &mut stream] {
        assert!(run.try_wait().unwrap().is_none(), "it ended too early");
    }

    primary.kill();
    let killed = Instant::now();
    promote(&on_standby).await;
    let promoted = killed.elapsed();
    let after = until_answered(&server);
    println!(
        "{rounds} rounds, {periods} periods; promoted after {promoted:?}, answers after {:?}",
        killed.elapsed()
    );
    // What was in an answer once was on the standby, too.
    for (before, after) in last.iter().zip(&after) {
        assert!(before.0 <= after.0, "{before:?}, then {after:?}");
    }
    hurry.store(true, Ordering::Relaxed);
    while from_file.try_wait().unwrap().is_none() || stream.try_wait().unwrap().is_none() {
        assert_one_state(&on_standby, &server, "promoted").await;
        assert_one_state(&on_standby, &replica, "former replica").await;
        assert!(killed.elapsed() < TIMEOUT, "the ingests do not end");
    }
    feeding.join().unwrap();
    for (run, count) in [(from_file, FILE), (stream, TOTAL - FILE)] {
        let run = finish(run);
        let rejected = rejected_among_first(count);
        assert_eq!(run.status, 3, "{run:?}");
        assert_eq!(run.counts(), (count, count - rejected, rejected), "{run:?}");
        assert!(run.stderr.contains("the database is back"), "{run:?}");
    }
    standby.database().assert_has_exactly(TOTAL).await;
    for server in [&server, &replica] {
        assert_answers(server, TOTAL - rejected_among_first(TOTAL), &last);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a native TimescaleDB"]
async fn a_run_that_is_repeated_stores_what_a_failover_has_lost() {
    const FIRST: u64 = 1_000;
    const LOST: u64 = 2_000;
    const FILE: u64 = 22_000;
    const STREAM: u64 = 26_000;
    const EARLIER: u64 = 26_500;
    const TOTAL: u64 = 26_520;
    require_native_server();
    let Some(cluster) = Cluster::new_or_skip("a failover with asynchronous replication").await
    else {
        return;
    };
    let files = Files::new();
    let (mut primary, standby) = primary_and_standby(&cluster, &files).await;
    let on_primary = primary.database().connect().await;
    let url = primary.url_with(&standby, FOLLOWS);
    let first = files.write("first.ndjson", records(0..FIRST));
    assert_eq!(finish(start_ingest(&url, &[&first])).status, 3);
    until_replayed(&primary, &standby).await;
    let server = Server::start(&url);

    // From now on, the standby receives nothing.
    let on_standby = standby.database().connect().await;
    detach(&on_primary, &on_standby).await;
    let lost = files.write("lost.ndjson", records(FIRST..LOST));
    assert_eq!(finish(start_ingest(&url, &[&lost])).status, 3);
    // A run that is between two sources when the primary fails.
    let earlier = files.write("earlier.ndjson", records(STREAM..EARLIER));
    let mut between = start_ingest(&url, &[&earlier, "-"]);
    let of_earlier = "select coalesce(sum(stored), 0)::bigint from ingest_sources \
                      where name like '%earlier.ndjson'";
    until(&on_primary, of_earlier, 450).await;
    let file = files.write("usage.ndjson", records(LOST..FILE));
    let mut from_file = start_ingest(&url, &[&file]);
    let mut stream = start_ingest(&url, &["--source-id", "stream", "-"]);
    let hurry = Arc::new(AtomicBool::new(false));
    let feeding = feed(&mut stream, FILE..STREAM, &hurry);
    let of_stream =
        "select coalesce(sum(stored), 0)::bigint from ingest_sources where kind = 'stream'";
    until(&on_primary, of_stream, 200).await;
    until(&on_primary, STORED, 4_000).await;
    let before = until_answered(&server);
    for run in [&mut from_file, &mut stream, &mut between] {
        assert!(run.try_wait().unwrap().is_none(), "it ended too early");
    }

    primary.kill();
    let killed = Instant::now();
    promote(&on_standby).await;
    let after = until_answered(&server);
    println!("answers after {:?}", killed.elapsed());
    let first_stored = i64::try_from(FIRST - rejected_among_first(FIRST)).unwrap();
    for (before, after) in before.iter().zip(&after) {
        assert!(
            before.0 > after.0 && after.0 >= first_stored,
            "{before:?}, then {after:?}"
        );
        assert_ne!(before.1, after.1);
    }
    hurry.store(true, Ordering::Relaxed);
    feeding.join().unwrap();
    feed(&mut between, EARLIER..TOTAL, &hurry).join().unwrap();
    for run in [from_file, stream, between] {
        let run = finish(run);
        assert_eq!(run.status, 1, "{run:?}");
        assert!(
            run.stderr
                .contains("the database no longer has records that it had committed")
                && run.stderr.contains("run the same command again"),
            "{run:?}"
        );
    }

    for file in [&first, &lost, &file, &earlier] {
        let run = finish(start_ingest(&url, &[file]));
        assert_eq!(run.status, 3, "{run:?}");
    }
    let mut stream = start_ingest(&url, &["--source-id", "stream", "-"]);
    let feeding = feed(&mut stream, FILE..STREAM, &hurry);
    let run = finish(stream);
    feeding.join().unwrap();
    assert_eq!(run.status, 3, "{run:?}");
    standby.database().assert_has_exactly(TOTAL).await;
    assert_answers(&server, TOTAL - rejected_among_first(TOTAL), &before);
}

/// A member of a consumer group reads again what a failover has lost, also of a partition that nothing
/// arrives on afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a native TimescaleDB"]
async fn messages_that_a_failover_has_lost_are_read_again() {
    require_native_server();
    let test = "a failover during an ingest from Kafka";
    let Some(cluster) = Cluster::new_or_skip(test).await else {
        return;
    };
    let files = Files::new();
    let (mut primary, standby) = primary_and_standby(&cluster, &files).await;
    let (on_primary, on_standby) = (
        primary.database().connect().await,
        standby.database().connect().await,
    );
    let kafka = Kafka::start(2);
    kafka.send(&records(0..400));
    let url = primary.url_with(&standby, FOLLOWS);
    let member = kafka.ingest(&url, &[]).spawn().unwrap();
    until(&on_primary, STORED, 360).await;
    until_replayed(&primary, &standby).await;
    detach(&on_primary, &on_standby).await;
    kafka.send(&records(400..1_000));
    until(&on_primary, STORED, 900).await;
    primary.kill();
    promote(&on_standby).await;
    // One message, and so in one of the partitions.
    kafka.send(&records(1_000..1_001));
    until(&on_standby, STORED, 901).await;
    signal(&member, "TERM");
    let run = finish(member);
    assert_eq!(run.status, 3, "{run:?}");
    let again = "the database no longer has records that it had committed";
    assert!(run.stderr.contains(again), "{run:?}");
    standby.database().assert_has_exactly(1_001).await;
}

/// The ids of SIM cards that a failover has lost are given to others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a native TimescaleDB"]
async fn no_usage_of_a_sim_card_that_a_failover_has_lost_is_stored_for_another() {
    const RECORDS: &str = "{\"sim-card-id\":\"1\",\"bytes-used\":1,\"date\":\"2020-02-01T00:00:00Z\"}\n\
                           {\"sim-card-id\":\"3\",\"bytes-used\":1,\"date\":\"2020-02-01T00:00:01Z\"}\n";
    require_native_server();
    let Some(cluster) = Cluster::new_or_skip("a failover that loses the inventory").await else {
        return;
    };
    let files = Files::new();
    let (mut primary, standby) = primary_and_standby(&cluster, &files).await;
    let url = primary.url_with(&standby, "");
    let (on_primary, on_standby) = (
        primary.database().connect().await,
        standby.database().connect().await,
    );
    let (first, second) = RECORDS.split_at(RECORDS.len() / 2);
    let mut stream = start_ingest(&url, &["--source-id", "stream", "-"]);
    let mut stdin = stream.stdin.take().unwrap();
    stdin.write_all(first.as_bytes()).unwrap();
    until(&on_primary, STORED, 1).await;
    until_replayed(&primary, &standby).await;

    detach(&on_primary, &on_standby).await;
    load_inventory(&url, &files, "3,lost\n");
    let mut log = BufReader::new(stream.stderr.take().unwrap()).lines();
    while !log.next().unwrap().unwrap().contains("now has 2 SIM cards") {}
    primary.kill();
    stdin.write_all(second.as_bytes()).unwrap();
    drop(stdin);
    promote(&on_standby).await;
    load_inventory(&url, &files, "4,next\n");
    let rest: Vec<String> = log.map_while(Result::ok).collect();
    assert_eq!(finish(stream).status, 1, "{rest:#?}");
    let refusal = "no longer has SIM cards or organizations that this run has loaded";
    assert!(rest.iter().any(|line| line.contains(refusal)), "{rest:#?}");
    assert_eq!(number(&on_standby, STORED).await, 1);

    let run = simusage_with_input(
        &url,
        &["ingest", "--json", "--source-id", "stream", "-"],
        RECORDS,
    );
    assert_eq!((run.status, run.counts()), (3, (1, 0, 1)), "{run:?}");
    load_inventory(&url, &files, "3,again\n");
    let run = simusage(&url, &["ingest", "--replay-rejects"]);
    assert_eq!(run.status, 0, "{run:?}");
    let server = Server::start(&url);
    for (organization, bytes) in [("o", 1), ("next", 0), ("again", 1)] {
        let path = format!(
            "/api/v1/organization/{organization}/usage?start=2020-02-01&end=2020-02-02&every=1day"
        );
        assert_eq!(ask(&server, &path).unwrap().0, bytes, "{organization}");
    }
    standby.database().assert_answers_match().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a native TimescaleDB"]
async fn a_backup_is_recovered_to_a_point_in_time() {
    const COUNTS: [Range<u64>; 3] = [0..1_000, 1_000..2_000, 2_000..3_000];
    require_native_server();
    let Some(cluster) = Cluster::new_or_skip("point-in-time recovery").await else {
        return;
    };
    let files = Files::new();
    let archive = cluster.path("archive");
    let archiving = format!(
        "archive_command=mkdir -p {0} && cp %p {0}/%f",
        archive.display()
    );
    let mut primary = cluster.primary(&["archive_mode=on", &archiving]).await;
    let url = primary.url();
    let migrated = simusage(&url, &["migrate"]);
    assert_eq!(migrated.status, 0, "{migrated:?}");
    load_inventory(&url, &files, "1,o\n");
    let [first, second, third] =
        COUNTS.map(|count| files.write(&format!("{}.ndjson", count.start), records(count)));
    let server = Server::start(&url);
    assert_eq!(finish(start_ingest(&url, &[&first])).status, 3);
    cluster.back_up(&primary, "recovered", false);
    assert_eq!(finish(start_ingest(&url, &[&second])).status, 3);
    let on_primary = primary.database().connect().await;
    let restore_point = "select pg_create_restore_point('between')";
    on_primary.batch_execute(restore_point).await.unwrap();
    assert_eq!(finish(start_ingest(&url, &[&third])).status, 3);
    let before = until_answered(&server);
    drop(server);
    let switch = "select pg_walfile_name(pg_switch_wal())";
    let last: String = on_primary.query_one(switch, &[]).await.unwrap().get(0);
    let archived =
        format!("select (last_archived_wal >= '{last}')::integer::bigint from pg_stat_archiver");
    until(&on_primary, &archived, 1).await;
    primary.kill();

    std::fs::write(cluster.path("recovered/recovery.signal"), "").unwrap();
    let restoring = format!("restore_command=cp {}/%f %p", archive.display());
    let recovered = cluster.start(
        "recovered",
        &[
            &restoring,
            "recovery_target_name=between",
            "recovery_target_action=promote",
        ],
    );
    let connection = recovered.database().connect().await;
    let is_writable = "select (not pg_is_in_recovery())::integer::bigint";
    until(&connection, is_writable, 1).await;
    let url = recovered.url();
    let checked = simusage(&url, &["migrate", "--check"]);
    assert_eq!(checked.status, 0, "{checked:?}");
    let server = Server::start(&url);
    assert_answers(&server, 1_800, &before);
    for file in [&first, &second, &third] {
        let run = finish(start_ingest(&url, &[file]));
        assert_eq!(run.status, 3, "{run:?}");
    }
    recovered.database().assert_has_exactly(3_000).await;
    let before = vec![(0, "\"none\"".to_owned()); PATHS.len()];
    assert_answers(&server, 2_700, &before);
}
