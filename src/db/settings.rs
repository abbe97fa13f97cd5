//! Storage settings: chunk intervals, columnstore, background refresh and retention. `migrate`
//! compares the configuration with the database and applies only the differences.

use std::collections::BTreeMap;
use std::fmt;

use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::aggregates::{AGGREGATES, Aggregate, USAGE_RECORDS};
use super::connect::Connection;
use super::error::Cause;
use crate::config::Storage;

const CURRENT: &str = include_str!("../../sql/settings/current.sql");
const SET_CHUNK_INTERVAL: &str = include_str!("../../sql/settings/set_chunk_interval.sql");
const REMOVE_COLUMNSTORE_POLICY: &str =
    include_str!("../../sql/settings/remove_columnstore_policy.sql");
const ADD_COLUMNSTORE_POLICY: &str = include_str!("../../sql/settings/add_columnstore_policy.sql");
const REMOVE_REFRESH_POLICY: &str = include_str!("../../sql/settings/remove_refresh_policy.sql");
const ADD_REFRESH_POLICY: &str = include_str!("../../sql/settings/add_refresh_policy.sql");
const REMOVE_RETENTION_POLICY: &str =
    include_str!("../../sql/settings/remove_retention_policy.sql");
const ADD_RETENTION_POLICY: &str = include_str!("../../sql/settings/add_retention_policy.sql");

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// The settings of one relation, in seconds. `None` is off, or unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct RelationSettings {
    chunk_interval: Option<i64>,
    columnstore_after: Option<i64>,
    refresh_every: Option<i64>,
    /// The age at which the window of the background refresh starts.
    refresh_from: Option<i64>,
    drop_after: Option<i64>,
}

type Relations = BTreeMap<String, RelationSettings>;

/// A relation whose settings differ from the configuration.
#[derive(Debug)]
pub(super) struct Change {
    relation: String,
    current: RelationSettings,
    wanted: RelationSettings,
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            relation,
            current,
            wanted,
        } = self;
        write!(formatter, "{relation}:")?;
        let settings = |relation: &RelationSettings| {
            [
                ("chunk interval", relation.chunk_interval, "default"),
                ("columnstore age", relation.columnstore_after, "off"),
                ("refresh interval", relation.refresh_every, "off"),
                ("refresh window", relation.refresh_from, "unlimited"),
                ("retention", relation.drop_after, "unlimited"),
            ]
        };
        let mut separator = " ";
        for ((name, before, none), (_, after, _)) in
            settings(current).into_iter().zip(settings(wanted))
        {
            if before == after {
                continue;
            }
            let text = |value: Option<i64>| value.map_or_else(|| none.to_owned(), span);
            write!(
                formatter,
                "{separator}{name} {} -> {}",
                text(before),
                text(after)
            )?;
            separator = ", ";
        }
        Ok(())
    }
}

