//! Runs schemathesis against the API, with requests that its description allows and many that it
//! forbids. No response may be a 5xx or differ from the description.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::server::Server;
use crate::support::{TestDatabase, at};

/// The number of requests generated for each path and test phase, unless `SIMUSAGE_TEST_EXAMPLES`
/// is set.
const EXAMPLES: &str = "25";

/// The program as installed by `make schemathesis`.
fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/schemathesis/bin/schemathesis")
}

#[tokio::test]
async fn every_response_to_schemathesis_conforms_to_the_description() {
    let program = program();
    assert!(
        program.exists(),
        "{} is missing: run `make schemathesis`",
        program.display()
    );
    let database = TestDatabase::migrated().await;
    database
        .load(&[
            ("89440001", "x00g8", at("2020-02-01T00:10:00Z"), 1_000),
            ("89440001", "x00g8", at("2020-02-01T10:10:00Z"), 2_000),
            ("89440002", "x00g8", at("2020-02-28T10:10:00Z"), 4_000),
            ("89440003", "a01b7", at("2020-02-27T10:10:00Z"), 8_000),
        ])
        .await;
    let server = Server::start_with(
        database.url(),
        &[],
        &[("SIMUSAGE_SERVE_REQUESTS_PER_SECOND", "0")],
    );
    let examples = std::env::var("SIMUSAGE_TEST_EXAMPLES").unwrap_or_else(|_| EXAMPLES.to_owned());
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis/schemathesis.toml");
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(program)
        .arg("--config-file")
        .arg(config)
        .args(["run", &format!("http://{}/openapi.json", server.address())])
        .args(["--max-examples", &examples, "--no-color"])
        .current_dir(&folder)
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{report}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let passed = report
        .lines()
        .find_map(|line| line.trim().strip_suffix(" passed")?.split(", ").nth(1));
    let passed = passed.unwrap_or_default().parse().unwrap_or(0_u32);
    assert!(passed > 300, "only {passed} requests were made:\n{report}");
}
