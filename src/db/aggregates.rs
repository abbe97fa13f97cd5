//! The continuous aggregates. Refresh, storage settings and the privileges of `serve` follow this
//! table.

use chrono::TimeDelta;

use crate::config::Storage;

/// The hypertable that the first aggregates read.
pub(super) const USAGE_RECORDS: &str = "usage_records";

/// A continuous aggregate of `sql/migrations`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Aggregate {
    pub name: &'static str,
    /// What it reads: [`USAGE_RECORDS`], or an aggregate listed before it.
    pub source: &'static str,
    pub bucket: BucketWidth,
}

/// The width of an aggregate's buckets, which also selects its storage settings.
#[derive(Debug, Clone, Copy)]
pub(super) enum BucketWidth {
    Hour,
    Day,
}

/// Every aggregate, each after the one it reads.
pub(super) const AGGREGATES: [Aggregate; 4] = [
    Aggregate {
        name: "usage_hourly",
        source: USAGE_RECORDS,
        bucket: BucketWidth::Hour,
    },
    Aggregate {
        name: "usage_daily",
        source: "usage_hourly",
        bucket: BucketWidth::Day,
    },
    Aggregate {
        name: "organization_usage_hourly",
        source: "usage_hourly",
        bucket: BucketWidth::Hour,
    },
    Aggregate {
        name: "organization_usage_daily",
        source: "organization_usage_hourly",
        bucket: BucketWidth::Day,
    },
];

impl BucketWidth {
    pub fn width(self) -> TimeDelta {
        match self {
            Self::Hour => TimeDelta::hours(1),
            Self::Day => TimeDelta::days(1),
        }
    }
}

impl Aggregate {
    /// The time span of a chunk, in days.
    pub fn chunk_interval_days(&self, storage: &Storage) -> u32 {
        match self.bucket {
            BucketWidth::Hour => storage.hourly_chunk_interval_days,
            BucketWidth::Day => storage.daily_chunk_interval_days,
        }
    }

    /// The age at which its buckets are dropped, in days; 0 for never.
    pub fn retention_days(&self, storage: &Storage) -> u32 {
        match self.bucket {
            BucketWidth::Hour => storage.retention_hourly_days,
            BucketWidth::Day => storage.retention_daily_days,
        }
    }

    /// The age at which the rows that it reads are dropped, in days; 0 for never.
    pub fn source_retention_days(&self, storage: &Storage) -> u32 {
        match by_name(self.source) {
            Some(source) => source.retention_days(storage),
            None => storage.retention_records_days,
        }
    }

    /// How many aggregates lie between it and the usage records.
    fn level(&self) -> usize {
        by_name(self.source).map_or(0, |source| source.level() + 1)
    }
}

fn by_name(name: &str) -> Option<&'static Aggregate> {
    AGGREGATES.iter().find(|aggregate| aggregate.name == name)
}

/// The aggregates in the order of a refresh. Those of one step read only those of earlier steps.
pub(super) fn refresh_steps() -> Vec<Vec<&'static Aggregate>> {
    let mut steps: Vec<Vec<&Aggregate>> = vec![];
    for aggregate in &AGGREGATES {
        let level = aggregate.level();
        if steps.len() <= level {
            steps.resize(level + 1, vec![]);
        }
        steps[level].push(aggregate);
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_aggregate_comes_after_its_source() {
        let mut before = vec![USAGE_RECORDS];
        for aggregate in &AGGREGATES {
            assert!(before.contains(&aggregate.source), "{}", aggregate.name);
            before.push(aggregate.name);
        }
    }

    #[test]
    fn a_refresh_step_reads_only_earlier_steps() {
        let names = |step: &Vec<&Aggregate>| -> Vec<_> {
            step.iter().map(|aggregate| aggregate.name).collect()
        };
        let steps: Vec<_> = refresh_steps().iter().map(names).collect();
        let expected: [&[&str]; 3] = [
            &["usage_hourly"],
            &["usage_daily", "organization_usage_hourly"],
            &["organization_usage_daily"],
        ];
        assert_eq!(steps, expected);
    }
}
