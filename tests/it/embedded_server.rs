//! Starts and ends the embedded TimescaleDB for tests.
//!
//! Owns the child process and the installation of its packages. What a test does with the database
//! is the test's own business.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const READINESS: &str = "embedded TimescaleDB ready: ";
/// Far more than a start takes, for the machine may be busy with other tests.
const START_LIMIT: Duration = Duration::from_mins(2);
const END_LIMIT: Duration = Duration::from_mins(1);

/// A server of its own for one test, ended with it.
pub struct EmbeddedServer {
    child: Child,
    url: String,
}

impl EmbeddedServer {
    /// A server with an empty database in memory.
    pub fn start() -> Self {
        Self::launch(&[]).unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// A server with its database in a folder.
    pub fn start_in(folder: &Path) -> Self {
        Self::try_start_in(folder).unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// Like [`Self::start_in`]; what the server logged is the error if it does not start.
    pub fn try_start_in(folder: &Path) -> Result<Self, String> {
        Self::launch(&[
            "--data",
            folder.to_str().expect("a temporary folder's path is UTF-8"),
        ])
    }

    /// Where clients connect to.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Kills the process at once, as `kill -9` does.
    pub fn kill_hard(&mut self) {
        self.child.kill().expect("the server is running");
        self.child.wait().expect("a killed process ends");
    }

    /// Asks the process to end, as `kill` does, and waits until it has.
    pub fn terminate(&mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .expect("kill is a standard program");
        assert!(sent.success(), "the server is running");
        self.wait()
    }

    /// Closes the server's standard input, as the end of its parent does, and waits until it has ended.
    pub fn abandon(&mut self) -> ExitStatus {
        drop(self.child.stdin.take());
        self.wait()
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + END_LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("a child's state can be read") {
                return status;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("the server has not ended within {END_LIMIT:?}");
    }

    fn launch(options: &[&str]) -> Result<Self, String> {
        let folder = embedded_folder();
        install_packages(&folder);
        let mut child = Command::new("node")
            .arg(folder.join("server.mjs"))
            .args(["--port", "0", "--exit-with-stdin"])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run node: {error}"))?;
        let log = collect_log(&mut child);
        if let Some(url) = readiness(&mut child) {
            return Ok(Self { child, url });
        }
        let mut failure = String::from("the embedded TimescaleDB did not start");
        // A server that has not ended by itself is not starting either, however long one waits.
        let _ = child.kill();
        if let Ok(status) = child.wait() {
            let _ = write!(failure, " ({status})");
        }
        let logged = log.join().expect("reading a pipe does not panic");
        Err(format!("{failure}: {logged}"))
    }
}

impl Drop for EmbeddedServer {
    fn drop(&mut self) {
        // Either fails only when the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps what the server logs for the message of a failed start, and the pipe from filling up.
fn collect_log(child: &mut Child) -> thread::JoinHandle<String> {
    let mut stderr = child.stderr.take().expect("stderr is piped");
    thread::spawn(move || {
        let mut log = String::new();
        let _ = stderr.read_to_string(&mut log);
        log
    })
}

/// The address in the readiness line, none if the server ends or the time is up before it comes.
fn readiness(child: &mut Child) -> Option<String> {
    let stdout = child.stdout.take().expect("stdout is piped");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(url) = line.strip_prefix(READINESS) {
                let _ = sender.send(url.to_owned());
            }
        }
    });
    receiver.recv_timeout(START_LIMIT).ok()
}

fn embedded_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("embedded")
}

/// Installs the server's packages unless they are; of several test processes one does.
fn install_packages(folder: &Path) {
    let lock_path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("embedded-packages.lock");
    let lock = File::create(lock_path).expect("cargo's folder for tests is writable");
    lock.lock().expect("a file of our own can be locked");
    // npm writes this file last.
    if folder.join("node_modules/.package-lock.json").exists() {
        return;
    }
    let installed = Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund"])
        .current_dir(folder)
        .output()
        .expect("npm comes with Node.js");
    assert!(
        installed.status.success(),
        "npm ci failed: {}",
        String::from_utf8_lossy(&installed.stderr)
    );
}
