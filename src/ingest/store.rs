//! From batches to the database: copies, commits, and finds out what became of a commit that nobody answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout_at;

use super::batch::Message;
use super::hours::joined;
use super::progress::Counters;
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
        Self { counters, stored: 0, rejected: 0, reasons: BTreeMap::new() }
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
pub(super) struct Held {
    pub pieces: Vec<Bytes>,
    pub end: Option<BatchEnd>,
}

impl Held {
    /// Takes in the next message. Returns the piece to send; `None` at the batch's end, or if there comes nothing more.
    fn keep(&mut self, message: Option<Message>) -> Option<Bytes> {
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

/// Copies and commits what the reading thread sends, until it has no more. `tally` and `claim` say at any time what
/// is committed.
///
/// # Errors
/// The database refuses, is away for too long, or another process has moved the source. The batch that was under
/// way is not stored.
pub(super) async fn store_batches(
    session: &mut Session<'_>,
    claim: &mut Claim,
    inlet: &mut Receiver<Message>,
    tally: &mut Tally,
    refresher: &mut Refresher,
) -> Result<(), WriteError> {
    while let Some(first) = next_message(session, inlet, refresher).await? {
        let mut held = Held::default();
        held.keep(Some(first));
        let Some(end) = store_batch(session, claim, Some(inlet), held).await? else { return Ok(()) };
        committed(claim, &end, tally, refresher);
    }
    Ok(())
}

/// The next message, `None` after the last. Refreshes meanwhile what is due.
///
/// # Errors
/// The database refuses a refresh or is away for too long.
pub(super) async fn next_message<T>(
    session: &mut Session<'_>,
    inlet: &mut Receiver<T>,
    refresher: &mut Refresher,
) -> Result<Option<T>, WriteError> {
    loop {
        let Some(due) = refresher.due() else { return Ok(inlet.recv().await) };
        // A refresh that is due comes first, also where there is always a message waiting.
        if due > Instant::now()
            && let Ok(message) = timeout_at(due.into(), inlet.recv()).await
        {
            return Ok(message);
        }
        refresher.refresh(session).await?;
    }
}

/// Takes note of a batch that is stored.
pub(super) fn committed(claim: &mut Claim, end: &BatchEnd, tally: &mut Tally, refresher: &mut Refresher) {
    claim.advance(end.checkpoint.position);
    tally.add(end.rows, end.rejected.iter().map(|record| record.reason));
    refresher.committed();
}

/// Stores one batch, however often the connection breaks meanwhile. What is not held of it yet comes from `inlet`.
/// `None`: the reading thread went away within it.
///
/// # Errors
/// As [`store_batches`].
pub(super) async fn store_batch(
    session: &mut Session<'_>,
    claim: &Claim,
    mut inlet: Option<&mut Receiver<Message>>,
    mut held: Held,
) -> Result<Option<BatchEnd>, WriteError> {
    loop {
        match attempt(session.connection(), claim, inlet.as_deref_mut(), &mut held).await {
            Ok(()) => {
                session.succeeded();
                return Ok(held.end);
            }
            Err(error) => session.recover(error).await?,
        }
        // The connection may have broken during the commit, or before it. The ledger knows.
        let Some(end) = &held.end else { continue };
        let position = end.checkpoint.position;
        match session.repeat(async |connection| db::outcome(connection, claim, position).await).await? {
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
    inlet: Option<&mut Receiver<Message>>,
    held: &mut Held,
) -> Result<(), WriteError> {
    let copying = |error: WriteError| error.during("copying usage records");
    let mut batch = BatchWriter::begin(connection).await.map_err(|error| error.during("beginning a batch"))?;
    for piece in &held.pieces {
        batch.write(piece.clone()).await.map_err(copying)?;
    }
    if let Some(inlet) = inlet {
        while held.end.is_none() {
            match held.keep(inlet.recv().await) {
                Some(piece) => batch.write(piece).await.map_err(copying)?,
                None => break,
            }
        }
    }
    match &held.end {
        Some(end) => batch.commit(claim, end).await,
        None => Ok(()),
    }
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
        self.stale.then(|| end + self.every.max(took * REFRESH_SHARE))
    }

    /// Refreshes over everything that is noted in the database, whoever committed it.
    ///
    /// # Errors
    /// The database refuses or is away. A refresh is safe to repeat.
    pub async fn refresh(&mut self, session: &mut Session<'_>) -> Result<(), WriteError> {
        let began = Instant::now();
        let oldest = (self.retention_days > 0).then(|| {
            let age = chrono::TimeDelta::days(self.retention_days.into());
            (chrono::Utc::now() - age).date_naive().and_time(chrono::NaiveTime::MIN).and_utc()
        });
        let config = session.config();
        let most = config.ingest.refresh_connections;
        session
            .repeat(async |connection| {
                let stale = StaleHours::read(connection).await?;
                if stale.is_empty() {
                    return Ok(());
                }
                failpoint::pass("before-refresh");
                let intervals = joined(&stale.since(oldest));
                let helpers = db::refresh_helpers(&config.database, connection, most, &intervals).await;
                let connections: Vec<&Connection> = std::iter::once(&*connection).chain(&helpers).collect();
                db::refresh_aggregates(&connections, &intervals).await?;
                failpoint::pass("after-refresh");
                stale.forget(connection).await
            })
            .await?;
        self.last = (Instant::now(), began.elapsed());
        self.spent += began.elapsed();
        self.stale = false;
        self.counters.add_refresh();
        Ok(())
    }
}
