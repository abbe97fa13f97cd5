//! Stores batches of usage records by binary COPY. The transaction of a batch also stores its
//! rejected records, its stale hours and the new position of its source.

use bytes::{BufMut as _, Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures_util::SinkExt as _;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{CopyInSink, Transaction};

use super::binary_format::{HEADER, POSTGRES_EPOCH_US, TRAILER};
use super::connect::Connection;
use super::error::WriteError;
use super::inventory_index::RecordIds;
use super::refresh::add_stale_hours;
use super::sources::{Checkpoint, Claim};
use crate::domain::Interval;
use crate::failpoint;

const COPY_USAGE_RECORDS: &str = include_str!("../../sql/ingest/copy_usage_records.sql");
const COPY_REJECTED_RECORDS: &str = include_str!("../../sql/ingest/copy_rejected_records.sql");

/// The size of an encoded usage record: a field count, and four fields with their lengths.
pub const TUPLE_BYTES: usize = 2 + (4 + 8) + (4 + 4) + (4 + 4) + (4 + 8);

/// Appends a usage record in the binary format of COPY, with the columns of
/// `copy_usage_records.sql`.
pub fn encode_usage_record(buffer: &mut BytesMut, time_us: i64, ids: RecordIds, bytes: i64) {
    let mut tuple = [0; TUPLE_BYTES];
    let mut rest = tuple.as_mut_slice();
    rest.put_i16(4);
    rest.put_i32(8);
    rest.put_i64(time_us - POSTGRES_EPOCH_US);
    rest.put_i32(4);
    rest.put_i32(ids.sim_card);
    rest.put_i32(4);
    rest.put_i32(ids.organization);
    rest.put_i32(8);
    rest.put_i64(bytes);
    buffer.extend_from_slice(&tuple);
}

/// A record that could not be stored.
#[derive(Debug, Clone)]
pub struct RejectedRecord {
    /// The name of its source.
    pub source: std::sync::Arc<str>,
    /// The offset of its first byte in the source.
    pub position: i64,
    /// Counted from 1.
    pub line: i64,
    /// The name of its format.
    pub format: &'static str,
    /// The header line of its file, if the format is CSV.
    pub header: Option<Bytes>,
    /// The code of the reason.
    pub reason: &'static str,
    /// The invalid field, if the reason concerns one.
    pub field: Option<&'static str>,
    /// A description of the problem for users.
    pub detail: String,
    /// The record as it was read.
    pub raw: Vec<u8>,
}

/// The end of a batch, after its usage records.
#[derive(Debug)]
pub struct BatchEnd {
    /// The number of usage records sent.
    pub rows: u64,
    /// In the order of the source.
    pub rejected: Vec<RejectedRecord>,
    /// The hours of the usage records.
    pub hours: Vec<Interval>,
    /// The time of the newest usage record; `None` if all were rejected.
    pub newest_record_at: Option<DateTime<Utc>>,
    /// The position after the batch's last record.
    pub checkpoint: Checkpoint,
}

/// A transaction that stores one batch. Dropping it rolls back.
pub struct BatchWriter<'a> {
    transaction: Transaction<'a>,
    /// The COPY, which starts with the first usage record.
    sink: Option<std::pin::Pin<Box<CopyInSink<Bytes>>>>,
}

impl<'a> BatchWriter<'a> {
    /// Begins the transaction.
    ///
    /// # Errors
    /// Returns an error if the database is unreachable or rejects the statement.
    pub async fn begin(connection: &'a mut Connection) -> Result<Self, WriteError> {
        failpoint::pass("before-begin");
        Ok(Self {
            transaction: connection.transaction().await?,
            sink: None,
        })
    }

    /// Sends usage records, encoded by [`encode_usage_record`].
    ///
    /// # Errors
    /// Returns an error if the connection broke. The server reports invalid records only at the end
    /// of the COPY.
    pub async fn write(&mut self, tuples: Bytes) -> Result<(), WriteError> {
        let sink = match &mut self.sink {
            Some(sink) => sink,
            none => {
                let sink = none.insert(Box::pin(
                    self.transaction.copy_in(COPY_USAGE_RECORDS).await?,
                ));
                sink.send(Bytes::from_static(HEADER)).await?;
                sink
            }
        };
        Ok(sink.send(tuples).await?)
    }

