//! Batches side by side: where records are read faster than one connection stores them, several copy a batch each.
//!
//! They commit in the order of the source, each when the one before it has, so what the ledger says of the source is true
//! at every commit. A transaction that waits for its turn must hold nothing that the one before it needs: its chunks are
//! made before it begins, and a lock that is in the way after all is waited for no longer than [`LOCK_TIMEOUT`]. When
//! anything goes wrong, all of them give up, and their batches are stored one after the other.
//!
//! Batches of different sources, as the partitions of a topic are, have no order among them, and none of this to mind.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::session::Session;
use super::store::{BatchWriterLoop, PartialBatch, copy, store_batch};
use crate::db::{self, BatchEnd, Claim, Connection, WriteError};

/// How long a transaction waits for a lock that another one holds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// A batch of more hours goes alone, because each of them may need a chunk, or lie between those that do.
const MOST_HOURS: i64 = 31 * 24;

const NO_PANIC: &str = "a batch is copied without panic";

/// Connections that copy side by side.
pub(super) struct ParallelCopy {
    most: usize,
    idle: Vec<Connection>,
}

/// A batch that is being copied.
struct CopyTask {
    job: JoinHandle<CopyOutcome>,
    /// Tells the job that it may commit; `None` once it was told.
    turn: Option<oneshot::Sender<Claim>>,
}

/// What has become of a batch.
struct CopyOutcome {
    connection: Connection,
    batch: PartialBatch,
    result: Result<(), WriteError>,
}

impl ParallelCopy {
    /// Up to `most` connections, of which none is open yet.
    pub fn new(most: usize) -> Self {
        Self { most, idle: vec![] }
    }

    /// Opens them, and says whether there are any. Where there cannot be two, it is not tried again.
    ///
    /// # Errors
    /// The database refuses or is away.
    pub async fn open(&mut self, session: &mut Session<'_>) -> Result<bool, WriteError> {
        if self.most > 1 && self.idle.is_empty() {
            self.idle = session.open_beside(self.most, LOCK_TIMEOUT).await?;
            if self.idle.len() < 2 {
                (self.most, self.idle) = (1, vec![]);
            } else {
                log::debug!(
                    "batches are copied side by side on {} connections",
                    self.idle.len()
                );
            }
        }
        Ok(!self.idle.is_empty())
    }

    /// Stores batches side by side, until there are no more, or a refresh is due, or something went wrong and was put
    /// right. No batch is under way then.
    ///
    /// # Errors
    /// As [`super::store::store_batches`].
    pub async fn store(&mut self, storing: &mut BatchWriterLoop<'_, '_>) -> Result<(), WriteError> {
        let mut tasks = VecDeque::new();
        let result = self.fly(storing, &mut tasks).await;
        for outcome in abort_all(&mut tasks).await {
            // The one whose turn it was may have got through.
            if let (Ok(()), Some(end)) = (outcome.result, outcome.batch.end) {
                storing.committed(&end);
            }
        }
        result
    }

    /// Stores batches of different sources, as many at the same time as there are connections. None waits for another's
    /// commit, so they may make their chunks themselves. Straight into the columnstore they go one after the other: there
    /// they would wait for each other at the chunks' own rows. What becomes of each is answered in their order; `None`: it
    /// has no end.
    pub async fn store_independent(
        &mut self,
        session: &mut Session<'_>,
        batches: Vec<(Claim, PartialBatch)>,
    ) -> Vec<Result<Option<BatchEnd>, WriteError>> {
        if batches.len() > 1
            && let Err(error) = self.open_independent(session).await
        {
            return vec![Err(error)];
        }
        let mut results = vec![];
        let mut batches = batches.into_iter();
        while let Some((claim, batch)) = batches.next() {
            let beside = self
                .idle
                .len()
                .min(self.most.saturating_sub(1))
                .min(batches.len());
            let mut tasks = vec![];
            for (connection, (claim, batch)) in self.idle.drain(..beside).zip(batches.by_ref()) {
                let mut task = CopyTask::start(connection, batch);
                task.go(&claim);
                tasks.push((task, claim));
            }
            results.push(store_batch(session, &claim, None, batch, None).await);
            for (task, claim) in tasks {
                let CopyOutcome {
                    connection,
                    batch,
                    result,
                } = task.job.await.expect(NO_PANIC);
                results.push(match result {
                    Ok(()) => {
                        self.idle.push(connection);
                        Ok(batch.end)
                    }
                    Err(error) => store_batch(session, &claim, None, batch, Some(error)).await,
                });
            }
        }
        results
    }

    /// Opens them for batches of different sources: none where COPY goes straight into the columnstore.
    async fn open_independent(&mut self, session: &mut Session<'_>) -> Result<(), WriteError> {
        if self.most > 1
            && self.idle.is_empty()
            && session
                .repeat(async |connection| connection.compresses_directly().await)
                .await?
        {
            self.most = 1;
        }
        self.open(session).await.map(drop)
    }

