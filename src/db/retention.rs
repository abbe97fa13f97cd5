//! How long totals are kept, which the database knows.

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use tokio_postgres::Client;

use super::error::WriteError;

/// Since when totals by day are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Earlier days have been dropped.
    kept_from: Option<NaiveDate>,
    /// The age at which days are dropped.
    keep_days: Option<i32>,
}

impl Retention {
    /// A retention of some days; 0 keeps everything.
    #[must_use]
    pub fn of_days(days: u32) -> Self {
        Self {
            kept_from: None,
            keep_days: (days > 0).then(|| i32::try_from(days).unwrap_or(i32::MAX)),
        }
    }

    /// Reads the retention in effect.
    ///
    /// # Errors
    /// Returns an error if the database is unreachable or rejects the statement.
    pub async fn load(client: &Client) -> Result<Self, WriteError> {
        let row = client
            .query_one(include_str!("../../sql/ingest/oldest_kept.sql"), &[])
            .await?;
        Ok(Self {
            kept_from: row.get("kept_from"),
            keep_days: row.get("keep_days"),
        })
    }

    /// The time from which on records are kept; `None` if all are.
    #[must_use]
    pub fn oldest(self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let dropped = self
            .kept_from
            .map(|day| day.and_time(NaiveTime::MIN).and_utc());
        let expired = self
            .keep_days
            .and_then(|days| now.checked_sub_signed(TimeDelta::days(days.into())));
        dropped.max(expired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_dropped_stays_dropped() {
        let now: DateTime<Utc> = "2020-03-31T12:00:00Z".parse().unwrap();
        assert_eq!(Retention::of_days(0).oldest(now), None);
        let month = Retention::of_days(30);
        assert_eq!(
            month.oldest(now),
            Some("2020-03-01T12:00:00Z".parse().unwrap())
        );
        let raised = Retention {
            kept_from: "2020-03-10".parse().ok(),
            keep_days: Some(90),
        };
        assert_eq!(
            raised.oldest(now),
            Some("2020-03-10T00:00:00Z".parse().unwrap())
        );
    }
}
