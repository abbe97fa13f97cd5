//! The result of an ingest, as printed and as JSON. Records read are always those stored plus those
//! rejected.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::ser::Serializer;

use super::progress::{Counters, rate};
use crate::db::{BatchEnd, KnownSource, with_causes};
use crate::domain::InventoryChanges;

/// Result of an ingest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Whether the run was a dry run. If so, `stored` counts the records that would be stored.
    #[serde(rename = "dry-run", skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// How a dry run looked up SIM cards.
    #[serde(rename = "sim-cards", skip_serializing_if = "Option::is_none")]
    pub sim_cards: Option<SimCards>,
    /// Records read.
    pub read: u64,
    /// Records stored.
    pub stored: u64,
    /// Records rejected.
    pub rejected: u64,
    /// Records rejected, by reason code.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Messages without a record: empty, or with no value at all.
    #[serde(rename = "empty-messages", skip_serializing_if = "Option::is_none")]
    pub empty_messages: Option<u64>,
    /// Sources in reading order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceSummary>,
    /// Assignments in the inventory file, if one was loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assignments: Option<usize>,
    /// What loading the inventory changed, unless this was a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inventory: Option<InventoryChanges>,
    /// Duration of the run.
    #[serde(rename = "elapsed-ms", serialize_with = "milliseconds")]
    pub elapsed: Duration,
    /// Part of `elapsed` in which aggregates were refreshed and no records were stored.
    #[serde(rename = "refresh-ms", serialize_with = "milliseconds")]
    pub refresh: Duration,
}

/// Result for one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceSummary {
    /// File name, or `stdin`.
    pub name: String,
    /// Whether records were stored, and if not, why.
    pub status: SourceStatus,
    /// Position of the first byte read for records, after decompression.
    pub from: i64,
    /// Position after the last record that was stored or rejected.
    pub to: i64,
    /// Records of the source that are stored, in this and earlier runs.
    pub stored: u64,
    /// Records of the source that are rejected, in this and earlier runs.
    pub rejected: u64,
    /// Why the source failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl SourceSummary {
    /// A source of which nothing was read yet.
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            status: SourceStatus::Empty,
            from: 0,
            to: 0,
            stored: 0,
            rejected: 0,
            error: None,
        }
    }

    /// Sets the result of a source that has no line after those of `known`.
    pub(super) fn set_already_ingested(&mut self, known: &KnownSource) {
        self.status = SourceStatus::AlreadyIngested;
        (self.from, self.to) = (known.position, known.position);
        self.set_counts((known.stored, known.rejected));
    }

    /// Sets the records that the ledger has as stored and rejected.
    pub(super) fn set_counts(&mut self, (stored, rejected): (i64, i64)) {
        self.stored = u64::try_from(stored).unwrap_or_default();
        self.rejected = u64::try_from(rejected).unwrap_or_default();
    }
}

/// Outcome for one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceStatus {
    /// All records were stored.
    Stored,
    /// An earlier run had stored the first part; the rest was stored.
    Continued,
    /// An earlier run had stored everything.
    AlreadyIngested,
    /// The source has no records.
    Empty,
    /// The records were read in a dry run, and not stored.
    Read,
    /// The source is unreadable or was refused. Records before the error may have been stored.
    Failed,
}

/// Where a dry run looks up SIM cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SimCards {
    /// In the given inventory file only.
    InventoryFile,
    /// In the database.
    Database,
    /// Nowhere, because the database was unavailable.
    Unchecked,
}

/// Counts of committed records.
#[derive(Debug)]
pub(super) struct Tally {
    counters: Arc<Counters>,
    pub stored: u64,
    pub rejected: u64,
    empty_messages: u64,
    /// Rejected records by reason code.
    reasons: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// An empty tally that also adds to `counters`.
    pub fn new(counters: Arc<Counters>) -> Self {
        Self {
            counters,
            stored: 0,
            rejected: 0,
            empty_messages: 0,
            reasons: BTreeMap::new(),
        }
    }

    /// Counts the records of one transaction. `rejected` yields reason codes.
    pub fn add(&mut self, stored: u64, rejected: impl Iterator<Item = &'static str>) {
        self.stored += stored;
        let before = self.rejected;
        for reason in rejected {
            self.rejected += 1;
            *self.reasons.entry(reason).or_default() += 1;
        }
        self.counters.add_committed(stored, self.rejected - before);
    }

