//! The thread that is a member of the consumer group: reads messages, and hands their records on in batches.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver as Reply, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use bytes::Bytes;
use rdkafka::Statistics;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::SendTimeoutError;

use super::super::batch_builder::{BatchBuilder, Rejects};
use super::super::options::Topic;
use super::super::parse::Parser;
use super::super::pending_batch::PartialBatch;
use super::super::record_encoder::RecordEncoder;
use super::super::reject::{Defect, Reason};
use super::super::source::Format;
use super::{ConsumerSettings, ConsumerShared, PartitionBatch, Request};
use crate::db::{Checkpoint, RejectedRecord};

/// Batches of all partitions are handed on when their usage records weigh this much together.
const BATCHES_BYTES: u64 = 16 * 1024 * 1024;

/// How long to wait for the first word of a broker.
const BROKER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for it before looking whether it was a refusal.
const BROKER_ATTEMPT: Duration = Duration::from_secs(1);

/// How long a message is waited for: a signal is obeyed, and a batch's age is looked at, this often.
const POLL: Duration = Duration::from_millis(100);

/// How long to look for what librdkafka has to say.
const BRIEFLY: Duration = Duration::from_millis(10);

/// How many messages come between two looks at the clock.
const MESSAGES_BETWEEN_LOOKS: u32 = 1_000;

/// How often Kafka is told how far the partitions are stored, and the inventory is looked at.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How long a partition that is taken away waits for what was read of it to be committed.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the storing side may take for a batch before the consuming side goes on polling.
const STALL: Duration = Duration::from_secs(3);

/// How many topics an error names, where the one that is wanted is not there.
const SHOWN_TOPICS: usize = 10;

/// How long a member without a partition waits for one before it takes the end for reached.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the consuming side ends early.
#[derive(Debug, thiserror::Error)]
#[error("the storing side ended")]
struct StoringEnded;

/// A partition that is assigned to this member.
struct Partition {
    batch: BatchBuilder,
    pieces: Vec<Bytes>,
    /// The offset behind what was handed on.
    handed_on: i64,
    /// The offset behind what was read.
    next: i64,
    /// Whether all messages there are have been read.
    at_end: bool,
}

/// The assigned partitions, and what was read of them and not handed on yet.
struct Assigned {
    partitions: FxHashMap<i32, Partition>,
    /// When the first record came that is not handed on.
    began: Option<Instant>,
    /// How many records, and bytes of messages, are not handed on.
    waiting_records: u64,
    waiting_bytes: u64,
    /// Whether that is enough to hand it on.
    is_full: bool,
    /// When partitions were assigned or taken away last; `None` before the first time.
    changed: Option<Instant>,
    /// Why no partition can be read.
    failed: Option<anyhow::Error>,
}

/// What a poll brought.
enum Polled {
    /// No message.
    Nothing,
    /// One, and there is room for more.
    Message,
    /// One, and what was read is to be handed on before the next.
    Last,
}

/// What librdkafka calls back to, always from within a poll.
struct Context {
    topic: String,
    cluster: Mutex<String>,
    /// The last problem, as librdkafka puts it.
    problem: Mutex<Option<String>>,
    assigned: Mutex<Assigned>,
    shared: Arc<ConsumerShared>,
    sender: Sender<Request>,
}

impl Context {
    fn assigned(&self) -> MutexGuard<'_, Assigned> {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_problem(&self) -> Option<String> {
        self.problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn ask(&self, request: Request) -> anyhow::Result<()> {
        self.sender
            .blocking_send(request)
            .map_err(|_| StoringEnded.into())
    }

    /// Asks, but waits no longer than `patience` for the storing side to take it; gives it back then.
    fn ask_within(&self, request: Request, patience: Duration) -> anyhow::Result<Option<Request>> {
        match Handle::current().block_on(self.sender.send_timeout(request, patience)) {
            Ok(()) => Ok(None),
            Err(SendTimeoutError::Timeout(request)) => Ok(Some(request)),
            Err(SendTimeoutError::Closed(_)) => Err(StoringEnded.into()),
        }
    }

