//! What the program writes: to a full or closed standard output, and as JSON from the first line on.

use std::fs::{File, OpenOptions};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::program::{Run, command, inventory};
use crate::support::usage::Files;
use crate::support::{TestDatabase, UNREACHABLE};

/// Runs a command whose standard output has no space left.
#[cfg(target_os = "linux")]
fn run_full(command: &mut Command) -> Run {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    command
        .stdin(Stdio::null())
        .stdout(full)
        .output()
        .unwrap()
        .into()
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_full_standard_output_is_an_error_and_not_a_panic() {
    let database = TestDatabase::migrated().await;
    let inventory = inventory();
    let inventory = inventory.to_str().unwrap();
    for arguments in [
        &["migrate"] as &[&str],
        &["migrate", "--check"],
        &["token", "list"],
        &["token", "create", "lost"],
        &["ingest", "--inventory", inventory],
        &["ingest", "--inventory", inventory, "--json"],
        &["generate", "inventory"],
        &["generate", "usage", "--inventory", inventory],
        &["completions", "bash"],
        &["man"],
        &["--help"],
        &["--version"],
        &["help", "ingest"],
    ] {
        let run = run_full(&mut command(database.url(), arguments));
        assert!(
            run.status == 1 && run.stderr.contains("No space left on device"),
            "{arguments:?}: {run:?}"
        );
    }
    assert_eq!(database.number("select count(*) from tokens").await, 0);
}

#[tokio::test]
async fn a_token_that_cannot_be_printed_is_not_created() {
    let database = TestDatabase::migrated().await;
    let create = |name: &str| command(database.url(), &["token", "create", name]);
    // The reader of the pipe has ended.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let run = Run::from(create("piped").stdout(writer).output().unwrap());
    assert!(
        run.status == 1 && run.stderr.contains("was therefore not created"),
        "{run:?}"
    );
    if cfg!(target_os = "linux") {
        let null = OpenOptions::new().write(true).open("/dev/null").unwrap();
        let run = Run::from(create("null").stdout(null).output().unwrap());
        assert!(
            run.status == 1 && run.stderr.contains("the token would be lost"),
            "{run:?}"
        );
        let mut shell = Command::new("sh");
        shell.args([
            "-c",
            "exec \"$0\" token create closed >&-",
            env!("CARGO_BIN_EXE_simusage"),
        ]);
        let run = Run::from(shell.env("DATABASE_URL", database.url()).output().unwrap());
        assert!(
            run.status == 1 && run.stderr.contains("the token would be lost"),
            "{run:?}"
        );
    }
    assert_eq!(database.number("select count(*) from tokens").await, 0);
    let run = Run::from(create("printed").output().unwrap());
    assert_eq!(run.status, 0, "{run:?}");
    assert_eq!(database.number("select count(*) from tokens").await, 1);
}

#[test]
fn a_full_or_closed_standard_error_is_not_a_panic() {
    for redirection in ["2>/dev/full", "2>&-"] {
        for arguments in [
            "migrate --check",
            "nonsense",
            "migrate --log-format=nonsense",
        ] {
            let script = format!("\"$0\" {arguments} {redirection}");
            let mut shell = Command::new("sh");
            shell.args(["-c", &script, env!("CARGO_BIN_EXE_simusage")]);
            shell.env("DATABASE_URL", "postgresql://me@127.0.0.1:1/db");
            let status = shell.status().unwrap().code().unwrap();
            assert!([1, 2].contains(&status), "{script}: {status}");
        }
    }
}

#[test]
fn every_line_is_json_if_that_is_requested() {
    let files = Files::new();
    let broken = files.write("broken.toml", "[serve]\nlisten = \n");
    let as_json = files.write("json.toml", "[log]\nformat = 'json'\n");
    for (arguments, format) in [
        (
            &["migrate", "--check", "--log-format", "json"] as &[&str],
            None,
        ),
        (&["migrate", "--check"], Some("json")),
        (&["migrate", "--check", "--config", &as_json], None),
        (&["--log-format=json", "migrate", "--config", &broken], None),
        (&["migrate", "--config", &broken], Some("json")),
        (
            &["migrate", "--config", "/nonexistent", "--log-format=json"],
            None,
        ),
        (&["migrate", "--nonsense", "--log-format=json"], None),
        (&["nonsense"], Some("json")),
        (
            &[
                "ingest",
                "--kafka=x:1",
                "--topic=t",
                "--group=g",
                "--format=csv",
            ],
            Some("json"),
        ),
    ] {
        let mut command = command("postgresql://me@127.0.0.1:1/db", arguments);
        if let Some(format) = format {
            command.env("SIMUSAGE_LOG_FORMAT", format);
        }
        let run = Run::from(command.output().unwrap());
        assert!(run.status == 1 || run.status == 2, "{run:?}");
        assert!(run.stderr.lines().count() > 0, "{run:?}");
        for line in run.stderr.lines() {
            let entry: Value =
                serde_json::from_str(line).unwrap_or_else(|_| panic!("{arguments:?}: {line}"));
            assert!(entry["level"].is_string(), "{entry}");
        }
    }
}

#[test]
fn hangup_signals_do_not_end_a_process() {
    let files = Files::new();
    let inventory = inventory();
    let output = File::create(files.0.path().join("usage.ndjson")).unwrap();
    let arguments = ["generate", "usage", "--follow", "--rate=100", "--inventory"];
    let mut child = command(
        UNREACHABLE,
        &[&arguments[..], &[inventory.to_str().unwrap()]].concat(),
    )
    .stdout(output)
    .spawn()
    .unwrap();
    let size = || {
        files
            .0
            .path()
            .join("usage.ndjson")
            .metadata()
            .unwrap()
            .len()
    };
    let wait_for_more = |than: u64| {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while size() <= than {
            assert!(
                std::time::Instant::now() < deadline,
                "nothing more is written"
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    wait_for_more(0);
    let pid = child.id().to_string();
    let kill = |signal: &str| {
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    };
    kill("-HUP");
    let before = size();
    wait_for_more(before + 1_000);
    kill("-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
