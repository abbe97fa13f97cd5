//! One ingest from beginning to end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use serde::Serialize;
use serde::ser::Serializer;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::dry_run::{SimCards, rehearse};
use super::identity::recognise;
use super::inventory_file::read_inventory;
use super::kafka::{self, Topic, store_topic};
use super::parallel_copy::ParallelCopy;
use super::progress::{Counters, Progress, rate};
use super::reader::{ReaderSettings, RecordReader, Stopped};
use super::record_encoder::RecordEncoder;
use super::replay::replay_rejected;
use super::session::Session;
use super::source::{Format, Opened, Source};
use super::store::{BatchWriterLoop, Refresher, Tally, store_batches};
use crate::config::Config;
use crate::db::{self, Claim, InventoryIndex, WriteError};

/// How many pieces may wait for the database: with their size, what bounds memory.
pub(super) const PIECES_IN_FLIGHT: usize = 16;

pub(super) const PANICKED: &str = "the reading thread panicked";

pub(super) const EMPTY_INVENTORY: &str = "the inventory is empty, so every record will be rejected: load one with \
    `simusage ingest --inventory FILE`; --replay-rejects with it stores what was rejected before";

/// What to ingest, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// An inventory to load first.
    pub inventory: Option<PathBuf>,
    /// Where usage records come from, in this order.
    pub sources: Vec<Source>,
    /// A topic that they come from, instead of sources.
    pub kafka: Option<Topic>,
    /// The format of all sources; without it, each source tells.
    pub format: Option<Format>,
    /// The name that standard input has in the ledger. Without it, nothing of it is known to later runs.
    pub source_id: Option<String>,
    /// Stop when more records than this were rejected.
    pub max_rejects: Option<u64>,
    /// Try rejected records again.
    pub replay_rejects: bool,
    /// Read and account, and store nothing.
    pub dry_run: bool,
    /// Where to count what is done, for whoever looks meanwhile.
    pub counters: Arc<Counters>,
}

/// What became of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceStatus {
    /// Its records were stored.
    Stored,
    /// The records behind those of an earlier run were stored.
    Continued,
    /// All of it was stored by an earlier run.
    AlreadyIngested,
    /// It had no record.
    Empty,
    /// Its records were read, and not stored because it was a dry run.
    Read,
}

/// What was read of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceSummary {
    /// What it is called.
    pub name: String,
    /// What became of it.
    pub status: SourceStatus,
    /// The first byte that was read for records, decompressed.
    pub from: i64,
    /// The byte behind the last record that was stored or rejected for good.
    pub to: i64,
}

/// What an ingest did. Records read are those stored plus those rejected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Where nothing was stored because nothing was to be: what would have been.
    #[serde(rename = "dry-run", skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// What SIM cards were looked up in, where nothing was stored.
    #[serde(rename = "sim-cards", skip_serializing_if = "Option::is_none")]
    pub sim_cards: Option<SimCards>,
    /// Records read.
    pub read: u64,
    /// Records stored.
    pub stored: u64,
    /// Records rejected.
    pub rejected: u64,
    /// Records rejected, by the reason's code.
    pub reasons: BTreeMap<&'static str, u64>,
    /// The sources, in the order in which they were read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceSummary>,
    /// Assignments in the inventory file, where one was loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assignments: Option<usize>,
    /// Time taken.
    #[serde(rename = "elapsed-ms", serialize_with = "milliseconds")]
    pub elapsed: Duration,
    /// How much of it went into refreshing the aggregates, while nothing was stored.
    #[serde(rename = "refresh-ms", serialize_with = "milliseconds")]
    pub refresh: Duration,
}

fn milliseconds<S: Serializer>(elapsed: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

impl std::fmt::Display for Summary {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(assignments) = self.assignments {
            let stored = if self.dry_run { ", not stored" } else { "" };
            writeln!(formatter, "inventory: {assignments} assignments{stored}")?;
        }
        for SourceSummary {
            name, status, from, ..
        } in &self.sources
        {
            match status {
                SourceStatus::Stored | SourceStatus::Read => {}
                SourceStatus::Empty => writeln!(formatter, "{name}: empty, no record in it")?,
                SourceStatus::Continued => writeln!(formatter, "{name}: continued at byte {from}")?,
                SourceStatus::AlreadyIngested => writeln!(formatter, "{name}: already ingested")?,
            }
        }
        let stored = if self.dry_run {
            "would be stored"
        } else {
            "stored"
        };
        write!(
            formatter,
            "read {}, {stored} {}, rejected {}",
            self.read, self.stored, self.rejected
        )?;
        let mut separator = " (";
        for (reason, count) in &self.reasons {
            write!(formatter, "{separator}{reason} {count}")?;
            separator = ", ";
        }
        let close = if self.reasons.is_empty() { "" } else { ")" };
        if let Some(sim_cards) = self.sim_cards {
            let seconds = self.elapsed.as_secs_f64();
            return write!(
                formatter,
                "{close} in {seconds:.2} s; {sim_cards}; a dry run stores nothing"
            );
        }
        write!(
            formatter,
            "{close} in {:.2} s ({} records/s), {:.2} s of it refreshing the aggregates",
            self.elapsed.as_secs_f64(),
            rate(self.read, self.elapsed),
            self.refresh.as_secs_f64()
        )
    }
}

