//! Stores the batches of a source, on several connections if one cannot keep up with the reader.
//!
//! Batches are copied in parallel but commit in source order, each after the previous one, so that
//! the ledger is correct at every commit. A transaction that waits for its turn to commit must hold
//! no lock that the previous one needs. Therefore its chunks are created before it begins, and any
//! other lock is waited for no longer than [`LOCK_TIMEOUT`]. If anything fails, all transactions
//! are aborted and their batches are stored one by one.
//!
//! Batches of different sources, such as the partitions of a topic, are independent: they commit in
//! any order.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::pending_batch::{Message, PartialBatch};
use super::session::Session;
use super::store::{Store, copy, store_batch};
use crate::db::{self, BatchEnd, Claim, Connection, WriteError};

/// How long a transaction waits for a lock that another one holds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// A batch that covers more hours is stored alone, because each hour may need a chunk to be created
/// or checked.
const MAX_HOURS: i64 = 31 * 24;

const NO_PANIC: &str = "copying a batch does not panic";

/// A pool of connections that copy batches in parallel.
pub(super) struct ParallelCopy {
    max_connections: usize,
    idle: Vec<Connection>,
}

/// The batches of one source, and where they are stored.
struct SourceWriter<'a, 's> {
    store: &'a mut Store<'s>,
    claim: &'a mut Claim,
    receiver: &'a mut Receiver<Message>,
}

/// A batch that is being copied.
struct CopyTask {
    handle: JoinHandle<CopyOutcome>,
    /// Allows the task to commit; `None` once used.
    commit_permit: Option<oneshot::Sender<Claim>>,
}

struct CopyOutcome {
    connection: Connection,
    batch: PartialBatch,
    result: Result<(), WriteError>,
}

impl ParallelCopy {
    /// A pool of up to `max_connections`, none of them open yet.
    pub fn new(max_connections: usize) -> Self {
        Self {
            max_connections,
            idle: vec![],
        }
    }

    /// Stores the batches that `receiver` brings until the channel is closed. At any time, the
    /// store's tally and `claim` cover exactly the committed batches.
    ///
    /// # Errors
    /// Returns an error if the database is unavailable for too long or rejects a batch, or if
    /// another process has moved the source. Uncommitted batches are not stored then.
    pub async fn store_batches(
        &mut self,
        store: &mut Store<'_>,
        claim: &mut Claim,
        receiver: &mut Receiver<Message>,
    ) -> Result<(), WriteError> {
        let mut writer = SourceWriter {
            store,
            claim,
            receiver,
        };
        while let Some(first) = writer.store.next_message(writer.receiver).await? {
            let mut batch = PartialBatch::default();
            batch.add(Some(first));
            if !writer.store(batch, None).await? {
                return Ok(());
            }
            let is_reader_ahead = writer.receiver.len() * 2 >= writer.receiver.max_capacity();
            if is_reader_ahead && self.open(&mut writer.store.session).await? {
                self.store_in_parallel(&mut writer).await?;
            }
        }
        Ok(())
    }

