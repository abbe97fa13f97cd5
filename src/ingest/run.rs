//! One ingest from beginning to end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};
use tokio::sync::mpsc;

use super::batch::{Account, Batcher, Message, Settings, Stopped};
use super::inventory_file::read_inventory;
use super::progress::{Counters, Progress, rate};
use super::reject::Reason;
use super::source::{Format, Source};
use crate::config::Config;
use crate::db::{self, BatchWriter, Connection, Directory};

/// How many pieces may wait for the database: with their size, what bounds memory.
const PIECES_IN_FLIGHT: usize = 16;

/// What to ingest, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// An inventory to load first.
    pub inventory: Option<PathBuf>,
    /// Where usage records come from, in this order.
    pub sources: Vec<Source>,
    /// The format of all sources; without it, each source tells.
    pub format: Option<Format>,
    /// Stop when more records than this were rejected.
    pub max_rejects: Option<u64>,
}

/// What an ingest did. Records read are those stored plus those rejected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Records read.
    pub read: u64,
    /// Records stored.
    pub stored: u64,
    /// Records rejected.
    pub rejected: u64,
    /// Records rejected, by reason.
    #[serde(serialize_with = "by_code")]
    pub reasons: BTreeMap<Reason, u64>,
    /// Assignments in the inventory file, where one was loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assignments: Option<usize>,
    /// Time taken.
    #[serde(rename = "elapsed-ms", serialize_with = "milliseconds")]
    pub elapsed: Duration,
}

fn by_code<S: Serializer>(reasons: &BTreeMap<Reason, u64>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(reasons.len()))?;
    for (reason, count) in reasons {
        map.serialize_entry(reason.code(), count)?;
    }
    map.end()
}

fn milliseconds<S: Serializer>(elapsed: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

impl std::fmt::Display for Summary {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(assignments) = self.assignments {
            writeln!(formatter, "inventory: {assignments} assignments")?;
        }
        write!(formatter, "read {}, stored {}, rejected {}", self.read, self.stored, self.rejected)?;
        let mut separator = " (";
        for (reason, count) in &self.reasons {
            write!(formatter, "{separator}{reason} {count}")?;
            separator = ", ";
        }
        let close = if self.reasons.is_empty() { "" } else { ")" };
        write!(
            formatter,
            "{close} in {:.2} s ({} records/s)",
            self.elapsed.as_secs_f64(),
            rate(self.read, self.elapsed)
        )
    }
}

/// Loads the inventory, if one is given, and stores the usage records of all sources. When it returns, also
/// with an error, what was stored is visible in every aggregate, unless the database went away.
///
/// # Errors
/// A source cannot be read, the database refuses or is away, or there were more rejects than allowed. Batches
/// committed before stay, and the error says how far they go.
pub async fn ingest(config: &Config, options: Options) -> anyhow::Result<Summary> {
    let started = Instant::now();
    // Inputs first: a name that is misspelt must not leave half of the work done.
    let inventory = options.inventory.as_deref().map(read_inventory).transpose()?;
    let mut size = Some(0);
    for source in &options.sources {
        let (_, this) = source.open()?;
        size = size.zip(this).map(|(size, this)| size + this);
    }
    let mut connection = db::connect(&config.database).await?;
    db::migrate::ensure_current(&connection).await?;
    let mut summary = Summary::default();
    if let Some(assignments) = inventory {
        db::store_inventory(&mut connection, &assignments).await.context("storing the inventory")?;
        summary.assignments = Some(assignments.len());
    }
    if !options.sources.is_empty() {
        store_sources(config, options, size, &mut connection, &mut summary).await?;
    }
    summary.elapsed = started.elapsed();
    Ok(summary)
}

async fn store_sources(
    config: &Config,
    options: Options,
    size: Option<u64>,
    connection: &mut Connection,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let directory = Directory::load(connection).await?;
    if directory.is_empty() {
        log::warn!("the inventory is empty, so every record will be rejected: load one with --inventory");
    }
    let counters = Arc::new(Counters::default());
    let progress = Progress::start(Arc::clone(&counters), size);
    let (outlet, inlet) = mpsc::channel(PIECES_IN_FLIGHT);
    let settings = Settings {
        format: options.format,
        batch_rows: config.ingest.batch_rows,
        max_record_bytes: config.ingest.max_record_bytes,
        max_rejects: options.max_rejects,
        oldest_us: oldest_us(config.storage.retention_records_days),
    };
    let batcher = Batcher::new(settings, directory, outlet, counters);
    let reading = tokio::task::spawn_blocking(move || read_sources(batcher, &options.sources));
    let stored = store_batches(connection, inlet, summary).await;
    let (account, read) = reading.await.context("the reading thread panicked")?;
    drop(progress);
    // Also after a failure: batches that were committed must be seen.
    let refreshed = match &stored {
        Err(_) if connection.is_closed() => Ok(()),
        _ => db::refresh_aggregates(connection, &account.hours.intervals()).await,
    };
    summary.reasons = account.reasons;
    let so_far = || format!("stopped after {} records stored and {} rejected", summary.stored, summary.rejected);
    stored.with_context(so_far)?;
    refreshed.with_context(|| format!("{} records are stored, but not yet in the aggregates", summary.stored))?;
    match read {
        Ok(()) => Ok(()),
        Err(Stopped::OutletClosed) => bail!("the reading thread lost its other side"),
        Err(stopped) => Err(stopped).with_context(so_far),
    }
}

/// The oldest record that is stored, in microseconds since 1970.
fn oldest_us(retention_days: u32) -> Option<i64> {
    let age = chrono::TimeDelta::days(retention_days.into());
    (retention_days > 0).then(|| (chrono::Utc::now() - age).timestamp_micros())
}

/// The reading thread. At its end the channel closes, which ends the other side.
fn read_sources(mut batcher: Batcher, sources: &[Source]) -> (Account, Result<(), Stopped>) {
    let result = sources.iter().try_for_each(|source| batcher.read(source));
    (batcher.into_account(), result)
}

/// Copies and commits what the reading thread sends.
async fn store_batches(
    connection: &mut Connection,
    mut inlet: mpsc::Receiver<Message>,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    while let Some(first) = inlet.recv().await {
        let mut batch = BatchWriter::begin(connection).await?;
        let mut message = first;
        let end = loop {
            match message {
                Message::Tuples(tuples) => batch.write(tuples).await.context("copying usage records")?,
                Message::End(end) => break end,
            }
            match inlet.recv().await {
                Some(next) => message = next,
                // The reading thread panicked; the batch is dropped and so rolled back.
                None => return Ok(()),
            }
        };
        let stored =
            batch.commit(&end.rejected).await.with_context(|| format!("storing records up to {}", end.place))?;
        if stored != end.rows {
            bail!("the server stored {stored} of the {} records up to {}", end.rows, end.place);
        }
        summary.stored += stored;
        summary.rejected += end.rejected.len() as u64;
        summary.read = summary.stored + summary.rejected;
    }
    Ok(())
}
