//! Creates the chunks of usage records before the transactions that append to them.

use bytes::BytesMut;
use chrono::{DateTime, TimeDelta, Utc};

use super::connect::Connection;
use super::copy::{BatchWriter, TUPLE_BYTES, encode_usage_record};
use super::error::WriteError;
use super::inventory_index::RecordIds;
use crate::domain::Interval;

/// The ids of a placeholder record. No SIM card and no organization has the id 0.
const PLACEHOLDER: RecordIds = RecordIds {
    sim_card: 0,
    organization: 0,
};

/// Creates the missing chunks of the hours in `intervals`, in a separate transaction. Returns
/// whether several transactions can append to all of these chunks concurrently.
///
/// They cannot if the first append has to update the chunk's status: when records are added to a
/// chunk of the columnstore outside it, or the reverse. And a transaction that creates a chunk for
/// its own records blocks all others from creating chunks until it ends.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects a statement. A retry is safe.
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
        // A placeholder in each hour, deleted before the commit, creates the chunk.
        let mut tuples = BytesMut::with_capacity(hours.len() * TUPLE_BYTES);
        for hour in &hours {
            encode_usage_record(&mut tuples, hour.timestamp_micros(), PLACEHOLDER, 0);
        }
        let mut writer = BatchWriter::begin(connection).await?;
        writer.write(tuples.freeze()).await?;
        writer.finish_copy(hours.len() as u64).await?;
        writer
            .transaction()
            .execute(
                include_str!("../../sql/ingest/delete_placeholders.sql"),
                &[&hours],
            )
            .await?;
        writer.commit_transaction().await?;
    }
    Ok(true)
}

/// The starts of the hours in an interval that starts on the hour.
fn hours(interval: Interval) -> impl Iterator<Item = DateTime<Utc>> {
    (0..)
        .map_while(move |number| {
            interval
                .start()
                .checked_add_signed(TimeDelta::hours(number))
        })
        .take_while(move |&hour| hour < interval.end())
}
