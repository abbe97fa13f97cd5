//! Rejected records that are tried again: taken, and stored or rejected anew, in one transaction.

use bytes::Bytes;
use tokio_postgres::Client;

use super::connect::Connection;
use super::copy::BatchWriter;
use super::error::WriteError;
use super::refresh::note_stale_hours;
use crate::domain::Interval;

/// How many records are tried at once, and how many bytes they may have together.
const RECORDS_AT_ONCE: i64 = 5_000;
const BYTES_AT_ONCE: i64 = 4 * 1024 * 1024;

/// A rejected record, as far as it takes to try it again.
#[derive(Debug, Clone)]
pub struct TakenRecord {
    /// Its number.
    pub id: i64,
    /// Where it came from.
    pub source: String,
    /// Its line there.
    pub line: i64,
    /// The name of its format.
    pub format: String,
    /// The header it stood under, if it was CSV.
    pub header: Option<Vec<u8>>,
    /// The record as it was read.
    pub raw: Vec<u8>,
}

/// What is wrong with a record that was tried again.
#[derive(Debug, Clone)]
pub struct StillRejected {
    /// Its number.
    pub id: i64,
    /// The reason's code.
    pub reason: &'static str,
    /// The field at fault.
    pub field: Option<&'static str>,
    /// What is wrong, in words.
    pub detail: String,
}

/// A transaction that holds some rejected records, so that no other replay tries them. Dropping it rolls back.
pub struct Replay<'a> {
    batch: BatchWriter<'a>,
}

impl<'a> Replay<'a> {
    /// Takes the next records behind the one numbered `after`, by their numbers. No records: there are none left.
    ///
    /// # Errors
    /// The database refuses or is away.
    pub async fn take(
        connection: &'a mut Connection,
        after: i64,
    ) -> Result<(Replay<'a>, Vec<TakenRecord>), WriteError> {
        let batch = BatchWriter::begin(connection).await?;
        let take = include_str!("../../sql/ingest/take_rejected.sql");
        let rows = batch
            .transaction()
            .query(take, &[&after, &RECORDS_AT_ONCE, &BYTES_AT_ONCE])
            .await?;
        let records = rows.iter().map(|row| TakenRecord {
            id: row.get("id"),
            source: row.get("source"),
            line: row.get("line"),
            format: row.get("format"),
            header: row.get("header"),
            raw: row.get("raw"),
        });
        Ok((Self { batch }, records.collect()))
    }

    /// Stores the records that can be stored now, encoded as for a batch, which takes them off the rejected ones;
    /// notes what is wrong with the others; and commits.
    ///
    /// # Errors
    /// The server refuses, and nothing has changed. Or the connection broke: then [`count_rejected`] knows.
    pub async fn commit(
        mut self,
        tuples: Bytes,
        stored: &[i64],
        hours: &[Interval],
        rejected: &[StillRejected],
    ) -> Result<(), WriteError> {
        if !stored.is_empty() {
            self.batch.write(tuples).await?;
        }
        let rows = stored.len() as u64;
        self.batch.finish_copy(rows).await?;
        let transaction = self.batch.transaction();
        let deleted = transaction
            .execute(
                include_str!("../../sql/ingest/delete_rejected.sql"),
                &[&stored],
            )
            .await?;
        if deleted != rows {
            return Err(WriteError::Refused(format!(
                "{deleted} of {rows} rejected records are still there"
            )));
        }
        let ids: Vec<i64> = rejected.iter().map(|record| record.id).collect();
        let reasons: Vec<&str> = rejected.iter().map(|record| record.reason).collect();
        let fields: Vec<Option<&str>> = rejected.iter().map(|record| record.field).collect();
        let details: Vec<&str> = rejected
            .iter()
            .map(|record| record.detail.as_str())
            .collect();
        let again = include_str!("../../sql/ingest/reject_again.sql");
        transaction
            .execute(
                again,
                &[
                    &ids,
                    &reasons,
                    &fields,
                    &details,
                    &env!("CARGO_PKG_VERSION"),
                ],
            )
            .await?;
        note_stale_hours(transaction, hours).await?;
        self.batch.commit_alone().await
    }
}

/// How many of some rejected records there are still. Where the server is still at work on a transaction that
/// deletes them, this waits for it to end.
///
/// # Errors
/// The database refuses or is away.
pub async fn count_rejected(client: &Client, ids: &[i64]) -> Result<usize, WriteError> {
    let row = client
        .query_one(include_str!("../../sql/ingest/count_rejected.sql"), &[&ids])
        .await?;
    Ok(usize::try_from(row.get::<_, i64>(0)).unwrap_or_default())
}
