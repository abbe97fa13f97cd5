//! Replays rejected records: one transaction takes some, then stores each or rejects it again.

use bytes::Bytes;
use tokio_postgres::Client;

use super::connect::Connection;
use super::copy::{BatchWriter, RecordDays};
use super::error::WriteError;

/// The most records of a replay transaction, and the most bytes.
const RECORDS_AT_ONCE: i64 = 5_000;
const BYTES_AT_ONCE: i64 = 4 * 1024 * 1024;

/// A rejected record, with the fields that parsing it again needs.
#[derive(Debug, Clone)]
pub struct TakenRecord {
    /// Its key in `rejected_records`.
    pub id: i64,
    /// The name of its source.
    pub source: String,
    /// Its line in the source.
    pub line: i64,
    /// The name of its format.
    pub format: String,
    /// The header line of its file, if the format is CSV.
    pub header: Option<Vec<u8>>,
    /// The record as it was read.
    pub raw: Vec<u8>,
}

/// Why a replayed record is rejected again.
#[derive(Debug, Clone)]
pub struct StillRejected {
    /// Its key in `rejected_records`.
    pub id: i64,
    /// The code of the reason.
    pub reason: &'static str,
    /// The invalid field, if the reason concerns one.
    pub field: Option<&'static str>,
    /// A description of the problem for users.
    pub detail: String,
}

/// A transaction that has locked rejected records, so that no other replay takes them. Dropping it
/// rolls back.
pub struct Replay<'a> {
    batch: BatchWriter<'a>,
}

impl<'a> Replay<'a> {
    /// Takes the next records with an id greater than `after`, in order. Returns no records at the
    /// end.
    ///
    /// # Errors
    /// Returns an error if the database is unreachable or rejects the statement.
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

    /// Moves the records `stored` to the usage records, with `tuples` encoded as for a batch;
    /// updates the reasons of `rejected`; and commits.
    ///
    /// # Errors
    /// Returns an error if the server rejects a statement; then nothing has changed. If the
    /// connection broke, [`count_rejected`] tells whether the transaction was committed.
    pub async fn commit(
        mut self,
        mut tuples: Bytes,
        stored: &[i64],
        days: &RecordDays,
        rejected: &[StillRejected],
    ) -> Result<(), WriteError> {
        let rows = stored.len() as u64;
        self.batch.copy(&mut tuples, rows).await?;
        let transaction = self.batch.transaction();
        let deleted: i64 = transaction
            .query_one(
                include_str!("../../sql/ingest/delete_rejected.sql"),
                &[&stored],
            )
            .await?
            .get("count");
        if u64::try_from(deleted) != Ok(rows) {
            let text = format!("only {deleted} of {rows} rejected records still exist");
            return Err(WriteError::Refused(text.into()));
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
        self.batch.add_days(days).await?;
        self.batch.commit_transaction().await
    }
}

/// Counts how many of the rejected records still exist. Waits for a transaction that is deleting
/// them.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects the statement.
pub async fn count_rejected(client: &Client, ids: &[i64]) -> Result<usize, WriteError> {
    let row = client
        .query_one(include_str!("../../sql/ingest/count_rejected.sql"), &[&ids])
        .await?;
    Ok(usize::try_from(row.get::<_, i64>(0)).unwrap_or_default())
}
