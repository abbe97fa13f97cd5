//! `simusage ingest --replay-rejects`: what was rejected is tried again.

use std::process::Stdio;

use crate::support::program::{Run, command, load_inventory, simusage};
use crate::support::proxy::{Commit, Proxy};
use crate::support::usage::{Files, csv, ndjson};
use crate::support::{TestDatabase, require_native_server};

const REPLAY: [&str; 3] = ["ingest", "--json", "--replay-rejects"];

/// A database that has rejected 20 records for their SIM card, NDJSON and CSV, and 3 that are no records; and the
/// inventory that knows the SIM card.
async fn rejected() -> (TestDatabase, Files, String) {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let files = Files::new();
    let text = format!(
        "{}nonsense\n{{}}\n\"{}\"\n",
        ndjson(0..100),
        "x".repeat(100_000)
    );
    let file = files.write("usage.ndjson", text);
    let other = files.write("usage.csv", csv(100..200));
    let run = simusage(database.url(), &["ingest", "--json", &file, &other]);
    assert_eq!((run.status, run.counts()), (3, (203, 180, 23)), "{run:?}");
    let inventory = files.write("inventory.csv", "sim-card-id,org-id\n89440099,late\n");
    (database, files, inventory)
}

#[tokio::test]
async fn what_the_inventory_knows_by_now_is_stored_and_shown_once() {
    let (database, _files, inventory) = rejected().await;
    let run = simusage(database.url(), &REPLAY);
    assert_eq!((run.status, run.counts()), (3, (22, 0, 22)), "{run:?}");
    let run = simusage(
        database.url(),
        &[&REPLAY[..], &["--inventory", &inventory]].concat(),
    );
    assert_eq!((run.status, run.counts()), (3, (22, 20, 2)), "{run:?}");
    assert_eq!(
        run.json()["reasons"],
        serde_json::json!({"malformed": 1, "missing-field": 1})
    );
    let run = simusage(database.url(), &REPLAY);
    assert_eq!((run.status, run.counts()), (3, (2, 0, 2)), "{run:?}");
    assert_eq!(
        database.number("select count(*) from usage_records").await,
        200
    );
    assert_eq!(
        database
            .number("select count(distinct time) from usage_records")
            .await,
        200
    );
    assert_eq!(
        database
            .number("select count(*) from rejected_records")
            .await,
        3
    );
    database.assert_shows_everything().await;
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn two_replays_at_once_store_once() {
    require_native_server();
    let (database, _files, inventory) = rejected().await;
    assert_eq!(
        simusage(database.url(), &["ingest", "--inventory", &inventory]).status,
        0
    );
    let children: Vec<_> = (0..3)
        .map(|_| {
            command(database.url(), &REPLAY)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let runs: Vec<Run> = children
        .into_iter()
        .map(|child| child.wait_with_output().unwrap().into())
        .collect();
    assert_eq!(
        runs.iter().map(|run| run.counts().1).sum::<u64>(),
        20,
        "{runs:?}"
    );
    assert_eq!(
        database.number("select count(*) from usage_records").await,
        200
    );
    database.assert_shows_everything().await;
}

#[tokio::test]
async fn a_replay_whose_commit_is_lost_or_never_answered_stores_once() {
    for commit in [Commit::LoseRequest, Commit::LoseAnswer] {
        let (database, _files, inventory) = rejected().await;
        let proxy = Proxy::start(database.url());
        // The inventory is the first to be committed.
        proxy.at_commit(1, commit);
        let run = simusage(
            proxy.url(),
            &[&REPLAY[..], &["--inventory", &inventory]].concat(),
        );
        assert!(proxy.has_cut());
        assert_eq!(
            (run.status, run.counts()),
            (3, (22, 20, 2)),
            "{commit:?} {run:?}"
        );
        assert_eq!(
            database.number("select count(*) from usage_records").await,
            200
        );
        database.assert_shows_everything().await;
    }
}

#[cfg(debug_assertions)]
#[tokio::test]
async fn wherever_a_replay_dies_the_next_one_makes_it_exact() {
    for point in [
        "after-copy",
        "before-commit",
        "after-commit",
        "before-refresh",
        "after-refresh",
    ] {
        let (database, _files, inventory) = rejected().await;
        let died = command(
            database.url(),
            &[&REPLAY[..], &["--inventory", &inventory]].concat(),
        )
        .env("SIMUSAGE_FAILPOINT", point)
        .output()
        .unwrap();
        assert_eq!(died.status.code(), None, "{point}: {died:?}");
        assert_eq!(simusage(database.url(), &REPLAY).status, 3);
        assert_eq!(
            database.number("select count(*) from usage_records").await,
            200,
            "{point}"
        );
        assert_eq!(
            database
                .number("select count(*) from rejected_records")
                .await,
            3,
            "{point}"
        );
        database.assert_shows_everything().await;
    }
}

#[tokio::test]
async fn a_last_line_without_a_line_end_is_left_to_its_file() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let files = Files::new();
    let file = files.write("usage.ndjson", ndjson(0..10).trim_end());
    assert_eq!(simusage(database.url(), &["ingest", &file]).status, 3);
    let inventory = files.write("inventory.csv", "sim-card-id,org-id\n89440099,late\n");
    let run = simusage(
        database.url(),
        &[&REPLAY[..], &["--inventory", &inventory]].concat(),
    );
    assert_eq!((run.status, run.counts()), (0, (0, 0, 0)), "{run:?}");
    let run = simusage(database.url(), &["ingest", "--json", &file]);
    assert_eq!((run.status, run.counts()), (0, (1, 1, 0)), "{run:?}");
    assert_eq!(
        database.number("select count(*) from usage_records").await,
        10
    );
    assert_eq!(
        database
            .number("select count(*) from rejected_records")
            .await,
        0
    );
}
