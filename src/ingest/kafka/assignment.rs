//! The partitions assigned to this member, and the callbacks that assign and revoke them.

use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use rdkafka::Statistics;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::SendTimeoutError;

use super::super::batch_builder::BatchBuilder;
use super::super::parse::Format;
use super::super::record_encoder::RecordEncoder;
use super::channel::{PartitionBatch, Request, SharedState, lock};
use crate::db::Checkpoint;

/// How long a revoked partition waits for its records to be committed.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The writer has failed, and reports why.
#[derive(Debug, thiserror::Error)]
#[error("the writer stopped")]
pub(super) struct WriterStopped;

/// A partition that is assigned to this member.
pub(super) struct Partition {
    pub batch: BatchBuilder,
    /// The offset after the last record that was sent to the writer.
    sent_to: i64,
    /// The offset after the last message that was read.
    pub next: i64,
    /// Whether all existing messages have been read.
    pub at_end: bool,
}

/// The assigned partitions. Records are pending from when they are read until they are sent to the
/// writer.
#[derive(Default)]
pub(super) struct AssignedPartitions {
    pub partitions: FxHashMap<i32, Partition>,
    /// When the first pending record was read.
    pub began: Option<Instant>,
    pub pending_records: u64,
    /// Bytes of the messages with pending records.
    pub pending_bytes: u64,
    /// Whether the pending records must be sent before the next message is read.
    pub is_full: bool,
    /// When partitions were last assigned or revoked.
    pub changed: Option<Instant>,
    /// Why partitions could not be assigned.
    pub failed: Option<anyhow::Error>,
}

impl AssignedPartitions {
    pub fn set_encoder(&mut self, encoder: &Arc<RecordEncoder>) {
        for partition in self.partitions.values_mut() {
            partition.batch.set_encoder(encoder);
        }
    }
}

/// The context of a consumer. librdkafka calls it only while the consumer is polled.
pub(super) struct MemberContext {
    topic: String,
    cluster: Mutex<String>,
    /// The last error reported by librdkafka.
    problem: Mutex<Option<String>>,
    assignment: Mutex<AssignedPartitions>,
    shared: Arc<SharedState>,
    sender: Sender<Request>,
}

impl MemberContext {
    pub fn new(topic: String, shared: Arc<SharedState>, sender: Sender<Request>) -> Self {
        Self {
            topic,
            cluster: Mutex::default(),
            problem: Mutex::default(),
            assignment: Mutex::default(),
            shared,
            sender,
        }
    }

    /// Sets the identifier of the cluster, which is a part of each partition's identity.
    pub fn set_cluster(&self, cluster: String) {
        *lock(&self.cluster) = cluster;
    }

