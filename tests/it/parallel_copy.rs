//! Several connections copy batches in parallel, which needs a server with several sessions.

use std::process::{Child, Stdio};
use std::time::Duration;

use crate::support::program::{Run, command, load_inventory};
use crate::support::usage::{Files, ndjson};
use crate::support::{TestDatabase, require_native_server};

/// A database with an inventory and without background jobs.
async fn ready() -> TestDatabase {
    require_native_server();
    let database = TestDatabase::without_jobs().await;
    load_inventory(database.url());
    database
}

/// Starts an ingest with small batches, so that the reader stays ahead of the connections.
fn start(database: &TestDatabase, file: &str) -> Child {
    start_with(database, file, "off")
}

/// Like [`start`], with `direct_compress` on or off.
fn start_with(database: &TestDatabase, file: &str, direct_compress: &str) -> Child {
    command(database.url(), &["ingest", "--json", file])
        .env("SIMUSAGE_INGEST_DIRECT_COMPRESS", direct_compress)
        .env("SIMUSAGE_INGEST_BATCH_ROWS", "50")
        .env("SIMUSAGE_INGEST_CONNECTIONS", "3")
        .env("SIMUSAGE_LOG", "info,simusage::ingest::parallel_copy=debug")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for an ingest to end. It must have used parallel connections and rejected every tenth
/// record.
fn finish(child: Child, read: u64) -> Run {
    let run = Run::from(child.wait_with_output().unwrap());
    assert_eq!(
        (run.status, run.counts()),
        (3, (read, read - read / 10, read / 10)),
        "{run:?}"
    );
    assert!(
        run.stderr
            .contains("copying batches in parallel on 3 connections"),
        "{run:?}"
    );
    run
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn each_record_is_stored_once_in_new_and_compressed_chunks() {
    let database = ready().await;
    let files = Files::new();
    finish(
        start(&database, &files.write("1.ndjson", ndjson(0..4_000))),
        4_000,
    );
    database.assert_has_exactly(4_000).await;
    // The next batches go into compressed chunks, the ones after them into new chunks.
    let connection = database.connect().await;
    connection
        .batch_execute("select compress_chunk(chunk) from show_chunks('usage_records') as chunk")
        .await
        .unwrap();
    finish(
        start(&database, &files.write("2.ndjson", ndjson(4_000..8_000))),
        4_000,
    );
    database.assert_has_exactly(8_000).await;
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn each_record_is_stored_once_directly_in_the_columnstore() {
    let database = ready().await;
    let files = Files::new();
    // The first part creates chunks; the second adds uncompressed rows to the last of them and to
    // new ones; the third fills up one of those.
    for (range, direct_compress) in [
        (0..4_000, "on"),
        (4_000..6_000, "off"),
        (6_000..12_000, "on"),
    ] {
        let count = range.end - range.start;
        let file = files.write(&format!("{}.ndjson", range.start), ndjson(range));
        let run = finish(start_with(&database, &file, direct_compress), count);
        assert!(!run.stderr.contains("trying again"), "{run:?}");
    }
    database.assert_has_exactly(12_000).await;
    let uncompressed = "select count(*) from timescaledb_information.chunks \
                   where hypertable_name = 'usage_records' and not is_compressed";
    assert_eq!(database.number(uncompressed).await, 1);
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn each_record_is_stored_once_while_sessions_are_terminated() {
    let database = ready().await;
    let files = Files::new();
    let child = start(&database, &files.write("usage.ndjson", ndjson(0..20_000)));
    for count in (1..=8).map(|number| number * 2_000) {
        database
            .until_at_least(
                "select count(*) from usage_records",
                count,
                Duration::from_secs(20),
            )
            .await;
        // A random session: it may be copying the first batch, waiting to commit, or gone.
        let terminate = "select count(pg_terminate_backend(pid)) from (
                             select pid from pg_stat_activity
                             where datname = current_database() and application_name = 'simusage'
                                 and pid <> pg_backend_pid() and query ilike '%copy usage_records%'
                             order by random() limit 1
                         ) as one";
        database.number(terminate).await;
    }
    finish(child, 20_000);
    database.assert_has_exactly(20_000).await;
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn each_record_is_stored_once_after_a_lock_blocks_every_connection() {
    let database = ready().await;
    let connection = database.connect().await;
    // Create all chunks first, so that only the copying itself waits for the lock.
    let days = "insert into usage_records
                select day, 0, 0, 0 from generate_series(timestamptz '2020-02-01', '2020-02-29', '1 day') as day;
                delete from usage_records";
    connection.batch_execute(days).await.unwrap();
    let files = Files::new();
    let child = start(&database, &files.write("usage.ndjson", ndjson(0..20_000)));
    database
        .until_at_least(
            "select count(*) from usage_records",
            1_000,
            Duration::from_secs(20),
        )
        .await;
    connection
        .batch_execute("begin; lock table usage_records in share mode")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(7)).await;
    connection.batch_execute("rollback").await.unwrap();
    let run = finish(child, 20_000);
    assert!(
        run.stderr.contains("lock timeout") && run.stderr.contains("trying again"),
        "{run:?}"
    );
    database.assert_has_exactly(20_000).await;
}