    /// Stores batches of different sources, several at the same time. No two may be of one source.
    /// Returns one result per batch, in the same order; `None` for a batch that has no end.
    ///
    /// With direct compress they are stored one after the other, because they would wait for each
    /// other's lock on the chunk's catalog row.
    pub async fn store_independent(
        &mut self,
        session: &mut Session<'_>,
        batches: Vec<(Claim, PartialBatch)>,
    ) -> Vec<Result<Option<BatchEnd>, WriteError>> {
        if batches.len() > 1
            && let Err(error) = self.open_for_independent(session).await
        {
            return vec![Err(error)];
        }
        let mut results = vec![];
        let mut batches = batches.into_iter();
        while let Some((claim, batch)) = batches.next() {
            let helpers = self
                .idle
                .len()
                .min(self.max_connections.saturating_sub(1))
                .min(batches.len());
            let mut tasks = vec![];
            for (connection, (claim, batch)) in self.idle.drain(..helpers).zip(batches.by_ref()) {
                let mut task = CopyTask::start(connection, batch);
                task.permit_commit(&claim);
                tasks.push((task, claim));
            }
            results.push(store_batch(session, &claim, None, batch, None).await);
            for (task, claim) in tasks {
                let CopyOutcome {
                    connection,
                    batch,
                    result,
                } = task.handle.await.expect(NO_PANIC);
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

    /// Opens the connections, and returns whether there are at least two. If not, later calls do
    /// not try again.
    async fn open(&mut self, session: &mut Session<'_>) -> Result<bool, WriteError> {
        if self.max_connections > 1 && self.idle.is_empty() {
            self.idle = session
                .open_additional(self.max_connections, LOCK_TIMEOUT)
                .await?;
            if self.idle.len() < 2 {
                (self.max_connections, self.idle) = (1, vec![]);
            } else {
                log::debug!(
                    "copying batches in parallel on {} connections",
                    self.idle.len()
                );
            }
        }
        Ok(!self.idle.is_empty())
    }

    /// Opens the connections for batches of different sources: none with direct compress.
    async fn open_for_independent(&mut self, session: &mut Session<'_>) -> Result<(), WriteError> {
        if self.max_connections > 1
            && self.idle.is_empty()
            && session
                .repeat(async |connection| connection.compresses_directly().await)
                .await?
        {
            self.max_connections = 1;
        }
        self.open(session).await.map(drop)
    }

    /// Stores batches in parallel until the channel is closed, a refresh is due, or a failure was
    /// recovered from. No batch is in progress when this returns.
    async fn store_in_parallel(
        &mut self,
        writer: &mut SourceWriter<'_, '_>,
    ) -> Result<(), WriteError> {
        let mut tasks = VecDeque::new();
        let result = self.run_tasks(writer, &mut tasks).await;
        for outcome in abort_all(&mut tasks).await {
            // The task that had the permit may have committed.
            if let (Ok(()), Some(end)) = (outcome.result, outcome.batch.end) {
                writer.committed(&end);
            }
        }
        result
    }

    async fn run_tasks(
        &mut self,
        writer: &mut SourceWriter<'_, '_>,
        tasks: &mut VecDeque<CopyTask>,
    ) -> Result<(), WriteError> {
        let mut next = PartialBatch::default();
        // Whether `next` can be copied beside others; `None` until that is determined.
        let mut can_join = None;
        let mut ended = false;
        loop {
            if let Some(end) = &next.end {
                // As soon as the batch is complete, rather than when a connection becomes idle.
                if can_join.is_none() {
                    can_join = Some(prepare_chunks(&mut writer.store.session, end).await?);
                }
                if can_join == Some(true) {
                    if let Some(connection) = self.idle.pop() {
                        tasks.push_back(CopyTask::start(connection, std::mem::take(&mut next)));
                        permit_first(tasks, writer.claim);
                        can_join = None;
                        continue;
                    }
                } else if tasks.is_empty() {
                    return writer.store(next, None).await.map(drop);
                }
            }
            if next.is_empty() {
                writer.store.check_inventory_if_due().await?;
            }
            let can_begin = !next.pieces.is_empty() || !writer.store.refresher.is_due();
            tokio::select! {
                outcome = first_outcome(tasks), if !tasks.is_empty() => {
                    tasks.pop_front();
                    let CopyOutcome { connection, batch, result } = outcome;
                    if let Err(error) = result {
                        return self.store_one_by_one(writer, tasks, (batch, error), next).await;
                    }
                    writer.committed(&batch.end.expect("a copied batch is complete"));
                    self.idle.push(connection);
                    permit_first(tasks, writer.claim);
                }
                message = writer.receiver.recv(), if next.end.is_none() && can_begin && !ended => match message {
                    Some(_) => drop(next.add(message)),
                    None => ended = true,
                },
                else => return Ok(()),
            }
        }
    }

    /// Stores the batches in progress, the first of which has failed, and then `next`.
    async fn store_one_by_one(
        &mut self,
        writer: &mut SourceWriter<'_, '_>,
        tasks: &mut VecDeque<CopyTask>,
        (batch, error): (PartialBatch, WriteError),
        next: PartialBatch,
    ) -> Result<(), WriteError> {
        // The other sessions may be broken, too.
        self.idle.clear();
        let others: Vec<PartialBatch> = abort_all(tasks)
            .await
            .into_iter()
            .map(|outcome| outcome.batch)
            .collect();
        let mut failed = Some(error);
        let last = (!next.is_empty()).then_some(next);
        for batch in std::iter::once(batch).chain(others).chain(last) {
            if !writer.store(batch, failed.take()).await? {
                break;
            }
        }
        Ok(())
    }
}

impl SourceWriter<'_, '_> {
    /// Stores a batch on the main connection; `failed` is the error of a first attempt elsewhere.
    /// Returns whether the batch was complete: if not, the channel is closed.
    async fn store(
        &mut self,
        batch: PartialBatch,
        failed: Option<WriteError>,
    ) -> Result<bool, WriteError> {
        let receiver = batch.end.is_none().then_some(&mut *self.receiver);
        let session = &mut self.store.session;
        let Some(end) = store_batch(session, self.claim, receiver, batch, failed).await? else {
            return Ok(false);
        };
        self.committed(&end);
        Ok(true)
    }

    fn committed(&mut self, end: &BatchEnd) {
        self.store.committed(self.claim, end);
    }
}

impl CopyTask {
    fn start(connection: Connection, batch: PartialBatch) -> Self {
        let (commit_permit, permitted) = oneshot::channel();
        Self {
            handle: tokio::spawn(copy_and_commit(connection, batch, permitted)),
            commit_permit: Some(commit_permit),
        }
    }

    /// Allows the task to commit, unless it already may.
    fn permit_commit(&mut self, claim: &Claim) {
        if let Some(permit) = self.commit_permit.take() {
            // A task that has failed no longer listens; its outcome contains the error.
            let _ = permit.send(claim.clone());
        }
    }
}

async fn copy_and_commit(
    mut connection: Connection,
    mut batch: PartialBatch,
    permitted: oneshot::Receiver<Claim>,
) -> CopyOutcome {
    let committed = async {
        let writer = copy(&mut connection, None, &mut batch).await?;
        let claim = permitted
            .await
            .map_err(|_| WriteError::Transient("the previous batch was not stored".into()))?;
        writer
            .commit(
                &claim,
                batch.end.as_ref().expect("a copied batch is complete"),
            )
            .await
    };
    let result = committed.await;
    CopyOutcome {
        connection,
        batch,
        result,
    }
}

/// Allows the first task to commit.
fn permit_first(tasks: &mut VecDeque<CopyTask>, claim: &Claim) {
    if let Some(first) = tasks.front_mut() {
        first.permit_commit(claim);
    }
}

/// Waits for the first task, and leaves it in the queue.
async fn first_outcome(tasks: &mut VecDeque<CopyTask>) -> CopyOutcome {
    let first = tasks.front_mut().expect("a task is in progress");
    (&mut first.handle).await.expect(NO_PANIC)
}

/// Aborts the tasks that have no permit to commit, and waits for all of them.
async fn abort_all(tasks: &mut VecDeque<CopyTask>) -> Vec<CopyOutcome> {
    let mut outcomes = vec![];
    while !tasks.is_empty() {
        for task in tasks.iter_mut() {
            task.commit_permit = None;
        }
        outcomes.push(first_outcome(tasks).await);
        tasks.pop_front();
    }
    outcomes
}

/// Creates the chunks that a batch needs. Returns whether it can be copied beside other batches.
async fn prepare_chunks(session: &mut Session<'_>, end: &BatchEnd) -> Result<bool, WriteError> {
    let hours: i64 = end
        .hours
        .iter()
        .map(|interval| (interval.end() - interval.start()).num_hours())
        .sum();
    if hours > MAX_HOURS {
        return Ok(false);
    }
    session
        .repeat(async |connection| db::open_chunks(connection, &end.hours).await)
        .await
}
