//! Runs the browser tests in `tests/browser` against a server with generated usage.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::TestDatabase;
use crate::support::program::{command, inventory, simusage};
use crate::support::server::Server;
use crate::support::usage::Files;

#[tokio::test]
async fn the_page_works_in_a_browser() {
    let database = TestDatabase::migrated().await;
    let inventory = inventory();
    let inventory = inventory.to_str().unwrap();
    let generated = simusage(
        database.url(),
        &["generate", "usage", "--inventory", inventory],
    );
    assert_eq!(generated.status, 0, "{}", generated.stderr);
    let files = Files::new();
    let usage = files.write("usage.ndjson", generated.stdout);
    let run = simusage(
        database.url(),
        &["ingest", "--inventory", inventory, &usage],
    );
    assert_eq!(run.status, 0, "{run:?}");
    // SIM cards that change or lack their owner.
    let assignments = files.write(
        "assignments.csv",
        "sim-card-id,org-id,valid-from,valid-until\n7700001,x00g8,,\n7700001,f00ff,2190-01-01,\n\
         7700002,f00ff,2190-01-01,\n7700003,a01b7,2020-01-01,2020-02-01\n",
    );
    let run = simusage(database.url(), &["ingest", "--inventory", &assignments]);
    assert_eq!(run.status, 0, "{run:?}");
    // Records of wrong clocks, which the page does not follow.
    let outliers = files.write(
        "outliers.csv",
        "sim-card-id,bytes-used,date\n89440010,1,2020-08-20T12:00:00Z\n89440010,1,2199-12-31T12:00:00Z\n",
    );
    let run = command(database.url(), &["ingest", &outliers])
        .env("SIMUSAGE_INGEST_MAX_FUTURE_HOURS", "0")
        .output()
        .unwrap();
    assert!(run.status.success(), "{run:?}");
    let server = Server::start(database.url());
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    let output = Command::new("node")
        .args([
            "--test",
            "--test-concurrency=1",
            "--test-reporter=spec",
            "page.test.mjs",
            "contract.test.mjs",
        ])
        .current_dir(tests)
        .env("SIMUSAGE_PAGE_URL", format!("http://{}", server.address()))
        .stdin(Stdio::null())
        .output()
        .expect("node is installed");
    let report = String::from_utf8_lossy(&output.stdout);
    println!("{report}");
    assert!(
        output.status.success(),
        "{report}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