    /// Stores the rest of the batch, advances the claim's source past it, and commits. If an
    /// earlier run rejected an unfinished last line that was read again, its rejected record is
    /// replaced.
    ///
    /// # Errors
    /// Returns an error if the server rejects a statement or another process has advanced the
    /// source; then nothing of the batch is stored. If the connection broke, [`super::outcome`]
    /// tells whether the batch is stored.
    pub async fn commit(self, claim: &Claim, end: &BatchEnd) -> Result<(), WriteError> {
        let replaced = if claim.resumable && !claim.moved {
            let delete = include_str!("../../sql/ingest/delete_unfinished_line.sql");
            self.transaction
                .execute(delete, &[&claim.id, &claim.position])
                .await?
        } else {
            0
        };
        if !end.rejected.is_empty() {
            let source_id = claim.resumable.then_some(claim.id);
            let stored = copy_rejected(&self.transaction, source_id, &end.rejected).await;
            stored.map_err(|error| error.during("storing rejected records"))?;
        }
        failpoint::pass("after-rejects");
        add_stale_hours(&self.transaction, &end.hours).await?;
        self.advance(claim, end, replaced).await?;
        self.commit_transaction().await
    }

    /// Ends the COPY, and checks that the server has stored `rows` records.
    ///
    /// # Errors
    /// Returns an error if the server rejects a record or the connection broke.
    pub async fn finish_copy(&mut self, rows: u64) -> Result<(), WriteError> {
        let stored = match self.sink.take() {
            Some(mut sink) => {
                sink.send(Bytes::from_static(TRAILER)).await?;
                sink.as_mut().finish().await?
            }
            None => 0,
        };
        failpoint::pass("after-copy");
        if stored == rows {
            Ok(())
        } else {
            let text = format!("the server stored {stored} of {rows} records");
            Err(WriteError::Refused(text.into()))
        }
    }

    /// The transaction, for further statements.
    pub(super) fn transaction(&self) -> &Transaction<'a> {
        &self.transaction
    }

    /// Commits without advancing a source.
    ///
    /// # Errors
    /// Returns an error if the server rejects the commit or the connection broke.
    pub(super) async fn commit_transaction(self) -> Result<(), WriteError> {
        failpoint::pass("before-commit");
        self.transaction
            .commit()
            .await
            .map_err(|error| WriteError::from(error).during("committing a batch"))?;
        failpoint::pass("after-commit");
        Ok(())
    }

    async fn advance(
        &self,
        claim: &Claim,
        end: &BatchEnd,
        replaced: u64,
    ) -> Result<(), WriteError> {
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let (stored, rejected) = (
            count(end.rows),
            count(end.rejected.len() as u64) - count(replaced),
        );
        let Checkpoint {
            position,
            line,
            prefix_hash,
        } = &end.checkpoint;
        let parameters: [&(dyn ToSql + Sync); 11] = [
            &claim.id,
            &claim.position,
            &claim.batches,
            position,
            line,
            &prefix_hash.as_ref().map(<[u8; 32]>::as_slice),
            &claim.name.as_ref(),
            &claim.writer,
            &stored,
            &rejected,
            &end.newest_record_at,
        ];
        let advance = include_str!("../../sql/ingest/advance_source.sql");
        match self.transaction.execute(advance, &parameters).await? {
            1 => Ok(()),
            _ => Err(WriteError::Overtaken),
        }
    }
}

async fn copy_rejected(
    transaction: &Transaction<'_>,
    source_id: Option<i64>,
    rejected: &[RejectedRecord],
) -> Result<(), WriteError> {
    let types = [
        Type::TEXT,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::TEXT,
        Type::BYTEA,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::BYTEA,
        Type::TEXT,
    ];
    let sink = transaction.copy_in(COPY_REJECTED_RECORDS).await?;
    let mut writer = std::pin::pin!(BinaryCopyInWriter::new(sink, &types));
    for record in rejected {
        let source = record.source.as_ref();
        let header = record.header.as_deref();
        let version = env!("CARGO_PKG_VERSION");
        let row: [&(dyn ToSql + Sync); 11] = [
            &source,
            &source_id,
            &record.position,
            &record.line,
            &record.format,
            &header,
            &record.reason,
            &record.field,
            &record.detail,
            &record.raw,
            &version,
        ];
        writer.as_mut().write(&row).await?;
    }
    writer.as_mut().finish().await?;
    Ok(())
}
