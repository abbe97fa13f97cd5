//! Defaults of the database do not change what the program does, and what it cannot use it refuses.
//!
//! Also: the extension is updated while the program runs.

use std::process::Stdio;
use std::time::Duration;

use simusage::db::{Pool, StorageError};
use tokio_postgres::error::SqlState;

use crate::support::program::{Run, command, load_inventory, simusage};
use crate::support::proxy::{Commit, Proxy};
use crate::support::server::{Server, status};
use crate::support::usage::{Files, ndjson};
use crate::support::{TestDatabase, require_native_server};

/// Settings that anyone may set for a database, each with a value that would change results,
/// errors or the time until them.
const SETTINGS: &[(&str, &str)] = &[
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_isolation", "repeatable read"),
    ("default_transaction_deferrable", "on"),
    ("statement_timeout", "150ms"),
    ("lock_timeout", "1ms"),
    ("idle_in_transaction_session_timeout", "50ms"),
    ("idle_session_timeout", "500ms"),
    ("transaction_timeout", "150ms"),
    ("TimeZone", "America/St_Johns"),
    ("DateStyle", "German, DMY"),
    ("IntervalStyle", "sql_standard"),
    ("array_nulls", "off"),
    ("bytea_output", "escape"),
    ("extra_float_digits", "-15"),
    ("quote_all_identifiers", "on"),
    ("enable_seqscan", "off"),
    ("enable_indexscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_nestloop", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    ("jit_above_cost", "0"),
    ("max_parallel_workers_per_gather", "0"),
    ("client_min_messages", "debug5"),
    ("default_table_access_method", "heap"),
    ("search_path", "\"$user\", public, pg_catalog"),
];

async fn has_setting(database: &TestDatabase, name: &str) -> bool {
    let query = format!("select count(*) from pg_settings where name = '{name}'");
    database.number(&query).await == 1
}

/// Sets a default for every session of the database.
async fn set_default(database: &TestDatabase, name: &str, value: &str) {
    let connection = database.connect().await;
    let row = connection
        .query_one("select current_database()::text", &[])
        .await
        .unwrap();
    let own: &str = row.get(0);
    let value = if name == "search_path" {
        value.to_owned()
    } else {
        format!("'{value}'")
    };
    connection
        .batch_execute(&format!("alter database {own} set {name} = {value}"))
        .await
        .unwrap();
}

/// Migrates, ingests in several batches, and compares what `serve` returns with `expected`, the
/// answers of another database.
async fn answers_of(database: &TestDatabase, context: &str) -> Vec<String> {
    let run = simusage(database.url(), &["migrate"]);
    assert_eq!(run.status, 0, "{context}: {run:?}");
    load_inventory(database.url());
    let files = Files::new();
    let (first, second) = (
        files.write("first.ndjson", ndjson(0..30_000)),
        files.write("second.ndjson", ndjson(30_000..60_000)),
    );
    let ingest = |file: &str| {
        let mut command = command(database.url(), &["ingest", "--json", file]);
        command
            .env("SIMUSAGE_INGEST_BATCH_ROWS", "10000")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    // At the same time, so that their transactions conflict.
    let children = [ingest(&first), ingest(&second)];
    for child in children {
        let run: Run = child.wait_with_output().unwrap().into();
        assert_eq!(
            (run.status, run.counts()),
            (3, (30_000, 27_000, 3_000)),
            "{context}: {run:?}"
        );
    }
    database.assert_has_exactly(60_000).await;
    let run = simusage(
        database.url(),
        &[
            "ingest",
            "--inventory",
            "examples/inventory.json",
            "--replay-rejects",
        ],
    );
    assert!([0, 3].contains(&run.status), "{context}: {run:?}");
    let server = Server::start(database.url());
    [
        "/api/v1/usage/organizations?format=csv",
        "/api/v1/organization/x00g8/usage?start=2020-02-01&end=2020-02-05&every=1hour&tz=Europe/Berlin&format=csv",
        "/api/v1/inventory?format=csv",
    ]
    .map(|path| {
        let answer = server.get(path);
        assert_eq!(status(&answer), 200, "{context}: {answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    })
    .to_vec()
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn no_default_of_the_database_changes_anything() {
    require_native_server();
    let plain = TestDatabase::empty().await;
    let expected = answers_of(&plain, "defaults").await;
    // Isolation alone, and then everything else together: the last of a name is in force.
    let isolation = [("default_transaction_isolation", "serializable")];
    for settings in [&isolation[..], SETTINGS] {
        let database = TestDatabase::empty().await;
        for (name, value) in settings {
            if has_setting(&database, name).await {
                set_default(&database, name, value).await;
            }
        }
        let context = format!("{} settings", settings.len());
        assert_eq!(answers_of(&database, &context).await, expected, "{context}");
    }
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn migrate_refuses_a_database_that_is_not_utf8_or_read_only() {
    require_native_server();
    let database = TestDatabase::empty().await;
    let admin = database.connect().await;
    let own = database.url().rsplit('/').next().unwrap();
    let own = own.split('?').next().unwrap();
    let latin = format!("{own}_latin");
    admin
        .batch_execute(&format!(
            "create database {latin} encoding 'LATIN1' locale 'C' template template0"
        ))
        .await
        .unwrap();
    let url = database.url().replace(own, &latin);
    let runs =
        [&["migrate"][..], &["migrate", "--check"]].map(|arguments| simusage(&url, arguments));
    admin
        .batch_execute(&format!("drop database {latin} with (force)"))
        .await
        .unwrap();
    for run in runs {
        assert_eq!(run.status, 1, "{run:?}");
        let problem = format!(
            "the database {latin} has the encoding LATIN1, but simusage needs UTF8: create"
        );
        assert!(run.stderr.contains(&problem), "{run:?}");
    }
    set_default(&database, "default_transaction_read_only", "on").await;
    let run = simusage(database.url(), &["migrate"]);
    assert_eq!(run.status, 1, "{run:?}");
    assert!(
        run.stderr
            .contains("are read-only by default, so its schema cannot be changed")
            && run.stderr.contains("reset default_transaction_read_only"),
        "{run:?}"
    );
}

#[tokio::test]
async fn the_ingest_reconnects_after_the_extension_was_updated() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let (files, proxy) = (Files::new(), Proxy::start(database.url()));
    let file = files.write("usage.ndjson", ndjson(0..200));
    proxy.at_commit(3, Commit::EndSession);
    let run: Run = command(proxy.url(), &["ingest", "--json", &file])
        .env("SIMUSAGE_INGEST_BATCH_ROWS", "20")
        .output()
        .unwrap()
        .into();
    assert!(proxy.has_cut());
    assert_eq!((run.status, run.counts()), (3, (200, 180, 20)), "{run:?}");
    assert!(
        run.stderr
            .contains("already loaded with a different version")
            && run.stderr.contains("trying again"),
        "{run:?}"
    );
    database.assert_has_exactly(200).await;
}

#[tokio::test]
async fn a_query_runs_again_if_its_session_is_outdated() {
    let database = TestDatabase::migrated().await;
    let pool = Pool::new(&database.config(), 2);
    for (code, message, answered) in [
        (
            SqlState::INTERNAL_ERROR,
            "could not open relation with OID 42",
            true,
        ),
        (
            SqlState::INTERNAL_ERROR,
            "cache lookup failed for function 42",
            true,
        ),
        (
            SqlState::FEATURE_NOT_SUPPORTED,
            "cached plan must not change result type",
            true,
        ),
        (SqlState::INTERNAL_ERROR, "something else", false),
    ] {
        let attempts = std::cell::Cell::new(0);
        let raise = format!(
            "do $$ begin raise exception '{message}' using errcode = '{}'; end $$",
            code.code()
        );
        let result = pool
            .run(async |client| {
                attempts.set(attempts.get() + 1);
                if attempts.get() == 1 {
                    client.batch_execute(&raise).await?;
                }
                Ok::<_, StorageError>(client.query_one("select 1", &[]).await?.get::<_, i32>(0))
            })
            .await;
        assert_eq!(result.is_ok(), answered, "{message}: {result:?}");
        assert_eq!(attempts.get(), 1 + i32::from(answered), "{message}");
    }
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn requests_are_answered_after_the_sessions_of_serve_were_terminated() {
    require_native_server();
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let server = Server::start(database.url());
    for _ in 0..3 {
        let answer = server.get("/api/v1/inventory");
        assert_eq!(status(&answer), 200, "{answer}");
        let terminate = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                         where datname = current_database() and pid <> pg_backend_pid() \
                         and backend_type = 'client backend'";
        database.number(terminate).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
