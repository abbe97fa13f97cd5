//! Brings the continuous aggregates up to date over what was ingested.

use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::error::explained;
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
pub async fn refresh_aggregates(client: &Client, intervals: &[Interval]) -> anyhow::Result<()> {
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
            refresh(client, view, window).await.with_context(|| format!("refreshing {view} over {window}"))?;
            done_to = Some(window.end());
        }
    }
    Ok(())
}

async fn refresh(client: &Client, view: &str, window: Interval) -> anyhow::Result<()> {
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
            other => return other.map_err(explained),
        }
    }
}
