//! What `serve` and its clients remember from before a backup was restored is not used afterwards,
//! even if just as much has been stored since.

use std::path::Path;
use std::process::Command;

use simusage::db;

use crate::support::cluster::server_programs;
use crate::support::program::{load_inventory, simusage, simusage_with_input};
use crate::support::server::{Server, read, status};
use crate::support::usage::Files;
use crate::support::{TestDatabase, config, native_server, note_skipped, require_native_server};

/// Paths whose answers depend on what is stored after the backup.
const PATHS: [&str; 4] = [
    "/api/v1/organization/a01b7/usage?start=2020-02-01&end=2020-02-02&every=1day",
    "/api/v1/simcard/89440001/usage?start=2020-02-01&end=2020-02-02&every=1day",
    "/api/v1/usage/organizations?start=2020-02-01&end=2020-02-02",
    "/api/v1/inventory?q=7777",
];

/// Stores a usage record, and a SIM card in the inventory.
fn store(url: &str, files: &Files, bytes: u32, organization: &str) {
    let inventory = files.write(
        "inventory.csv",
        format!("sim-card-id,org-id\n7777,{organization}\n"),
    );
    let record = format!(
        r#"{{"sim-card-id": "89440001", "bytes-used": {bytes}, "date": "2020-02-01T00:00:00Z"}}"#
    );
    let arguments = ["ingest", "--inventory", &inventory, "-"];
    let run = simusage_with_input(url, &arguments, &format!("{record}\n"));
    assert_eq!(run.status, 0, "{run:?}");
}

/// The answers to [`PATHS`] and their tags. A second request, which is answered from memory, gets the
/// same.
fn ask(server: &Server) -> Vec<(String, String)> {
    let ask = |path: &&str| {
        let answers = [(); 2].map(|()| {
            let response = read(server.send(path));
            assert_eq!(status(&response), 200, "{path}: {response}");
            let tag = response
                .lines()
                .find_map(|line| line.strip_prefix("etag: "));
            let (_, body) = response.split_once("\r\n\r\n").unwrap();
            (tag.unwrap().to_owned(), body.to_owned())
        });
        let [first, again] = answers;
        assert_eq!(first, again, "{path}");
        again
    };
    PATHS.iter().map(ask).collect()
}

/// Stores the same amount before and after a restore, asks each time, and compares.
async fn restore_between_questions(
    database: &TestDatabase,
    dump: impl AsyncFn(),
    restore: impl AsyncFn(),
) {
    let (url, files) = (database.url(), Files::new());
    load_inventory(url);
    store(url, &files, 1, "a01b7");
    dump().await;
    let server = Server::start(url);
    store(url, &files, 100, "before");
    let before = ask(&server);
    restore().await;
    store(url, &files, 998, "after");
    for (path, (tag, old)) in PATHS.iter().zip(&before) {
        let headers = format!("if-none-match: {tag}\r\n");
        let response = read(server.send_with(path, &headers));
        assert_eq!(status(&response), 200, "{path}: {response}");
        let expected = if path.contains("inventory") {
            "\"organization\":\"after\""
        } else {
            "\"bytes-used-total\":999"
        };
        assert!(response.contains(expected), "{path}: {response}");
        assert!(!old.contains(expected), "{path}: {old}");
    }
    let after = ask(&server);
    for ((path, before), after) in PATHS.iter().zip(before).zip(after) {
        assert_ne!(before.0, after.0, "{path}");
    }
}

/// Every engine: a backup of the tables that change.
#[tokio::test]
async fn nothing_from_before_copied_tables_were_restored_is_used() {
    // Assignments come first: triggers change the other tables of the inventory.
    const TABLES: [&str; 9] = [
        "sim_card_assignments",
        "organizations",
        "sim_cards",
        "inventory_version",
        "ingest_sources",
        "usage_records_recent",
        "posting_days",
        "usage_levels",
        "posting_closings",
    ];
    let database = TestDatabase::migrated().await;
    let dump = async || {
        let connection = database.connect().await;
        let copies = TABLES.map(|table| format!("create table saved_{table} as table {table};"));
        let posting = "create table saved_posting as select last_value from posting_numbers;";
        let script = copies.concat() + posting;
        connection.batch_execute(&script).await.unwrap();
    };
    let restore = async || {
        let connection = database.connect().await;
        let copies = TABLES.map(|table| {
            format!(
                "delete from {table};
                 insert into {table} overriding system value table saved_{table};"
            )
        });
        let posting = "select setval('posting_numbers', last_value) from saved_posting;";
        let script = "set simusage.change_records = on;".to_owned() + &copies.concat() + posting;
        connection.batch_execute(&script).await.unwrap();
    };
    restore_between_questions(&database, dump, restore).await;
}

fn run(program: &Path, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}: {output:?}", program.display());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a native TimescaleDB"]
async fn nothing_from_before_a_dump_was_restored_is_used() {
    require_native_server();
    let database = TestDatabase::migrated().await;
    let Some(programs) = server_programs(&database, &["pg_dump", "pg_restore"]).await else {
        note_skipped(
            "restoring a dump",
            "pg_dump of the server's version is not installed",
        );
        return;
    };
    let files = Files::new();
    let file = files.write("dump", "");
    let dump = async || {
        let arguments = [
            "--format=custom",
            "--file",
            &file,
            "--dbname",
            database.url(),
        ];
        run(&programs.join("pg_dump"), &arguments);
    };
    let restore = async || {
        let admin = db::connect(&config(&native_server().unwrap()).database)
            .await
            .unwrap();
        let (_, name) = database.url().rsplit_once('/').unwrap();
        let name = name.split('?').next().unwrap();
        for statement in ["drop database {} with (force)", "create database {}"] {
            let statement = statement.replace("{}", name);
            admin.batch_execute(&statement).await.unwrap();
        }
        let connection = database.connect().await;
        let prepare = "create extension timescaledb; select timescaledb_pre_restore()";
        connection.batch_execute(prepare).await.unwrap();
        let arguments = ["--exit-on-error", "--dbname", database.url(), &file];
        run(&programs.join("pg_restore"), &arguments);
        connection
            .batch_execute("select timescaledb_post_restore()")
            .await
            .unwrap();
        let migrated = simusage(database.url(), &["migrate", "--check"]);
        assert_eq!(migrated.status, 0, "{migrated:?}");
    };
    restore_between_questions(&database, dump, restore).await;
}
