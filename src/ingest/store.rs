//! Stores one batch: copies it, commits it, and finds out whether an unanswered commit succeeded.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc::Receiver;
use tokio::time::timeout_at;

use super::inventory::{CurrentInventory, SharedEncoder};
use super::pending_batch::{Message, PartialBatch};
use super::refresher::Refresher;
use super::session::Session;
use super::summary::Tally;
use crate::db::{self, BatchEnd, BatchWriter, Claim, Connection, Outcome, WriteError};

/// The main connection of a run, with what happens after each commit: counting and refreshing.
pub(super) struct Store<'s> {
    pub session: Session<'s>,
    pub tally: Tally,
    pub refresher: Refresher,
    /// `None` until it is needed.
    pub inventory: Option<CurrentInventory>,
}

impl Store<'_> {
    /// Receives the next message. Meanwhile, refreshes the aggregates when that is due, and follows
    /// changes of the inventory. Returns `None` once the channel is closed.
    ///
    /// # Errors
    /// Returns an error if a refresh fails.
    pub async fn next_message<T>(
        &mut self,
        receiver: &mut Receiver<T>,
    ) -> Result<Option<T>, WriteError> {
        loop {
            // Both come first, even if a message is always waiting.
            if self.refresher.is_due() {
                self.refresh().await?;
            }
            self.check_inventory_if_due().await?;
            let refresh = self.refresher.due();
            let check = self.inventory.as_ref().map(CurrentInventory::due);
            let Some(due) = refresh.into_iter().chain(check).min() else {
                return Ok(receiver.recv().await);
            };
            if let Ok(message) = timeout_at(due.into(), receiver.recv()).await {
                return Ok(message);
            }
        }
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

    /// Refreshes the aggregates.
    ///
    /// # Errors
    /// Returns an error if the database is unavailable for too long or rejects a statement.
    pub async fn refresh(&mut self) -> Result<(), WriteError> {
        self.refresher.refresh(&mut self.session).await
    }

    /// Records that a batch was committed.
    pub fn committed(&mut self, claim: &mut Claim, end: &BatchEnd) {
        claim.advance(end.checkpoint.position);
        self.tally.add_batch(end);
        self.refresher.schedule();
    }
}

/// Stores one batch, reconnecting as often as necessary. The part of `batch` that is missing comes
/// from `receiver`. `failed` is the error of a first attempt made elsewhere. Returns `None` if the
/// channel closed before the batch was complete.
///
/// # Errors
/// Returns an error if the database is unavailable for too long or rejects the batch, or if another
/// process has moved the source. The batch is not stored then.
pub(super) async fn store_batch(
    session: &mut Session<'_>,
    claim: &Claim,
    mut receiver: Option<&mut Receiver<Message>>,
    mut batch: PartialBatch,
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
                    &mut batch,
                )
                .await
                {
                    Ok(()) => {
                        session.succeeded();
                        return Ok(batch.end);
                    }
                    Err(error) => error,
                }
            }
        };
        session.recover(error).await?;
        // The connection may have broken before or during the commit. The ledger says which.
        let Some(end) = &batch.end else { continue };
        let position = end.checkpoint.position;
        match session
            .repeat(async |connection| db::outcome(connection, claim, position).await)
            .await?
        {
            Outcome::Committed => return Ok(batch.end),
            Outcome::RolledBack => {}
            Outcome::Overtaken => return Err(WriteError::Overtaken),
        }
    }
}

async fn attempt(
    connection: &mut Connection,
    claim: &Claim,
    receiver: Option<&mut Receiver<Message>>,
    batch: &mut PartialBatch,
) -> Result<(), WriteError> {
    let writer = copy(connection, receiver, batch).await?;
    match &batch.end {
        Some(end) => writer.commit(claim, end).await,
        None => Ok(()),
    }
}

/// Copies the received part of a batch, then the rest as it arrives. When this returns and the
/// batch has an end, the server has received all of it, and only the commit remains.
///
/// # Errors
/// Returns an error if the database is unavailable or rejects a record.
pub(super) async fn copy<'a>(
    connection: &'a mut Connection,
    receiver: Option<&mut Receiver<Message>>,
    batch: &mut PartialBatch,
) -> Result<BatchWriter<'a>, WriteError> {
    let copying = |error: WriteError| error.during("copying usage records");
    let mut writer = BatchWriter::begin(connection)
        .await
        .map_err(|error| error.during("beginning a batch"))?;
    for piece in &batch.pieces {
        writer.write(piece.clone()).await.map_err(copying)?;
    }
    if let Some(receiver) = receiver {
        while batch.end.is_none() {
            match batch.add(receiver.recv().await) {
                Some(piece) => writer.write(piece).await.map_err(copying)?,
                None => break,
            }
        }
    }
    if let Some(end) = &batch.end {
        writer.finish_copy(end.rows).await?;
    }
    Ok(writer)
}
