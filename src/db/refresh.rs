//! Brings the continuous aggregates up to date over what was ingested.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};

use super::error::WriteError;
use crate::domain::Interval;

/// The aggregates, each after the one it reads, with the width of its buckets in hours.
const AGGREGATES: [(&str, i64); 4] =
    [("usage_hourly", 1), ("usage_daily", 24), ("organization_usage_hourly", 1), ("organization_usage_daily", 24)];

/// How long to wait for a refresh of another session before trying again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Refreshes every aggregate over the intervals. TimescaleDB recomputes only the buckets in them whose records
/// changed.
///
/// # Errors
/// The database refuses or is away. A refresh is safe to repeat.
pub async fn refresh_aggregates(client: &Client, intervals: &[Interval]) -> Result<(), WriteError> {
    for (view, bucket_hours) in AGGREGATES {
        let mut done_to: Option<DateTime<Utc>> = None;
        for interval in intervals {
            let bucket = TimeDelta::hours(bucket_hours);
            let mut window = interval.rounded_out(bucket);
            // Rounding out may have made neighbours overlap.
            if let Some(done_to) = done_to
                && done_to > window.start()
            {
                let Ok(rest) = Interval::new(done_to, window.end()) else { continue };
                window = rest;
            }
            let refreshed = refresh(client, view, window).await;
            refreshed.map_err(|error| error.during(&format!("refreshing {view} over {window}")))?;
            done_to = Some(window.end());
        }
    }
    Ok(())
}

async fn refresh(client: &Client, view: &str, window: Interval) -> Result<(), WriteError> {
    // A procedure that commits takes no parameters of the extended protocol in every version, and neither the
    // view's name nor the instants come from outside.
    let statement = format!(
        "call refresh_continuous_aggregate('{view}', '{}'::timestamptz, '{}'::timestamptz)",
        window.start().to_rfc3339(),
        window.end().to_rfc3339()
    );
    loop {
        match client.batch_execute(&statement).await {
            // Another session refreshes the same window: what it does not see, the next attempt does.
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => tokio::time::sleep(RETRY_AFTER).await,
            other => return Ok(other?),
        }
    }
}

/// Notes hours that are yet to be refreshed.
pub(super) async fn note_stale_hours(transaction: &Transaction<'_>, intervals: &[Interval]) -> Result<(), WriteError> {
    if intervals.is_empty() {
        return Ok(());
    }
    let starts: Vec<_> = intervals.iter().map(|interval| interval.start()).collect();
    let ends: Vec<_> = intervals.iter().map(|interval| interval.end()).collect();
    transaction.execute(include_str!("../../sql/ingest/add_stale_hours.sql"), &[&starts, &ends]).await?;
    Ok(())
}

/// Hours that are yet to be refreshed, as they were noted.
#[derive(Debug, Default)]
pub struct StaleHours {
    /// In no order.
    intervals: Vec<Interval>,
    /// The rows that say so.
    rows: Vec<i64>,
}

impl StaleHours {
    /// Reads what was noted, by whomever.
    ///
    /// # Errors
    /// The database refuses or is away.
    pub async fn read(client: &Client) -> Result<Self, WriteError> {
        let mut stale = Self::default();
        for row in client.query(include_str!("../../sql/ingest/stale_hours.sql"), &[]).await? {
            stale.rows.push(row.get("id"));
            stale.intervals.extend(Interval::new(row.get("start_at"), row.get("end_at")));
        }
        Ok(stale)
    }

    /// The intervals, in no order, without what is older than `oldest`.
    #[must_use]
    pub fn since(&self, oldest: Option<DateTime<Utc>>) -> Vec<Interval> {
        let start = |interval: &Interval| oldest.map_or(interval.start(), |oldest| oldest.max(interval.start()));
        self.intervals.iter().filter_map(|interval| Interval::new(start(interval), interval.end()).ok()).collect()
    }

    /// Forgets what was read, now that it is refreshed. What was noted meanwhile stays.
    ///
    /// # Errors
    /// The database refuses or is away.
    pub async fn forget(&self, client: &Client) -> Result<(), WriteError> {
        client.execute(include_str!("../../sql/ingest/forget_stale_hours.sql"), &[&self.rows]).await?;
        Ok(())
    }

    /// Whether nothing was noted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}
