//! Storage settings: chunk intervals, columnstore, background refresh and retention, held against what the
//! database has, so that running `migrate` again applies a changed configuration and nothing else.

use std::collections::BTreeMap;
use std::fmt;

use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

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

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// The settings of one relation, in seconds. `None` is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct RelationSettings {
    chunk_interval: Option<i64>,
    columnstore_after: Option<i64>,
    refresh_every: Option<i64>,
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
        let differing = [
            (
                "chunk interval",
                current.chunk_interval,
                wanted.chunk_interval,
            ),
            (
                "columnstore after",
                current.columnstore_after,
                wanted.columnstore_after,
            ),
            ("refresh every", current.refresh_every, wanted.refresh_every),
            ("refresh from", current.refresh_from, wanted.refresh_from),
            ("drop after", current.drop_after, wanted.drop_after),
        ];
        let mut separator = " ";
        for (name, before, after) in differing
            .into_iter()
            .filter(|(_, before, after)| before != after)
        {
            write!(
                formatter,
                "{separator}{name} {} -> {}",
                span(before),
                span(after)
            )?;
            separator = ", ";
        }
        Ok(())
    }
}

/// A span of time in its largest whole unit.
fn span(seconds: Option<i64>) -> String {
    match seconds {
        None => "off".to_owned(),
        Some(seconds) if seconds % DAY == 0 => format!("{} days", seconds / DAY),
        Some(seconds) if seconds % HOUR == 0 => format!("{} hours", seconds / HOUR),
        Some(seconds) => format!("{} minutes", seconds / 60),
    }
}

/// What the configuration asks for.
fn wanted(storage: &Storage) -> Relations {
    let unless_zero = |count: u32, unit: i64| (count > 0).then_some(i64::from(count) * unit);
    let refresh_every = unless_zero(storage.refresh_every_minutes, 60);
    // A refresh over dropped chunks would empty the aggregate, so it begins a day inside the retention of
    // what it reads.
    let refresh_from = |retention_days: u32| {
        refresh_every
            .and(unless_zero(retention_days, DAY))
            .map(|seconds| seconds - DAY)
    };
    let aggregate =
        |chunk_days: u32, source_retention_days: u32, retention_days: u32| RelationSettings {
            chunk_interval: unless_zero(chunk_days, DAY),
            columnstore_after: None,
            refresh_every,
            refresh_from: refresh_from(source_retention_days),
            drop_after: unless_zero(retention_days, DAY),
        };
    let records = RelationSettings {
        chunk_interval: unless_zero(storage.chunk_interval_hours, HOUR),
        columnstore_after: unless_zero(storage.columnstore_after_days, DAY),
        drop_after: unless_zero(storage.retention_records_days, DAY),
        ..RelationSettings::default()
    };
    let hourly = storage.retention_hourly_days;
    let daily = storage.retention_daily_days;
    [
        ("usage_records", records),
        (
            "usage_hourly",
            aggregate(
                storage.hourly_chunk_interval_days,
                storage.retention_records_days,
                hourly,
            ),
        ),
        (
            "usage_daily",
            aggregate(storage.daily_chunk_interval_days, hourly, daily),
        ),
        (
            "organization_usage_hourly",
            aggregate(storage.hourly_chunk_interval_days, hourly, hourly),
        ),
        (
            "organization_usage_daily",
            aggregate(storage.daily_chunk_interval_days, hourly, daily),
        ),
    ]
    .into_iter()
    .map(|(relation, settings)| (relation.to_owned(), settings))
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
            other => anyhow::bail!("current.sql answers a setting of no meaning: {other}"),
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

/// Applies changes, all or none.
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

/// The statements of one change. A policy is replaced whole, because not every version can alter one in place.
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
