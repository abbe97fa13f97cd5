//! Validates the input without writing to the database.
//!
//! Every source is read from its start, because only the database has the positions of earlier
//! runs, and a dry run works without a database.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::batch::BATCHES_IN_FLIGHT;
use super::inventory::{SharedEncoder, warn_if_empty};
use super::options::Options;
use super::progress::Progress;
use super::reader::{READER_PANICKED, RecordReader, Stopped};
use super::record_encoder::{Limits, RecordEncoder};
use super::source::OpenOptions;
use super::summary::{SimCards, SourceStatus, SourceSummary, Summary, Tally};
use crate::config::Config;
use crate::db::{self, InventoryIndex, KnownSource, Retention, WriteError};
use crate::domain::AssignmentList;

/// Reads all sources and counts the records that [`super::ingest()`] would store and reject.
/// `inventory` is the content of the inventory file, `size` the size of all sources in bytes.
///
/// # Errors
/// Returns an error if a source is unreadable, or if more records would be rejected than allowed.
pub(super) async fn dry_run(
    config: &Config,
    options: Options,
    inventory: Option<AssignmentList>,
    size: Option<u64>,
) -> anyhow::Result<Summary> {
    let started = Instant::now();
    let (encoder, sim_cards) = encoder(config, &options, inventory.as_ref()).await?;
    let mut summary = Summary {
        dry_run: true,
        sim_cards: Some(sim_cards),
        assignments: inventory.map(|assignments| assignments.len()),
        ..Summary::default()
    };
    let encoder = Arc::new(SharedEncoder::new(encoder));
    let reader = Arc::new(Mutex::new(RecordReader::new(config, &options, encoder)));
    let counters = options.counters;
    let mut tally = Tally::new(Arc::clone(&counters));
    let progress = Progress::start(Arc::clone(&counters), size);
    let is_only_source = options.sources.len() == 1;
    let open_options = OpenOptions {
        format: options.format,
        max_record_bytes: config.ingest.max_record_bytes,
        timeout: Duration::from_millis(config.ingest.batch_age_ms),
        counters: Arc::clone(&counters),
    };
    for source in options.sources {
        let options = open_options.clone();
        let name = source.name();
        let mut source_summary = SourceSummary::new(name.to_string());
        let reader = Arc::clone(&reader);
        let (sender, mut receiver) = mpsc::channel(BATCHES_IN_FLIGHT);
        let reading = spawn_blocking(move || {
            let mut opened = source.open(&options)?;
            if opened.scan.as_ref().is_some_and(|scan| !scan.has_records) {
                opened.refuse_damaged()?;
                return Ok(());
            }
            let known = KnownSource::unknown(&opened.name);
            let mut reader = reader.lock().expect(READER_PANICKED);
            reader.read(opened, &known, sender)
        });
        while let Some(batch) = receiver.recv().await {
            let end = batch.end;
            tally.add_batch(&end);
            source_summary.stored += end.rows;
            source_summary.rejected += end.rejected.len() as u64;
            source_summary.status = SourceStatus::Read;
            source_summary.to = end.checkpoint.position;
        }
        match reading.await.context(READER_PANICKED)? {
            Ok(()) => summary.sources.push(source_summary),
            Err(Stopped::Source(error)) if !is_only_source => summary.add_failed(&name, &error),
            Err(stopped) => {
                return Err(anyhow::Error::from(stopped).context(format!(
                    "stopped after {} valid records and {} rejected",
                    tally.stored, tally.rejected
                )));
            }
        }
    }
    drop(progress);
    summary.absorb(tally);
    summary.elapsed = started.elapsed();
    Ok(summary)
}

/// An encoder that looks up SIM cards in the inventory file if one is given, else in the database
/// if that is available.
async fn encoder(
    config: &Config,
    options: &Options,
    inventory: Option<&AssignmentList>,
) -> anyhow::Result<(RecordEncoder, SimCards)> {
    let retention = Retention::of_days(config.storage.retention_daily_days);
    let limits = Limits::new(&config.ingest, retention);
    let (inventory, sim_cards) = if let Some(assignments) = inventory {
        let inventory = InventoryIndex::from_list(assignments).context("reading the inventory")?;
        (inventory, SimCards::InventoryFile)
    } else {
        match load_inventory(config).await {
            Ok(inventory) => {
                if !options.sources.is_empty() {
                    warn_if_empty(&inventory);
                }
                (inventory, SimCards::Database)
            }
            Err(error) => {
                log::warn!(
                    "SIM cards are not checked, because the inventory could not be loaded: {error}; \
                     pass --inventory FILE to check them without a database"
                );
                return Ok((RecordEncoder::unchecked(limits), SimCards::Unchecked));
            }
        }
    };
    Ok((RecordEncoder::new(Arc::new(inventory), limits), sim_cards))
}

async fn load_inventory(config: &Config) -> Result<InventoryIndex, WriteError> {
    let connection = db::connect_first(&config.database).await?;
    let inventory = InventoryIndex::load(&connection).await;
    connection.close().await;
    inventory
}
