//! Batches of usage records by binary COPY, each batch with its rejected records in one transaction.

use anyhow::Context as _;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::SinkExt as _;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{CopyInSink, Transaction};

use super::connect::Connection;
use super::error::explained;
use super::inventory::Stamp;

const COPY_USAGE_RECORDS: &str = include_str!("../../sql/ingest/copy_usage_records.sql");
const COPY_REJECTED_RECORDS: &str = include_str!("../../sql/ingest/copy_rejected_records.sql");

/// Signature, flags and length of the header extension, as PostgreSQL's manual has them under COPY.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// The field count -1 that ends the data.
const TRAILER: &[u8] = &(-1_i16).to_be_bytes();

/// 2000-01-01T00:00:00Z, from where PostgreSQL counts, in microseconds since 1970.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// Bytes of one encoded usage record: a field count, and four fields with their lengths.
pub const TUPLE_BYTES: usize = 2 + (4 + 8) + (4 + 4) + (4 + 4) + (4 + 8);

/// Appends a usage record as COPY's binary format has it: columns and order of `copy_usage_records.sql`.
pub fn encode_usage_record(buffer: &mut BytesMut, time_us: i64, stamp: Stamp, bytes: i64) {
    let mut tuple = [0; TUPLE_BYTES];
    let mut rest = tuple.as_mut_slice();
    rest.put_i16(4);
    rest.put_i32(8);
    rest.put_i64(time_us - POSTGRES_EPOCH_US);
    rest.put_i32(4);
    rest.put_i32(stamp.sim_card);
    rest.put_i32(4);
    rest.put_i32(stamp.organization);
    rest.put_i32(8);
    rest.put_i64(bytes);
    buffer.extend_from_slice(&tuple);
}

/// A record that could not be stored.
#[derive(Debug, Clone)]
pub struct RejectedRecord {
    /// Where it came from.
    pub source: std::sync::Arc<str>,
    /// Offset of its first byte in the source.
    pub position: i64,
    /// Its line, from 1.
    pub line: i64,
    /// The reason's code.
    pub reason: &'static str,
    /// The field at fault.
    pub field: Option<&'static str>,
    /// What is wrong, in words.
    pub detail: String,
    /// The record as it was read.
    pub raw: Vec<u8>,
}

/// A transaction that stores one batch. Dropping it rolls back.
pub struct BatchWriter<'a> {
    transaction: Transaction<'a>,
    /// Open from the first usage record on.
    sink: Option<std::pin::Pin<Box<CopyInSink<Bytes>>>>,
}

impl<'a> BatchWriter<'a> {
    /// Begins a batch.
    ///
    /// # Errors
    /// The database refuses or is away.
    pub async fn begin(connection: &'a mut Connection) -> anyhow::Result<Self> {
        let transaction = connection.transaction().await.map_err(explained).context("beginning a batch")?;
        Ok(Self { transaction, sink: None })
    }

    /// Sends usage records, encoded by [`encode_usage_record`].
    ///
    /// # Errors
    /// The connection broke. What the server has against the records appears in [`Self::commit`] only.
    pub async fn write(&mut self, tuples: Bytes) -> anyhow::Result<()> {
        let sink = match &mut self.sink {
            Some(sink) => sink,
            none => {
                let sink = self.transaction.copy_in(COPY_USAGE_RECORDS).await.map_err(explained)?;
                let sink = none.insert(Box::pin(sink));
                sink.send(Bytes::from_static(HEADER)).await.map_err(explained)?;
                sink
            }
        };
        sink.send(tuples).await.map_err(explained)
    }

    /// Adds the rejected records and commits. Returns how many usage records the server stored.
    ///
    /// # Errors
    /// The server refuses a record or the commit, or the connection broke; then nothing of the batch is stored.
    pub async fn commit(mut self, rejected: &[RejectedRecord]) -> anyhow::Result<u64> {
        let stored = match self.sink.take() {
            Some(mut sink) => {
                sink.send(Bytes::from_static(TRAILER)).await.map_err(explained)?;
                sink.as_mut().finish().await.map_err(explained)?
            }
            None => 0,
        };
        if !rejected.is_empty() {
            copy_rejected(&self.transaction, rejected).await.context("storing rejected records")?;
        }
        self.transaction.commit().await.map_err(explained).context("committing a batch")?;
        Ok(stored)
    }
}

async fn copy_rejected(transaction: &Transaction<'_>, rejected: &[RejectedRecord]) -> anyhow::Result<()> {
    let types = [Type::TEXT, Type::INT8, Type::INT8, Type::TEXT, Type::TEXT, Type::TEXT, Type::BYTEA, Type::TEXT];
    let sink = transaction.copy_in(COPY_REJECTED_RECORDS).await.map_err(explained)?;
    let mut writer = std::pin::pin!(BinaryCopyInWriter::new(sink, &types));
    for record in rejected {
        let source = record.source.as_ref();
        let version = env!("CARGO_PKG_VERSION");
        let row: [&(dyn ToSql + Sync); 8] = [
            &source,
            &record.position,
            &record.line,
            &record.reason,
            &record.field,
            &record.detail,
            &record.raw,
            &version,
        ];
        writer.as_mut().write(&row).await.map_err(explained)?;
    }
    writer.as_mut().finish().await.map_err(explained)?;
    Ok(())
}
