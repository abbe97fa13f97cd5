//! Runs an ingest from start to end.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::batch::BATCHES_IN_FLIGHT;
use super::closer::Closer;
use super::dry_run::dry_run;
use super::failure::Failure;
use super::identity::{Identified, IdentifyOptions, identify};
use super::inventory_file::read_inventory;
use super::kafka::{SharedState, TopicWriter, store_topic};
use super::options::{Options, Topic};
use super::parallel_copy::ParallelCopy;
use super::progress::Progress;
use super::reader::{READER_PANICKED, RecordReader, Stopped};
use super::replay::replay_rejected;
use super::session::Session;
use super::source::{OpenOptions, Source};
use super::store::{Store, ensure_still_stored};
use super::summary::{SourceStatus, SourceSummary, Summary, Tally};
use crate::config::Config;
use crate::db::{self, Claim, WriteError};
use crate::domain::AssignmentList;

/// Loads the inventory, if one is given, and stores the usage records of all sources. Each source
/// resumes where earlier runs stopped. When this returns, even with an error, every stored record
/// is in the answers, and bulk loads are in the aggregates, unless the database is unavailable.
///
/// If one of several sources is unreadable or has changed, the others are still stored. The error
/// is logged, and the summary has the source as failed.
///
/// # Errors
/// Returns an error if the only source is unreadable or has changed, if the database is unavailable
/// for too long or rejects a statement, or if more records were rejected than allowed. Committed
/// batches stay. The error says how far they reach, and another run resumes there.
pub async fn ingest(config: &Config, options: Options) -> anyhow::Result<Summary> {
    let started = Instant::now();
    let inventory_file = options.inventory.as_deref();
    let inventory = inventory_file
        .map(|path| read_inventory(path, options.complete))
        .transpose()?;
    if options.replace_inventory && inventory.as_ref().is_some_and(AssignmentList::is_empty) {
        bail!(
            "the inventory file has no entries; --replace-inventory would remove all assignments"
        );
    }
    let size = total_size(&options.sources)?;
    if options.dry_run {
        return dry_run(config, options, inventory, size).await;
    }
    let mut session = Session::open(config).await?;
    db::migrate::ensure_current(session.connection()).await?;
    let mut summary = Summary {
        empty_messages: options.kafka.is_some().then_some(0),
        ..Summary::default()
    };
    if let Some(assignments) = inventory {
        let replace = options.replace_inventory;
        let stored = session
            .repeat(async |connection| db::store_inventory(connection, &assignments, replace).await)
            .await;
        let changes = stored.with_context(|| {
            let name = inventory_file.unwrap_or(Path::new("")).display();
            format!("storing the inventory {name}")
        })?;
        if changes.differs_from_records {
            log::warn!(
                "the inventory has changed for days of which records are stored, and these keep their \
                 organizations; `simusage inventory check` lists the usage that differs"
            );
        }
        summary.inventory = Some(changes);
        summary.assignments = Some(assignments.len());
    }
    let mut run = Run {
        config,
        store: Store {
            session,
            tally: Tally::new(Arc::clone(&options.counters)),
            closer: Closer::start(config, &options.counters),
            inventory: None,
        },
        parallel_copy: ParallelCopy::new(config.ingest.connections),
        id: i64::from_ne_bytes(fastrand::u64(..).to_ne_bytes()),
        stored: vec![],
    };
    let stored = if options.replay_rejects {
        run.replay().await
    } else if let Some(topic) = &options.kafka {
        run.store_topic(topic, &options).await
    } else if options.sources.is_empty() {
        Ok(())
    } else {
        run.store_sources(options, size, &mut summary).await
    };
    // Even after a failure, because batches were committed. An unavailable database has been waited
    // for already.
    let Store {
        session, closer, ..
    } = &mut run.store;
    let closed = match &stored {
        Err(failure) if failure.is_database_unavailable() => {
            closer.stop_tasks().await;
            Ok(())
        }
        _ => closer.finish(session).await,
    };
    summary.refresh = closer.spent;
    summary.absorb(run.store.tally);
    let Summary {
        stored: records,
        rejected,
        ..
    } = summary;
    stored.map_err(|failure| {
        failure.context(format!(
            "stopped after storing {records} records and rejecting {rejected}"
        ))
    })?;
    closed
        .with_context(|| format!("{records} records are stored, but not yet in the aggregates"))?;
    summary.elapsed = started.elapsed();
    Ok(summary)
}

