//! Stores one batch: copies it, commits it, and finds out whether an unanswered commit succeeded.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc::Receiver;
use tokio::time::timeout_at;

use super::batch::Batch;
use super::closer::Closer;
use super::inventory::{CHECK_EVERY, CurrentInventory, SharedEncoder};
use super::session::Session;
use super::summary::Tally;
use crate::db::{self, BatchEnd, BatchWriter, Claim, Connection, Outcome, WriteError};

/// The main connection of a run, with what happens after each commit: counting and closing.
pub(super) struct Store<'s> {
    pub session: Session<'s>,
    pub tally: Tally,
    pub closer: Closer,
    /// `None` until it is needed.
    pub inventory: Option<CurrentInventory>,
}

impl Store<'_> {
    /// Receives the next message, and meanwhile follows changes of the inventory. Returns `None` once
    /// the channel is closed.
    ///
    /// # Errors
    /// Returns an error if the database rejects a query.
    pub async fn next_message<T>(
        &mut self,
        receiver: &mut Receiver<T>,
    ) -> Result<Option<T>, WriteError> {
        loop {
            // First, even if a message is always waiting.
            self.check_inventory_if_due().await?;
            if let Ok(message) = timeout_at(self.check_due().into(), receiver.recv()).await {
                return Ok(message);
            }
        }
    }

    /// When the next check of the inventory is due.
    pub fn check_due(&self) -> Instant {
        self.inventory
            .as_ref()
            .map_or_else(|| Instant::now() + CHECK_EVERY, CurrentInventory::due)
    }

    /// Loads the inventory again if it has changed, unless that was checked a moment ago.
    ///
    /// # Errors
    /// Returns an error if the database rejects a query.
    pub async fn check_inventory_if_due(&mut self) -> Result<(), WriteError> {
        match &mut self.inventory {
            Some(inventory) if inventory.due() <= Instant::now() => {
                inventory.check(&mut self.session).await
            }
            _ => Ok(()),
        }
    }

    /// The encoder for the newest inventory, which is loaded if it is not yet.
    ///
    /// # Errors
    /// Returns an error if the database is unavailable for too long or rejects the query.
    pub async fn encoder(&mut self) -> Result<Arc<SharedEncoder>, WriteError> {
        let inventory = match &mut self.inventory {
            Some(inventory) => inventory,
            none => none.insert(CurrentInventory::load(&mut self.session).await?),
        };
        Ok(inventory.encoder())
    }

    /// Records that a batch was committed.
    pub fn committed(&mut self, claim: &mut Claim, end: &BatchEnd) {
        claim.advance(end.checkpoint.position);
        self.tally.add_batch(end);
        self.closer.committed();
    }
}

/// Stores one batch, reconnecting as often as necessary. `failed` is the error of a first attempt
/// made elsewhere.
///
/// # Errors
/// Returns an error if the database is unavailable for too long or rejects the batch, or if another
/// process has moved the source. The batch is not stored then.
pub(super) async fn store_batch(
    session: &mut Session<'_>,
    claim: &Claim,
    mut batch: Batch,
    mut failed: Option<WriteError>,
) -> Result<BatchEnd, WriteError> {
    loop {
        let error = match failed.take() {
            Some(error) => error,
            None => match attempt(session.connection(), claim, &mut batch).await {
                Ok(()) => {
                    session.succeeded();
                    return Ok(batch.end);
                }
                Err(error) => error,
            },
        };
        if error == WriteError::Overtaken {
            return Err(why_moved(session, claim).await);
        }
        session.recover(error).await?;
        // The connection may have broken before or during the commit. The ledger says which.
        let position = batch.end.checkpoint.position;
        match session
            .repeat(async |connection| db::outcome(connection, claim, position).await)
            .await?
        {
            Outcome::Committed => return Ok(batch.end),
            Outcome::RolledBack => {}
            Outcome::Overtaken => return Err(why_moved(session, claim).await),
        }
    }
}

/// Why a source is not where this run left it.
async fn why_moved(session: &mut Session<'_>, claim: &Claim) -> WriteError {
    match ensure_still_stored(session, claim).await {
        Ok(()) => WriteError::Overtaken,
        Err(error) => error,
    }
}

/// Checks that the database still has what this run has stored of a source.
///
/// # Errors
/// Returns an error if it has lost some of that, or is unavailable for too long.
pub(super) async fn ensure_still_stored(
    session: &mut Session<'_>,
    claim: &Claim,
) -> Result<(), WriteError> {
    let lost_from = session.repeat(async |connection| db::lost_from(connection, claim).await);
    match lost_from.await? {
        Some(position) => Err(WriteError::CommitsLost(position)),
        None => Ok(()),
    }
}

async fn attempt(
    connection: &mut Connection,
    claim: &Claim,
    batch: &mut Batch,
) -> Result<(), WriteError> {
    let writer = copy(connection, batch).await?;
    writer.commit(claim, &batch.end).await
}

/// Copies a batch. When this returns, the server has received all of it, and only the commit
/// remains.
///
/// # Errors
/// Returns an error if the database is unavailable or rejects a record.
pub(super) async fn copy<'a>(
    connection: &'a mut Connection,
    batch: &mut Batch,
) -> Result<BatchWriter<'a>, WriteError> {
    let mut writer = BatchWriter::begin(connection)
        .await
        .map_err(|error| error.during("beginning a batch"))?;
    writer
        .copy(&mut batch.tuples, batch.end.rows)
        .await
        .map_err(|error| error.during("copying usage records"))?;
    Ok(writer)
}
