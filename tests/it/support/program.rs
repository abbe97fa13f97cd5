//! Runs the built `simusage` program.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The result of running the program.
#[derive(Debug)]
pub struct Run {
    /// The exit status; -1 after a signal.
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// The summary printed by `--json`.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("invalid summary ({error}): {self:?}"))
    }

    /// The numbers of records in the summary printed by `--json`: (read, stored, rejected).
    pub fn counts(&self) -> (u64, u64, u64) {
        let summary = self.json();
        let count = |name: &str| summary[name].as_u64().unwrap();
        (count("read"), count("stored"), count("rejected"))
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program prints UTF-8");
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// A command that runs the program. The only setting in its environment is the database URL.
pub fn command(url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simusage"));
    let is_setting = |name: &str| {
        name.starts_with("SIMUSAGE_") || name.starts_with("PG") || name == "DATABASE_URL"
    };
    for (name, _) in std::env::vars().filter(|(name, _)| is_setting(name)) {
        command.env_remove(name);
    }
    command.args(arguments).env("DATABASE_URL", url);
    command
}

/// Runs the program with empty standard input.
pub fn simusage(url: &str, arguments: &[&str]) -> Run {
    command(url, arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program runs")
        .into()
}

/// Runs the program with `input` on standard input.
pub fn simusage_with_input(url: &str, arguments: &[&str], input: &str) -> Run {
    let mut child = command(url, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // Fails if the program exits before it has read all of its input.
        let _ = stdin.write_all(input.as_bytes());
    });
    let run = child.wait_with_output().expect("the program exits").into();
    writer.join().unwrap();
    run
}

/// The inventory of 15 SIM cards used by examples and tests.
pub fn inventory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/inventory.json")
}

/// Ingests [`inventory`].
pub fn load_inventory(url: &str) {
    let run = simusage(
        url,
        &["ingest", "--inventory", inventory().to_str().unwrap()],
    );
    assert_eq!(run.status, 0, "{run:?}");
}
