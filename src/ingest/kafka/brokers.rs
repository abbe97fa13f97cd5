//! Checks that the brokers answer and have the topic.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::{Metadata, MetadataTopic};

use super::super::options::Topic;
use super::assignment::MemberContext;

/// How long to wait for the first response of a broker.
pub(super) const BROKER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for a response before checking whether the connection was refused.
const BROKER_ATTEMPT: Duration = Duration::from_secs(1);

/// How long to wait for an event of librdkafka. With no wait at all, one log line would end the
/// loop.
const EVENT_TIMEOUT: Duration = Duration::from_millis(10);

/// How long to wait for the identifier of the topic.
const TOPIC_ID_TIMEOUT: Duration = Duration::from_secs(1);

/// How many existing topics an error lists.
const LISTED_TOPICS: usize = 10;

/// # Errors
/// Returns an error if no broker answers or the topic does not exist.
pub(super) fn ensure_topic(
    consumer: &BaseConsumer<MemberContext>,
    topic: &Topic,
) -> anyhow::Result<()> {
    let metadata = fetch_metadata(consumer).context(
        "cannot query the brokers; check that they are running, that their advertised.listeners \
         are reachable from here, and that the settings in [kafka] are correct",
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
    others.truncate(LISTED_TOPICS);
    let others = if others.is_empty() {
        "none".to_owned()
    } else {
        others.join(", ")
    };
    bail!(
        "there is no topic {name} (existing topics: {others}); correct --topic, or create it with \
         `kafka-topics.sh --bootstrap-server {brokers} --create --topic {name}`",
        name = topic.name,
        brokers = topic.brokers,
    )
}

fn fetch_metadata(consumer: &BaseConsumer<MemberContext>) -> anyhow::Result<Metadata> {
    let began = Instant::now();
    loop {
        // Of all topics, because a query for one may create it.
        let error = match consumer.fetch_metadata(None, BROKER_ATTEMPT) {
            Ok(metadata) => return Ok(metadata),
            Err(error) => error,
        };
        // Only polling reveals the reason. The consumer gets no messages before it has joined.
        let mut is_refused = false;
        while let Some(Err(problem)) = consumer.poll(EVENT_TIMEOUT) {
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

/// Has librdkafka log the identifier of the topic, and waits for it. Brokers before Kafka 2.8 have
/// none.
pub(super) fn learn_topic_id(consumer: &BaseConsumer<MemberContext>, topic: &Topic) {
    let began = Instant::now();
    // Only of a topic that is asked for by its name.
    if let Err(error) = consumer.fetch_metadata(Some(&topic.name), BROKER_TIMEOUT) {
        log::debug!("asking for the topic's identifier: {error}");
    }
    while !consumer.context().knows_topic_id() && began.elapsed() < TOPIC_ID_TIMEOUT {
        // An error is reported again once the consumer has joined the group.
        let _ = consumer.poll(EVENT_TIMEOUT);
    }
    if !consumer.context().knows_topic_id() {
        log::debug!("the brokers report no identifier of {}", topic.name);
    }
}
