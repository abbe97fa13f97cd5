//! Files as they occur in practice: changed, cumulative, growing, damaged and misnamed. None may
//! lead to a wrong total with exit status 0.

use serde_json::Value;

use crate::support::TestDatabase;
use crate::support::program::{Run, load_inventory, simusage};
use crate::support::usage::{Files, ndjson};

/// A database with an inventory, and a folder for files.
async fn ready() -> (TestDatabase, Files) {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    (database, Files::new())
}

fn ingest(database: &TestDatabase, arguments: &[&str]) -> Run {
    simusage(database.url(), &[&["ingest", "--json"], arguments].concat())
}

/// The status of each source.
fn statuses(run: &Run) -> Vec<Value> {
    let summary = run.json();
    let sources = summary["sources"].as_array().unwrap();
    sources
        .iter()
        .map(|source| source["status"].clone())
        .collect()
}

async fn stored(database: &TestDatabase) -> i64 {
    database.number("select count(*) from usage_records").await
}

#[tokio::test]
async fn a_bad_file_does_not_keep_the_others_from_being_stored() {
    let (database, files) = ready().await;
    let one = files.write("one.ndjson", ndjson(0..9));
    let missing = files.0.path().join("missing.ndjson");
    let missing = missing.to_str().unwrap();
    let header = files.write("header.csv", "sim-card-id,bytes,date\n1,2,3\n");
    let folder = files.0.path().to_str().unwrap();
    let two = files.write("two.ndjson", ndjson(10..19));
    let arguments = ["--dry-run", &one, missing, &header, folder, &two];
    for arguments in [&arguments[..], &arguments[1..]] {
        let run = ingest(&database, arguments);
        assert_eq!((run.status, run.counts()), (1, (18, 18, 0)), "{run:?}");
        let done = if arguments.len() == 6 {
            "read"
        } else {
            "stored"
        };
        assert_eq!(
            statuses(&run),
            [done, "failed", "failed", "failed", done],
            "{run:?}"
        );
        for text in [
            "missing.ndjson: No such file",
            "header.csv:1: the header has no column bytes-used",
            "it is a directory",
            "3 of 5 sources failed: ",
        ] {
            assert!(run.stderr.contains(text), "no '{text}' in {run:?}");
        }
    }
    assert_eq!(stored(&database).await, 18);
}
