//! Starts and stops the embedded TimescaleDB, and installs its packages.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const READINESS: &str = "embedded TimescaleDB ready: ";
/// Generous, because the machine may be busy with other tests.
const START_TIMEOUT: Duration = Duration::from_mins(2);
const EXIT_TIMEOUT: Duration = Duration::from_mins(1);

/// A server for one test, killed when dropped.
pub struct EmbeddedServer {
    child: Child,
    url: String,
}

impl EmbeddedServer {
    /// Starts a server with an empty in-memory database.
    pub fn start() -> Self {
        Self::launch(&[]).unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// Starts a server with its database in a directory.
    pub fn start_in(directory: &Path) -> Self {
        Self::try_start_in(directory).unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// Like [`Self::start_in`]; returns the server's log if it does not start.
    pub fn try_start_in(directory: &Path) -> Result<Self, String> {
        Self::launch(&["--data", directory.to_str().expect("the path is UTF-8")])
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Kills the process with SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("the server is running");
        self.child.wait().expect("a killed process exits");
    }

    /// Sends SIGTERM and waits for the process to exit.
    pub fn terminate(&mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .expect("kill is installed");
        assert!(sent.success(), "the server is running");
        self.wait()
    }

    /// Closes the server's standard input, as if its parent had exited, and waits for it to exit.
    pub fn close_stdin(&mut self) -> ExitStatus {
        drop(self.child.stdin.take());
        self.wait()
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + EXIT_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = self
                .child
                .try_wait()
                .expect("the status of a child can be read")
            {
                return status;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("the server did not exit within {EXIT_TIMEOUT:?}");
    }

    fn launch(options: &[&str]) -> Result<Self, String> {
        let directory = package_directory();
        install_packages(&directory);
        let mut child = Command::new("node")
            .arg(directory.join("server.mjs"))
            .args(["--port", "0", "--exit-with-stdin"])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run node: {error}"))?;
        let log = collect_log(&mut child);
        if let Some(url) = wait_until_ready(&mut child) {
            return Ok(Self { child, url });
        }
        let mut failure = String::from("the embedded TimescaleDB did not start");
        // A server that is still running after the timeout will not start.
        let _ = child.kill();
        if let Ok(status) = child.wait() {
            let _ = write!(failure, " ({status})");
        }
        let logged = log.join().expect("the log reader does not panic");
        Err(format!("{failure}: {logged}"))
    }
}

impl Drop for EmbeddedServer {
    fn drop(&mut self) {
        // Both fail only if the process has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the server's log, for the error message and so that the pipe does not fill up.
fn collect_log(child: &mut Child) -> thread::JoinHandle<String> {
    let mut stderr = child.stderr.take().expect("stderr is piped");
    thread::spawn(move || {
        let mut log = String::new();
        let _ = stderr.read_to_string(&mut log);
        log
    })
}

/// Waits for the readiness line and returns its URL; none if the server exits or the time runs out.
fn wait_until_ready(child: &mut Child) -> Option<String> {
    let stdout = child.stdout.take().expect("stdout is piped");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(url) = line.strip_prefix(READINESS) {
                let _ = sender.send(url.to_owned());
            }
        }
    });
    receiver.recv_timeout(START_TIMEOUT).ok()
}

fn package_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("embedded")
}

/// Installs the server's packages if they are missing, under a lock shared by all test processes.
fn install_packages(directory: &Path) {
    let lock_path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("embedded-packages.lock");
    let lock = File::create(lock_path).expect("CARGO_TARGET_TMPDIR is writable");
    lock.lock().expect("the file can be locked");
    // npm writes this file last.
    if directory.join("node_modules/.package-lock.json").exists() {
        return;
    }
    let installed = Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund"])
        .current_dir(directory)
        .output()
        .expect("npm is installed");
    assert!(
        installed.status.success(),
        "npm ci failed: {}",
        String::from_utf8_lossy(&installed.stderr)
    );
}
