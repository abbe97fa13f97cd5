//! The database becomes unavailable during an ingest, or runs out of space.

use std::process::{Child, Stdio};
use std::time::Duration;

use crate::support::program::{Run, command, load_inventory, simusage};
use crate::support::proxy::{Commit, Proxy};
use crate::support::usage::{Files, ndjson, rejected_among_first};
use crate::support::{TestDatabase, require_native_server};

fn start(url: &str, arguments: &[&str], batch_rows: &str) -> Child {
    let arguments = [&["ingest", "--json"], arguments].concat();
    command(url, &arguments)
        .env("SIMUSAGE_INGEST_BATCH_ROWS", batch_rows)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn finish(child: Child) -> Run {
    child.wait_with_output().unwrap().into()
}

/// Waits until `count` records are stored.
async fn until_stored(database: &TestDatabase, count: i64) {
    database
        .until_at_least(
            "select count(*) from all_usage_records",
            count,
            Duration::from_secs(6),
        )
        .await;
}

#[tokio::test]
async fn a_batch_is_stored_once_if_its_commit_or_the_response_is_lost() {
    for commit in [Commit::LoseRequest, Commit::LoseAnswer] {
        for standard_input in [false, true] {
            let database = TestDatabase::migrated().await;
            load_inventory(database.url());
            let (files, proxy) = (Files::new(), Proxy::start(database.url()));
            let file = files.write("usage.ndjson", ndjson(0..200));
            proxy.at_commit(3, commit);
            let mut ingest = command(
                proxy.url(),
                &["ingest", "--json", if standard_input { "-" } else { &file }],
            );
            ingest
                .env("SIMUSAGE_INGEST_BATCH_ROWS", "20")
                .stdin(std::fs::File::open(&file).unwrap());
            let run = Run::from(ingest.output().unwrap());
            assert!(proxy.has_cut());
            assert_eq!(
                (run.status, run.counts()),
                (3, (200, 180, 20)),
                "{commit:?} {run:?}"
            );
            assert!(
                run.stderr.contains("trying again") && run.stderr.contains("the database is back"),
                "{run:?}"
            );
            database.assert_has_exactly(200).await;
        }
    }
}

#[tokio::test]
async fn the_ingest_waits_while_the_database_is_unavailable() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let (files, proxy) = (Files::new(), Proxy::start(database.url()));
    let file = files.write("usage.ndjson", ndjson(0..4_000));
    let child = start(proxy.url(), &[&file], "20");
    until_stored(&database, 100).await;
    proxy.go_down();
    tokio::time::sleep(Duration::from_secs(2)).await;
    proxy.come_back();
    let run = finish(child);
    assert_eq!(
        (run.status, run.counts()),
        (3, (4_000, 3_600, 400)),
        "{run:?}"
    );
    assert!(run.stderr.contains("trying again"), "{run:?}");
    database.assert_has_exactly(4_000).await;
}

#[tokio::test]
async fn the_ingest_fails_if_the_database_stays_unavailable_and_the_next_run_resumes() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let (files, proxy) = (Files::new(), Proxy::start(database.url()));
    let file = files.write("usage.ndjson", ndjson(0..4_000));
    let arguments = ["ingest", file.as_str()];
    let child = command(proxy.url(), &arguments)
        .env("SIMUSAGE_INGEST_BATCH_ROWS", "20")
        .env("SIMUSAGE_INGEST_RETRY_FOR_MS", "300")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until_stored(&database, 100).await;
    proxy.go_down();
    let run = finish(child);
    assert_eq!(run.status, 1, "{run:?}");
    assert!(
        run.stderr
            .contains(&format!("{file} is stored up to byte ")),
        "{run:?}"
    );
    assert_eq!(simusage(database.url(), &arguments).status, 3);
    database.assert_has_exactly(4_000).await;
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn the_ingest_reconnects_after_its_backend_is_terminated() {
    require_native_server();
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let files = Files::new();
    let file = files.write("usage.ndjson", ndjson(0..6_000));
    let child = start(database.url(), &[&file], "20");
    for count in [200, 1_000, 2_000] {
        until_stored(&database, count).await;
        let terminate = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                         where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'";
        // While the program reconnects, it has no backend to terminate.
        database
            .until_at_least(terminate, 1, Duration::from_secs(20))
            .await;
    }
    let run = finish(child);
    assert_eq!(
        (run.status, run.counts()),
        (3, (6_000, 5_400, 600)),
        "{run:?}"
    );
    database.assert_has_exactly(6_000).await;
}

#[tokio::test]
async fn a_full_disk_is_reported_and_the_next_run_stores_the_rest() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let files = Files::new();
    let file = files.write("usage.ndjson", ndjson(0..100));
    // Raises the server's error for a full disk when the third batch is stored.
    let connection = database.connect().await;
    connection
        .batch_execute(
            "create function fill_up() returns trigger language plpgsql as $$ begin
                 if new.batches = 3 then raise exception 'could not extend file' using errcode = '53100'; end if;
                 return new;
             end $$;
             create trigger fill_up before update on ingest_sources for each row execute function fill_up()",
        )
        .await
        .unwrap();
    let run = finish(start(database.url(), &[&file], "20"));
    assert_eq!(run.status, 1, "{run:?}");
    let position = ndjson(0..40).len();
    assert!(
        run.stderr
            .contains("stopped after storing 36 records and rejecting 4"),
        "{run:?}"
    );
    assert!(
        run.stderr
            .contains(&format!("{file} is stored up to byte {position}")),
        "{run:?}"
    );
    assert!(
        run.stderr
            .contains("the database has no space left: could not extend file [53100]"),
        "{run:?}"
    );
    database.assert_has_exactly(40).await;
    connection
        .batch_execute("drop trigger fill_up on ingest_sources; drop function fill_up")
        .await
        .unwrap();
    let run = finish(start(database.url(), &[&file], "20"));
    assert_eq!((run.status, run.counts().0), (3, 100 - 40), "{run:?}");
    database.assert_has_exactly(100).await;
    assert_eq!(rejected_among_first(100), 10);
}
