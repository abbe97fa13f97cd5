//! Refreshes the aggregates during and after an ingest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{NaiveTime, TimeDelta, Utc};

use super::hours::joined;
use super::progress::Counters;
use super::session::Session;
use crate::db::{self, Connection, StaleHours, WriteError};
use crate::failpoint;

/// The pause after a refresh is at least this many times as long as the refresh, so that refreshes
/// take at most about a tenth of the time.
const PAUSE_FACTOR: u32 = 10;

/// Refreshes the aggregates over the hours that committed records touched.
pub(super) struct Refresher {
    interval: Duration,
    retention_days: u32,
    last_end: Instant,
    last_duration: Duration,
    /// Whether records were committed since the last refresh.
    is_stale: bool,
    counters: Arc<Counters>,
    /// Total duration of all refreshes.
    pub spent: Duration,
}

impl Refresher {
    /// A refresher that pauses for `interval` between refreshes, or longer if they are slow.
    ///
    /// It refreshes no hours older than `retention_days` (0: all). The aggregates keep these hours
    /// after their records are dropped, and a refresh would delete them.
    pub fn new(interval: Duration, retention_days: u32, counters: Arc<Counters>) -> Self {
        Self {
            interval,
            retention_days,
            last_end: Instant::now(),
            last_duration: Duration::ZERO,
            is_stale: false,
            counters,
            spent: Duration::ZERO,
        }
    }

    /// Schedules a refresh after a commit.
    pub fn schedule(&mut self) {
        self.is_stale = true;
    }

    /// When the next refresh is due; `None` if nothing was committed since the last.
    pub fn due(&self) -> Option<Instant> {
        let pause = self.interval.max(self.last_duration * PAUSE_FACTOR);
        self.is_stale.then(|| self.last_end + pause)
    }

    pub fn is_due(&self) -> bool {
        self.due().is_some_and(|due| due <= Instant::now())
    }

    /// Refreshes all hours that are marked as stale in the database, including those of other runs.
    ///
    /// # Errors
    /// Returns an error if the database is unavailable for too long or rejects a statement. A
    /// refresh is safe to repeat.
    pub async fn refresh(&mut self, session: &mut Session<'_>) -> Result<(), WriteError> {
        let began = Instant::now();
        let oldest = (self.retention_days > 0).then(|| {
            let age = TimeDelta::days(self.retention_days.into());
            (Utc::now() - age)
                .date_naive()
                .and_time(NaiveTime::MIN)
                .and_utc()
        });
        let config = session.config();
        let most = config.ingest.connections;
        session
            .repeat(async |connection| {
                let stale = StaleHours::read(connection).await?;
                if stale.is_empty() {
                    return Ok(());
                }
                failpoint::pass("before-refresh");
                let intervals = joined(&stale.since(oldest));
                let helpers =
                    db::refresh_helpers(&config.database, connection, most, &intervals).await;
                let connections: Vec<&Connection> =
                    std::iter::once(&*connection).chain(&helpers).collect();
                db::refresh_aggregates(&connections, &intervals).await?;
                failpoint::pass("after-refresh");
                stale.delete(connection).await
            })
            .await?;
        self.last_end = Instant::now();
        self.last_duration = began.elapsed();
        self.spent += self.last_duration;
        self.is_stale = false;
        self.counters.add_refresh();
        Ok(())
    }
}