/// A time span in its largest whole unit.
fn span(seconds: i64) -> String {
    let (count, unit) = match seconds {
        _ if seconds % DAY == 0 => (seconds / DAY, "day"),
        _ if seconds % HOUR == 0 => (seconds / HOUR, "hour"),
        _ => (seconds / MINUTE, "minute"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

/// The settings that the configuration requests.
fn wanted(storage: &Storage) -> Relations {
    let unless_zero = |count: u32, unit: i64| (count > 0).then_some(i64::from(count) * unit);
    let refresh_every = unless_zero(storage.refresh_every_minutes, MINUTE);
    let aggregate = |aggregate: &Aggregate| RelationSettings {
        chunk_interval: unless_zero(aggregate.chunk_interval_days(storage), DAY),
        columnstore_after: None,
        refresh_every,
        // Refreshing dropped chunks would empty the aggregate, so the window starts one day inside
        // the retention of its source.
        refresh_from: refresh_every
            .and(unless_zero(aggregate.source_retention_days(storage), DAY))
            .map(|seconds| seconds - DAY),
        drop_after: unless_zero(aggregate.retention_days(storage), DAY),
    };
    let records = RelationSettings {
        chunk_interval: unless_zero(storage.chunk_interval_hours, HOUR),
        columnstore_after: unless_zero(storage.columnstore_after_days, DAY),
        drop_after: unless_zero(storage.retention_records_days, DAY),
        ..RelationSettings::default()
    };
    let aggregates = AGGREGATES
        .iter()
        .map(|entry| (entry.name.to_owned(), aggregate(entry)));
    std::iter::once((USAGE_RECORDS.to_owned(), records))
        .chain(aggregates)
        .collect()
}

async fn current(client: &Client) -> anyhow::Result<Relations> {
    let rows = client.query(CURRENT, &[]).await.map_err(Cause::from)?;
    let mut relations = Relations::new();
    for row in rows {
        let settings = relations.entry(row.get("relation")).or_default();
        let seconds: Option<i64> = row.get("seconds");
        match row.get("setting") {
            "chunk_interval" => settings.chunk_interval = seconds,
            "columnstore_after" => settings.columnstore_after = seconds,
            "refresh_every" => settings.refresh_every = seconds,
            "refresh_from" => settings.refresh_from = seconds,
            "drop_after" => settings.drop_after = seconds,
            other => anyhow::bail!("current.sql returned an unknown setting: {other}"),
        }
    }
    Ok(relations)
}

/// The relations whose settings differ from the configuration.
pub(super) async fn changes(client: &Client, storage: &Storage) -> anyhow::Result<Vec<Change>> {
    let current = current(client).await?;
    let changes = wanted(storage)
        .into_iter()
        .filter_map(|(relation, wanted)| {
            let current = current.get(&relation).copied().unwrap_or_default();
            (current != wanted).then_some(Change {
                relation,
                current,
                wanted,
            })
        });
    Ok(changes.collect())
}

/// Applies all changes, or none if one fails.
pub(super) async fn apply(connection: &mut Connection, changes: &[Change]) -> anyhow::Result<()> {
    let transaction = connection.transaction().await.map_err(Cause::from)?;
    for change in changes {
        for (statement, parameters) in statements(change) {
            let parameters: Vec<_> = parameters
                .iter()
                .map(|value| &**value as &(dyn ToSql + Sync))
                .collect();
            transaction
                .execute(statement, &parameters)
                .await
                .map_err(Cause::from)?;
        }
    }
    Ok(transaction.commit().await.map_err(Cause::from)?)
}

type Statement<'a> = (&'static str, Vec<Box<dyn ToSql + Sync + Send + 'a>>);

/// The statements of one change. A policy is removed and added, because not every version of
/// TimescaleDB can alter one.
fn statements(change: &Change) -> Vec<Statement<'_>> {
    let Change {
        relation,
        current,
        wanted,
    } = change;
    let relation = relation.as_str();
    let mut statements: Vec<Statement<'_>> = vec![];
    if let Some(seconds) = wanted
        .chunk_interval
        .filter(|_| current.chunk_interval != wanted.chunk_interval)
    {
        statements.push((
            SET_CHUNK_INTERVAL,
            vec![Box::new(relation), Box::new(seconds)],
        ));
    }
    if current.columnstore_after != wanted.columnstore_after {
        statements.push((REMOVE_COLUMNSTORE_POLICY, vec![Box::new(relation)]));
        if let Some(seconds) = wanted.columnstore_after {
            statements.push((
                ADD_COLUMNSTORE_POLICY,
                vec![Box::new(relation), Box::new(seconds)],
            ));
        }
    }
    if (current.refresh_every, current.refresh_from) != (wanted.refresh_every, wanted.refresh_from)
    {
        statements.push((REMOVE_REFRESH_POLICY, vec![Box::new(relation)]));
        if let Some(every) = wanted.refresh_every {
            let parameters: Statement<'_> = (
                ADD_REFRESH_POLICY,
                vec![
                    Box::new(relation),
                    Box::new(wanted.refresh_from),
                    Box::new(every),
                ],
            );
            statements.push(parameters);
        }
    }
    if current.drop_after != wanted.drop_after {
        statements.push((REMOVE_RETENTION_POLICY, vec![Box::new(relation)]));
        if let Some(seconds) = wanted.drop_after {
            statements.push((
                ADD_RETENTION_POLICY,
                vec![Box::new(relation), Box::new(seconds)],
            ));
        }
    }
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_lists_what_differs() {
        let change = Change {
            relation: "usage_hourly".to_owned(),
            current: RelationSettings {
                chunk_interval: Some(7 * DAY),
                refresh_every: Some(90 * MINUTE),
                ..RelationSettings::default()
            },
            wanted: RelationSettings {
                chunk_interval: Some(7 * DAY),
                refresh_every: Some(HOUR),
                refresh_from: Some(DAY),
                ..RelationSettings::default()
            },
        };
        assert_eq!(
            change.to_string(),
            "usage_hourly: refresh interval 90 minutes -> 1 hour, refresh window unlimited -> 1 day"
        );
    }
}