    /// What was read of the partitions that `which` names and is not handed on yet.
    fn take_batches(&self, which: impl Fn(i32) -> bool) -> Request {
        let mut ready = vec![];
        let mut assigned = self.assigned();
        for (&number, partition) in assigned
            .partitions
            .iter_mut()
            .filter(|(number, _)| which(**number))
        {
            if partition.batch.records() == 0 {
                continue;
            }
            partition.pieces.extend(partition.batch.take_rest());
            let checkpoint = Checkpoint {
                position: partition.next,
                line: partition.next,
                prefix_hash: None,
            };
            let end = Some(partition.batch.take_end(checkpoint));
            let batch = PartialBatch {
                pieces: std::mem::take(&mut partition.pieces),
                end,
            };
            let from = std::mem::replace(&mut partition.handed_on, partition.next);
            ready.push(PartitionBatch {
                partition: number,
                from,
                batch,
            });
        }
        Request::Store(ready)
    }

    /// What was read of all partitions and is not handed on yet.
    fn take_all_batches(&self) -> Request {
        let mut assigned = self.assigned();
        assigned.began = None;
        // Not with every message, because others look at the counters, too.
        self.shared
            .counters
            .add_records(std::mem::take(&mut assigned.waiting_records));
        self.shared
            .counters
            .add_bytes(std::mem::take(&mut assigned.waiting_bytes));
        drop(assigned);
        self.take_batches(|_| true)
    }

    /// Hands on what was read of all partitions, and waits until it is committed, for however long that takes.
    fn store_all(&self) -> anyhow::Result<()> {
        self.ask(self.take_all_batches())?;
        let (done, waiting): (_, Reply<()>) = sync_channel(1);
        self.ask(Request::Barrier(done))?;
        waiting.recv().map_err(|_| StoringEnded.into())
    }

    /// Hands on `batches`, and waits until everything that was handed on is committed, all within `patience`.
    fn store_within(&self, batches: Request, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        let left = || deadline.saturating_duration_since(Instant::now());
        let (done, waiting): (_, Reply<()>) = sync_channel(1);
        for request in [batches, Request::Barrier(done)] {
            ensure!(
                self.ask_within(request, left())?.is_none(),
                "the database takes too long"
            );
        }
        waiting
            .recv_timeout(left())
            .context("waiting for the database")
    }

    /// Has the partitions begin where the ledger says.
    fn begin(&self, list: &TopicPartitionList) -> anyhow::Result<()> {
        let partitions: Vec<i32> = list
            .elements()
            .iter()
            .map(TopicPartitionListElem::partition)
            .collect();
        // A cooperative rebalance that changes nothing for this member says so with an empty list.
        if partitions.is_empty() {
            return Ok(());
        }
        let (reply, answer) = sync_channel(1);
        let cluster = self
            .cluster
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        self.ask(Request::Begin {
            cluster,
            partitions,
            reply,
        })?;
        let offsets = answer.recv().map_err(|_| StoringEnded)?;
        let mut assigned = self.assigned();
        for (element, offset) in list.elements().iter_mut().zip(offsets) {
            element.set_offset(offset.map_or(Offset::Beginning, Offset::Offset))?;
            let next = offset.unwrap_or_default();
            let partition = Partition {
                batch: BatchBuilder::new(),
                pieces: vec![],
                handed_on: next,
                next,
                at_end: false,
            };
            assigned.partitions.insert(element.partition(), partition);
            log::info!(
                "{}/{} is read from {}",
                self.topic,
                element.partition(),
                place(offset)
            );
        }
        Ok(())
    }

    /// Tells Kafka how far the partitions are stored, for tools that show a group's lag.
    fn tell(&self, consumer: &BaseConsumer<Self>, mode: CommitMode) {
        let mut list = TopicPartitionList::new();
        for (partition, next) in self.shared.take_stored() {
            // An error would name a partition that was added twice.
            let _ = list.add_partition_offset(&self.topic, partition, Offset::Offset(next));
        }
        if list.count() > 0
            && let Err(error) = consumer.commit(&list, mode)
        {
            log::debug!("telling Kafka the offsets: {error}");
        }
    }

    fn end(&self, list: &TopicPartitionList, consumer: &BaseConsumer<Self>) {
        let numbers: FxHashSet<i32> = list
            .elements()
            .iter()
            .map(TopicPartitionListElem::partition)
            .collect();
        // Nobody waits for the database for ever: what is not committed by then is for the next owner to read.
        let batches = self.take_batches(|number| numbers.contains(&number));
        match self.store_within(batches, REVOKE_TIMEOUT) {
            Ok(()) => self.tell(consumer, CommitMode::Async),
            Err(error) => {
                log::warn!("partitions are given up before their records are committed: {error:#}");
            }
        }
        self.assigned()
            .partitions
            .retain(|number, _| !numbers.contains(number));
    }
}

