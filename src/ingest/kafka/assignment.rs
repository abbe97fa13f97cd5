//! The partitions assigned to this member, and the callbacks that assign and revoke them.

use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use rdkafka::Statistics;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
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
use super::last_read::LastRead;
use super::start::{Available, LastMessage, Start};
use super::topic_id;
use crate::db::Checkpoint;

/// How long a revoked partition waits for its records to be committed.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for the offsets that are available.
const OFFSETS_TIMEOUT: Duration = Duration::from_secs(5);

/// The assigned partitions have changed while they were read: claiming them again tells how.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClaimAgain {
    #[error("the topic was deleted and created again")]
    Recreated,
    #[error("{name} has another message before offset {position} than the one that was stored")]
    Replaced { name: String, position: i64 },
    #[error(
        "the next message is no longer in Kafka, so records were lost or the topic was created again \
         (next offset: {0}); to read from the beginning, use another --group"
    )]
    OutOfRange(String),
}

/// The writer has failed, and reports why.
#[derive(Debug, thiserror::Error)]
#[error("the writer stopped")]
pub(super) struct WriterStopped;

/// A partition that is assigned to this member.
pub(super) struct Partition {
    pub batch: BatchBuilder,
    /// The position up to which everything was sent to the writer.
    sent_to: i64,
    /// The offset of the next message: after the last one that was read, and after any transaction
    /// markers and aborted messages that follow it.
    pub next: i64,
    /// The last message that was read.
    pub last: LastRead,
    /// The last message that the ledger has, until it has been compared.
    pub expected: Option<LastMessage>,
    /// How many messages were empty, since records were last sent to the writer.
    pub empty: u64,
    /// Whether a message or the end was read since the partition was assigned.
    pub has_begun: bool,
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
    /// Whether the end of a partition was reached, and its position must be looked up.
    pub end_reached: bool,
    /// When partitions were last assigned or revoked.
    pub changed: Option<Instant>,
    /// Why the assigned partitions cannot be read.
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
    /// The identifier of the topic; `None` while it is unknown.
    topic_id: Mutex<Option<String>>,
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
            topic_id: Mutex::default(),
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

    pub fn knows_topic_id(&self) -> bool {
        lock(&self.topic_id).is_some()
    }

