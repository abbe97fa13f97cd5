//! Every message of a topic of Apache Kafka is stored, rejected or empty once.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use rdkafka::Offset;

use crate::support::TestDatabase;
use crate::support::broker::{Cluster, Ingest, TransactionEnd, USER, free_ports};
use crate::support::certificates::{Authority, PairFiles};
use crate::support::kafka::ingest;
use crate::support::program::{Run, load_inventory};
use crate::support::usage::{Files, ndjson};

/// A database with an inventory.
async fn database() -> TestDatabase {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    database
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn a_topic_is_stored_to_its_end_and_later_runs_resume_there() {
    let database = database().await;
    let topic = Cluster::shared().topic(3, &[]).await;
    topic.send(&ndjson(0..200));
    let run = topic.ingest_to_end(database.url(), &[]);
    assert_eq!((run.status, run.counts()), (3, (200, 180, 20)), "{run:?}");
    database.assert_has_exactly(200).await;
    let run = topic.ingest_to_end(database.url(), &[]);
    assert_eq!((run.status, run.counts()), (0, (0, 0, 0)), "{run:?}");
    topic.send(&ndjson(200..301));
    let run = topic.ingest_to_end(database.url(), &[]);
    assert_eq!((run.status, run.counts().0), (3, 101), "{run:?}");
    database.assert_has_exactly(301).await;
}

/// The value of a metric of an ingest, if it is there already.
fn metric(address: &str, name: &str) -> Option<u64> {
    let mut connection = TcpStream::connect(address).unwrap();
    connection
        .write_all(b"GET /metrics HTTP/1.0\r\n\r\n")
        .unwrap();
    let mut response = String::new();
    connection.read_to_string(&mut response).unwrap();
    let value = response
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map(|value| value.parse().unwrap())
}

/// Waits until `count` records are stored or rejected.
async fn until_stored(database: &TestDatabase, count: i64) {
    let rows =
        "select (select count(*) from all_usage_records) + (select count(*) from rejected_records)";
    database
        .until_at_least(rows, count, Duration::from_mins(1))
        .await;
}

/// The numbers of records in the summary, and of empty messages.
fn counts(run: &Run) -> (u64, u64, u64, u64) {
    let (read, stored, rejected) = run.counts();
    let empty = run.json()["empty-messages"].as_u64().unwrap();
    (read, stored, rejected, empty)
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn the_beginning_of_a_recreated_topic_is_never_skipped() {
    let database = database().await;
    let topic = Cluster::shared().topic(1, &[]).await;
    topic.send(&ndjson(0..9));
    assert_eq!(topic.ingest_to_end(database.url(), &[]).counts().0, 9);
    topic.recreate().await;
    // With fewer messages than the stored position, as many, and more.
    for sent in [5, 9, 20] {
        topic.send(&ndjson(
            9..9 + 5.max(sent - topic.offsets().1.unsigned_abs()),
        ));
        let run = topic.ingest_to_end(database.url(), &[]);
        assert_eq!(run.status, 1, "{run:?}");
        for part in [
            "the topic of usage-",
            "was deleted and created again: its identifier was",
            "to read the new topic from its beginning, pass --if-changed restart",
        ] {
            assert!(run.stderr.contains(part), "{part}: {run:?}");
        }
    }
    let sent = topic.offsets().1.unsigned_abs();
    let run = topic.ingest_to_end(database.url(), &["--if-changed", "restart"]);
    assert_eq!((run.status, run.counts().0), (3, sent), "{run:?}");
    // From now on, the new topic is the known one.
    topic.send(&ndjson(100..110));
    let run = topic.ingest_to_end(database.url(), &[]);
    assert_eq!((run.status, run.counts().0), (3, 10), "{run:?}");
    let total = "select sum(stored + rejected)::bigint from ingest_sources";
    assert_eq!(
        database.number(total).await,
        i64::try_from(9 + sent + 10).unwrap()
    );
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn rejected_messages_of_a_deleted_topic_are_kept() {
    let database = database().await;
    let topic = Cluster::shared().topic(1, &[]).await;
    topic.send("one\ntwo\n");
    assert_eq!(topic.ingest_to_end(database.url(), &[]).counts(), (2, 0, 2));
    topic.recreate().await;
    topic.send("three\n");
    let run = topic.ingest_to_end(database.url(), &["--if-changed", "restart"]);
    assert_eq!((run.status, run.counts()), (3, (1, 0, 1)), "{run:?}");
    let rejected = "select count(distinct raw) from rejected_records";
    assert_eq!(database.number(rejected).await, 3);
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn a_topic_recreated_while_it_is_read_stops_the_ingest() {
    let database = database().await;
    let topic = Cluster::shared().topic(1, &[]).await;
    topic.send(&ndjson(0..9));
    let ingest = topic.start(database.url(), &[]);
    until_stored(&database, 9).await;
    topic.recreate().await;
    topic.send(&ndjson(9..40));
    let run = ingest.wait();
    assert_eq!(run.status, 1, "{run:?}");
    assert!(
        run.stderr.contains("was deleted and created again"),
        "{run:?}"
    );
    database.assert_has_exactly(9).await;
    let run = topic.ingest_to_end(database.url(), &["--if-changed", "restart"]);
    assert_eq!((run.status, run.counts().0), (3, 31), "{run:?}");
    database.assert_has_exactly(40).await;
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn a_running_ingest_restarts_with_the_new_topic_if_told_so() {
    let database = database().await;
    let topic = Cluster::shared().topic(2, &[]).await;
    topic.send(&ndjson(0..9));
    let ingest = topic.start(database.url(), &["--if-changed", "restart"]);
    until_stored(&database, 9).await;
    topic.recreate().await;
    topic.send(&ndjson(9..40));
    until_stored(&database, 40).await;
    let run = ingest.stop();
    assert_eq!((run.status, run.counts().0), (3, 40), "{run:?}");
    database.assert_has_exactly(40).await;
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn a_new_group_is_told_that_the_first_messages_are_gone() {
    let database = database().await;
    let topic = Cluster::shared().topic(1, &[]).await;
    topic.send(&ndjson(0..50));
    topic.delete_before(40).await;
    let run = topic.ingest_to_end(database.url(), &["--require-beginning"]);
    assert_eq!(run.status, 1, "{run:?}");
    let reason = "/0 begins at offset 40: the messages before it were deleted before this group could read them";
    assert!(
        run.stderr.contains(&format!(
            "{reason}; without --require-beginning, it is read from that offset"
        )),
        "{run:?}"
    );
    let run = topic.ingest_to_end(database.url(), &[]);
    assert_eq!((run.status, run.counts().0), (3, 10), "{run:?}");
    assert!(run.stderr.contains(reason), "{run:?}");
    // Only a new group lacks them.
    let run = topic.ingest_to_end(database.url(), &["--require-beginning"]);
    assert_eq!(run.status, 0, "{run:?}");
    assert!(!run.stderr.contains(reason), "{run:?}");
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn messages_deleted_before_they_were_stored_are_an_error() {
    let database = database().await;
    let topic = Cluster::shared().topic(1, &[]).await;
    topic.send(&ndjson(0..20));
    assert_eq!(topic.ingest_to_end(database.url(), &[]).counts().0, 20);
    topic.send(&ndjson(20..40));
    // That of the last stored message is no loss.
    topic.delete_before(20).await;
    let run = topic.ingest_to_end(database.url(), &["--max-rejects", "0"]);
    assert_eq!(run.status, 1, "{run:?}");
    topic.delete_before(39).await;
    let run = topic.ingest_to_end(database.url(), &[]);
    assert_eq!(run.status, 1, "{run:?}");
    let reason = "/0 begins at offset 39: messages from offset 30 were deleted before they were stored; to continue \
                  at offset 39, pass --if-changed continue";
    assert!(run.stderr.contains(reason), "{run:?}");
    let run = topic.ingest_to_end(database.url(), &["--if-changed", "continue"]);
    assert_eq!((run.status, run.counts()), (3, (1, 0, 1)), "{run:?}");
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn a_position_beyond_the_end_is_an_error() {
    let database = database().await;
    let topic = Cluster::shared().topic(1, &[]).await;
    topic.send(&ndjson(0..20));
    assert_eq!(topic.ingest_to_end(database.url(), &[]).counts().0, 20);
    let connection = database.connect().await;
    let moved = "update ingest_sources set position = 5000, line = 5000";
    connection.execute(moved, &[]).await.unwrap();
    for _ in 0..2 {
        let run = topic.ingest_to_end(database.url(), &[]);
        assert_eq!(run.status, 1, "{run:?}");
        let reason = "/0 ends at offset 20, before offset 5000 up to which it is stored";
        assert!(run.stderr.contains(reason), "{run:?}");
    }
    let run = topic.ingest_to_end(database.url(), &["--if-changed", "continue"]);
    assert_eq!((run.status, run.counts().0), (0, 0), "{run:?}");
    topic.send(&ndjson(20..25));
    assert_eq!(topic.ingest_to_end(database.url(), &[]).counts().0, 5);
    database.assert_has_exactly(25).await;
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn another_message_where_the_last_one_was_is_an_error() {
    let database = database().await;
    let topic = Cluster::shared().topic(1, &[]).await;
    topic.send(&ndjson(0..20));
    assert_eq!(topic.ingest_to_end(database.url(), &[]).counts().0, 20);
    // As if the log had been restored from a backup, and had grown past the position.
    let connection = database.connect().await;
    let replaced =
        "update ingest_sources set prefix_hash = sha256('another'), position = 15, line = 15";
    connection.execute(replaced, &[]).await.unwrap();
    let run = topic.ingest_to_end(database.url(), &[]);
    assert_eq!(run.status, 1, "{run:?}");
    let reason = "/0 has another message before offset 15 than the one that was stored";
    assert!(run.stderr.contains(reason), "{run:?}");
    let run = topic.ingest_to_end(database.url(), &["--if-changed", "continue"]);
    assert_eq!((run.status, run.counts().0), (3, 5), "{run:?}");
    connection.execute(replaced, &[]).await.unwrap();
    let run = topic.ingest_to_end(database.url(), &["--if-changed", "restart"]);
    assert_eq!((run.status, run.counts().0), (3, 20), "{run:?}");
    assert_eq!(topic.ingest_to_end(database.url(), &[]).status, 0);
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn tombstones_and_empty_messages_are_skipped_and_counted() {
    let database = database().await;
    let topic = Cluster::shared()
        .topic(1, &[("cleanup.policy", "compact")])
        .await;
    let lines = ndjson(0..2);
    let (first, second) = lines.split_at(lines.find('\n').unwrap() + 1);
    topic.send_message(Some("a"), Some(first.as_bytes()));
    topic.send_message(Some("a"), None);
    topic.send_message(Some("b"), Some(b""));
    topic.send_message(Some("b"), Some(b"\xef\xbb\xbf"));
    topic.send_message(
        Some("c"),
        Some(&[b"\xef\xbb\xbf", second.as_bytes()].concat()),
    );
    topic.send_message(Some("c"), None);
    let run = topic.ingest_to_end(database.url(), &[]);
    assert_eq!((run.status, counts(&run)), (0, (2, 2, 0, 4)), "{run:?}");
    assert_eq!(
        database.number("select position from ingest_sources").await,
        6
    );
    let run = topic.ingest_to_end(database.url(), &[]);
    assert_eq!((run.status, counts(&run)), (0, (0, 0, 0, 0)), "{run:?}");
    // Only tombstones: they are counted once, and their position is stored, so that they may be
    // deleted.
    topic.send_message(Some("d"), None);
    let run = topic.ingest_to_end(database.url(), &[]);
    assert_eq!((run.status, counts(&run)), (0, (0, 0, 0, 1)), "{run:?}");
    let run = topic.ingest_to_end(database.url(), &[]);
    assert_eq!((run.status, counts(&run)), (0, (0, 0, 0, 0)), "{run:?}");
    database.assert_has_exactly(2).await;
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn a_compacted_topic_with_gaps_is_read_to_its_end() {
    let database = database().await;
    let settings = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("segment.bytes", "1048576"),
        ("segment.ms", "200"),
        ("delete.retention.ms", "100"),
        ("max.compaction.lag.ms", "200"),
    ];
    let topic = Cluster::shared().topic(1, &settings).await;
    let lines = ndjson(0..40);
    let send = |range: std::ops::Range<usize>| {
        for line in lines.lines().skip(range.start).take(range.len()) {
            topic.send_message(Some("key"), Some(line.as_bytes()));
        }
    };
    send(0..20);
    let run = topic.ingest_to_end(database.url(), &[]);
    assert!(run.counts().0 > 0, "{run:?}");
    assert_eq!(
        database.number("select position from ingest_sources").await,
        20
    );
    send(20..40);
    // Wait until the last message that was stored has been removed, and some of the new ones.
    let mut attempts_left = 200;
    loop {
        // A segment is closed, and thus cleaned, when a message is sent after its time.
        tokio::time::sleep(Duration::from_millis(300)).await;
        topic.send_message(Some("key"), Some(b"{}"));
        let first = topic.first_message_at_or_after(19);
        if first > 30 {
            break;
        }
        attempts_left -= 1;
        assert!(attempts_left > 0, "offset {first} was not compacted");
    }
    let run = topic.ingest_to_end(database.url(), &[]);
    assert_eq!(run.status, 3, "{run:?}");
    let position = "select position from ingest_sources";
    assert_eq!(database.number(position).await, topic.offsets().1);
    // A gap at the end.
    topic.send_in_transaction(&ndjson(50..60), TransactionEnd::Abort);
    for _ in 0..2 {
        let run = topic.ingest_to_end(database.url(), &[]);
        assert_eq!((run.status, run.counts().0), (0, 0), "{run:?}");
        assert_eq!(database.number(position).await, topic.offsets().1);
    }
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn only_committed_transactions_are_stored_and_nothing_is_left_to_read() {
    let database = database().await;
    let topic = Cluster::shared().topic(2, &[]).await;
    topic.send_in_transaction(&ndjson(0..100), TransactionEnd::Commit);
    topic.send_in_transaction(&ndjson(500..600), TransactionEnd::Abort);
    let [port] = free_ports();
    let metrics = format!("127.0.0.1:{port}");
    let ingest = topic.start(database.url(), &["--metrics-listen", &metrics]);
    until_stored(&database, 100).await;
    topic.send_in_transaction(&ndjson(600..700), TransactionEnd::Abort);
    topic.send_in_transaction(&ndjson(100..200), TransactionEnd::Commit);
    until_stored(&database, 200).await;
    topic.send_in_transaction(&ndjson(700..800), TransactionEnd::Abort);
    // The lag ends and the committed offsets reach the end, although the last messages were aborted.
    let end = topic.offsets().1;
    let committed = || [0, 1].map(|partition| topic.committed(partition));
    let lag = || metric(&metrics, "simusage_ingest_lag_records");
    let mut attempts_left = 100;
    while committed() != [Offset::Offset(end); 2] || lag() != Some(0) {
        attempts_left -= 1;
        assert!(attempts_left > 0, "{:?} of {end}, {:?}", committed(), lag());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let run = ingest.stop();
    assert_eq!((run.status, run.counts().0), (3, 200), "{run:?}");
    let positions = "select sum(position)::bigint from ingest_sources";
    assert_eq!(database.number(positions).await, 2 * end);
    let run = topic.ingest_to_end(database.url(), &[]);
    assert_eq!((run.status, run.counts().0), (0, 0), "{run:?}");
    database.assert_has_exactly(200).await;
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn an_open_transaction_is_left_for_the_next_run() {
    let database = database().await;
    let topic = Cluster::shared().topic(1, &[]).await;
    topic.send(&ndjson(0..50));
    let producer = topic.send_in_transaction(&ndjson(50..100), TransactionEnd::LeaveOpen);
    topic.send(&ndjson(100..150));
    let run = topic.ingest_to_end(database.url(), &[]);
    assert_eq!((run.status, run.counts().0), (3, 50), "{run:?}");
    database.assert_has_exactly(50).await;
    topic.commit(&producer);
    let run = topic.ingest_to_end(database.url(), &[]);
    assert_eq!((run.status, run.counts().0), (3, 100), "{run:?}");
    database.assert_has_exactly(150).await;
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn added_partitions_are_read_within_half_a_minute() {
    let database = database().await;
    let mut topic = Cluster::shared().topic(1, &[]).await;
    topic.send(&ndjson(0..10));
    let ingest = topic.start(database.url(), &[]);
    until_stored(&database, 10).await;
    topic.add_partitions(3).await;
    topic.send(&ndjson(10..40));
    until_stored(&database, 40).await;
    let run = ingest.stop();
    assert_eq!((run.status, run.counts().0), (3, 40), "{run:?}");
    database.assert_has_exactly(40).await;
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn large_messages_are_stored_if_they_are_allowed_to_be() {
    let database = database().await;
    let topic = Cluster::shared()
        .topic(1, &[("max.message.bytes", "10000000")])
        .await;
    let lines = ndjson(0..3);
    let mut long = vec![];
    for (line, padding) in lines.lines().zip([1_000_000, 5_000_000, 0]) {
        let padded = format!("{}{}", line, " ".repeat(padding));
        topic.send_message(None, Some(padded.as_bytes()));
        long.push(padded);
    }
    let run = topic.ingest_to_end(database.url(), &[]);
    assert_eq!((run.status, run.counts()), (3, (3, 1, 2)), "{run:?}");
    assert_eq!(
        run.json()["reasons"],
        serde_json::json!({"too-long": 2}),
        "{run:?}"
    );
    for padded in &long[..2] {
        topic.send_message(None, Some(padded.as_bytes()));
    }
    let mut allowed = topic.ingest(database.url(), &["--until-end"]);
    allowed.env("SIMUSAGE_INGEST_MAX_RECORD_BYTES", "6000000");
    let run = Ingest::spawn(allowed).wait();
    assert_eq!((run.status, run.counts()), (0, (2, 2, 0)), "{run:?}");
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn the_group_protocol_of_kafka_4_works() {
    let database = database().await;
    let topic = Cluster::shared().topic(3, &[]).await;
    let command = |arguments: &[&str]| {
        let mut command = topic.ingest(database.url(), arguments);
        command
            .env("SIMUSAGE_KAFKA_GROUP_PROTOCOL", "consumer")
            .stdout(Stdio::piped());
        command
    };
    topic.send(&ndjson(0..100));
    let ingest = Ingest::spawn(command(&[]));
    until_stored(&database, 100).await;
    topic.send(&ndjson(100..200));
    until_stored(&database, 200).await;
    let run = ingest.stop();
    assert_eq!((run.status, run.counts().0), (3, 200), "{run:?}");
    topic.send(&ndjson(200..300));
    let run = Ingest::spawn(command(&["--until-end"])).wait();
    assert_eq!((run.status, run.counts().0), (3, 100), "{run:?}");
    database.assert_has_exactly(300).await;
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn brokers_can_require_tls_and_a_password() {
    let database = database().await;
    let (cluster, files) = (Cluster::shared(), Files::new());
    let topic = cluster.topic(2, &[]).await;
    let (root, other_root) = (files.write("root.pem", ""), files.write("other.pem", ""));
    cluster.authority.write(root.as_ref());
    Authority::new("somebody else").write(other_root.as_ref());
    let run = |mechanism: &str, password: &str, root: &str| -> Run {
        let brokers = cluster.brokers_with_password();
        let mut command = ingest(&brokers, &topic.name, database.url(), &["--until-end"]);
        command
            .env("SIMUSAGE_KAFKA_SECURITY_PROTOCOL", "sasl_ssl")
            .env("SIMUSAGE_KAFKA_SASL_MECHANISM", mechanism)
            .env("SIMUSAGE_KAFKA_SASL_USERNAME", USER.0)
            .env("SIMUSAGE_KAFKA_SASL_PASSWORD", password)
            .env("SIMUSAGE_KAFKA_SSL_CA_LOCATION", root);
        Ingest::spawn(command).wait()
    };
    for (number, mechanism) in (0..).zip(["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]) {
        topic.send(&ndjson(number * 10..number * 10 + 10));
        let stored = run(mechanism, USER.1, &root);
        assert_eq!(
            (stored.status, stored.counts().0),
            (3, 10),
            "{mechanism}: {stored:?}"
        );
        let refused = run(mechanism, "close sesame", &root);
        assert_eq!(refused.status, 1, "{refused:?}");
        assert!(
            refused.stderr.contains("uthentication") && !refused.stderr.contains("sesame"),
            "{refused:?}"
        );
    }
    let unknown = run("PLAIN", USER.1, &other_root);
    assert_eq!(unknown.status, 1, "{unknown:?}");
    assert!(
        unknown.stderr.contains("certificate verify failed"),
        "{unknown:?}"
    );
    database.assert_has_exactly(30).await;
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn brokers_can_require_a_client_certificate() {
    let database = database().await;
    let (cluster, files) = (Cluster::shared(), Files::new());
    let topic = cluster.topic(2, &[]).await;
    topic.send(&ndjson(0..20));
    let root = files.write("root.pem", "");
    cluster.authority.write(root.as_ref());
    let client = PairFiles::new(&cluster.authority.issue(&["simusage"]));
    let command = || {
        let brokers = cluster.brokers_with_certificates();
        let mut command = ingest(&brokers, &topic.name, database.url(), &["--until-end"]);
        command
            .env("SIMUSAGE_KAFKA_SECURITY_PROTOCOL", "ssl")
            .env("SIMUSAGE_KAFKA_SSL_CA_LOCATION", &root);
        command
    };
    let none = Ingest::spawn(command()).wait();
    assert_eq!(none.status, 1, "{none:?}");
    assert!(
        none.stderr.contains("the settings in [kafka] are correct"),
        "{none:?}"
    );
    let mut identified = command();
    identified
        .env(
            "SIMUSAGE_KAFKA_SSL_CERTIFICATE_LOCATION",
            client.certificate(),
        )
        .env("SIMUSAGE_KAFKA_SSL_KEY_LOCATION", client.key());
    let run = Ingest::spawn(identified).wait();
    assert_eq!((run.status, run.counts().0), (3, 20), "{run:?}");
    database.assert_has_exactly(20).await;
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn the_ingest_waits_for_a_broker_to_restart() {
    let database = database().await;
    let mut cluster = Cluster::of_one();
    let name = cluster.topic(2, &[]).await.name;
    let command = ingest(&cluster.brokers(), &name, database.url(), &[]);
    let child = Ingest::spawn(command);
    for round in 0..3 {
        let sent = 1_000 * (round + 1);
        cluster
            .existing_topic(&name, 2)
            .send(&ndjson(sent - 1_000..sent));
        until_stored(&database, i64::try_from(sent).unwrap()).await;
        match round {
            0 => cluster.stop(1),
            _ => cluster.kill(1),
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        cluster.restart(1);
    }
    cluster.existing_topic(&name, 2).send(&ndjson(3_000..3_001));
    until_stored(&database, 3_001).await;
    let run = child.stop();
    assert_eq!((run.status, run.counts().0), (3, 3_001), "{run:?}");
    assert!(run.stderr.contains("Connection refused"), "{run:?}");
    database.assert_has_exactly(3_001).await;
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn a_new_leader_without_messages_that_were_stored_is_noticed() {
    let database = database().await;
    let mut cluster = Cluster::of_two();
    let settings = [
        ("unclean.leader.election.enable", "true"),
        ("min.insync.replicas", "1"),
    ];
    let name = cluster.replicated_topic(&[1, 2], &settings).await.name;
    let brokers = cluster.brokers();
    let until_end = || -> Run {
        let command = ingest(&brokers, &name, database.url(), &["--until-end"]);
        Ingest::spawn(command).wait()
    };
    let send = |cluster: &Cluster, numbers: std::ops::Range<u64>| {
        cluster.existing_topic(&name, 1).send(&ndjson(numbers));
    };
    send(&cluster, 0..20);
    assert_eq!(until_end().counts().0, 20);
    // The other replica takes over, and has everything.
    cluster.stop(1);
    send(&cluster, 20..40);
    let run = until_end();
    assert_eq!((run.status, run.counts().0), (3, 20), "{run:?}");
    database.assert_has_exactly(40).await;
    // Then the first replica takes over, which lacks these messages, and grows past the position.
    cluster.kill(2);
    cluster.restart(1);
    send(&cluster, 100..130);
    let run = until_end();
    assert_eq!(run.status, 1, "{run:?}");
    let reason = "has another message before offset 40 than the one that was stored";
    assert!(run.stderr.contains(reason), "{run:?}");
    database.assert_has_exactly(40).await;
    // A running ingest notices it, too.
    let mut command = ingest(
        &brokers,
        &name,
        database.url(),
        &["--if-changed", "continue"],
    );
    let running = Ingest::spawn(command);
    until_stored(&database, 50).await;
    drop(running);
    command = ingest(&brokers, &name, database.url(), &[]);
    let running = Ingest::spawn(command);
    cluster.restart(2);
    tokio::time::sleep(Duration::from_secs(3)).await;
    cluster.stop(2);
    send(&cluster, 130..150);
    until_stored(&database, 70).await;
    cluster.kill(1);
    cluster.restart(2);
    let run = running.wait();
    assert_eq!(run.status, 1, "{run:?}");
    assert!(
        run.stderr
            .contains("before offset 70 up to which it is stored"),
        "{run:?}"
    );
}

#[tokio::test]
#[ignore = "needs Apache Kafka: make test-kafka"]
async fn members_killed_and_started_at_random_lose_and_duplicate_nothing() {
    /// How many members there are at most.
    const MEMBERS: usize = 3;
    /// Longer than that of both protocols.
    const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
    /// How many messages each step sends, at least.
    const STEP: u64 = 2_000;
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let messages = number("SIMUSAGE_TEST_KAFKA_MESSAGES", 20_000);
    let pause = Duration::from_millis(number("SIMUSAGE_TEST_KAFKA_KILL_EVERY_MS", 1_500));
    for protocol in ["classic", "consumer"] {
        let database = database().await;
        let topic = Cluster::shared().topic(6, &[]).await;
        let member = || {
            let mut command = topic.ingest(database.url(), &[]);
            command
                .env("SIMUSAGE_KAFKA_GROUP_PROTOCOL", protocol)
                .env("SIMUSAGE_INGEST_BATCH_ROWS", "5000")
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            Ingest::spawn(command)
        };
        let mut members = vec![];
        let mut sent = 0;
        let mut round = 0;
        while sent < messages {
            let next = messages.min(sent + STEP.max(messages / 20));
            topic.send(&ndjson(sent..next));
            sent = next;
            // Start the missing members, then kill one of them.
            if members.len() < MEMBERS {
                members.push(member());
            } else {
                members.swap_remove(round % MEMBERS);
            }
            round += 1;
            tokio::time::sleep(pause).await;
        }
        drop(members);
        // Until then, the brokers do not assign the partitions of killed members to others.
        tokio::time::sleep(SESSION_TIMEOUT).await;
        let mut rest = topic.ingest(database.url(), &["--until-end"]);
        rest.env("SIMUSAGE_KAFKA_GROUP_PROTOCOL", protocol)
            .env("SIMUSAGE_INGEST_BATCH_ROWS", "100000");
        let run = Ingest::spawn(rest).wait_within(Duration::from_mins(10));
        assert!([0, 3].contains(&run.status), "{protocol}: {run:?}");
        database.assert_has_exactly(messages).await;
    }
}
