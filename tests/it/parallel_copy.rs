//! Several connections copy batches in parallel, which needs a server with several sessions.

use std::process::{Child, Stdio};
use std::time::Duration;

use crate::support::program::{Run, command, load_inventory};
use crate::support::usage::{Files, ndjson};
use crate::support::{TestDatabase, require_native_server};

/// A database with an inventory.
async fn ready() -> TestDatabase {
    require_native_server();
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    database
}

/// Starts an ingest with small batches, so that the reader stays ahead of the connections.
fn start(database: &TestDatabase, file: &str, batch_rows: u32) -> Child {
    command(database.url(), &["ingest", "--json", file])
        .env("SIMUSAGE_INGEST_BATCH_ROWS", batch_rows.to_string())
        .env("SIMUSAGE_INGEST_CONNECTIONS", "3")
        .env("SIMUSAGE_INGEST_PERIOD_RECORDS", "1000")
        .env("SIMUSAGE_LOG", "info,simusage::ingest::parallel_copy=debug")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for an ingest to end. It must have rejected every tenth record.
fn finish(child: Child, read: u64) -> Run {
    let run = Run::from(child.wait_with_output().unwrap());
    assert_eq!(
        (run.status, run.counts()),
        (3, (read, read - read / 10, read / 10)),
        "{run:?}"
    );
    run
}

fn is_parallel(run: &Run) -> bool {
    run.stderr
        .contains("copying batches in parallel on 3 connections")
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn each_record_is_stored_once_in_the_row_store_and_in_the_columnstore() {
    let database = ready().await;
    let files = Files::new();
    for (range, batch_rows) in [
        (0..4_000, 50),
        (4_000..204_000, 25_000),
        (204_000..208_000, 50),
    ] {
        let count = range.end - range.start;
        let file = files.write(&format!("{}.ndjson", range.start), ndjson(range.clone()));
        let run = finish(start(&database, &file, batch_rows), count);
        assert!(!run.stderr.contains("trying again"), "{run:?}");
        // With large batches, a slow reader may never be ahead.
        assert!(is_parallel(&run) || batch_rows > 50, "{run:?}");
        database.assert_has_exactly(range.end).await;
    }
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn each_record_is_stored_once_while_sessions_are_terminated() {
    let database = ready().await;
    let files = Files::new();
    let child = start(
        &database,
        &files.write("usage.ndjson", ndjson(0..20_000)),
        50,
    );
    for count in (1..=8).map(|number| number * 2_000) {
        database
            .until_at_least(
                "select count(*) from all_usage_records",
                count,
                Duration::from_secs(20),
            )
            .await;
        // A random session: it may be copying the first batch, waiting to commit, or gone.
        let terminate = "select count(pg_terminate_backend(pid)) from (
                             select pid from pg_stat_activity
                             where datname = current_database() and application_name = 'simusage'
                                 and pid <> pg_backend_pid() and query ilike '%usage_records_recent%'
                             order by random() limit 1
                         ) as one";
        database.number(terminate).await;
    }
    let run = finish(child, 20_000);
    assert!(is_parallel(&run), "{run:?}");
    database.assert_has_exactly(20_000).await;
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn each_record_is_stored_once_after_a_lock_blocks_every_connection() {
    let database = ready().await;
    let connection = database.connect().await;
    let files = Files::new();
    let child = start(
        &database,
        &files.write("usage.ndjson", ndjson(0..20_000)),
        50,
    );
    database
        .until_at_least(
            "select count(*) from all_usage_records",
            1_000,
            Duration::from_secs(20),
        )
        .await;
    connection
        .batch_execute("begin; lock table usage_records_recent in share mode")
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