    fn set_topic_id(&self, id: &str) {
        let known = lock(&self.topic_id).replace(id.to_owned());
        if known.is_some_and(|known| known != id) {
            // The next messages would be those of another topic.
            self.assignment()
                .failed
                .get_or_insert(ClaimAgain::Recreated.into());
        }
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
            if partition.batch.is_empty() && partition.next == partition.sent_to {
                continue;
            }
            let checkpoint = Checkpoint {
                position: partition.next,
                line: partition.last.end,
                prefix_hash: partition.last.hash(),
            };
            let batch = partition.batch.take(checkpoint);
            let from = std::mem::replace(&mut partition.sent_to, partition.next);
            batches.push(PartitionBatch {
                partition: number,
                from,
                empty: std::mem::take(&mut partition.empty),
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

    /// Sets the offsets in `list` to where reading starts.
    fn assign(
        &self,
        list: &TopicPartitionList,
        consumer: &BaseConsumer<Self>,
    ) -> anyhow::Result<()> {
        // A cooperative rebalance that changes nothing for this member has an empty list.
        if list.count() == 0 {
            return Ok(());
        }
        let (reply, starts) = sync_channel(1);
        self.send(Request::Claim {
            cluster: lock(&self.cluster).clone(),
            topic_id: lock(&self.topic_id).clone(),
            partitions: available(consumer, list),
            reply,
        })?;
        let starts = starts.recv().map_err(|_| WriterStopped)??;
        let encoder = self.shared.encoder.get();
        let mut assignment = self.assignment();
        for (element, start) in list.elements().iter_mut().zip(starts) {
            let Start { position, last } = start;
            let from = last.map(|last| last.offset).or(position);
            element.set_offset(from.map_or(Offset::Beginning, Offset::Offset))?;
            let next = position.unwrap_or_default();
            let name = format!("{}/{}", self.topic, element.partition());
            log::info!("reading {name} from {}", start_text(position));
            let encoder = Arc::clone(&encoder);
            let batch = BatchBuilder::new(name.into(), Format::Ndjson, None, encoder)
                .map_err(|problem| anyhow!(problem))?;
            let partition = Partition {
                batch,
                sent_to: next,
                next,
                last: LastRead::known(
                    last.map_or(next, |last| last.offset + 1),
                    last.map(|last| last.hash),
                ),
                expected: last,
                empty: 0,
                has_begun: false,
                at_end: false,
            };
            assignment.partitions.insert(element.partition(), partition);
        }
        Ok(())
    }

    /// Moves the positions past transaction markers and aborted messages.
    pub fn update_positions(&self, consumer: &BaseConsumer<Self>) {
        self.assignment().end_reached = false;
        // This asks no broker, and fails only while the consumer is closing.
        let Ok(positions) = consumer.position() else {
            return;
        };
        let mut guard = self.assignment();
        let assignment = &mut *guard;
        // After a failure, messages were discarded.
        if assignment.failed.is_some() {
            return;
        }
        for element in positions.elements_for_topic(&self.topic) {
            // Before its first message, a partition may have the position of an earlier assignment.
            if let Offset::Offset(position) = element.offset()
                && let Some(partition) = assignment.partitions.get_mut(&element.partition())
                && partition.has_begun
                && position > partition.next
            {
                partition.next = position;
                assignment.began.get_or_insert_with(Instant::now);
            }
        }
    }

    fn revoke(&self, list: &TopicPartitionList, consumer: &BaseConsumer<Self>) {
        let numbers: FxHashSet<i32> = list
            .elements()
            .iter()
            .map(TopicPartitionListElem::partition)
            .collect();
        self.update_positions(consumer);
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

/// What Kafka has of the partitions in `list`.
fn available(consumer: &BaseConsumer<MemberContext>, list: &TopicPartitionList) -> Vec<Available> {
    let offsets = |offset: Offset| -> FxHashMap<i32, i64> {
        let mut asked = list.clone();
        // This fails only for an offset that no partition can have.
        let _ = asked.set_all_offsets(offset);
        // One request per broker, where asking for watermarks would take two per partition.
        let found = match consumer.offsets_for_times(asked, OFFSETS_TIMEOUT) {
            Ok(found) => found,
            Err(error) => {
                log::warn!("looking up which offsets are available: {error}");
                return FxHashMap::default();
            }
        };
        let known = |element: &TopicPartitionListElem<'_>| match element.offset() {
            Offset::Offset(offset) if element.error().is_ok() => {
                Some((element.partition(), offset))
            }
            _ => None,
        };
        found.elements().iter().filter_map(known).collect()
    };
    let (first, end) = (offsets(Offset::Beginning), offsets(Offset::End));
    list.elements()
        .iter()
        .map(|element| {
            let number = element.partition();
            let offsets = first.get(&number).zip(end.get(&number));
            Available {
                number,
                offsets: offsets.map(|(&first, &end)| first..end),
            }
        })
        .collect()
}

impl ClientContext for MemberContext {
    /// Learns the identifier of the topic. Other debug messages are only for tracing.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let level = match level {
            RDKafkaLogLevel::Debug => {
                if let Some(id) = topic_id::changed_to(message, &self.topic) {
                    self.set_topic_id(id);
                }
                log::Level::Trace
            }
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => log::Level::Info,
            RDKafkaLogLevel::Warning => log::Level::Warn,
            _ => log::Level::Error,
        };
        log::log!(target: "librdkafka", level, "librdkafka: {facility} {message}");
    }

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
        // Up to the first open transaction: later messages cannot be read yet. librdkafka's own lag
        // counts transaction markers, which are never read.
        let lags = topic.partitions.values().filter_map(|partition| {
            let assigned = assignment.partitions.get(&partition.partition)?;
            let lag = partition.ls_offset.saturating_sub(assigned.next);
            (partition.ls_offset >= 0).then(|| u64::try_from(lag).unwrap_or_default())
        });
        self.shared.counters.set_lag(lags.sum());
    }
}

impl ConsumerContext for MemberContext {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                if let Err(error) = self.assign(list, consumer) {
                    self.assignment().failed = Some(error);
                }
            }
            Rebalance::Revoke(list) => self.revoke(list, consumer),
            Rebalance::Error(error) => log::warn!("rebalancing: {error}"),
        }
        self.assignment().changed = Some(Instant::now());
    }
}