    /// Counts the records of one batch.
    pub fn add_batch(&mut self, end: &BatchEnd) {
        self.add(end.rows, end.rejected.iter().map(|record| record.reason));
    }

    /// Counts the empty messages of one batch.
    pub fn add_empty_messages(&mut self, count: u64) {
        self.empty_messages += count;
        self.counters.add_empty_messages(count);
    }
}

impl Summary {
    /// Logs that a source failed, and adds it.
    pub(super) fn add_failed(&mut self, name: &str, error: &anyhow::Error) {
        let error = with_causes(error);
        log::error!("{error}");
        self.sources.push(SourceSummary {
            status: SourceStatus::Failed,
            error: Some(error),
            ..SourceSummary::new(name.to_owned())
        });
    }

    /// Whether this run rejected records, or an earlier one did and they are not stored since.
    #[must_use]
    pub fn has_rejected(&self) -> bool {
        self.rejected > 0 || self.sources.iter().any(|source| source.rejected > 0)
    }

    /// Names of the sources that failed.
    pub fn failed(&self) -> impl Iterator<Item = &str> {
        let is_failed = |source: &&SourceSummary| source.status == SourceStatus::Failed;
        self.sources
            .iter()
            .filter(is_failed)
            .map(|source| source.name.as_str())
    }

    /// Takes over the counts of `tally`.
    pub(super) fn absorb(&mut self, tally: Tally) {
        self.read = tally.stored + tally.rejected;
        self.stored = tally.stored;
        self.rejected = tally.rejected;
        self.reasons = tally.reasons;
        if let Some(empty) = &mut self.empty_messages {
            *empty = tally.empty_messages;
        }
    }
}

fn milliseconds<S: Serializer>(elapsed: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(assignments) = self.assignments {
            let stored = if self.dry_run { ", not stored" } else { "" };
            write!(formatter, "inventory: {assignments} assignments{stored}")?;
            if let Some(InventoryChanges {
                added,
                moved,
                unchanged,
                left,
                removed,
                ..
            }) = self.inventory
            {
                let others = match (removed, left) {
                    (0, _) => format!("{left} not in the file were left"),
                    (_, 0) => format!("{removed} not in the file were removed"),
                    _ => format!("{removed} not in the file were removed, and {left} left"),
                };
                write!(
                    formatter,
                    " ({added} added, {moved} moved, {unchanged} unchanged; {others})"
                )?;
            }
            writeln!(formatter)?;
        }
        for SourceSummary {
            name,
            status,
            from,
            stored,
            rejected,
            ..
        } in &self.sources
        {
            match status {
                SourceStatus::Stored | SourceStatus::Read => {}
                SourceStatus::Empty => writeln!(formatter, "{name}: no records")?,
                SourceStatus::Continued => writeln!(formatter, "{name}: continued at byte {from}")?,
                SourceStatus::AlreadyIngested if *rejected > 0 => writeln!(
                    formatter,
                    "{name}: already ingested; {rejected} of its {} records were rejected, see \
                     rejected_records",
                    stored + rejected
                )?,
                SourceStatus::AlreadyIngested => writeln!(formatter, "{name}: already ingested")?,
                SourceStatus::Failed => writeln!(formatter, "{name}: failed, see the error above")?,
            }
        }
        let stored = if self.dry_run {
            "would store"
        } else {
            "stored"
        };
        write!(
            formatter,
            "read {}, {stored} {}, rejected {}",
            self.read, self.stored, self.rejected
        )?;
        let mut separator = " (";
        for (reason, count) in &self.reasons {
            write!(formatter, "{separator}{reason} {count}")?;
            separator = ", ";
        }
        let close = if self.reasons.is_empty() { "" } else { ")" };
        let empty = match self.empty_messages {
            Some(count) if count > 0 => format!(", skipped {count} empty messages"),
            _ => String::new(),
        };
        let seconds = self.elapsed.as_secs_f64();
        if let Some(sim_cards) = self.sim_cards {
            return write!(
                formatter,
                "{close} in {seconds:.2} s; {sim_cards}; a dry run stores nothing"
            );
        }
        write!(
            formatter,
            "{close}{empty} in {seconds:.2} s ({} records/s), including {:.2} s to refresh aggregates",
            rate(self.read, self.elapsed),
            self.refresh.as_secs_f64()
        )
    }
}

impl fmt::Display for SimCards {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::InventoryFile => "SIM cards checked against the inventory file",
            Self::Database => "SIM cards checked against the database",
            Self::Unchecked => "SIM cards not checked",
        })
    }
}
