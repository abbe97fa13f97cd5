//! Feeds: groups of sources. `migrate` stores how they are told apart, because every answer depends on
//! it.

use chrono::{DateTime, Utc};
use tokio_postgres::Client;

use super::connect::Connection;
use super::error::{Cause, StorageError};
use crate::config::Feeds;

/// How far a feed is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// The pattern that its sources match, or what is common to their names.
    pub name: String,
    /// The time of its newest record, but not after it was stored; for a topic, that of its slowest
    /// partition.
    pub complete_through: Option<DateTime<Utc>>,
    /// When one of its sources was last advanced.
    pub last_ingested_at: Option<DateTime<Utc>>,
    /// Whether answers wait for it: `feeds.names` has it, or has none.
    pub is_expected: bool,
    /// Whether it has not been silent for too long.
    pub is_live: bool,
}

/// The first 1,000 feeds, by name, and the instant up to which usage is complete.
///
/// # Errors
/// See [`StorageError`].
pub async fn feeds(
    client: &deadpool_postgres::Client,
) -> Result<(Vec<Feed>, Option<DateTime<Utc>>), StorageError> {
    let statement = include_str!("../../sql/queries/feeds.sql");
    let statement = client.prepare_cached(statement).await?;
    let rows = client.query(&statement, &[]).await?;
    let feed = |row: &tokio_postgres::Row| {
        Ok(Feed {
            name: row.try_get("feed")?,
            complete_through: row.try_get("complete_through")?,
            last_ingested_at: row.try_get("last_ingested_at")?,
            is_expected: row.try_get("is_expected")?,
            is_live: row.try_get("is_live")?,
        })
    };
    let feeds = rows.iter().map(feed).collect::<Result<_, StorageError>>()?;
    let complete_through = match rows.first() {
        Some(row) => row.try_get("usage_complete_through")?,
        None => None,
    };
    Ok((feeds, complete_through))
}

/// Describes the patterns of feeds, with the hours of silence.
fn describe(patterns: &[(Option<String>, Option<i32>)]) -> String {
    let hours = |hours: Option<i32>| {
        hours.map_or_else(|| "any silence".to_owned(), |hours| format!("{hours} h"))
    };
    let text = |(name, silence): &(Option<String>, Option<i32>)| {
        format!(
            "{} ({})",
            name.as_deref().unwrap_or("others"),
            hours(*silence)
        )
    };
    patterns.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// The patterns that the configuration has, and last what holds for all other feeds.
fn wanted(feeds: &Feeds) -> Vec<(Option<String>, Option<i32>)> {
    let hours = |hours: u32| (hours > 0).then(|| i32::try_from(hours).unwrap_or(i32::MAX));
    let named = feeds.names.iter().map(|(name, silence)| {
        let silence = silence.unwrap_or(feeds.silent_after_hours);
        (Some(name.to_owned()), hours(silence))
    });
    named
        .chain([(None, hours(feeds.silent_after_hours))])
        .collect()
}

/// Describes what [`apply`] would change.
pub(super) async fn change(client: &Client, feeds: &Feeds) -> anyhow::Result<Option<String>> {
    let statement = include_str!("../../sql/settings/feed_patterns.sql");
    let rows = client.query(statement, &[]).await.map_err(Cause::from)?;
    let current: Vec<_> = rows
        .iter()
        .map(|row| (row.get("feed"), row.get("silent_after_hours")))
        .collect();
    let wanted = wanted(feeds);
    Ok((current != wanted)
        .then(|| format!("feeds: {} -> {}", describe(&current), describe(&wanted))))
}

/// Stores how feeds are told apart, and describes the change, if there is one.
pub(super) async fn apply(
    connection: &mut Connection,
    feeds: &Feeds,
) -> anyhow::Result<Option<String>> {
    let change = change(connection, feeds).await?;
    let transaction = connection.transaction().await.map_err(Cause::from)?;
    if change.is_some() {
        let mut patterns = wanted(feeds);
        patterns.rotate_right(1);
        let (names, hours): (Vec<_>, Vec<_>) = patterns.into_iter().unzip();
        let set = include_str!("../../sql/settings/set_feed_patterns.sql");
        transaction
            .execute(set, &[&names, &hours])
            .await
            .map_err(Cause::from)?;
    }
    // Also after a change of the function.
    let update = include_str!("../../sql/settings/update_feeds.sql");
    transaction
        .execute(update, &[])
        .await
        .map_err(Cause::from)?;
    transaction.commit().await.map_err(Cause::from)?;
    Ok(change)
}