    pub fn assignment(&self) -> MutexGuard<'_, AssignedPartitions> {
        lock(&self.assignment)
    }

    pub fn take_problem(&self) -> Option<String> {
        lock(&self.problem).take()
    }

    fn send(&self, request: Request) -> anyhow::Result<()> {
        self.sender
            .blocking_send(request)
            .map_err(|_| WriterStopped.into())
    }

    /// Sends a request, or returns it if the channel stays full for `timeout`.
    pub fn send_within(
        &self,
        request: Request,
        timeout: Duration,
    ) -> anyhow::Result<Option<Request>> {
        match Handle::current().block_on(self.sender.send_timeout(request, timeout)) {
            Ok(()) => Ok(None),
            Err(SendTimeoutError::Timeout(request)) => Ok(Some(request)),
            Err(SendTimeoutError::Closed(_)) => Err(WriterStopped.into()),
        }
    }

    /// Takes the pending records of the partitions that `filter` selects.
    fn take_batches(&self, filter: impl Fn(i32) -> bool) -> Request {
        let mut batches = vec![];
        let mut assignment = self.assignment();
        for (&number, partition) in assignment
            .partitions
            .iter_mut()
            .filter(|(number, _)| filter(**number))
        {
            if partition.batch.is_empty() {
                continue;
            }
            let checkpoint = Checkpoint {
                position: partition.next,
                line: partition.next,
                prefix_hash: None,
            };
            let batch = partition.batch.take(checkpoint);
            let from = std::mem::replace(&mut partition.sent_to, partition.next);
            batches.push(PartitionBatch {
                partition: number,
                from,
                batch,
            });
        }
        Request::Store(batches)
    }

    /// Takes the pending records of all partitions.
    pub fn take_all_batches(&self) -> Request {
        let mut assignment = self.assignment();
        assignment.began = None;
        assignment.is_full = false;
        // Once per batch, because other threads use the counters, too.
        self.shared
            .counters
            .add_records(std::mem::take(&mut assignment.pending_records));
        self.shared
            .counters
            .add_bytes(std::mem::take(&mut assignment.pending_bytes));
        drop(assignment);
        self.take_batches(|_| true)
    }

    /// Sends all pending records, and waits until they are committed.
    pub fn flush(&self) -> anyhow::Result<()> {
        self.send(self.take_all_batches())?;
        let (done, barrier) = sync_channel(1);
        self.send(Request::Barrier(done))?;
        barrier.recv().map_err(|_| WriterStopped.into())
    }

    /// Sends `batches`, and waits until everything sent so far is committed, but no longer than
    /// `timeout`.
    fn flush_within(&self, batches: Request, timeout: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + timeout;
        let left = || deadline.saturating_duration_since(Instant::now());
        let (done, barrier) = sync_channel(1);
        for request in [batches, Request::Barrier(done)] {
            ensure!(
                self.send_within(request, left())?.is_none(),
                "the database is taking too long"
            );
        }
        barrier
            .recv_timeout(left())
            .context("waiting for the database")
    }

    /// Sets the offsets in `list` to the positions in the ledger.
    fn assign(&self, list: &TopicPartitionList) -> anyhow::Result<()> {
        let numbers: Vec<i32> = list
            .elements()
            .iter()
            .map(TopicPartitionListElem::partition)
            .collect();
        // A cooperative rebalance that changes nothing for this member has an empty list.
        if numbers.is_empty() {
            return Ok(());
        }
        let (reply, offsets) = sync_channel(1);
        self.send(Request::Claim {
            cluster: lock(&self.cluster).clone(),
            partitions: numbers,
            reply,
        })?;
        let offsets = offsets.recv().map_err(|_| WriterStopped)?;
        let encoder = self.shared.encoder();
        let mut assignment = self.assignment();
        for (element, offset) in list.elements().iter_mut().zip(offsets) {
            element.set_offset(offset.map_or(Offset::Beginning, Offset::Offset))?;
            let next = offset.unwrap_or_default();
            let name = format!("{}/{}", self.topic, element.partition());
            log::info!("reading {name} from {}", start_text(offset));
            let encoder = Arc::clone(&encoder);
            let batch = BatchBuilder::new(name.into(), Format::Ndjson, None, encoder)
                .map_err(|problem| anyhow!(problem))?;
            let partition = Partition {
                batch,
                sent_to: next,
                next,
                at_end: false,
            };
            assignment.partitions.insert(element.partition(), partition);
        }
        Ok(())
    }

    fn revoke(&self, list: &TopicPartitionList, consumer: &BaseConsumer<Self>) {
        let numbers: FxHashSet<i32> = list
            .elements()
            .iter()
            .map(TopicPartitionListElem::partition)
            .collect();
        // If the database takes too long, the next owner reads these records again.
        let batches = self.take_batches(|number| numbers.contains(&number));
        match self.flush_within(batches, REVOKE_TIMEOUT) {
            Ok(()) => self.commit_offsets(consumer, CommitMode::Async),
            Err(error) => {
                log::warn!(
                    "partitions were revoked before their records were committed: {error:#}; the next owner will read those records again"
                );
            }
        }
        self.assignment()
            .partitions
            .retain(|number, _| !numbers.contains(number));
    }

    /// Commits the stored offsets to Kafka, for tools that show the group's lag.
    pub fn commit_offsets(&self, consumer: &BaseConsumer<Self>, mode: CommitMode) {
        let mut list = TopicPartitionList::new();
        for (partition, next) in self.shared.take_stored() {
            // This fails only for a partition that was added twice.
            let _ = list.add_partition_offset(&self.topic, partition, Offset::Offset(next));
        }
        if list.count() > 0
            && let Err(error) = consumer.commit(&list, mode)
        {
            log::debug!("committing offsets to Kafka: {error}");
        }
    }
}

fn start_text(offset: Option<i64>) -> String {
    offset.map_or_else(
        || "the beginning".to_owned(),
        |offset| format!("offset {offset}"),
    )
}

impl ClientContext for MemberContext {
    /// Keeps the reason, because the error that the same poll returns has none.
    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition is not an error, and "all brokers down" would hide the cause.
        let uninformative = [
            RDKafkaErrorCode::AllBrokersDown,
            RDKafkaErrorCode::PartitionEOF,
        ];
        if !error
            .rdkafka_error_code()
            .is_some_and(|code| uninformative.contains(&code))
        {
            *lock(&self.problem) = Some(reason.to_owned());
        }
    }

    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.topic) else {
            return;
        };
        let assignment = self.assignment();
        let assigned = topic.partitions.values().filter(|partition| {
            assignment.partitions.contains_key(&partition.partition) && partition.consumer_lag >= 0
        });
        self.shared.counters.set_lag(
            assigned
                .map(|partition| partition.consumer_lag.unsigned_abs())
                .sum(),
        );
    }
}

impl ConsumerContext for MemberContext {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                if let Err(error) = self.assign(list) {
                    self.assignment().failed = Some(error);
                }
            }
            Rebalance::Revoke(list) => self.revoke(list, consumer),
            Rebalance::Error(error) => log::warn!("rebalancing: {error}"),
        }
        self.assignment().changed = Some(Instant::now());
    }
}
