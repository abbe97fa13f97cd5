//! Stores the batches of a source, on several connections if one cannot keep up with the reader.
//!
//! Batches are copied in parallel but commit in source order, each after the previous one, so that
//! the ledger is correct at every commit. A transaction that waits for its turn to commit must hold
//! no lock that the previous one needs. Therefore the chunks of a period are created before it
//! begins, and any other lock is waited for no longer than [`LOCK_TIMEOUT`]. If anything fails, all
//! transactions are aborted and their batches are stored one by one.
//!
//! Batches of different sources, such as the partitions of a topic, are independent: they commit in
//! any order.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep_until;

use super::batch::Batch;
use super::session::Session;
use super::store::{Store, copy, store_batch};
use crate::db::{self, BatchEnd, Claim, Connection, WriteError};

/// How long a transaction waits for a lock that another one holds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

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
    receiver: &'a mut Receiver<Batch>,
}

/// A batch that is being copied.
struct CopyTask {
    handle: JoinHandle<CopyOutcome>,
    /// Allows the task to commit; `None` once used.
    commit_permit: Option<oneshot::Sender<Claim>>,
}

struct CopyOutcome {
    connection: Connection,
    batch: Batch,
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
        receiver: &mut Receiver<Batch>,
    ) -> Result<(), WriteError> {
        let mut writer = SourceWriter {
            store,
            claim,
            receiver,
        };
        while let Some(batch) = writer.store.next_message(writer.receiver).await? {
            writer.store(batch, None).await?;
            let is_reader_ahead = !writer.receiver.is_empty();
            if is_reader_ahead && self.open(&mut writer.store.session).await? {
                self.store_in_parallel(&mut writer).await?;
            }
        }
        Ok(())
    }

    /// Stores batches of different sources, several at the same time. No two may be of one source.
    /// Returns one result per batch, in the same order.
    pub async fn store_independent(
        &mut self,
        session: &mut Session<'_>,
        batches: Vec<(Claim, Batch)>,
    ) -> Vec<Result<BatchEnd, WriteError>> {
        if batches.len() > 1
            && let Err(error) = self.open(session).await
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
            results.push(store_batch(session, &claim, batch, None).await);
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
                    Err(error) => store_batch(session, &claim, batch, Some(error)).await,
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
            session
                .repeat(async |connection| db::open_chunks(connection, 0).await)
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

    /// Stores batches in parallel until the channel is closed or a failure was recovered from. No
    /// batch is in progress when this returns.
    async fn store_in_parallel(
        &mut self,
        writer: &mut SourceWriter<'_, '_>,
    ) -> Result<(), WriteError> {
        let mut tasks = VecDeque::new();
        let result = self.run_tasks(writer, &mut tasks).await;
        for outcome in abort_all(&mut tasks).await {
            // The task that had the permit may have committed.
            if outcome.result.is_ok() {
                writer.committed(&outcome.batch.end);
            }
        }
        result
    }

    async fn run_tasks(
        &mut self,
        writer: &mut SourceWriter<'_, '_>,
        tasks: &mut VecDeque<CopyTask>,
    ) -> Result<(), WriteError> {
        let mut ended = false;
        while !(ended && tasks.is_empty()) {
            writer.store.check_inventory_if_due().await?;
            let check = writer.store.check_due();
            tokio::select! {
                outcome = first_outcome(tasks), if !tasks.is_empty() => {
                    tasks.pop_front();
                    let CopyOutcome { connection, batch, result } = outcome;
                    if let Err(error) = result {
                        return self.store_one_by_one(writer, tasks, (batch, error)).await;
                    }
                    writer.committed(&batch.end);
                    self.idle.push(connection);
                    permit_first(tasks, writer.claim);
                }
                batch = writer.receiver.recv(), if !ended && !self.idle.is_empty() => match batch {
                    Some(batch) => {
                        let connection = self.idle.pop().expect("a connection is idle");
                        tasks.push_back(CopyTask::start(connection, batch));
                        permit_first(tasks, writer.claim);
                    }
                    None => ended = true,
                },
                () = sleep_until(check.into()) => {}
            }
        }
        Ok(())
    }

    /// Stores the batches in progress, the first of which has failed.
    async fn store_one_by_one(
        &mut self,
        writer: &mut SourceWriter<'_, '_>,
        tasks: &mut VecDeque<CopyTask>,
        (batch, error): (Batch, WriteError),
    ) -> Result<(), WriteError> {
        // The other sessions may be broken, too.
        self.idle.clear();
        let others: Vec<Batch> = abort_all(tasks)
            .await
            .into_iter()
            .map(|outcome| outcome.batch)
            .collect();
        let mut failed = Some(error);
        for batch in std::iter::once(batch).chain(others) {
            writer.store(batch, failed.take()).await?;
        }
        Ok(())
    }
}

impl SourceWriter<'_, '_> {
    /// Stores a batch on the main connection; `failed` is the error of a first attempt elsewhere.
    async fn store(&mut self, batch: Batch, failed: Option<WriteError>) -> Result<(), WriteError> {
        let session = &mut self.store.session;
        let end = store_batch(session, self.claim, batch, failed).await?;
        self.committed(&end);
        Ok(())
    }

    fn committed(&mut self, end: &BatchEnd) {
        self.store.committed(self.claim, end);
    }
}

impl CopyTask {
    fn start(connection: Connection, batch: Batch) -> Self {
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
    mut batch: Batch,
    permitted: oneshot::Receiver<Claim>,
) -> CopyOutcome {
    let committed = async {
        let writer = copy(&mut connection, &mut batch).await?;
        let claim = permitted
            .await
            .map_err(|_| WriteError::Transient("the previous batch was not stored".into()))?;
        writer.commit(&claim, &batch.end).await
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
