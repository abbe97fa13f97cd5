//! From batches to the database: copies, commits, and finds out what became of a commit that nobody answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout_at;

use super::hours::joined;
use super::parallel_copy::ParallelCopy;
use super::progress::Counters;
use super::reader::Message;
use super::session::Session;
use crate::db::{self, BatchEnd, BatchWriter, Claim, Connection, Outcome, StaleHours, WriteError};
use crate::failpoint;

/// A refresh in the midst of an ingest may take this part of the time that the ingest takes.
const REFRESH_SHARE: u32 = 10;

/// What has been committed.
#[derive(Debug)]
pub(super) struct Tally {
    counters: Arc<Counters>,
    pub stored: u64,
    pub rejected: u64,
    /// Rejected records by the reason's code.
    pub reasons: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Nothing yet. What comes is counted in `counters`, too.
    pub fn new(counters: Arc<Counters>) -> Self {
        Self {
            counters,
            stored: 0,
            rejected: 0,
            reasons: BTreeMap::new(),
        }
    }

    /// Counts what a transaction has stored and rejected.
    pub fn add(&mut self, stored: u64, rejected: impl Iterator<Item = &'static str>) {
        self.stored += stored;
        let before = self.rejected;
        for reason in rejected {
            self.rejected += 1;
            *self.reasons.entry(reason).or_default() += 1;
        }
        self.counters.add_committed(stored, self.rejected - before);
    }
}

/// A batch while it is under way. All of it is kept, to be sent again should the connection break.
#[derive(Default)]
pub(super) struct PartialBatch {
    pub pieces: Vec<Bytes>,
    pub end: Option<BatchEnd>,
}

impl PartialBatch {
    /// Takes in the next message. Returns the piece to send; `None` at the batch's end, or if there comes nothing more.
    pub fn keep(&mut self, message: Option<Message>) -> Option<Bytes> {
        match message? {
            Message::Tuples(tuples) => {
                self.pieces.push(tuples.clone());
                Some(tuples)
            }
            Message::End(end) => {
                self.end = Some(end);
                None
            }
        }
    }
}

/// Where batches come from, and all that is to know about those that are stored.
pub(super) struct BatchWriterLoop<'a, 's> {
    pub session: &'a mut Session<'s>,
    pub claim: &'a mut Claim,
    pub receiver: &'a mut Receiver<Message>,
    pub tally: &'a mut Tally,
    pub refresher: &'a mut Refresher,
}

impl BatchWriterLoop<'_, '_> {
    /// Stores a batch that nobody else copies. `failed` is why it was not stored before, if it was tried. Says whether the
    /// batch has an end: if not, the reading thread went away within it.
    ///
    /// # Errors
    /// As [`store_batches`].
    pub async fn store(
        &mut self,
        batch: PartialBatch,
        failed: Option<WriteError>,
    ) -> Result<bool, WriteError> {
        let receiver = batch.end.is_none().then_some(&mut *self.receiver);
        let Some(end) = store_batch(self.session, self.claim, receiver, batch, failed).await?
        else {
            return Ok(false);
        };
        self.committed(&end);
        Ok(true)
    }

    /// Takes note of a batch that is stored.
    pub fn committed(&mut self, end: &BatchEnd) {
        committed(self.claim, end, self.tally, self.refresher);
    }
}

/// Copies and commits what the reading thread sends, until it has no more; side by side where that thread is ahead.
/// `tally` and `claim` say at any time what is committed.
///
/// # Errors
/// The database refuses, is away for too long, or another process has moved the source. The batches that were under
/// way are not stored.
pub(super) async fn store_batches(
    storing: &mut BatchWriterLoop<'_, '_>,
    parallel_copy: &mut ParallelCopy,
) -> Result<(), WriteError> {
    while let Some(first) =
        next_message(storing.session, storing.receiver, storing.refresher).await?
    {
        let mut batch = PartialBatch::default();
        batch.keep(Some(first));
        if !storing.store(batch, None).await? {
            return Ok(());
        }
        let is_behind = storing.receiver.len() * 2 >= storing.receiver.max_capacity();
        if is_behind && parallel_copy.open(storing.session).await? {
            parallel_copy.store(storing).await?;
        }
    }
    Ok(())
}

/// The next message, `None` after the last. Refreshes meanwhile what is due.
///
/// # Errors
/// The database refuses a refresh or is away for too long.
pub(super) async fn next_message<T>(
    session: &mut Session<'_>,
    receiver: &mut Receiver<T>,
    refresher: &mut Refresher,
) -> Result<Option<T>, WriteError> {
    loop {
        let Some(due) = refresher.due() else {
            return Ok(receiver.recv().await);
        };
        // A refresh that is due comes first, also where there is always a message waiting.
        if due > Instant::now()
            && let Ok(message) = timeout_at(due.into(), receiver.recv()).await
        {
            return Ok(message);
        }
        refresher.refresh(session).await?;
    }
}

/// Takes note of a batch that is stored.
pub(super) fn committed(
    claim: &mut Claim,
    end: &BatchEnd,
    tally: &mut Tally,
    refresher: &mut Refresher,
) {
    claim.advance(end.checkpoint.position);
    tally.add(end.rows, end.rejected.iter().map(|record| record.reason));
    refresher.committed();
}

