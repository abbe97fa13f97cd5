//! Retries rejected records.

use bytes::{Bytes, BytesMut};

use super::days::DayCounts;
use super::parse::Format;
use super::parse::Parser;
use super::record_encoder::RecordEncoder;
use super::reject::{Defect, Reason};
use super::store::Store;
use crate::db::{self, Connection, Replay, StillRejected, TakenRecord, WriteError};

/// The records of one transaction.
#[derive(Default)]
struct Retried {
    /// Id of the last record; 0 if there was none.
    last: i64,
    stored: Vec<i64>,
    rejected: Vec<StillRejected>,
}

/// Retries every rejected record, oldest first. Those that are valid now move to `usage_records`;
/// the others get their current reason. The tally always covers exactly what is committed.
///
/// # Errors
/// Returns an error if the database is unavailable for too long or rejects a statement.
pub(super) async fn replay_rejected(
    store: &mut Store<'_>,
    encoder: &RecordEncoder,
) -> Result<(), WriteError> {
    let mut days = DayCounts::default();
    let mut last = 0;
    loop {
        let mut retried = Retried::default();
        let session = &mut store.session;
        match attempt(session.connection(), encoder, &mut days, last, &mut retried).await {
            Ok(()) => session.succeeded(),
            Err(error) => {
                session.recover(error).await?;
                // The records were locked by this transaction, so if they are gone, it committed.
                let stored = &retried.stored;
                let left = session
                    .repeat(async |connection| db::count_rejected(connection, stored).await)
                    .await?;
                if stored.is_empty() || left > 0 {
                    continue;
                }
            }
        }
        if retried.last == 0 {
            return Ok(());
        }
        last = retried.last;
        store.tally.add(
            retried.stored.len() as u64,
            retried.rejected.iter().map(|record| record.reason),
        );
        store.closer.committed();
    }
}

async fn attempt(
    connection: &mut Connection,
    encoder: &RecordEncoder,
    days: &mut DayCounts,
    after: i64,
    retried: &mut Retried,
) -> Result<(), WriteError> {
    let (replay, records) = Replay::take(connection, after).await?;
    let mut tuples = BytesMut::new();
    for record in records {
        match encode(encoder, &record, &mut tuples) {
            Ok((time_us, bytes)) => {
                days.add(time_us, bytes);
                retried.stored.push(record.id);
            }
            Err(defect) => {
                log::debug!(
                    "{}:{}: {}: {}",
                    record.source,
                    record.line,
                    defect.reason,
                    defect.detail
                );
                let (reason, field) = (defect.reason.code(), defect.field);
                retried.rejected.push(StillRejected {
                    id: record.id,
                    reason,
                    field,
                    detail: defect.detail,
                });
            }
        }
        retried.last = record.id;
    }
    let days = days.take();
    if retried.last == 0 {
        return Ok(());
    }
    replay
        .commit(
            Bytes::from(tuples),
            &retried.stored,
            &days,
            &retried.rejected,
        )
        .await
}

/// Parses a record and appends it to `tuples`. Returns its time in microseconds since 1970, and its
/// bytes.
fn encode(
    encoder: &RecordEncoder,
    record: &TakenRecord,
    tuples: &mut BytesMut,
) -> Result<(i64, i64), Defect> {
    let malformed = |detail: String| Defect::of_line(Reason::Malformed, detail);
    let format = Format::by_name(&record.format)
        .ok_or_else(|| malformed(format!("the format {} is unknown", record.format)))?;
    let mut parser = Parser::new(format, record.header.as_deref())
        .map_err(|error| malformed(error.to_string()))?;
    let parsed = parser.parse(&record.raw)?;
    let values = (parsed.time_us, parsed.bytes);
    encoder.encode(&parsed, tuples)?;
    Ok(values)
}
