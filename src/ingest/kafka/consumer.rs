//! The consumer thread: a member of the consumer group that reads messages and sends their records
//! to the writer in batches.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use tokio::sync::mpsc::Sender;

use super::super::batch_builder::{BatchLimits, BatchSize, Payload, RecordPosition, Rejects};
use super::super::options::Topic;
use super::assignment::{AssignedPartitions, MemberContext, WriterStopped};
use super::brokers::{BROKER_TIMEOUT, ensure_topic};
use super::channel::{Request, SharedState};
use crate::config::Config;
use crate::db::TUPLE_BYTES;

/// How long a poll waits for a message. Signals and the age of a batch are checked this often.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// How many messages are read between two checks that need the clock.
const MESSAGES_PER_CHECK: u32 = 1_000;

/// How often offsets are committed to Kafka, and the inventory is checked for changes.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// How long the writer may take before the consumer pauses its partitions and polls meanwhile.
const SEND_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a member without partitions waits for one before it takes the topic as read to the end.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

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
            properties: config.kafka.properties(),
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
            let flushed = context.flush();
            context.commit_offsets(&consumer, CommitMode::Sync);
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
            .set("partition.assignment.strategy", "cooperative-sticky")
            // Reading starts at the offset in the ledger. If Kafka no longer has it, records are
            // lost.
            .set("auto.offset.reset", "error")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
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
            assignment.set_encoder(&self.shared.encoder());
            let began = assignment.began;
            drop(assignment);
            if began.is_some_and(|began| self.settings.limits.is_old(began)) {
                self.send_all(consumer)?;
            }
            if committed.elapsed() >= COMMIT_EVERY {
                context.commit_offsets(consumer, CommitMode::Async);
                // If the writer is busy, the next attempt follows soon.
                let _ = self.sender.try_send(Request::ReloadInventory);
                committed = Instant::now();
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
                if let Some(partition) = context.assignment().partitions.get_mut(&number) {
                    partition.at_end = true;
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
        let Some(partition) = assignment
            .partitions
            .get_mut(&number)
            .filter(|partition| offset >= partition.next)
        else {
            return Ok(Polled::Message);
        };
        // A message without a payload, such as a tombstone, is rejected as malformed.
        let message_bytes = message.payload().unwrap_or_default();
        let payload = Payload::cut(message_bytes, self.settings.max_record_bytes);
        let position = RecordPosition {
            offset: offset.unsigned_abs(),
            line: offset.unsigned_abs() + 1,
        };
        if let Some(rejected) = partition.batch.push(payload, position) {
            let place = format_args!("{} at offset {offset}", rejected.source);
            self.rejects.count(rejected, place);
        }
        partition.next = offset + 1;
        partition.at_end = false;
        let rejected_bytes = partition.batch.size().rejected_bytes;
        assignment.began.get_or_insert_with(Instant::now);
        assignment.pending_bytes += message_bytes.len() as u64;
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
                bail!(
                    "the next message is no longer in Kafka, so records were lost or the topic was \
                     recreated (next offset: {}); to read from the beginning, use another --group",
                    offsets.join(", ")
                )
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

/// Whether all assigned partitions have been read to the end.
fn is_at_end(assignment: &AssignedPartitions) -> bool {
    let Some(changed) = assignment.changed else {
        return false;
    };
    if assignment.partitions.is_empty() {
        return changed.elapsed() >= IDLE_TIMEOUT;
    }
    assignment
        .partitions
        .values()
        .all(|partition| partition.at_end)
}
