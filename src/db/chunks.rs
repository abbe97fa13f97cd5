//! The chunks that usage records are appended to, made before the transactions that append.

use chrono::{DateTime, TimeDelta, Utc};

use super::connect::Connection;
use super::error::WriteError;
use crate::domain::Interval;

/// Makes the chunks of the hours in `intervals`, where there are none, in a transaction of its own. Says whether all are
/// such that several transactions can append to them at once: to one in the columnstore they cannot, because the first
/// has to note in the chunk's own row that there is more outside.
///
/// Where a transaction makes a chunk for what it stores, no other can make one until it has ended.
///
/// # Errors
/// The database refuses or is away. Doing it again is safe.
pub async fn open_chunks(connection: &mut Connection, intervals: &[Interval]) -> Result<bool, WriteError> {
    let hours: Vec<DateTime<Utc>> = intervals.iter().flat_map(|&interval| hours(interval)).collect();
    let closed = connection.query(include_str!("../../sql/ingest/hours_not_open.sql"), &[&hours]).await?;
    if closed.iter().any(|row| row.get("is_stored")) {
        return Ok(false);
    }
    if !closed.is_empty() {
        let hours: Vec<DateTime<Utc>> = closed.iter().map(|row| row.get("hour")).collect();
        let transaction = connection.transaction().await?;
        transaction.execute(include_str!("../../sql/ingest/mark_hours.sql"), &[&hours]).await?;
        transaction.execute(include_str!("../../sql/ingest/unmark_hours.sql"), &[&hours]).await?;
        transaction.commit().await?;
    }
    Ok(true)
}

/// The hours of an interval that begins with one.
fn hours(interval: Interval) -> impl Iterator<Item = DateTime<Utc>> {
    (0..)
        .map_while(move |number| interval.start().checked_add_signed(TimeDelta::hours(number)))
        .take_while(move |&hour| hour < interval.end())
}
