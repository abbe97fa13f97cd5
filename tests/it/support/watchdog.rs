//! Ends the test program when a test hangs, and names the test and the programs it runs.

use std::collections::HashMap;
use std::sync::{Mutex, Once};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// Far more than any test takes, even on a busy machine.
const LIMIT: Duration = Duration::from_mins(10);

static RUNNING: Mutex<Option<HashMap<ThreadId, (String, Instant)>>> = Mutex::new(None);

/// A test that is being watched, until this value is dropped.
pub struct Watched(ThreadId);

/// Starts to watch the test that runs on this thread.
pub fn watch() -> Watched {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        thread::spawn(end_when_a_test_hangs);
    });
    let current = thread::current();
    let name = current.name().unwrap_or("a test").to_owned();
    RUNNING
        .lock()
        .unwrap()
        .get_or_insert_default()
        .insert(current.id(), (name, Instant::now()));
    Watched(current.id())
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(tests) = RUNNING.lock().unwrap().as_mut() {
            tests.remove(&self.0);
        }
    }
}

fn end_when_a_test_hangs() {
    // The test that stores for as long as it is told to may take that much longer.
    let longer = std::env::var("SIMUSAGE_TEST_CONSISTENCY_S").unwrap_or_default();
    let limit = LIMIT + Duration::from_secs(longer.parse().unwrap_or(0));
    loop {
        thread::sleep(Duration::from_secs(5));
        let running = RUNNING.lock().unwrap();
        let hanging: Vec<_> = running
            .iter()
            .flat_map(HashMap::values)
            .filter(|(_, since)| since.elapsed() > limit)
            .map(|(name, _)| name.as_str())
            .collect();
        if !hanging.is_empty() {
            // To the standard error of the process: the output of a test is kept until it ends.
            use std::io::Write as _;
            let _ = writeln!(
                std::io::stderr(),
                "\nno end after {} s: {}; children:\n{}",
                limit.as_secs(),
                hanging.join(", "),
                children().join("\n")
            );
            std::process::exit(101);
        }
    }
}

/// The command lines of this program's children.
fn children() -> Vec<String> {
    let own = std::process::id().to_string();
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return vec![];
    };
    processes
        .filter_map(Result::ok)
        .filter_map(|process| {
            let stat = std::fs::read_to_string(process.path().join("stat")).ok()?;
            let (_, fields) = stat.rsplit_once(") ")?;
            (fields.split(' ').nth(1)? == own).then_some(())?;
            let command = std::fs::read(process.path().join("cmdline")).ok()?;
            let words = String::from_utf8_lossy(&command).replace('\0', " ");
            Some(format!("  {} {words}", process.file_name().display()))
        })
        .collect()
}