/// Stores one batch, however often the connection breaks meanwhile. What is not held of it yet comes from `receiver`.
/// `failed` is why it was not stored the first time, if it was tried. `None`: the reading thread went away within it.
///
/// # Errors
/// As [`store_batches`].
pub(super) async fn store_batch(
    session: &mut Session<'_>,
    claim: &Claim,
    mut receiver: Option<&mut Receiver<Message>>,
    mut held: PartialBatch,
    mut failed: Option<WriteError>,
) -> Result<Option<BatchEnd>, WriteError> {
    loop {
        let error = match failed.take() {
            Some(error) => error,
            None => {
                match attempt(
                    session.connection(),
                    claim,
                    receiver.as_deref_mut(),
                    &mut held,
                )
                .await
                {
                    Ok(()) => {
                        session.succeeded();
                        return Ok(held.end);
                    }
                    Err(error) => error,
                }
            }
        };
        session.recover(error).await?;
        // The connection may have broken during the commit, or before it. The ledger knows.
        let Some(end) = &held.end else { continue };
        let position = end.checkpoint.position;
        match session
            .repeat(async |connection| db::outcome(connection, claim, position).await)
            .await?
        {
            Outcome::Committed => return Ok(held.end),
            Outcome::RolledBack => {}
            Outcome::Overtaken => return Err(WriteError::Overtaken),
        }
    }
}

/// Sends what is held of a batch and what is still to come, and commits.
async fn attempt(
    connection: &mut Connection,
    claim: &Claim,
    receiver: Option<&mut Receiver<Message>>,
    held: &mut PartialBatch,
) -> Result<(), WriteError> {
    let writer = copy(connection, receiver, held).await?;
    match &held.end {
        Some(end) => writer.commit(claim, end).await,
        None => Ok(()),
    }
}

/// Sends what is held of a batch and what is still to come. If its end comes, the server has all of it.
///
/// # Errors
/// The database refuses the records, or is away.
pub(super) async fn copy<'a>(
    connection: &'a mut Connection,
    receiver: Option<&mut Receiver<Message>>,
    held: &mut PartialBatch,
) -> Result<BatchWriter<'a>, WriteError> {
    let copying = |error: WriteError| error.during("copying usage records");
    let mut batch = BatchWriter::begin(connection)
        .await
        .map_err(|error| error.during("beginning a batch"))?;
    for piece in &held.pieces {
        batch.write(piece.clone()).await.map_err(copying)?;
    }
    if let Some(receiver) = receiver {
        while held.end.is_none() {
            match held.keep(receiver.recv().await) {
                Some(piece) => batch.write(piece).await.map_err(copying)?,
                None => break,
            }
        }
    }
    if let Some(end) = &held.end {
        batch.finish_copy(end.rows).await?;
    }
    Ok(batch)
}

/// Refreshes the aggregates over what was committed: soon in a long ingest, and in any case at its end.
pub(super) struct Refresher {
    every: Duration,
    retention_days: u32,
    /// When the last refresh ended, and how long it took.
    last: (Instant, Duration),
    /// Whether something was committed since.
    stale: bool,
    counters: Arc<Counters>,
    /// How long all refreshes took together.
    pub spent: Duration,
}

impl Refresher {
    /// A refresher that waits for `every` between two refreshes, or for much longer than one takes. It looks no
    /// further back than `retention_days`, unless they are 0: the aggregates keep hours whose records are gone, and
    /// a refresh over those would delete them.
    pub fn new(every: Duration, retention_days: u32, counters: Arc<Counters>) -> Self {
        Self {
            every,
            retention_days,
            last: (Instant::now(), Duration::ZERO),
            stale: false,
            counters,
            spent: Duration::ZERO,
        }
    }

    /// Says that something was committed.
    pub fn committed(&mut self) {
        self.stale = true;
    }

    /// When the next refresh is due, if there is anything to refresh. The longer one takes, the rarer they are.
    fn due(&self) -> Option<Instant> {
        let (end, took) = self.last;
        self.stale
            .then(|| end + self.every.max(took * REFRESH_SHARE))
    }

    /// Whether one is due.
    pub fn is_due(&self) -> bool {
        self.due().is_some_and(|due| due <= Instant::now())
    }

    /// Refreshes over everything that is noted in the database, whoever committed it.
    ///
    /// # Errors
    /// The database refuses or is away. A refresh is safe to repeat.
    pub async fn refresh(&mut self, session: &mut Session<'_>) -> Result<(), WriteError> {
        let began = Instant::now();
        let oldest = (self.retention_days > 0).then(|| {
            let age = chrono::TimeDelta::days(self.retention_days.into());
            (chrono::Utc::now() - age)
                .date_naive()
                .and_time(chrono::NaiveTime::MIN)
                .and_utc()
        });
        let config = session.config();
        let most = config.ingest.connections;
        session
            .repeat(async |connection| {
                let stale = StaleHours::read(connection).await?;
                if stale.is_empty() {
                    return Ok(());
                }
                failpoint::pass("before-refresh");
                let intervals = joined(&stale.since(oldest));
                let helpers =
                    db::refresh_helpers(&config.database, connection, most, &intervals).await;
                let connections: Vec<&Connection> =
                    std::iter::once(&*connection).chain(&helpers).collect();
                db::refresh_aggregates(&connections, &intervals).await?;
                failpoint::pass("after-refresh");
                stale.delete(connection).await
            })
            .await?;
        self.last = (Instant::now(), began.elapsed());
        self.spent += began.elapsed();
        self.stale = false;
        self.counters.add_refresh();
        Ok(())
    }
}