    async fn fly(
        &mut self,
        storing: &mut BatchWriterLoop<'_, '_>,
        tasks: &mut VecDeque<CopyTask>,
    ) -> Result<(), WriteError> {
        let mut next = PartialBatch::default();
        // Whether it may be copied while others are, once that was found out.
        let mut may_join = None;
        let mut ended = false;
        loop {
            if let Some(end) = &next.end {
                // As soon as it is whole, and not only when there is a connection for it.
                if may_join.is_none() {
                    may_join = Some(may_start(storing.session, end).await?);
                }
                if may_join == Some(true) {
                    if let Some(connection) = self.idle.pop() {
                        tasks.push_back(CopyTask::start(connection, std::mem::take(&mut next)));
                        next_turn(tasks, storing.claim);
                        may_join = None;
                        continue;
                    }
                } else if tasks.is_empty() {
                    return storing.store(next, None).await.map(drop);
                }
            }
            let may_begin = !next.pieces.is_empty() || !storing.refresher.is_due();
            tokio::select! {
                outcome = land(tasks), if !tasks.is_empty() => {
                    tasks.pop_front();
                    let CopyOutcome { connection, batch, result } = outcome;
                    if let Err(error) = result {
                        return self.one_by_one(storing, tasks, (batch, error), next).await;
                    }
                    storing.committed(&batch.end.expect("what was copied is whole"));
                    self.idle.push(connection);
                    next_turn(tasks, storing.claim);
                }
                message = storing.receiver.recv(), if next.end.is_none() && may_begin && !ended => match message {
                    Some(_) => drop(next.keep(message)),
                    None => ended = true,
                },
                else => return Ok(()),
            }
        }
    }

    /// Stores the batches that are under way, of which the first has failed, and what was taken in of the next.
    async fn one_by_one(
        &mut self,
        storing: &mut BatchWriterLoop<'_, '_>,
        tasks: &mut VecDeque<CopyTask>,
        (batch, error): (PartialBatch, WriteError),
        next: PartialBatch,
    ) -> Result<(), WriteError> {
        // Whatever became of their sessions, new ones are better.
        self.idle.clear();
        let others: Vec<PartialBatch> = abort_all(tasks)
            .await
            .into_iter()
            .map(|outcome| outcome.batch)
            .collect();
        let mut failed = Some(error);
        let last = (!next.pieces.is_empty() || next.end.is_some()).then_some(next);
        for batch in std::iter::once(batch).chain(others).chain(last) {
            if !storing.store(batch, failed.take()).await? {
                break;
            }
        }
        Ok(())
    }
}

impl CopyTask {
    fn start(connection: Connection, batch: PartialBatch) -> Self {
        let (turn, its_turn) = oneshot::channel();
        Self {
            job: tokio::spawn(fly(connection, batch, its_turn)),
            turn: Some(turn),
        }
    }

    /// Tells it that it may commit, unless it was told before.
    fn go(&mut self, claim: &Claim) {
        if let Some(turn) = self.turn.take() {
            // A job that has failed takes no turn, and says why when it lands.
            let _ = turn.send(claim.clone());
        }
    }
}

async fn fly(
    mut connection: Connection,
    mut batch: PartialBatch,
    turn: oneshot::Receiver<Claim>,
) -> CopyOutcome {
    let copied = async {
        let writer = copy(&mut connection, None, &mut batch).await?;
        let claim = turn
            .await
            .map_err(|_| WriteError::Transient("the batch before was not stored".into()))?;
        writer
            .commit(&claim, batch.end.as_ref().expect("what is copied is whole"))
            .await
    };
    let result = copied.await;
    CopyOutcome {
        connection,
        batch,
        result,
    }
}

/// Tells the first batch that it may commit.
fn next_turn(tasks: &mut VecDeque<CopyTask>, claim: &Claim) {
    if let Some(first) = tasks.front_mut() {
        first.go(claim);
    }
}

/// What becomes of the first batch.
async fn land(tasks: &mut VecDeque<CopyTask>) -> CopyOutcome {
    let first = tasks.front_mut().expect("a batch is under way");
    (&mut first.job).await.expect(NO_PANIC)
}

/// Gives up the batches that it is not the turn of, and waits for all of them.
async fn abort_all(tasks: &mut VecDeque<CopyTask>) -> Vec<CopyOutcome> {
    let mut outcome = vec![];
    while !tasks.is_empty() {
        for task in tasks.iter_mut() {
            task.turn = None;
        }
        outcome.push(land(tasks).await);
        tasks.pop_front();
    }
    outcome
}

/// Whether a batch may be copied while others are. Its chunks are there then.
async fn may_start(session: &mut Session<'_>, end: &BatchEnd) -> Result<bool, WriteError> {
    let hours: i64 = end
        .hours
        .iter()
        .map(|interval| (interval.end() - interval.start()).num_hours())
        .sum();
    if hours > MOST_HOURS {
        return Ok(false);
    }
    session
        .repeat(async |connection| db::open_chunks(connection, &end.hours).await)
        .await
}