/// The size of all sources in bytes before decompression, if it is known.
///
/// # Errors
/// Returns an error if the only source cannot be opened.
fn total_size(sources: &[Source]) -> anyhow::Result<Option<u64>> {
    let mut total = Some(0);
    for source in sources {
        let size = match source.size() {
            Err(error) if sources.len() == 1 => return Err(error),
            // Reported when it is the source's turn.
            Err(_) => None,
            Ok(size) => size,
        };
        total = total.zip(size).map(|(total, size)| total + size);
    }
    Ok(total)
}

/// The state of a run.
struct Run<'a> {
    config: &'a Config,
    store: Store<'a>,
    parallel_copy: ParallelCopy,
    /// Random number that identifies this run in the ledger.
    id: i64,
    /// The sources that are stored.
    stored: Vec<Claim>,
}

impl Run<'_> {
    async fn replay(&mut self) -> Result<(), Failure> {
        let encoder = self.store.encoder().await?.get();
        replay_rejected(&mut self.store, &encoder).await?;
        Ok(())
    }

    async fn store_topic(&mut self, topic: &Topic, options: &Options) -> Result<(), Failure> {
        let encoder = self.store.encoder().await?;
        let counters = Arc::clone(&options.counters);
        let progress = Progress::start(Arc::clone(&counters), None);
        let mut writer = TopicWriter {
            store: &mut self.store,
            parallel_copy: &mut self.parallel_copy,
            run_id: self.id,
        };
        let shared = SharedState::new(counters, encoder);
        let stored = store_topic(
            self.config,
            topic,
            options.max_rejects,
            Arc::new(shared),
            &mut writer,
        )
        .await;
        drop(progress);
        stored
    }

    async fn store_sources(
        &mut self,
        options: Options,
        size: Option<u64>,
        summary: &mut Summary,
    ) -> Result<(), Failure> {
        let encoder = self.store.encoder().await?;
        let reader = Arc::new(Mutex::new(RecordReader::new(
            self.config,
            &options,
            encoder,
        )));
        let Options {
            sources,
            source_id,
            counters,
            format,
            as_new,
            complete,
            ..
        } = options;
        let progress = Progress::start(Arc::clone(&counters), size);
        let is_only_source = sources.len() == 1;
        let open_options = OpenOptions {
            format,
            max_record_bytes: self.config.ingest.max_record_bytes,
            timeout: Duration::from_millis(self.config.ingest.batch_age_ms),
            counters: Arc::clone(&counters),
        };
        let identify_options = IdentifyOptions {
            source_id: source_id.as_deref(),
            as_new,
            complete,
            run: self.id,
        };
        for source in sources {
            let name = source.name();
            let options = open_options.clone();
            let stored = self
                .store_source(&reader, source, options, identify_options)
                .await;
            self.store.session.release_claimed().await;
            match stored {
                Ok(source) => summary.sources.push(source),
                Err(failure) if failure.is_of_source() && !is_only_source => {
                    summary.add_failed(&name, &failure.into());
                }
                Err(failure) => return Err(failure),
            }
        }
        drop(progress);
        self.ensure_still_stored().await
    }

    /// After a failover, checks that the database still has the sources that this run has stored.
    ///
    /// # Errors
    /// Returns an error if it has lost some of them, or is unavailable for too long.
    async fn ensure_still_stored(&mut self) -> Result<(), Failure> {
        let session = &mut self.store.session;
        if session.losses() == 0 {
            return Ok(());
        }
        for claim in &self.stored {
            let checked = ensure_still_stored(session, claim).await;
            checked.map_err(|error| match error {
                WriteError::CommitsLost(_) => Failure::in_source(error, claim),
                error => error.into(),
            })?;
        }
        Ok(())
    }

    async fn store_source(
        &mut self,
        reader: &Arc<Mutex<RecordReader>>,
        source: Source,
        options: OpenOptions,
        identify_options: IdentifyOptions<'_>,
    ) -> Result<SourceSummary, Failure> {
        let mut opened = spawn_blocking(move || source.open(&options))
            .await
            .context(READER_PANICKED)?
            .map_err(Failure::of_source)?;
        // The first bytes of a stream may have come long after it was opened.
        self.store.check_inventory_if_due().await?;
        let name = Arc::clone(&opened.name);
        let mut source = SourceSummary::new(name.to_string());
        if opened.scan.as_ref().is_some_and(|scan| !scan.has_records) {
            opened.refuse_damaged().map_err(Failure::of_source)?;
            return Ok(source);
        }
        let session = &mut self.store.session;
        let known = match identify(session, &opened, identify_options).await? {
            Identified::ToRead(known) => known,
            Identified::AlreadyIngested(known) => {
                opened.refuse_damaged().map_err(Failure::of_source)?;
                source.set_already_ingested(&known);
                return Ok(source);
            }
        };
        let is_lasting = opened.scan.is_some() || identify_options.source_id.is_some();
        let before = (self.store.tally.stored, self.store.tally.rejected);
        let mut claim = Claim::new(&known, is_lasting, self.id, Arc::clone(&name));
        source.from = known.position;
        let rejected_before = known.rejected > 0;
        source.set_counts((known.stored, known.rejected));
        let (sender, mut receiver) = mpsc::channel(BATCHES_IN_FLIGHT);
        let reader = Arc::clone(reader);
        let reading = spawn_blocking(move || {
            let mut reader = reader.lock().expect(READER_PANICKED);
            reader.read(opened, &known, sender)
        });
        let stored = self
            .parallel_copy
            .store_batches(&mut self.store, &mut claim, &mut receiver)
            .await;
        // Closing the channel stops the reader if it is still running.
        drop(receiver);
        let read = reading.await.context(READER_PANICKED)?;
        let so_far = || format!("{name} is stored up to byte {}", claim.position);
        stored.map_err(|error| Failure::in_source(error, &claim))?;
        if !claim.resumable {
            self.store
                .session
                .repeat(async |connection| db::remove_run(connection, &claim).await)
                .await?;
        }
        match read {
            Ok(()) => {}
            Err(Stopped::ChannelClosed) => {
                return Err(anyhow!("the reader's channel closed unexpectedly").into());
            }
            Err(Stopped::Source(error)) => {
                return Err(Failure::of_source(error).context(so_far()));
            }
            Err(stopped @ Stopped::TooManyRejects { .. }) => {
                return Err(Failure::from(anyhow::Error::from(stopped)).context(so_far()));
            }
        }
        source.to = claim.position;
        if claim.resumable {
            self.stored.push(claim.clone());
        }
        if rejected_before {
            // Some may have been read again, or stored by a replay.
            let counts = self
                .store
                .session
                .repeat(async |connection| db::source_counts(connection, claim.id).await)
                .await?;
            source.set_counts(counts);
        } else {
            source.stored += self.store.tally.stored - before.0;
            source.rejected = self.store.tally.rejected - before.1;
        }
        source.status = match (source.from, claim.moved) {
            (0, false) => SourceStatus::Empty,
            (0, true) => SourceStatus::Stored,
            (_, true) => SourceStatus::Continued,
            (_, false) => SourceStatus::AlreadyIngested,
        };
        Ok(source)
    }
}
