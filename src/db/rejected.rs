//! The age limit of rejected records.

use super::connect::connect;
use super::error::WriteError;
use crate::config::Database;

/// The most records that one statement deletes, so that no transaction takes long.
const MAX_DELETED: i64 = 10_000;

/// Deletes rejected records that are older than `days`, on another connection. Returns how
/// many.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects a statement.
pub async fn delete_old_rejected(database: &Database, days: u32) -> Result<i64, WriteError> {
    let statement = include_str!("../../sql/ingest/delete_old_rejected.sql");
    let connection = connect(database).await?;
    let mut total = 0;
    loop {
        let row = connection
            .query_one(statement, &[&i64::from(days), &MAX_DELETED])
            .await?;
        let deleted: i64 = row.get("count");
        total += deleted;
        if deleted < MAX_DELETED {
            break;
        }
    }
    connection.close().await;
    Ok(total)
}