/// Loads the inventory, if one is given, and stores the usage records of all sources, from where earlier runs have
/// left each of them. When it returns, also with an error, what was stored is visible in every aggregate, unless the
/// database went away.
///
/// # Errors
/// A source cannot be read or has changed, the database refuses or is away for too long, or there were more rejects
/// than allowed. Batches committed before stay, and the error says how far they go; another run goes on from there.
pub async fn ingest(config: &Config, options: Options) -> anyhow::Result<Summary> {
    let started = Instant::now();
    // Inputs first: a name that is misspelt must not leave half of the work done.
    let inventory = options
        .inventory
        .as_deref()
        .map(read_inventory)
        .transpose()?;
    let mut size = Some(0);
    for source in &options.sources {
        size = size.zip(source.size()?).map(|(size, this)| size + this);
    }
    if options.dry_run {
        return rehearse(config, options, inventory, size).await;
    }
    let mut session = Session::open(config).await?;
    db::migrate::ensure_current(session.connection()).await?;
    let mut summary = Summary::default();
    if let Some(assignments) = inventory {
        let stored = session
            .repeat(async |connection| db::store_inventory(connection, &assignments).await)
            .await;
        stored.context("storing the inventory")?;
        summary.assignments = Some(assignments.len());
    }
    let refresh_every = Duration::from_millis(config.ingest.refresh_every_ms);
    let mut run = Run {
        refresher: Refresher::new(
            refresh_every,
            config.storage.retention_records_days,
            Arc::clone(&options.counters),
        ),
        session,
        tally: Tally::new(Arc::clone(&options.counters)),
        parallel_copy: ParallelCopy::new(config.ingest.connections),
        number: i64::from_ne_bytes(fastrand::u64(..).to_ne_bytes()),
    };
    let stored = if options.replay_rejects {
        run.replay(config).await
    } else if let Some(topic) = &options.kafka {
        run.store_topic(
            config,
            topic,
            options.max_rejects,
            Arc::clone(&options.counters),
        )
        .await
    } else if options.sources.is_empty() {
        Ok(())
    } else {
        run.store_sources(config, options, size, &mut summary).await
    };
    // Also after a failure: batches that were committed must be seen. Nobody waits for a database twice, though.
    let refreshed = match &stored {
        Err(failure) if failure.away => Ok(()),
        _ => run.refresher.refresh(&mut run.session).await,
    };
    let Tally {
        stored: records,
        rejected,
        reasons,
        ..
    } = run.tally;
    (summary.read, summary.stored, summary.rejected) = (records + rejected, records, rejected);
    summary.reasons = reasons;
    if let Err(failure) = stored {
        return Err(failure
            .context(format!(
                "stopped after {records} records stored and {rejected} rejected"
            ))
            .error);
    }
    refreshed
        .with_context(|| format!("{records} records are stored, but not yet in the aggregates"))?;
    summary.elapsed = started.elapsed();
    summary.refresh = run.refresher.spent;
    Ok(summary)
}

/// Why a run stopped.
pub(super) struct Failure {
    error: anyhow::Error,
    /// Whether it is that the database is away.
    away: bool,
}

impl Failure {
    /// The failure with what was being done in front.
    pub fn context(self, text: String) -> Self {
        Self {
            error: self.error.context(text),
            ..self
        }
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        Self {
            away: error.is_transient(),
            error: error.into(),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { error, away: false }
    }
}

/// What a run has in hand all along.
struct Run<'a> {
    session: Session<'a>,
    refresher: Refresher,
    tally: Tally,
    parallel_copy: ParallelCopy,
    /// Tells this run from all others in the ledger.
    number: i64,
}