/// # Errors
/// The brokers do not answer, or do not have the topic.
fn ensure_topic(consumer: &BaseConsumer<Context>, topic: &Topic) -> anyhow::Result<()> {
    let metadata = ask_for_topics(consumer).context(
        "asking the brokers: are they running, do they say who they are by an address that can be reached from here \
         (advertised.listeners), and do the settings in [kafka] fit?",
    )?;
    let usable = |found: &&MetadataTopic| found.error().is_none() && !found.partitions().is_empty();
    if metadata
        .topics()
        .iter()
        .filter(usable)
        .any(|found| found.name() == topic.name)
    {
        return Ok(());
    }
    let mut others: Vec<&str> = metadata.topics().iter().map(MetadataTopic::name).collect();
    others.retain(|name| !name.starts_with("__"));
    others.sort_unstable();
    others.truncate(SHOWN_TOPICS);
    let others = if others.is_empty() {
        "none".to_owned()
    } else {
        others.join(", ")
    };
    bail!(
        "there is no topic {name} (there are: {others}); correct --topic, or create it, as with \
         `kafka-topics.sh --bootstrap-server {brokers} --create --topic {name}`",
        name = topic.name,
        brokers = topic.brokers,
    )
}

/// # Errors
/// No broker answers in time, or one refuses. Why, librdkafka tells only whoever polls.
fn ask_for_topics(consumer: &BaseConsumer<Context>) -> anyhow::Result<Metadata> {
    let began = Instant::now();
    loop {
        // Of all topics, because a question about one may create it.
        let error = match consumer.fetch_metadata(None, BROKER_ATTEMPT) {
            Ok(metadata) => return Ok(metadata),
            Err(error) => error,
        };
        let mut is_refused = false;
        // A consumer that has not joined yet gets no messages. Not waiting at all would end at the first line of a log.
        while let Some(Err(problem)) = consumer.poll(BRIEFLY) {
            is_refused |= matches!(
                problem.rdkafka_error_code(),
                Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL)
            );
        }
        if is_refused || began.elapsed() >= BROKER_TIMEOUT {
            let reason = consumer.context().take_problem();
            return Err(reason.map_or_else(|| error.into(), |reason| anyhow!(reason)));
        }
    }
}

fn place(offset: Option<i64>) -> String {
    offset.map_or_else(
        || "its beginning".to_owned(),
        |offset| format!("offset {offset}"),
    )
}

impl ClientContext for Context {
    /// Keeps the words: the error that follows from the same poll has none.
    fn error(&self, error: KafkaError, reason: &str) {
        // That all are down says less than what was said of the last one, and a partition's end is no problem.
        let says_little = [
            RDKafkaErrorCode::AllBrokersDown,
            RDKafkaErrorCode::PartitionEOF,
        ];
        if !error
            .rdkafka_error_code()
            .is_some_and(|code| says_little.contains(&code))
        {
            *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
    }

    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.topic) else {
            return;
        };
        let assigned = self.assigned();
        let of_assigned = topic.partitions.values().filter(|partition| {
            assigned.partitions.contains_key(&partition.partition) && partition.consumer_lag >= 0
        });
        self.shared.counters.set_lag(
            of_assigned
                .map(|partition| partition.consumer_lag.unsigned_abs())
                .sum(),
        );
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                if let Err(error) = self.begin(list) {
                    self.assigned().failed = Some(error);
                }
            }
            Rebalance::Revoke(list) => self.end(list, consumer),
            Rebalance::Error(error) => log::warn!("rebalancing: {error}"),
        }
        self.assigned().changed = Some(Instant::now());
    }
}

/// A member of the group.
pub(super) struct Member {
    settings: ConsumerSettings,
    encoder: Arc<RecordEncoder>,
    shared: Arc<ConsumerShared>,
    rejects: Rejects,
    sender: Sender<Request>,
}

impl Member {
    pub fn new(
        settings: ConsumerSettings,
        shared: Arc<ConsumerShared>,
        rejects: Rejects,
        sender: Sender<Request>,
    ) -> Self {
        let encoder = shared.encoder();
        Self {
            settings,
            encoder,
            shared,
            rejects,
            sender,
        }
    }

