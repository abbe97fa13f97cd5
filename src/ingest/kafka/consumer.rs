//! The consumer thread: a member of the consumer group that reads messages and sends their records
//! to the writer in batches.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use tokio::sync::mpsc::Sender;

use super::super::batch_builder::{BatchLimits, BatchSize, Payload, RecordPosition, Rejects};
use super::super::options::Topic;
use super::assignment::{AssignedPartitions, ClaimAgain, MemberContext, WriterStopped};
use super::brokers::{BROKER_TIMEOUT, ensure_topic, learn_topic_id};
use super::channel::{Request, SharedState};
use super::last_read;
use super::topic_id;
use crate::config::Config;
use crate::db::TUPLE_BYTES;

/// How long a poll waits for a message. Signals and the age of a batch are checked this often.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// How many messages are read between two checks that need the clock.
const MESSAGES_PER_CHECK: u32 = 1_000;

/// How often offsets are committed to Kafka.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// How long the writer may take before the consumer pauses its partitions and polls meanwhile.
const SEND_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a member without partitions waits for one, if other members have them, before it takes the
/// topic as read to the end.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// The same if no other member is known: it gets partitions once it has learned of them.
const ALONE_TIMEOUT: Duration = Duration::from_secs(45);

/// How often the consumer asks which partitions the topic has.
const METADATA_EVERY: Duration = Duration::from_secs(30);

/// A byte order mark, which is ignored at the beginning of a message.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Settings of the consumer thread.
#[derive(Clone)]
pub(super) struct ConsumerSettings {
    topic: Topic,
    /// Settings of librdkafka.
    properties: Vec<(&'static str, String)>,
    limits: BatchLimits,
    max_record_bytes: usize,
}

impl ConsumerSettings {
    pub fn new(config: &Config, topic: &Topic) -> Self {
        Self {
            topic: topic.clone(),
            properties: [config.kafka.properties(), config.kafka.group_properties()].concat(),
            limits: BatchLimits::of_topic(&config.ingest),
            max_record_bytes: config.ingest.max_record_bytes,
        }
    }
}

/// A member of the consumer group.
pub(super) struct GroupMember {
    settings: ConsumerSettings,
    shared: Arc<SharedState>,
    rejects: Rejects,
    sender: Sender<Request>,
}

/// Result of a poll.
enum Polled {
    /// No message.
    Nothing,
    /// A message, and there is room for more.
    Message,
    /// A message that filled the batch: it must be sent before the next poll.
    Full,
}

impl GroupMember {
    pub fn new(
        settings: ConsumerSettings,
        shared: Arc<SharedState>,
        rejects: Rejects,
        sender: Sender<Request>,
    ) -> Self {
        Self {
            settings,
            shared,
            rejects,
            sender,
        }
    }

    /// Reads until the member is stopped or the topic ends. All records read are committed when
    /// this returns without an error.
    pub fn consume(mut self) -> (Rejects, anyhow::Result<()>) {
        let result = self.join().and_then(|consumer| {
            let result = self.read(&consumer);
            // After a failure, too: the records before it are valid.
            let context = consumer.context();
            if result.is_ok() {
                context.update_positions(&consumer);
            }
            let flushed = context.flush();
            context.commit_offsets(&consumer, CommitMode::Sync);
            // Closing the consumer discards messages that were fetched, and revokes the partitions.
            context.assignment().partitions.clear();
            result.and(flushed)
        });
        (self.rejects, result)
    }

    /// Joins the group.
    fn join(&self) -> anyhow::Result<BaseConsumer<MemberContext>> {
        let topic = &self.settings.topic;
        let mut config = ClientConfig::new();
        config
            .set("client.id", "simusage")
            .set("bootstrap.servers", &topic.brokers)
            .set("group.id", &topic.group)
            // Reading starts at the offset in the ledger. If Kafka no longer has it, records are
            // lost.
            .set("auto.offset.reset", "error")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            // How soon added partitions are noticed.
            .set(
                "topic.metadata.refresh.interval.ms",
                METADATA_EVERY.as_millis().to_string(),
            )
            .set(topic_id::DEBUG.0, topic_id::DEBUG.1)
            .set_log_level(RDKafkaLogLevel::Debug)
            .set("statistics.interval.ms", "2000")
            // Bounds memory.
            .set("queued.max.messages.kbytes", "16384")
            // How long to stop fetching once enough messages are queued. In the default of a
            // second, the queue runs empty.
            .set("fetch.queue.backoff.ms", "20")
            // How long a broker waits before it answers a fetch with nothing. Only that answer
            // tells that the end is reached.
            .set(
                "fetch.wait.max.ms",
                if topic.until_end { "50" } else { "500" },
            );
        for (name, value) in &self.settings.properties {
            config.set(*name, value);
        }
        let context = MemberContext::new(
            topic.name.clone(),
            Arc::clone(&self.shared),
            self.sender.clone(),
        );
        let consumer: BaseConsumer<MemberContext> = config
            .create_with_context(context)
            .context("configuring the Kafka client")?;
        ensure_topic(&consumer, topic)?;
        learn_topic_id(&consumer, topic);
        let cluster = consumer
            .client()
            .fetch_cluster_id(BROKER_TIMEOUT)
            .context("the brokers report no cluster id")?;
        consumer.context().set_cluster(cluster);
        consumer
            .subscribe(&[&topic.name])
            .context("joining the group")?;
        Ok(consumer)
    }

