//! Retention. The database has the settings in effect, because every process must follow the same;
//! `migrate` compares them with the configuration and applies only the differences.

use std::fmt;

use tokio_postgres::Client;

use super::aggregates::retention_days;
use super::connect::Connection;
use super::error::Cause;
use crate::config::Storage;

/// A level whose retention differs from the configuration.
#[derive(Debug)]
pub(super) struct Change {
    level: String,
    /// In days; `None` keeps everything.
    current: Option<i32>,
    wanted: Option<i32>,
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |days: Option<i32>| {
            days.map_or_else(|| "unlimited".to_owned(), |days| format!("{days} days"))
        };
        let Self {
            level,
            current,
            wanted,
        } = self;
        write!(
            formatter,
            "{level}: retention {} -> {}",
            text(*current),
            text(*wanted)
        )
    }
}

/// The levels whose retention differs from the configuration.
pub(super) async fn changes(client: &Client, storage: &Storage) -> anyhow::Result<Vec<Change>> {
    let statement = include_str!("../../sql/settings/current.sql");
    let rows = client.query(statement, &[]).await.map_err(Cause::from)?;
    let changes = rows.iter().filter_map(|row| {
        let level: String = row.get("level");
        let days = retention_days(&level, storage)?;
        let wanted = (days > 0).then(|| i32::try_from(days).unwrap_or(i32::MAX));
        let current = row.get("keep_days");
        (current != wanted).then_some(Change {
            level,
            current,
            wanted,
        })
    });
    Ok(changes.collect())
}

/// Applies all changes, or none if one fails.
pub(super) async fn apply(connection: &mut Connection, changes: &[Change]) -> anyhow::Result<()> {
    let statement = include_str!("../../sql/settings/set_retention.sql");
    let transaction = connection.transaction().await.map_err(Cause::from)?;
    for change in changes {
        transaction
            .execute(statement, &[&change.level, &change.wanted])
            .await
            .map_err(Cause::from)?;
    }
    Ok(transaction.commit().await.map_err(Cause::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_names_both_values() {
        let change = Change {
            level: "usage_records".to_owned(),
            current: None,
            wanted: Some(30),
        };
        assert_eq!(
            change.to_string(),
            "usage_records: retention unlimited -> 30 days"
        );
    }
}
