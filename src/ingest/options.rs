//! The options of an ingest.

use std::path::PathBuf;
use std::sync::Arc;

use super::parse::Format;
use super::progress::Counters;
use super::source::Source;

/// What to ingest, and how.
#[derive(Debug, Clone, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a command-line option"
)]
pub struct Options {
    /// Inventory file to load first.
    pub inventory: Option<PathBuf>,
    /// Remove all assignments that the inventory file lacks.
    pub replace_inventory: bool,
    /// Files and streams of usage records, in reading order.
    pub sources: Vec<Source>,
    /// Kafka topic to read instead of `sources`.
    pub kafka: Option<Topic>,
    /// Format of all sources. If `None`, it is detected for each of them.
    pub format: Option<Format>,
    /// Whether nothing will be appended to the sources, so that a last line without a line end is a
    /// whole record.
    pub complete: bool,
    /// Store a file that shares records with stored ones, unless it is stored itself.
    pub as_new: bool,
    /// Name of standard input in the ledger. Without one, no later run can resume the stream.
    pub source_id: Option<String>,
    /// Stop once more records than this were rejected.
    pub max_rejects: Option<u64>,
    /// Retry the records in `rejected_records` instead of reading sources.
    pub replay_rejects: bool,
    /// Validate the input without writing to the database.
    pub dry_run: bool,
    /// Counters to update during the run.
    pub counters: Arc<Counters>,
}

/// A Kafka topic, and the consumer group that reads it.
#[derive(Debug, Clone)]
pub struct Topic {
    /// Comma-separated addresses of one or more brokers.
    pub brokers: String,
    /// Name of the topic.
    pub name: String,
    /// Name of the consumer group.
    pub group: String,
    /// Stop at the end of the partitions instead of waiting for new messages.
    pub until_end: bool,
    /// What to do with a partition whose messages were deleted or replaced since they were read. If
    /// `None`, the ingest fails.
    pub if_changed: Option<IfChanged>,
    /// Fail if Kafka has deleted the first messages of a partition that the group has not read yet.
    pub require_beginning: bool,
}

/// What to do with a partition whose messages were deleted or replaced since they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfChanged {
    /// Read it from its beginning.
    Restart,
    /// Continue at the stored position, or at the nearest one that Kafka has.
    Continue,
}