    fn read(&mut self, consumer: &BaseConsumer<MemberContext>) -> anyhow::Result<()> {
        let context = Arc::clone(consumer.context());
        let mut committed = Instant::now();
        let mut messages = 0;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let polled = self.poll(consumer)?;
            if matches!(polled, Polled::Full) {
                self.send_all(consumer)?;
            }
            messages += 1;
            if !matches!(polled, Polled::Nothing) && messages < MESSAGES_PER_CHECK {
                continue;
            }
            messages = 0;
            let mut assignment = context.assignment();
            // A partition that failed is not in the assignment, so none of its messages was read.
            if let Some(error) = assignment.failed.take() {
                return Err(error);
            }
            assignment.set_encoder(&self.shared.encoder.get());
            let end_reached = assignment.end_reached;
            drop(assignment);
            if end_reached {
                context.update_positions(consumer);
            }
            let began = context.assignment().began;
            if began.is_some_and(|began| self.settings.limits.is_old(began)) {
                self.send_all(consumer)?;
            }
            if committed.elapsed() >= COMMIT_EVERY {
                context.commit_offsets(consumer, CommitMode::Async);
                committed = Instant::now();
                if self.settings.topic.until_end && self.has_no_partitions(consumer) {
                    return Ok(());
                }
            }
            if self.sender.is_closed() {
                return Err(WriterStopped.into());
            }
            if self.settings.topic.until_end && is_at_end(&context.assignment()) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether the group has assigned no partition to this member, and will not soon.
    fn has_no_partitions(&self, consumer: &BaseConsumer<MemberContext>) -> bool {
        let assignment = consumer.context().assignment();
        let Some(changed) = assignment
            .changed
            .filter(|_| assignment.partitions.is_empty())
        else {
            return false;
        };
        drop(assignment);
        let Topic { name, group, .. } = &self.settings.topic;
        // A group that is being rebalanced may show no member, and the coordinator may be busy.
        let has_others = || {
            let groups = consumer.fetch_group_list(Some(group), BROKER_TIMEOUT);
            groups.is_ok_and(|groups| {
                groups
                    .groups()
                    .iter()
                    .any(|found| found.name() == group && found.members().len() > 1)
            })
        };
        let waited = changed.elapsed();
        if waited < IDLE_TIMEOUT || waited < ALONE_TIMEOUT && !has_others() {
            return false;
        }
        log::warn!("group {group} has assigned no partition of {name} to this member");
        true
    }

    /// Waits briefly for a message and adds its record to the batch.
    fn poll(&mut self, consumer: &BaseConsumer<MemberContext>) -> anyhow::Result<Polled> {
        let context = consumer.context();
        // A message is nearly always queued, and a poll with a timeout reads the clock.
        match consumer
            .poll(Duration::ZERO)
            .or_else(|| consumer.poll(POLL_TIMEOUT))
        {
            None => {}
            Some(Ok(message)) => return self.add(context, &message),
            Some(Err(KafkaError::PartitionEOF(number))) => {
                let mut assignment = context.assignment();
                if let Some(partition) = assignment.partitions.get_mut(&number) {
                    (partition.at_end, partition.has_begun) = (true, true);
                    assignment.end_reached = true;
                }
            }
            Some(Err(error)) => self.handle_error(context, error)?,
        }
        Ok(Polled::Nothing)
    }

    /// Sends all pending records to the writer. While the writer is busy, for example because the
    /// database is unavailable, the partitions are paused and polling continues: a member that does
    /// not poll is removed from its group.
    fn send_all(&mut self, consumer: &BaseConsumer<MemberContext>) -> anyhow::Result<()> {
        let context = Arc::clone(consumer.context());
        context.update_positions(consumer);
        let mut request = context.take_all_batches();
        let mut timeout = SEND_TIMEOUT;
        while let Some(unsent) = context.send_within(request, timeout)? {
            request = unsent;
            timeout = POLL_TIMEOUT;
            // Each time, because other partitions may have been assigned meanwhile.
            consumer.pause(&consumer.assignment()?).context("pausing")?;
            self.poll(consumer)?;
        }
        if timeout != SEND_TIMEOUT {
            consumer
                .resume(&consumer.assignment()?)
                .context("resuming")?;
        }
        Ok(())
    }

    /// Adds the record of a message to the batch of its partition.
    fn add(
        &mut self,
        context: &MemberContext,
        message: &BorrowedMessage<'_>,
    ) -> anyhow::Result<Polled> {
        let mut guard = context.assignment();
        let assignment = &mut *guard;
        let (number, offset) = (message.partition(), message.offset());
        // After a failure, a message may be of another topic.
        let is_readable = assignment.failed.is_none();
        let Some(partition) = assignment
            .partitions
            .get_mut(&number)
            .filter(|_| is_readable)
        else {
            return Ok(Polled::Message);
        };
        partition.has_begun = true;
        // If Kafka no longer has the expected message, a later one comes first.
        if let Some(expected) = partition.expected.take()
            && expected.offset == offset
            && expected.hash != last_read::hash(message)
        {
            self.shared.set_replaced(number);
            return Err(ClaimAgain::Replaced {
                name: partition.batch.source().to_string(),
                position: partition.next,
            }
            .into());
        }
        if offset < partition.next {
            return Ok(Polled::Message);
        }
        partition.last.set(message);
        let message_bytes = message.payload().unwrap_or_default();
        assignment.pending_bytes += message_bytes.len() as u64;
        assignment.began.get_or_insert_with(Instant::now);
        partition.at_end = false;
        let bytes = message_bytes
            .strip_prefix(BYTE_ORDER_MARK)
            .unwrap_or(message_bytes);
        // A tombstone, or an empty message: there is no record.
        if bytes.is_empty() {
            partition.next = offset + 1;
            partition.empty += 1;
            return Ok(Polled::Message);
        }
        let payload = Payload::cut(bytes, self.settings.max_record_bytes);
        let position = RecordPosition {
            offset: offset.unsigned_abs(),
            line: offset.unsigned_abs() + 1,
        };
        if let Some(rejected) = partition.batch.push(payload, position) {
            let place = format_args!("{} at offset {offset}", rejected.source);
            self.rejects.count(rejected, place);
        }
        partition.next = offset + 1;
        let rejected_bytes = partition.batch.size().rejected_bytes;
        assignment.pending_records += 1;
        assignment.is_full |= self.settings.limits.is_full(BatchSize {
            records: assignment.pending_records,
            tuple_bytes: assignment.pending_records * TUPLE_BYTES as u64,
            rejected_bytes,
        });
        let polled = if assignment.is_full {
            Polled::Full
        } else {
            Polled::Message
        };
        drop(guard);
        if let Some(limit) = self.rejects.exceeded_limit() {
            bail!(
                "stopped at {}/{number}, offset {offset}: more than {limit} records were rejected",
                self.settings.topic.name
            );
        }
        Ok(polled)
    }

    /// Logs an error that librdkafka recovers from.
    ///
    /// # Errors
    /// Returns any other error.
    fn handle_error(&self, context: &MemberContext, error: KafkaError) -> anyhow::Result<()> {
        match error {
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
            ) => {
                let offsets: Vec<String> = context
                    .assignment()
                    .partitions
                    .iter()
                    .map(|(number, partition)| format!("{} in partition {number}", partition.next))
                    .collect();
                Err(ClaimAgain::OutOfRange(offsets.join(", ")).into())
            }
            KafkaError::MessageConsumptionFatal(code) => {
                Err(anyhow!(KafkaError::MessageConsumptionFatal(code)))
            }
            KafkaError::MessageConsumption(
                code @ (RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::UnknownTopicOrPartition),
            ) => Err(anyhow!(KafkaError::MessageConsumption(code))),
            passing => {
                let reason = context
                    .take_problem()
                    .map_or_else(String::new, |reason| format!(": {reason}"));
                log::warn!("{}: {passing}{reason}", self.settings.topic.name);
                Ok(())
            }
        }
    }
}

/// Whether there are assigned partitions, and all have been read to the end.
fn is_at_end(assignment: &AssignedPartitions) -> bool {
    let mut partitions = assignment.partitions.values();
    !assignment.partitions.is_empty() && partitions.all(|partition| partition.at_end)
}
