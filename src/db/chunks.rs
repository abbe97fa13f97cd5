//! The chunks that usage records are appended to, made before the transactions that append.

use bytes::BytesMut;
use chrono::{DateTime, TimeDelta, Utc};

use super::connect::Connection;
use super::copy::{BatchWriter, TUPLE_BYTES, encode_usage_record};
use super::error::WriteError;
use super::inventory::Stamp;
use crate::domain::Interval;

/// What marks the hours of a chunk that is being made: no SIM card and no organization has the number 0.
const NOBODY: Stamp = Stamp {
    sim_card: 0,
    organization: 0,
};

/// Makes the chunks of the hours in `intervals`, where there are none, in a transaction of its own. Says whether all are
/// such that several transactions can append to them at once, as COPY appends in this session: straight into the
/// columnstore, or not. To others they cannot, because the first has to note in the chunk's own row that there is more
/// than before, in the columnstore or outside.
///
/// Where a transaction makes a chunk for what it stores, no other can make one until it has ended.
///
/// # Errors
/// The database refuses or is away. Doing it again is safe.
pub async fn open_chunks(
    connection: &mut Connection,
    intervals: &[Interval],
) -> Result<bool, WriteError> {
    let hours: Vec<DateTime<Utc>> = intervals
        .iter()
        .flat_map(|&interval| hours(interval))
        .collect();
    let closed = connection
        .query(
            include_str!("../../sql/ingest/hours_not_open.sql"),
            &[&hours],
        )
        .await?;
    if closed.iter().any(|row| row.get("is_stored")) {
        return Ok(false);
    }
    if !closed.is_empty() {
        let hours: Vec<DateTime<Utc>> = closed.iter().map(|row| row.get("hour")).collect();
        // By a record in each of them, that nobody ever sees.
        let mut tuples = BytesMut::with_capacity(hours.len() * TUPLE_BYTES);
        for hour in &hours {
            encode_usage_record(&mut tuples, hour.timestamp_micros(), NOBODY, 0);
        }
        let mut writer = BatchWriter::begin(connection).await?;
        writer.write(tuples.freeze()).await?;
        writer.finish_copy(hours.len() as u64).await?;
        writer
            .transaction()
            .execute(include_str!("../../sql/ingest/unmark_hours.sql"), &[&hours])
            .await?;
        writer.commit_alone().await?;
    }
    Ok(true)
}

/// The hours of an interval that begins with one.
fn hours(interval: Interval) -> impl Iterator<Item = DateTime<Utc>> {
    (0..)
        .map_while(move |number| {
            interval
                .start()
                .checked_add_signed(TimeDelta::hours(number))
        })
        .take_while(move |&hour| hour < interval.end())
}
