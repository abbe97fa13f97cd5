//! Stores one batch: copies it, commits it, and finds out whether an unanswered commit succeeded.

use tokio::sync::mpsc::Receiver;

use super::pending_batch::{Message, PartialBatch};
use super::refresher::{self, Refresher};
use super::session::Session;
use super::summary::Tally;
use crate::db::{self, BatchEnd, BatchWriter, Claim, Connection, Outcome, WriteError};

/// The main connection of a run, with what happens after each commit: counting and refreshing.
pub(super) struct Store<'s> {
    pub session: Session<'s>,
    pub tally: Tally,
    pub refresher: Refresher,
}

impl Store<'_> {
    /// Receives the next message, and refreshes the aggregates when that is due.
    ///
    /// # Errors
    /// Returns an error if a refresh fails.
    pub async fn next_message<T>(
        &mut self,
        receiver: &mut Receiver<T>,
    ) -> Result<Option<T>, WriteError> {
        refresher::next_message(&mut self.session, receiver, &mut self.refresher).await
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
