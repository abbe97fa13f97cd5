//! Rejected records, tried again.

use bytes::{Bytes, BytesMut};

use super::hours::TouchedHours;
use super::parse::Parser;
use super::record_encoder::RecordEncoder;
use super::reject::Defect;
use super::session::Session;
use super::source::Format;
use super::store::{Refresher, Tally};
use crate::db::{self, Connection, Replay, StillRejected, TakenRecord, WriteError};

/// The records of one transaction, tried again.
#[derive(Default)]
struct Tried {
    /// The number of the last one.
    last: i64,
    stored: Vec<i64>,
    rejected: Vec<StillRejected>,
}

/// Tries every rejected record once more, from the oldest on. Those that can be stored now are stored, and are
/// rejected no longer; what is wrong with the others is noted anew. `tally` says at any time what is committed.
///
/// # Errors
/// The database refuses or is away for too long.
pub(super) async fn replay_rejected(
    session: &mut Session<'_>,
    encoder: &RecordEncoder,
    tally: &mut Tally,
    refresher: &mut Refresher,
) -> Result<(), WriteError> {
    let mut hours = TouchedHours::new();
    let mut last = 0;
    loop {
        let mut tried = Tried::default();
        match attempt(session.connection(), encoder, &mut hours, last, &mut tried).await {
            Ok(()) => session.succeeded(),
            Err(error) => {
                session.recover(error).await?;
                // Whoever deleted the records has stored them, and they were locked by this replay.
                let stored = &tried.stored;
                let left = session
                    .repeat(async |connection| db::count_rejected(connection, stored).await)
                    .await?;
                if stored.is_empty() || left > 0 {
                    continue;
                }
            }
        }
        if tried.last == 0 {
            return Ok(());
        }
        last = tried.last;
        tally.add(
            tried.stored.len() as u64,
            tried.rejected.iter().map(|record| record.reason),
        );
        refresher.committed();
    }
}

async fn attempt(
    connection: &mut Connection,
    encoder: &RecordEncoder,
    hours: &mut TouchedHours,
    after: i64,
    tried: &mut Tried,
) -> Result<(), WriteError> {
    let (replay, records) = Replay::take(connection, after).await?;
    let mut tuples = BytesMut::new();
    for record in records {
        match encode(encoder, &record, &mut tuples) {
            Ok(time_us) => {
                hours.insert(time_us);
                tried.stored.push(record.id);
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
                tried.rejected.push(StillRejected {
                    id: record.id,
                    reason,
                    field,
                    detail: defect.detail,
                });
            }
        }
        tried.last = record.id;
    }
    let hours = hours.take();
    if tried.last == 0 {
        return Ok(());
    }
    replay
        .commit(Bytes::from(tuples), &tried.stored, &hours, &tried.rejected)
        .await
}

/// Appends the record as it is stored. Returns its time.
fn encode(
    encoder: &RecordEncoder,
    record: &TakenRecord,
    tuples: &mut BytesMut,
) -> Result<i64, Defect> {
    let malformed = |detail: String| Defect::of_line(super::Reason::Malformed, detail);
    let format = Format::by_name(&record.format)
        .ok_or_else(|| malformed(format!("the format {} is unknown", record.format)))?;
    let mut parser = Parser::new(format, record.header.as_deref())
        .map_err(|error| malformed(error.to_string()))?;
    let parsed = parser.parse(&record.raw)?;
    let time_us = parsed.time_us;
    encoder.encode(&parsed, tuples)?;
    Ok(time_us)
}
