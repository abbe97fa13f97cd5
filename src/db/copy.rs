//! Stores batches of usage records by binary COPY. The transaction of a batch also stores its
//! rejected records, the days of its records and the new position of its source.

use bytes::{BufMut as _, Bytes, BytesMut};
use chrono::{DateTime, NaiveDate, Utc};
use futures_util::SinkExt as _;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{CopyInSink, Transaction};

use super::binary_format::{HEADER, POSTGRES_EPOCH_US, TRAILER};
use super::connect::Connection;
use super::error::WriteError;
use super::inventory_index::RecordIds;
use super::sources::{Checkpoint, Claim};
use crate::failpoint;

const COPY_BULK: &str = include_str!("../../sql/ingest/copy_bulk.sql");
const COPY_RECENT: &str = include_str!("../../sql/ingest/copy_recent.sql");
const COPY_REJECTED_RECORDS: &str = include_str!("../../sql/ingest/copy_rejected_records.sql");

/// The size of an encoded usage record: a field count, and five fields with their lengths.
pub const TUPLE_BYTES: usize = 2 + (4 + 8) + (4 + 8) + (4 + 4) + (4 + 4) + (4 + 8);

/// Where the fields are in an encoded usage record.
const POSTING: std::ops::Range<usize> = 6..14;
const TIME: std::ops::Range<usize> = 18..26;
const SIM_CARD: std::ops::Range<usize> = 30..34;

/// The size of a COPY message.
const MESSAGE_BYTES: usize = 256 * 1024;

/// A batch with at least this many records goes to the columnstore directly. Smaller ones would
/// fill it with small batches.
const BULK_RECORDS: u64 = 20_000;

/// A record of this many bytes or more is added up separately, as numeric: see migration 0002.
const LARGE_BYTES: i64 = 1 << 38;

/// Appends a usage record in the binary format of COPY, with the columns of `copy_bulk.sql`. The
/// posting is yet to be set.
pub fn encode_usage_record(buffer: &mut BytesMut, time_us: i64, ids: RecordIds, bytes: i64) {
    let mut tuple = [0; TUPLE_BYTES];
    let mut rest = tuple.as_mut_slice();
    rest.put_i16(5);
    rest.put_i32(8);
    rest.put_i64(0);
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

/// Sets the posting of encoded usage records.
pub(super) fn set_posting(tuples: &mut [u8], posting: i64) {
    for tuple in tuples.chunks_exact_mut(TUPLE_BYTES) {
        tuple[POSTING].copy_from_slice(&posting.to_be_bytes());
    }
}

/// Sorts encoded usage records by SIM card and time in seconds, as the columnstore does. The server
/// takes three times as long.
#[must_use]
pub fn sorted(tuples: &[u8]) -> BytesMut {
    const SECOND_US: u64 = 1_000_000;
    let field = |tuple: &[u8], range| -> u64 {
        let mut bytes = [0; 8];
        let field: &[u8] = &tuple[range];
        bytes[8 - field.len()..].copy_from_slice(field);
        u64::from_be_bytes(bytes)
    };
    // Times are signed; this keeps their order.
    let second = |tuple: &[u8]| (field(tuple, TIME) ^ (1 << 63)) / SECOND_US;
    let seconds = || tuples.chunks_exact(TUPLE_BYTES).map(second);
    let first = seconds().min().unwrap_or_default();
    let last = seconds().max().unwrap_or_default();
    // Records are often in the order of time already, and the sort is stable.
    let time_bits = if seconds().is_sorted() {
        0
    } else {
        u64::BITS - (last - first).leading_zeros()
    };
    let keys = tuples.chunks_exact(TUPLE_BYTES).map(|tuple| {
        let time = if time_bits == 0 {
            0
        } else {
            second(tuple) - first
        };
        (field(tuple, SIM_CARD) << time_bits) | time
    });
    let mut sorted = BytesMut::with_capacity(tuples.len());
    for index in radix_order(keys) {
        let start = index as usize * TUPLE_BYTES;
        sorted.extend_from_slice(&tuples[start..start + TUPLE_BYTES]);
    }
    sorted
}

/// The indexes of keys in ascending order; equal keys keep theirs.
fn radix_order(keys: impl Iterator<Item = u64>) -> impl Iterator<Item = u32> {
    const DIGIT_BITS: u32 = 11;
    const DIGIT: u64 = (1 << DIGIT_BITS) - 1;
    let mut keys: Vec<(u64, u32)> = keys.zip(0..).collect();
    let mut moved = vec![(0, 0); keys.len()];
    let bits = u64::BITS
        - keys
            .iter()
            .fold(0, |all, (key, _)| all | key)
            .leading_zeros();
    for shift in (0..bits).step_by(DIGIT_BITS as usize) {
        let digit = |key: u64| usize::try_from((key >> shift) & DIGIT).unwrap_or_default();
        let mut ends = [0_usize; 1 << DIGIT_BITS];
        for &(key, _) in &keys {
            ends[digit(key)] += 1;
        }
        let mut sum = 0;
        for end in &mut ends {
            sum += std::mem::replace(end, sum);
        }
        for &entry in &keys {
            let place = &mut ends[digit(entry.0)];
            moved[*place] = entry;
            *place += 1;
        }
        std::mem::swap(&mut keys, &mut moved);
    }
    keys.into_iter().map(|(_, index)| index)
}

/// A table of usage records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// `usage_records`, in the columnstore.
    Bulk,
    /// `usage_records_recent`, in the row store.
    Recent,
}

impl Table {
    /// The table for a batch.
    fn of(records: u64) -> Self {
        if records < BULK_RECORDS {
            Self::Recent
        } else {
            Self::Bulk
        }
    }
}

