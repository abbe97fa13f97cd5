//! `simusage ingest --replay-rejects` tries to store rejected records again.

use std::process::Stdio;

use crate::support::program::{Run, command, load_inventory, simusage};
use crate::support::proxy::{Commit, Proxy};
use crate::support::usage::{Files, csv, ndjson};
use crate::support::{TestDatabase, require_native_server};

const REPLAY: [&str; 3] = ["ingest", "--json", "--replay-rejects"];

/// A database with 20 records rejected for an unknown SIM card, from NDJSON and CSV, and 3
/// malformed ones; its files; and the path of an inventory with the SIM card.
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
async fn records_of_sim_cards_now_in_the_inventory_are_stored_once() {
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
        database
            .number("select count(*) from all_usage_records")
            .await,
        200
    );
    assert_eq!(
        database
            .number("select count(distinct time) from all_usage_records")
            .await,
        200
    );
    assert_eq!(
        database
            .number("select count(*) from rejected_records")
            .await,
        3
    );
    database.assert_answers_match().await;
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn concurrent_replays_store_each_record_once() {
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
        database
            .number("select count(*) from all_usage_records")
            .await,
        200
    );
    database.assert_answers_match().await;
}

#[tokio::test]
async fn a_replay_stores_each_record_once_if_its_commit_or_the_response_is_lost() {
    for commit in [Commit::LoseRequest, Commit::LoseAnswer] {
        let (database, _files, inventory) = rejected().await;
        let proxy = Proxy::start(database.url());
        // The first commit is that of the inventory.
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
            database
                .number("select count(*) from all_usage_records")
                .await,
            200
        );
        database.assert_answers_match().await;
    }
}

#[cfg(debug_assertions)]
#[tokio::test]
async fn the_replay_after_a_crash_at_any_point_stores_the_missing_records() {
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
            database
                .number("select count(*) from all_usage_records")
                .await,
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
        database.assert_answers_match().await;
    }
}

#[tokio::test]
async fn a_replay_skips_an_unterminated_last_line() {
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
        database
            .number("select count(*) from all_usage_records")
            .await,
        10
    );
    assert_eq!(
        database
            .number("select count(*) from rejected_records")
            .await,
        0
    );
}
