//! Progress of a run: a bar on a terminal, or periodic log lines.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

const LOG_EVERY: Duration = Duration::from_secs(10);
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// Counters of a run, which several threads update and read.
#[derive(Debug, Default)]
pub struct Counters {
    bytes: AtomicU64,
    records: AtomicU64,
    stored: AtomicU64,
    rejected: AtomicU64,
    empty_messages: AtomicU64,
    refreshes: AtomicU64,
    /// Unread messages in Kafka.
    lag: AtomicU64,
    lag_known: AtomicBool,
}

impl Counters {
    /// Counts bytes that were read, before decompression.
    pub(super) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts records that were read, valid or not.
    pub(super) fn add_records(&self, records: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    /// Counts records whose transaction was committed.
    pub(super) fn add_committed(&self, stored: u64, rejected: u64) {
        self.stored.fetch_add(stored, Ordering::Relaxed);
        self.rejected.fetch_add(rejected, Ordering::Relaxed);
    }

    /// Counts empty messages whose position was committed.
    pub(super) fn add_empty_messages(&self, count: u64) {
        self.empty_messages.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts one refresh of the aggregates.
    pub(super) fn add_refresh(&self) {
        self.refreshes.fetch_add(1, Ordering::Relaxed);
    }

    /// Sets the number of unread messages in the assigned partitions.
    pub(super) fn set_lag(&self, records: u64) {
        self.lag.store(records, Ordering::Relaxed);
        self.lag_known.store(true, Ordering::Relaxed);
    }

    fn lag(&self) -> Option<u64> {
        self.lag_known
            .load(Ordering::Relaxed)
            .then(|| self.lag.load(Ordering::Relaxed))
    }

    fn read(&self) -> (u64, u64) {
        (
            self.bytes.load(Ordering::Relaxed),
            self.records.load(Ordering::Relaxed),
        )
    }

    /// Formats all counters as Prometheus text.
    #[must_use]
    pub fn to_prometheus(&self) -> String {
        let mut text = String::new();
        let mut add = |name: &str, kind: &str, help: &str, value: u64| {
            // Writing into a String cannot fail.
            let _ = write!(
                text,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
            );
        };
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        add(
            "simusage_ingest_bytes_total",
            "counter",
            "Bytes read.",
            load(&self.bytes),
        );
        add(
            "simusage_ingest_records_total",
            "counter",
            "Records read.",
            load(&self.records),
        );
        add(
            "simusage_ingest_stored_total",
            "counter",
            "Records stored.",
            load(&self.stored),
        );
        add(
            "simusage_ingest_rejected_total",
            "counter",
            "Records rejected.",
            load(&self.rejected),
        );
        add(
            "simusage_ingest_refreshes_total",
            "counter",
            "Refreshes of the aggregates.",
            load(&self.refreshes),
        );
        if let Some(lag) = self.lag() {
            add(
                "simusage_ingest_lag_records",
                "gauge",
                "Unread messages in the assigned partitions.",
                lag,
            );
            add(
                "simusage_ingest_empty_messages_total",
                "counter",
                "Messages without a record, which were skipped.",
                load(&self.empty_messages),
            );
        }
        text
    }
}

/// Displays the progress of a run until it is dropped.
pub(super) struct Progress {
    task: JoinHandle<()>,
    bar: ProgressBar,
}

impl Progress {
    /// Displays `counters` on standard error. `size` is the total in bytes, if known.
    pub fn start(counters: Arc<Counters>, size: Option<u64>) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        let bar = if on_terminal {
            bar(size)
        } else {
            ProgressBar::hidden()
        };
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
                    shown.set_message(format!(
                        "{} records, {}/s",
                        HumanCount(records),
                        HumanCount(rate)
                    ));
                    shown.set_position(bytes);
                } else {
                    let rejected = counters.rejected.load(Ordering::Relaxed);
                    let lag = counters
                        .lag()
                        .map(|lag| format!(", {} unread", HumanCount(lag)))
                        .unwrap_or_default();
                    log::info!(
                        "{} records, {}, {}/s, {} rejected{lag}",
                        HumanCount(records),
                        HumanBytes(bytes),
                        HumanCount(rate),
                        HumanCount(rejected)
                    );
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
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "for display only"
)]
pub(super) fn rate(records: u64, elapsed: Duration) -> u64 {
    (records as f64 / elapsed.as_secs_f64().max(1e-6)) as u64
}

fn bar(size: Option<u64>) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (
            ProgressBar::new(size),
            "{wide_bar} {bytes}/{total_bytes} {msg} eta {eta}",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {bytes} {msg} {elapsed}",
        ),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