    /// Reads until it is told to stop, or the end is reached. What was read is committed when this returns, unless it
    /// says why not.
    pub fn consume(mut self) -> (Rejects, anyhow::Result<()>) {
        let result = self.join().and_then(|consumer| {
            let result = self.read(&consumer);
            // Also behind a failure: what was read before is worth keeping.
            let context = consumer.context();
            let stored = context.store_all();
            context.tell(&consumer, CommitMode::Sync);
            result.and(stored)
        });
        (self.rejects, result)
    }

    /// Joins the group.
    fn join(&self) -> anyhow::Result<BaseConsumer<Context>> {
        let topic = &self.settings.topic;
        let mut config = ClientConfig::new();
        config
            .set("client.id", "simusage")
            .set("bootstrap.servers", &topic.brokers)
            .set("group.id", &topic.group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            // The ledger says where to begin. An offset that it has and Kafka does not is lost records, and an error.
            .set("auto.offset.reset", "error")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("statistics.interval.ms", "2000")
            // What waits here is memory.
            .set("queued.max.messages.kbytes", "16384")
            // How long to fetch nothing once enough waits. The default of a second has less wait than is read in one.
            .set("fetch.queue.backoff.ms", "20")
            // How long a broker keeps a fetch that it has nothing for: its answer is what says that the end is reached.
            .set(
                "fetch.wait.max.ms",
                if topic.until_end { "50" } else { "500" },
            );
        for (name, value) in &self.settings.connection {
            config.set(*name, value);
        }
        let context = Context {
            topic: topic.name.clone(),
            cluster: Mutex::default(),
            problem: Mutex::default(),
            assigned: Mutex::new(Assigned {
                partitions: FxHashMap::default(),
                began: None,
                waiting_records: 0,
                waiting_bytes: 0,
                is_full: false,
                changed: None,
                failed: None,
            }),
            shared: Arc::clone(&self.shared),
            sender: self.sender.clone(),
        };
        let consumer: BaseConsumer<Context> = config
            .create_with_context(context)
            .context("setting up Kafka")?;
        ensure_topic(&consumer, topic)?;
        let cluster = consumer
            .client()
            .fetch_cluster_id(BROKER_TIMEOUT)
            .context("the brokers name no cluster")?;
        *consumer
            .context()
            .cluster
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = cluster;
        consumer
            .subscribe(&[&topic.name])
            .context("joining the group")?;
        Ok(consumer)
    }

    fn read(&mut self, consumer: &BaseConsumer<Context>) -> anyhow::Result<()> {
        let context = Arc::clone(consumer.context());
        let mut parser = Parser::new(Format::Ndjson, None).map_err(|problem| anyhow!(problem))?;
        let mut told = Instant::now();
        let mut messages = 0;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let polled = self.poll(consumer, &mut parser)?;
            if matches!(polled, Polled::Last) {
                self.hand_all_on(consumer, &mut parser)?;
            }
            messages += 1;
            if !matches!(polled, Polled::Nothing) && messages < MESSAGES_BETWEEN_LOOKS {
                continue;
            }
            messages = 0;
            // A partition that could not begin is not among the assigned ones, so none of its messages was taken in.
            if let Some(error) = context.assigned().failed.take() {
                return Err(error);
            }
            self.encoder = self.shared.encoder();
            if context
                .assigned()
                .began
                .is_some_and(|began| began.elapsed() >= self.settings.batch_age)
            {
                self.hand_all_on(consumer, &mut parser)?;
            }
            if told.elapsed() >= TELL_EVERY {
                context.tell(consumer, CommitMode::Async);
                // Where the storing side is busy, the next time is soon.
                let _ = self.sender.try_send(Request::Inventory);
                told = Instant::now();
            }
            if self.sender.is_closed() {
                return Err(StoringEnded.into());
            }
            if self.settings.topic.until_end && Self::is_at_end(&context.assigned()) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Waits for a message a little, and takes it in.
    fn poll(
        &mut self,
        consumer: &BaseConsumer<Context>,
        parser: &mut Parser,
    ) -> anyhow::Result<Polled> {
        let context = consumer.context();
        // Nearly always there is one, and to wait for it costs another look at the clock.
        match consumer
            .poll(Duration::ZERO)
            .or_else(|| consumer.poll(POLL))
        {
            None => {}
            Some(Ok(message)) => return self.add(context, &message, parser),
            Some(Err(KafkaError::PartitionEOF(number))) => {
                if let Some(partition) = context.assigned().partitions.get_mut(&number) {
                    partition.at_end = true;
                }
            }
            Some(Err(error)) => self.note(context, error)?,
        }
        Ok(Polled::Nothing)
    }

    /// Hands on what was read of all partitions. Where the storing side takes long, as while the database is away, the
    /// partitions are paused and polling goes on: a member that does not poll answers nobody in its group.
    fn hand_all_on(
        &mut self,
        consumer: &BaseConsumer<Context>,
        parser: &mut Parser,
    ) -> anyhow::Result<()> {
        let context = Arc::clone(consumer.context());
        let mut request = context.take_all_batches();
        context.assigned().is_full = false;
        let mut patience = STALL;
        while let Some(back) = context.ask_within(request, patience)? {
            request = back;
            patience = POLL;
            // Each time, because other partitions may have been assigned meanwhile.
            consumer.pause(&consumer.assignment()?).context("pausing")?;
            self.poll(consumer, parser)?;
        }
        if patience != STALL {
            consumer
                .resume(&consumer.assignment()?)
                .context("resuming")?;
        }
        Ok(())
    }

    fn is_at_end(assigned: &Assigned) -> bool {
        let Some(changed) = assigned.changed else {
            return false;
        };
        if assigned.partitions.is_empty() {
            return changed.elapsed() >= IDLE_TIMEOUT;
        }
        assigned
            .partitions
            .values()
            .all(|partition| partition.at_end)
    }

    /// Takes a message's record into its partition's batch.
    fn add(
        &mut self,
        context: &Context,
        message: &BorrowedMessage<'_>,
        parser: &mut Parser,
    ) -> anyhow::Result<Polled> {
        let mut guard = context.assigned();
        let assigned = &mut *guard;
        let (number, offset) = (message.partition(), message.offset());
        let Some(partition) = assigned
            .partitions
            .get_mut(&number)
            .filter(|partition| offset >= partition.next)
        else {
            return Ok(Polled::Message);
        };
        // A message without a payload, as one that compaction has left, holds no record.
        let payload = message.payload().unwrap_or_default();
        let longest = self.settings.max_record_bytes;
        let result = if payload.len() > longest {
            let detail = format!(
                "{} bytes, of which the first {longest} are kept",
                payload.len()
            );
            Err(Defect::of_line(Reason::TooLong, detail))
        } else {
            parser
                .parse(payload)
                .and_then(|record| partition.batch.add(&record, &self.encoder))
        };
        if let Err(defect) = result {
            let source: Arc<str> = format!("{}/{number}", context.topic).into();
            self.rejects
                .count(&defect, format_args!("{source} at offset {offset}"));
            partition.batch.reject(RejectedRecord {
                source,
                position: offset,
                line: offset + 1,
                format: Format::Ndjson.name(),
                header: None,
                reason: defect.reason.code(),
                field: defect.field,
                detail: defect.detail,
                raw: payload[..payload.len().min(longest)].to_vec(),
            });
        }
        partition.next = offset + 1;
        partition.at_end = false;
        partition.pieces.extend(partition.batch.take_piece());
        let is_full = partition.batch.is_full_of_rejects();
        assigned.began.get_or_insert_with(Instant::now);
        assigned.waiting_bytes += payload.len() as u64;
        assigned.waiting_records += 1;
        let is_full = is_full
            || assigned.waiting_records >= self.settings.batch_rows
            || assigned.waiting_records * crate::db::TUPLE_BYTES as u64 >= BATCHES_BYTES;
        assigned.is_full |= is_full;
        let polled = if assigned.is_full {
            Polled::Last
        } else {
            Polled::Message
        };
        drop(guard);
        if let Some(limit) = self.rejects.over(self.settings.max_rejects) {
            bail!(
                "stopped at {}/{number}, offset {offset}: more than {limit} records were rejected",
                context.topic
            );
        }
        Ok(polled)
    }

    /// Tells what passes by itself from what does not.
    fn note(&self, context: &Context, error: KafkaError) -> anyhow::Result<()> {
        match error {
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
            ) => {
                let places: Vec<String> = context
                    .assigned()
                    .partitions
                    .iter()
                    .map(|(number, partition)| format!("{number} at offset {}", partition.next))
                    .collect();
                bail!(
                    "the next message is not in Kafka any more, so records are lost, or the topic was made anew; \
                     the partitions stand at: {}; another --group reads from the beginning",
                    places.join(", ")
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
