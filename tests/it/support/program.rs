//! The built program, run as a user runs it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// How a run of the program ended.
#[derive(Debug)]
pub struct Run {
    /// The exit status.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Run {
    /// The summary that `--json` prints.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no summary ({error}): {self:?}"))
    }

    /// (read, stored, rejected) of the summary that `--json` prints.
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

/// A command line of the program, in an environment without settings but for the database's URL.
pub fn command(url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simusage"));
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("SIMUSAGE_") || name == "DATABASE_URL")
    {
        command.env_remove(name);
    }
    command.args(arguments).env("DATABASE_URL", url);
    command
}

/// Runs the program.
pub fn simusage(url: &str, arguments: &[&str]) -> Run {
    command(url, arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program runs")
        .into()
}

/// Runs the program with text on its standard input.
pub fn simusage_with_input(url: &str, arguments: &[&str], input: &str) -> Run {
    let mut child = command(url, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writing = std::thread::spawn(move || {
        // The program may end before it has read all; its exit status tells.
        let _ = stdin.write_all(input.as_bytes());
    });
    let run = child.wait_with_output().expect("the program ends").into();
    writing.join().unwrap();
    run
}

/// The inventory of 15 SIM cards that examples and tests use.
pub fn inventory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/inventory.json")
}

/// Loads the inventory of 15 SIM cards.
pub fn load_inventory(url: &str) {
    let run = simusage(
        url,
        &["ingest", "--inventory", inventory().to_str().unwrap()],
    );
    assert_eq!(run.status, 0, "{run:?}");
}
