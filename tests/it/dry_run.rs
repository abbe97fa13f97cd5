//! `simusage ingest --dry-run` reports what an ingest would do, and writes nothing.

use std::collections::BTreeMap;

use crate::support::program::{command, inventory, load_inventory, simusage, simusage_with_input};
use crate::support::usage::{Files, ndjson};
use crate::support::{TestDatabase, UNREACHABLE};

/// The number of rows of each table, and the last value of each sequence, by query.
async fn table_counts(database: &TestDatabase) -> BTreeMap<String, i64> {
    let connection = database.connect().await;
    let tables = "select 'select count(*) from ' || tablename from pg_tables where schemaname = 'public' \
                  union all select 'select coalesce(last_value, 0) from pg_sequences where schemaname = ''public'' \
                  and sequencename = ' || quote_literal(sequencename) from pg_sequences where schemaname = 'public' \
                  union all select 'select version from inventory_version'";
    let mut found = BTreeMap::new();
    for row in connection.query(tables, &[]).await.unwrap() {
        let query: String = row.get(0);
        let count = database.number(&query).await;
        found.insert(query, count);
    }
    assert!(found.len() > 8, "{found:?}");
    found
}

#[tokio::test]
async fn a_dry_run_reports_the_same_counts_as_an_ingest_and_writes_nothing() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let files = Files::new();
    let one = files.write("one.ndjson", ndjson(0..100) + "nonsense\n");
    let two = files.write("two.csv", crate::support::usage::csv(100..150));
    let before = table_counts(&database).await;
    let dry = simusage(
        database.url(),
        &["ingest", "--dry-run", "--json", &one, &two],
    );
    assert_eq!((dry.status, dry.counts()), (3, (151, 135, 16)), "{dry:?}");
    let summary = dry.json();
    assert_eq!(
        (&summary["dry-run"], &summary["sim-cards"]),
        (&true.into(), &"database".into())
    );
    assert_eq!(summary["sources"][1]["status"], "read");
    assert!(
        dry.stderr
            .contains("further rejected records are not logged"),
        "{dry:?}"
    );
    assert_eq!(table_counts(&database).await, before);
    let wet = simusage(database.url(), &["ingest", "--json", &one, &two]);
    assert_eq!((wet.status, wet.counts()), (dry.status, dry.counts()));
    assert_eq!(wet.json()["reasons"], summary["reasons"]);
    assert_eq!(wet.json()["dry-run"], serde_json::Value::Null);
    // Stored records are read again in a dry run.
    let again = simusage(database.url(), &["ingest", "--dry-run", &one]);
    let account = "read 101, would store 90, rejected 11 (malformed 1, unknown-sim-card 10)";
    assert!(
        again.stdout.contains(account) && again.stdout.contains("a dry run stores nothing"),
        "{again:?}"
    );
}

#[test]
fn a_dry_run_with_an_inventory_file_needs_no_database() {
    let inventory = inventory();
    let arguments = [
        "ingest",
        "--dry-run",
        "--json",
        "--inventory",
        inventory.to_str().unwrap(),
        "-",
    ];
    let run = simusage_with_input(UNREACHABLE, &arguments, &ndjson(0..20));
    assert_eq!((run.status, run.counts()), (3, (20, 18, 2)), "{run:?}");
    assert_eq!(run.json()["sim-cards"], "inventory-file");
    assert_eq!(run.json()["assignments"], 15);
    assert_eq!(run.stderr.matches("unknown-sim-card").count(), 2, "{run:?}");
    let files = Files::new();
    let later = files.write(
        "later.csv",
        "sim-card-id,org-id,valid-from\n89440001,b,2020-02-03\n89440001,a,2020-02-02\n",
    );
    let text = r#"{"sim-card-id": "89440001", "bytes-used": 1, "date": "2020-02-01T23:59:59Z"}
{"sim-card-id": "89440001", "bytes-used": 1, "date": "2020-02-02T00:00:00Z"}"#;
    let run = simusage_with_input(
        UNREACHABLE,
        &["ingest", "--dry-run", "--json", "--inventory", &later, "-"],
        text,
    );
    assert_eq!(
        run.json()["reasons"],
        serde_json::json!({"unassigned-sim-card": 1}),
        "{run:?}"
    );
}

#[test]
fn a_dry_run_without_a_database_reports_that_sim_cards_were_not_looked_up() {
    let run = simusage_with_input(
        UNREACHABLE,
        &["ingest", "--dry-run", "-"],
        &(ndjson(0..20) + "nonsense"),
    );
    assert_eq!(run.status, 3, "{run:?}");
    assert!(
        run.stdout
            .contains("read 21, would store 20, rejected 1 (malformed 1)"),
        "{run:?}"
    );
    assert!(run.stdout.contains("SIM cards not checked"), "{run:?}");
    assert!(
        run.stderr.contains("SIM cards are not checked") && run.stderr.contains("cannot connect"),
        "{run:?}"
    );
    let run = simusage_with_input(UNREACHABLE, &["ingest", "--dry-run", "-"], &ndjson(0..20));
    assert_eq!(run.status, 0, "{run:?}");
}

#[test]
fn a_dry_run_stops_where_the_ingest_would_and_refuses_incompatible_options() {
    let files = Files::new();
    let file = files.write("usage.ndjson", ndjson(0..30));
    let inventory = inventory();
    let dry = [
        "ingest",
        "--dry-run",
        "--inventory",
        inventory.to_str().unwrap(),
    ];
    let run = simusage(
        UNREACHABLE,
        &[&dry[..], &["--max-rejects", "1", &file]].concat(),
    );
    assert_eq!(run.status, 1, "{run:?}");
    let text =
        format!("stopped after 18 valid records and 2 rejected: stopped at {file}:20: more than 1");
    assert!(run.stderr.contains(&text), "{run:?}");
    assert_eq!(
        simusage(
            UNREACHABLE,
            &[&dry[..], &["/nowhere/usage.ndjson"]].concat()
        )
        .status,
        1
    );
    let topic = [
        "--kafka",
        "127.0.0.1:1",
        "--topic",
        "usage",
        "--group",
        "billing",
    ];
    for more in [
        &topic[..],
        &["--replay-rejects"],
        &["--source-id", "x", "-"],
    ] {
        assert_eq!(
            simusage(UNREACHABLE, &[&dry[..], more].concat()).status,
            2,
            "{more:?}"
        );
    }
    let run = command(UNREACHABLE, &dry).output().unwrap();
    assert_eq!(
        String::from_utf8(run.stdout).unwrap().lines().next(),
        Some("inventory: 15 assignments, not stored")
    );
}
