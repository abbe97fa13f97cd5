//! Refreshes the continuous aggregates after an ingest.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};

use super::aggregates::refresh_steps;
use super::connect::{Connection, connect_additional};
use super::error::WriteError;
use crate::config::Database;
use crate::domain::Interval;

/// The length of a window, in hours: a multiple of every bucket width. The groups of one day fit
/// into the CPU's caches: with 2 million records over 28 days, windows of a week took a third
/// longer.
const WINDOW_HOURS: i64 = 24;

/// The most windows of an interval. Longer intervals have longer windows.
const MAX_WINDOWS: i64 = 400;

/// The pause before retrying when another session is refreshing the same window.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Refreshes a window in a single pass. In batches, TimescaleDB 2.28.3 skips a bucket if only its
/// first instant has changed, and in an aggregate of an aggregate nothing else ever changes.
const SINGLE_PASS: &str = r#", options => '{"buckets_per_batch": 0}'"#;

/// Refreshes every aggregate over the intervals. The connections work in parallel, each on one
/// window at a time. TimescaleDB recomputes only the buckets whose records have changed.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects a statement, after all connections
/// have stopped. A retry is safe.
pub async fn refresh_aggregates(
    connections: &[&Connection],
    intervals: &[Interval],
) -> Result<(), WriteError> {
    let Some(first) = connections.first() else {
        return Ok(());
    };
    let statement = include_str!("../../sql/ingest/refreshes_in_batches.sql");
    let options = if first.query_one(statement, &[]).await?.get(0) {
        SINGLE_PASS
    } else {
        ""
    };
    for step in refresh_steps() {
        let tasks = step.into_iter().flat_map(|aggregate| {
            windows(intervals, aggregate.bucket.width())
                .into_iter()
                .flat_map(split)
                .map(|window| (aggregate.name, window))
        });
        // A stack, with the earliest window on top.
        let mut tasks: Vec<(&str, Interval)> = tasks.collect();
        tasks.reverse();
        let tasks = Mutex::new(tasks);
        let next = || tasks.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let workers = connections.iter().map(|connection| async {
            while let Some((view, window)) = next() {
                let refreshed = refresh(connection, view, window, options).await;
                refreshed
                    .map_err(|error| error.during(&format!("refreshing {view} over {window}")))?;
            }
            Ok(())
        });
        join_all(workers)
            .await
            .into_iter()
            .collect::<Result<(), WriteError>>()?;
    }
    Ok(())
}

/// Opens connections for a refresh in addition to `main`, up to `max` in total and at most one per
/// window.
pub async fn refresh_helpers(
    database: &Database,
    main: &Connection,
    max: usize,
    intervals: &[Interval],
) -> Vec<Connection> {
    let hours: i64 = intervals
        .iter()
        .map(|interval| (interval.end() - interval.start()).num_hours())
        .sum();
    let windows = usize::try_from(hours / WINDOW_HOURS).unwrap_or_default();
    connect_additional(database, main, max.min(windows).saturating_sub(1)).await
}

/// Rounds intervals out to whole buckets, without overlaps. They must be disjoint and in order.
fn windows(intervals: &[Interval], bucket: TimeDelta) -> Vec<Interval> {
    let mut windows: Vec<Interval> = vec![];
    for interval in intervals {
        let mut window = interval.rounded_out(bucket);
        // Rounding may have made neighbours overlap.
        if let Some(last) = windows.last()
            && last.end() > window.start()
        {
            let Ok(rest) = Interval::new(last.end(), window.end()) else {
                continue;
            };
            window = rest;
        }
        windows.push(window);
    }
    windows
}

/// Splits a window into parts of [`WINDOW_HOURS`], or more beyond [`MAX_WINDOWS`]. The last one
/// takes the rest.
fn split(window: Interval) -> Vec<Interval> {
    let whole = (window.end() - window.start()).num_hours() / WINDOW_HOURS;
    let count = whole.clamp(1, MAX_WINDOWS);
    let length = TimeDelta::hours((whole / count).max(1) * WINDOW_HOURS);
    let mut parts = vec![];
    let mut start = window.start();
    for _ in 1..count {
        parts.extend(Interval::new(start, start + length));
        start += length;
    }
    parts.extend(Interval::new(start, window.end()));
    parts
}

async fn refresh(
    client: &Client,
    view: &str,
    window: Interval,
    options: &str,
) -> Result<(), WriteError> {
    // Not every version accepts parameters for a procedure that commits. Neither the view nor the
    // instants are user input.
    let statement = format!(
        "call refresh_continuous_aggregate('{view}', '{}'::timestamptz, '{}'::timestamptz{options})",
        window.start().to_rfc3339(),
        window.end().to_rfc3339()
    );
    Ok(execute_with_retries(client, &statement).await?)
}

