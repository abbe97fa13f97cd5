//! An ingest that stores nothing: what is read is parsed, looked up and counted as ever, and then forgotten.
//!
//! It reads every source from its beginning, because what earlier runs have stored of it only the database knows, and
//! the answer to "is this file fine?" must not hang on a database.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::progress::Progress;
use super::reader::{Message, ReaderSettings, RecordReader};
use super::record_encoder::RecordEncoder;
use super::run::{Options, PANICKED, PIECES_IN_FLIGHT, SourceStatus, SourceSummary, Summary};
use super::store::Tally;
use crate::config::Config;
use crate::db::{self, InventoryIndex, KnownSource, WriteError};
use crate::domain::Assignment;

/// What a dry run looks SIM cards up in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SimCards {
    /// The inventory file that was given, and nothing else.
    InventoryFile,
    /// The database's inventory.
    Database,
    /// Nothing, because the database did not answer.
    Unchecked,
}

impl fmt::Display for SimCards {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::InventoryFile => "SIM cards are those of the inventory file",
            Self::Database => "SIM cards are those of the database",
            Self::Unchecked => "SIM cards were not looked up",
        })
    }
}

/// Says what [`super::ingest()`] would do with the sources. Nothing is written, neither to the database nor elsewhere.
///
/// # Errors
/// A source cannot be read, or more records would be rejected than allowed.
pub(super) async fn rehearse(
    config: &Config,
    options: Options,
    inventory: Option<Vec<Assignment>>,
    size: Option<u64>,
) -> anyhow::Result<Summary> {
    let started = Instant::now();
    let (encoder, sim_cards) = encoder(config, &options, inventory.as_deref()).await?;
    let mut summary = Summary {
        dry_run: true,
        sim_cards: Some(sim_cards),
        assignments: inventory.map(|assignments| assignments.len()),
        ..Summary::default()
    };
    let counters = Arc::clone(&options.counters);
    let mut reader = RecordReader::new(
        ReaderSettings::new(config, &options),
        encoder,
        Arc::clone(&counters),
    );
    let mut tally = Tally::new(Arc::clone(&counters));
    let progress = Progress::start(Arc::clone(&counters), size);
    for source in options.sources {
        let patience = Duration::from_millis(config.ingest.batch_age_ms);
        let counters = Arc::clone(&counters);
        let name = source.name().to_string();
        let (sender, mut receiver) = mpsc::channel(PIECES_IN_FLIGHT);
        let reading = spawn_blocking(move || {
            let opened = source.open(counters, patience)?;
            let known = KnownSource::unknown(&opened.name);
            let read = reader.read(opened, &known, sender);
            read.map(|()| reader).map_err(anyhow::Error::from)
        });
        let mut source = SourceSummary {
            name,
            status: SourceStatus::Empty,
            from: 0,
            to: 0,
        };
        while let Some(message) = receiver.recv().await {
            if let Message::End(end) = message {
                tally.add(end.rows, end.rejected.iter().map(|record| record.reason));
                source.status = SourceStatus::Read;
                source.to = end.checkpoint.position;
            }
        }
        reader = reading.await.context(PANICKED)?.with_context(|| {
            format!(
                "stopped after {} records that would be stored and {} rejected",
                tally.stored, tally.rejected
            )
        })?;
        summary.sources.push(source);
    }
    drop(progress);
    (summary.read, summary.stored, summary.rejected) =
        (tally.stored + tally.rejected, tally.stored, tally.rejected);
    summary.reasons = tally.reasons;
    summary.elapsed = started.elapsed();
    Ok(summary)
}

/// What stamps the records: the inventory that was given, else the database's, if that can be had.
async fn encoder(
    config: &Config,
    options: &Options,
    inventory: Option<&[Assignment]>,
) -> anyhow::Result<(RecordEncoder, SimCards)> {
    let days = config.storage.retention_records_days;
    if let Some(assignments) = inventory {
        let directory =
            InventoryIndex::from_assignments(assignments).context("looking at the inventory")?;
        return Ok((
            RecordEncoder::new(Arc::new(directory), days),
            SimCards::InventoryFile,
        ));
    }
    match database_inventory(config).await {
        Ok(directory) => {
            if directory.is_empty() && !options.sources.is_empty() {
                log::warn!("{}", super::run::EMPTY_INVENTORY);
            }
            Ok((
                RecordEncoder::new(Arc::new(directory), days),
                SimCards::Database,
            ))
        }
        Err(error) => {
            log::warn!(
                "SIM cards are not looked up, for which --inventory FILE needs no database: {error}"
            );
            Ok((RecordEncoder::without_inventory(days), SimCards::Unchecked))
        }
    }
}

async fn database_inventory(config: &Config) -> Result<InventoryIndex, WriteError> {
    let connection = db::connect(&config.database).await?;
    let directory = InventoryIndex::load(&connection).await;
    connection.close().await;
    directory
}
