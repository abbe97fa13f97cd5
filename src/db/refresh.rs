//! Brings the continuous aggregates up to date over what was ingested.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};

use super::connect::{Connection, connect_additional};
use super::error::WriteError;
use crate::config::Database;
use crate::domain::Interval;

/// The aggregates, with the width of their buckets in hours. Those of one step read those of the steps before, and
/// not each other.
const STEPS: [&[(&str, i64)]; 3] = [
    &[("usage_hourly", 1)],
    &[("usage_daily", 24), ("organization_usage_hourly", 1)],
    &[("organization_usage_daily", 24)],
];

/// The length of a window, in hours; a whole number of every bucket. What a day sums up to stays in the processor's caches:
/// of 2 million records of 28 days, windows of a week took a third longer.
const WINDOW: i64 = 24;

/// The most windows of an interval. One that is longer than so many days has longer windows.
const MOST_WINDOWS: i64 = 400;

/// How long to wait for a refresh of another session before trying again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Has a refresh take its window in one pass. In batches, TimescaleDB 2.28.3 leaves out a bucket of which nothing but the
/// first instant has changed; and in an aggregate of an aggregate, nothing but that ever changes.
const IN_ONE_PASS: &str = r#", options => '{"buckets_per_batch": 0}'"#;

/// Refreshes every aggregate over the intervals, on all of the connections at once: each takes a window that nobody
/// has, and another when it is done. TimescaleDB recomputes only the buckets whose records changed.
///
/// # Errors
/// The database refuses or is away. Nothing is under way any more then, and a refresh is safe to repeat.
pub async fn refresh_aggregates(
    connections: &[&Connection],
    intervals: &[Interval],
) -> Result<(), WriteError> {
    let Some(first) = connections.first() else {
        return Ok(());
    };
    let statement = include_str!("../../sql/ingest/refreshes_in_batches.sql");
    let options = if first.query_one(statement, &[]).await?.get(0) {
        IN_ONE_PASS
    } else {
        ""
    };
    for step in STEPS {
        let views = step.iter().flat_map(|&(view, bucket_hours)| {
            let windows = windows(intervals, TimeDelta::hours(bucket_hours)).into_iter();
            windows.flat_map(cut).map(move |window| (view, window))
        });
        // In the order of a stack: the earliest comes last.
        let mut left: Vec<(&str, Interval)> = views.collect();
        left.reverse();
        let left = Mutex::new(left);
        let next = || left.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let all = connections.iter().map(|connection| async {
            while let Some((view, window)) = next() {
                let refreshed = refresh(connection, view, window, options).await;
                refreshed
                    .map_err(|error| error.during(&format!("refreshing {view} over {window}")))?;
            }
            Ok(())
        });
        join_all(all)
            .await
            .into_iter()
            .collect::<Result<(), WriteError>>()?;
    }
    Ok(())
}

/// Connections that refresh beside `main`, so that there are `most` in all; fewer where the intervals are not worth them.
pub async fn refresh_helpers(
    database: &Database,
    main: &Connection,
    most: usize,
    intervals: &[Interval],
) -> Vec<Connection> {
    let hours: i64 = intervals
        .iter()
        .map(|interval| (interval.end() - interval.start()).num_hours())
        .sum();
    let worth = usize::try_from(hours / WINDOW).unwrap_or_default();
    connect_additional(database, main, most.min(worth).saturating_sub(1)).await
}

/// The intervals as windows of whole buckets that do not overlap. They are apart and in order.
fn windows(intervals: &[Interval], bucket: TimeDelta) -> Vec<Interval> {
    let mut windows: Vec<Interval> = vec![];
    for interval in intervals {
        let mut window = interval.rounded_out(bucket);
        // Rounding out may have made neighbours overlap.
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

/// Cuts a window into some of about [`WINDOW`], none of them shorter than that but the last.
fn cut(window: Interval) -> Vec<Interval> {
    let whole = (window.end() - window.start()).num_hours() / WINDOW;
    let count = whole.clamp(1, MOST_WINDOWS);
    let length = TimeDelta::hours((whole / count).max(1) * WINDOW);
    let mut cut = vec![];
    let mut start = window.start();
    for _ in 1..count {
        cut.extend(Interval::new(start, start + length));
        start += length;
    }
    cut.extend(Interval::new(start, window.end()));
    cut
}

async fn refresh(
    client: &Client,
    view: &str,
    window: Interval,
    options: &str,
) -> Result<(), WriteError> {
    // A procedure that commits takes no parameters of the extended protocol in every version, and neither the
    // view's name nor the instants come from outside.
    let statement = format!(
        "call refresh_continuous_aggregate('{view}', '{}'::timestamptz, '{}'::timestamptz{options})",
        window.start().to_rfc3339(),
        window.end().to_rfc3339()
    );
    Ok(execute_alone(client, &statement).await?)
}

/// Executes a statement, again and again while it refreshes a window that another session is at: what that one does not
/// see, the next attempt does.
pub(super) async fn execute_alone(
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

/// Notes hours that are yet to be refreshed.
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

    /// The intervals, in no order, without what is older than `oldest`.
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

    /// Forgets what was read, now that it is refreshed. What was noted meanwhile stays.
    ///
    /// # Errors
    /// The database refuses or is away.
    pub async fn delete(&self, client: &Client) -> Result<(), WriteError> {
        client
            .execute(
                include_str!("../../sql/ingest/delete_stale_hours.sql"),
                &[&self.rows],
            )
            .await?;
        Ok(())
    }

    /// Whether nothing was noted.
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
    fn windows_that_rounding_made_overlap_are_refreshed_once() {
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
        assert_eq!(cut(interval(5, 7)), [interval(5, 7)]);
        assert_eq!(cut(interval(5, 52)), [interval(5, 52)]);
        assert_eq!(cut(interval(5, 54)), [interval(5, 29), interval(29, 54)]);
        assert_eq!(cut(interval(0, 240_000)).len(), 400);
    }

    proptest! {
        #[test]
        fn the_cuts_of_a_window_are_the_window(start in 0..1_000_i64, hours in 1..50_000_i64) {
            let window = interval(start, start + hours);
            let cut = cut(window);
            prop_assert!(cut.len() <= 400);
            prop_assert_eq!((cut[0].start(), cut.last().unwrap().end()), (window.start(), window.end()));
            for pair in cut.windows(2) {
                prop_assert_eq!(pair[0].end(), pair[1].start());
                prop_assert_eq!((pair[0].end() - pair[0].start()).num_hours() % WINDOW, 0);
            }
        }
    }
}