/// Copies encoded usage records, and returns how many the server has stored.
pub(super) async fn copy_in(
    transaction: &Transaction<'_>,
    table: Table,
    tuples: &Bytes,
) -> Result<u64, tokio_postgres::Error> {
    let statement = match table {
        Table::Bulk => COPY_BULK,
        Table::Recent => COPY_RECENT,
    };
    let mut sink: std::pin::Pin<Box<CopyInSink<Bytes>>> =
        Box::pin(transaction.copy_in(statement).await?);
    sink.send(Bytes::from_static(HEADER)).await?;
    let mut rest = tuples.clone();
    while !rest.is_empty() {
        sink.send(rest.split_to(MESSAGE_BYTES.min(rest.len())))
            .await?;
    }
    sink.send(Bytes::from_static(TRAILER)).await?;
    sink.as_mut().finish().await
}

/// Which UTC days the records of a batch are of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordDays {
    days: Vec<NaiveDate>,
    records: Vec<i64>,
    is_large: bool,
}

impl RecordDays {
    /// Collects days with their numbers of records. `most_bytes` is the largest record.
    #[must_use]
    pub fn new(days: impl IntoIterator<Item = (NaiveDate, i64)>, most_bytes: i64) -> Self {
        let (days, records) = days.into_iter().unzip();
        Self {
            days,
            records,
            is_large: most_bytes >= LARGE_BYTES,
        }
    }
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
    /// The days of the usage records.
    pub days: RecordDays,
    /// The time of the newest usage record; `None` if all were rejected.
    pub newest_record_at: Option<DateTime<Utc>>,
    /// The position after the batch's last record.
    pub checkpoint: Checkpoint,
}

/// A transaction that stores one batch. Dropping it rolls back.
pub struct BatchWriter<'a> {
    transaction: Transaction<'a>,
    /// The number of its postings and their table; `None` without usage records.
    posting: Option<(i64, Table)>,
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
            posting: None,
        })
    }

    /// Stores `rows` usage records, encoded by [`encode_usage_record`], and checks that the server
    /// has stored as many. Sets their posting in `tuples`.
    ///
    /// # Errors
    /// Returns an error if the server rejects a record or the connection broke.
    pub async fn copy(&mut self, tuples: &mut Bytes, rows: u64) -> Result<(), WriteError> {
        let stored = if rows == 0 {
            0
        } else {
            let begin = include_str!("../../sql/ingest/begin_posting.sql");
            let posting = self.transaction.query_one(begin, &[]).await?.get("posting");
            let mut posted = match std::mem::take(tuples).try_into_mut() {
                Ok(tuples) => tuples,
                Err(shared) => BytesMut::from(shared.as_ref()),
            };
            set_posting(&mut posted, posting);
            *tuples = posted.freeze();
            let table = Table::of(rows);
            self.posting = Some((posting, table));
            copy_in(&self.transaction, table, tuples).await?
        };
        failpoint::pass("after-copy");
        if stored == rows {
            Ok(())
        } else {
            let text = format!("the server stored {stored} of {rows} records");
            Err(WriteError::Refused(text.into()))
        }
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
        self.add_days(&end.days).await?;
        self.advance(claim, end, replaced).await?;
        self.commit_transaction().await
    }

    /// Stores the days of the usage records.
    ///
    /// # Errors
    /// Returns an error if the server rejects the statement or the connection broke.
    pub(super) async fn add_days(&self, days: &RecordDays) -> Result<(), WriteError> {
        let Some((posting, table)) = &self.posting else {
            return Ok(());
        };
        let RecordDays {
            days,
            records,
            is_large,
        } = days;
        self.transaction
            .execute(
                include_str!("../../sql/ingest/add_posting_days.sql"),
                &[posting, days, records, is_large, &(*table == Table::Recent)],
            )
            .await?;
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_sorted_by_sim_card_and_time() {
        let encode = |records: &[(i32, i64)]| {
            let mut tuples = BytesMut::new();
            for &(sim_card, seconds) in records {
                let ids = RecordIds {
                    sim_card,
                    organization: sim_card + 1,
                };
                let time_us = POSTGRES_EPOCH_US + seconds * 1_000_000;
                encode_usage_record(&mut tuples, time_us, ids, seconds);
            }
            tuples
        };
        let mut random = fastrand::Rng::with_seed(1);
        for (sim_cards, days) in [(1, 1), (1_000, 30), (1_000_000, 1), (i32::MAX, 80_000)] {
            let mut records: Vec<(i32, i64)> = (0..5_000)
                .map(|_| (random.i32(1..=sim_cards), random.i64(-days * 86_400..days)))
                .collect();
            let given = encode(&records);
            let mut by_time = records.clone();
            by_time.sort_by_key(|&(_, time)| time);
            let given_by_time = encode(&by_time);
            records.sort_unstable();
            let expected = encode(&records);
            assert_eq!(sorted(&given), expected);
            assert_eq!(sorted(&given_by_time), expected);
        }
        assert!(sorted(&[]).is_empty());
    }

    #[test]
    fn the_posting_is_set_in_every_record() {
        let mut tuples = BytesMut::new();
        for sim_card in 1..=3 {
            let ids = RecordIds {
                sim_card,
                organization: 1,
            };
            encode_usage_record(&mut tuples, 0, ids, -1);
        }
        let before = tuples.clone();
        set_posting(&mut tuples, 0x0102_0304_0506_0708);
        for (tuple, before) in tuples.chunks(TUPLE_BYTES).zip(before.chunks(TUPLE_BYTES)) {
            assert_eq!(tuple[6..14], [1, 2, 3, 4, 5, 6, 7, 8]);
            assert_eq!((&tuple[..6], &tuple[14..]), (&before[..6], &before[14..]));
        }
    }
}
