//! Batches that several connections copy at once, which takes a server of several sessions.

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

/// Begins to ingest small batches, so that the reading thread is ahead.
fn start(database: &TestDatabase, file: &str) -> Child {
    start_with(database, file, "off")
}

/// The same, straight into the columnstore or not.
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

/// Waits for the end of an ingest that must have gone side by side, and of which every tenth record is rejected.
fn end(child: Child, read: u64) -> Run {
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
async fn each_is_stored_once_whatever_chunks_it_needs() {
    let database = ready().await;
    let files = Files::new();
    end(
        start(&database, &files.write("1.ndjson", ndjson(0..4_000))),
        4_000,
    );
    database.assert_has_exactly(4_000).await;
    // The next batches fall into the columnstore, those behind them into chunks that are not there yet.
    let connection = database.connect().await;
    connection
        .batch_execute("select compress_chunk(chunk) from show_chunks('usage_records') as chunk")
        .await
        .unwrap();
    end(
        start(&database, &files.write("2.ndjson", ndjson(4_000..8_000))),
        4_000,
    );
    database.assert_has_exactly(8_000).await;
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn each_is_stored_once_straight_into_the_columnstore() {
    let database = ready().await;
    let files = Files::new();
    // Into days that have no chunk; into the last of them and two more from outside, of which one is filled up inside.
    for (range, direct_compress) in [
        (0..4_000, "on"),
        (4_000..6_000, "off"),
        (6_000..12_000, "on"),
    ] {
        let count = range.end - range.start;
        let file = files.write(&format!("{}.ndjson", range.start), ndjson(range));
        let run = end(start_with(&database, &file, direct_compress), count);
        assert!(!run.stderr.contains("trying again"), "{run:?}");
    }
    database.assert_has_exactly(12_000).await;
    let outside = "select count(*) from timescaledb_information.chunks \
                   where hypertable_name = 'usage_records' and not is_compressed";
    assert_eq!(database.number(outside).await, 1);
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn each_is_stored_once_whatever_sessions_end() {
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
        // Any of them: the one that copies the first batch, one that waits for its turn, or none.
        let terminate = "select count(pg_terminate_backend(pid)) from (
                             select pid from pg_stat_activity
                             where datname = current_database() and application_name = 'simusage'
                                 and pid <> pg_backend_pid() and query ilike '%copy usage_records%'
                             order by random() limit 1
                         ) as one";
        database.number(terminate).await;
    }
    end(child, 20_000);
    database.assert_has_exactly(20_000).await;
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn a_lock_in_the_way_of_all_is_waited_for_one_by_one() {
    let database = ready().await;
    let connection = database.connect().await;
    // All chunks are there, so nothing but the copying itself has to wait.
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
    let run = end(child, 20_000);
    assert!(
        run.stderr.contains("lock timeout") && run.stderr.contains("trying again"),
        "{run:?}"
    );
    database.assert_has_exactly(20_000).await;
}