/// Executes a statement, and retries while another session is refreshing the same window. A retry
/// sees changes that the other session missed.
pub(super) async fn execute_with_retries(
    client: &Client,
    statement: &str,
) -> Result<(), tokio_postgres::Error> {
    loop {
        match client.batch_execute(statement).await {
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                tokio::time::sleep(RETRY_AFTER).await;
            }
            other => return other,
        }
    }
}

/// Adds hours to be refreshed.
pub(super) async fn add_stale_hours(
    transaction: &Transaction<'_>,
    intervals: &[Interval],
) -> Result<(), WriteError> {
    if intervals.is_empty() {
        return Ok(());
    }
    let starts: Vec<_> = intervals.iter().map(|interval| interval.start()).collect();
    let ends: Vec<_> = intervals.iter().map(|interval| interval.end()).collect();
    transaction
        .execute(
            include_str!("../../sql/ingest/add_stale_hours.sql"),
            &[&starts, &ends],
        )
        .await?;
    Ok(())
}

/// Hours that remain to be refreshed.
#[derive(Debug, Default)]
pub struct StaleHours {
    /// Not sorted; they may overlap.
    intervals: Vec<Interval>,
    /// The ids of their rows.
    rows: Vec<i64>,
}

impl StaleHours {
    /// Reads the stale hours of all processes.
    ///
    /// # Errors
    /// Returns an error if the database is unreachable or rejects the statement.
    pub async fn read(client: &Client) -> Result<Self, WriteError> {
        let mut stale = Self::default();
        for row in client
            .query(include_str!("../../sql/ingest/stale_hours.sql"), &[])
            .await?
        {
            stale.rows.push(row.get("id"));
            stale
                .intervals
                .extend(Interval::new(row.get("start_at"), row.get("end_at")));
        }
        Ok(stale)
    }

    /// The intervals, not sorted, without the time before `oldest`.
    #[must_use]
    pub fn since(&self, oldest: Option<DateTime<Utc>>) -> Vec<Interval> {
        let start = |interval: &Interval| {
            oldest.map_or(interval.start(), |oldest| oldest.max(interval.start()))
        };
        self.intervals
            .iter()
            .filter_map(|interval| Interval::new(start(interval), interval.end()).ok())
            .collect()
    }

    /// Deletes the rows that were read, after a refresh. Rows added since then remain.
    ///
    /// # Errors
    /// Returns an error if the database is unreachable or rejects the statement.
    pub async fn delete(&self, client: &Client) -> Result<(), WriteError> {
        client
            .execute(
                include_str!("../../sql/ingest/delete_stale_hours.sql"),
                &[&self.rows],
            )
            .await?;
        Ok(())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn interval(start: i64, end: i64) -> Interval {
        let at = |hour: i64| DateTime::from_timestamp(hour * 3_600, 0).unwrap();
        Interval::new(at(start), at(end)).unwrap()
    }

    #[test]
    fn rounded_windows_do_not_overlap() {
        let hours = [
            interval(1, 3),
            interval(20, 26),
            interval(30, 31),
            interval(100, 101),
        ];
        assert_eq!(windows(&hours, TimeDelta::hours(1)), hours);
        let days = [interval(0, 24), interval(24, 48), interval(96, 120)];
        assert_eq!(windows(&hours, TimeDelta::hours(24)), days);
    }

    #[test]
    fn a_window_is_about_a_day() {
        assert_eq!(split(interval(5, 7)), [interval(5, 7)]);
        assert_eq!(split(interval(5, 52)), [interval(5, 52)]);
        assert_eq!(split(interval(5, 54)), [interval(5, 29), interval(29, 54)]);
        assert_eq!(split(interval(0, 240_000)).len(), 400);
    }

    proptest! {
        #[test]
        fn the_parts_of_a_window_cover_it(start in 0..1_000_i64, hours in 1..50_000_i64) {
            let window = interval(start, start + hours);
            let parts = split(window);
            prop_assert!(parts.len() <= 400);
            prop_assert_eq!((parts[0].start(), parts.last().unwrap().end()), (window.start(), window.end()));
            for pair in parts.windows(2) {
                prop_assert_eq!(pair[0].end(), pair[1].start());
                prop_assert_eq!((pair[0].end() - pair[0].start()).num_hours() % WINDOW_HOURS, 0);
            }
        }
    }
}
