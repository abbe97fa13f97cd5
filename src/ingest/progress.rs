//! How far an ingest is: a bar on a terminal, a line now and then in a log.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

/// How often the log gets a line.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// How often the bar moves.
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// What has been read so far; counted in one thread, shown in another.
#[derive(Debug, Default)]
pub(super) struct Counters {
    bytes: AtomicU64,
    records: AtomicU64,
    /// Records that wait in Kafka; below zero where that is unknown.
    lag: Arc<AtomicI64>,
}

impl Counters {
    /// Counts bytes that were read, as they are in the file.
    pub fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts records that were read.
    pub fn add_records(&self, records: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    /// Where whoever reads from Kafka keeps the number of records that wait there.
    pub fn lag(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.lag)
    }

    fn read(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.records.load(Ordering::Relaxed))
    }
}

/// The display of a running ingest. It ends when this is dropped.
pub(super) struct Progress {
    task: JoinHandle<()>,
    bar: ProgressBar,
}

impl Progress {
    /// Shows `counters` on standard error, against a size in bytes where that is known.
    pub fn start(counters: Arc<Counters>, size: Option<u64>) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        let bar = if on_terminal { bar(size) } else { ProgressBar::hidden() };
        let shown = bar.clone();
        let started = Instant::now();
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(if on_terminal { DRAW_EVERY } else { LOG_EVERY });
            ticks.tick().await;
            loop {
                ticks.tick().await;
                let (bytes, records) = counters.read();
                let rate = rate(records, started.elapsed());
                if on_terminal {
                    shown.set_message(format!("{} records, {}/s", HumanCount(records), HumanCount(rate)));
                    shown.set_position(bytes);
                } else {
                    log::info!("{} records, {}, {}/s", HumanCount(records), HumanBytes(bytes), HumanCount(rate));
                }
            }
        });
        Self { task, bar }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}

/// Records per second.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "shown only")]
pub(super) fn rate(records: u64, elapsed: Duration) -> u64 {
    (records as f64 / elapsed.as_secs_f64().max(1e-6)) as u64
}

fn bar(size: Option<u64>) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (ProgressBar::new(size), "{wide_bar} {bytes}/{total_bytes} {msg} eta {eta}"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {msg} {elapsed}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