impl Run<'_> {
    async fn directory(&mut self) -> Result<Arc<InventoryIndex>, WriteError> {
        let directory = self
            .session
            .repeat(async |connection| InventoryIndex::load(connection).await)
            .await?;
        if directory.is_empty() {
            log::warn!("{EMPTY_INVENTORY}");
        }
        Ok(Arc::new(directory))
    }

    async fn encoder(&mut self, config: &Config) -> Result<RecordEncoder, WriteError> {
        let directory = self.directory().await?;
        Ok(RecordEncoder::new(
            directory,
            config.storage.retention_records_days,
        ))
    }

    async fn replay(&mut self, config: &Config) -> Result<(), Failure> {
        let encoder = self.encoder(config).await?;
        replay_rejected(
            &mut self.session,
            &encoder,
            &mut self.tally,
            &mut self.refresher,
        )
        .await?;
        Ok(())
    }

    async fn store_topic(
        &mut self,
        config: &Config,
        topic: &Topic,
        max_rejects: Option<u64>,
        counters: Arc<Counters>,
    ) -> Result<(), Failure> {
        let directory = self.directory().await?;
        let progress = Progress::start(Arc::clone(&counters), None);
        let Self {
            session,
            refresher,
            tally,
            parallel_copy,
            number,
        } = self;
        let retention_days = config.storage.retention_records_days;
        let mut storing = kafka::TopicWriter {
            session,
            tally,
            refresher,
            parallel_copy,
            number: *number,
            directory,
            retention_days,
        };
        let stored = store_topic(config, topic, max_rejects, counters, &mut storing).await;
        drop(progress);
        stored
    }

    async fn store_sources(
        &mut self,
        config: &Config,
        options: Options,
        size: Option<u64>,
        summary: &mut Summary,
    ) -> Result<(), Failure> {
        let counters = Arc::clone(&options.counters);
        let settings = ReaderSettings::new(config, &options);
        let mut reader =
            RecordReader::new(settings, self.encoder(config).await?, Arc::clone(&counters));
        let progress = Progress::start(Arc::clone(&counters), size);
        for source in options.sources {
            let patience = Duration::from_millis(config.ingest.batch_age_ms);
            let counters = Arc::clone(&counters);
            let opened = spawn_blocking(move || source.open(counters, patience))
                .await
                .context(PANICKED)??;
            let source_summary;
            (reader, source_summary) = self
                .store_source(reader, opened, options.source_id.as_deref())
                .await?;
            summary.sources.push(source_summary);
        }
        drop(progress);
        Ok(())
    }

    async fn store_source(
        &mut self,
        mut reader: RecordReader,
        opened: Opened,
        source_id: Option<&str>,
    ) -> Result<(RecordReader, SourceSummary), Failure> {
        let name = Arc::clone(&opened.name);
        let is_file = opened.source != Source::Stdin;
        let mut source = SourceSummary {
            name: name.to_string(),
            status: SourceStatus::Empty,
            from: 0,
            to: 0,
        };
        if is_file && opened.head.is_empty() {
            return Ok((reader, source));
        }
        let known = recognise(&mut self.session, &opened, source_id, self.number).await?;
        let mut claim = Claim::new(
            &known,
            is_file || source_id.is_some(),
            self.number,
            Arc::clone(&name),
        );
        source.from = known.position;
        let (sender, mut receiver) = mpsc::channel(PIECES_IN_FLIGHT);
        let reading = spawn_blocking(move || {
            let result = reader.read(opened, &known, sender);
            (reader, result)
        });
        let Self {
            session,
            refresher,
            tally,
            parallel_copy,
            ..
        } = self;
        let mut storing = BatchWriterLoop {
            session,
            claim: &mut claim,
            receiver: &mut receiver,
            tally,
            refresher,
        };
        let stored = store_batches(&mut storing, parallel_copy).await;
        // This is what tells the reading thread, should it still be at work.
        drop(receiver);
        let (reader, read) = reading.await.context(PANICKED)?;
        let so_far = || format!("{name} is stored up to byte {}", claim.position);
        stored.map_err(|error| Failure::from(error).context(so_far()))?;
        if !claim.resumable {
            session
                .repeat(async |connection| db::remove_run(connection, &claim).await)
                .await?;
        }
        match read {
            Ok(()) => {}
            Err(Stopped::ReceiverClosed) => {
                return Err(anyhow!("the reading thread lost its other side").into());
            }
            Err(stopped) => {
                return Err(Failure::from(anyhow::Error::from(stopped)).context(so_far()));
            }
        }
        source.to = claim.position;
        source.status = match (source.from, claim.moved) {
            (0, false) => SourceStatus::Empty,
            (0, true) => SourceStatus::Stored,
            (_, true) => SourceStatus::Continued,
            (_, false) => SourceStatus::AlreadyIngested,
        };
        Ok((reader, source))
    }
}
