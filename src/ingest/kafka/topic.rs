//! Runs the consumer and the writer of a topic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::mpsc::channel;
use tokio::task::{JoinHandle, spawn_blocking};

use super::super::batch_builder::Rejects;
use super::super::failure::Failure;
use super::super::options::Topic;
use super::assignment::ClaimAgain;
use super::channel::SharedState;
use super::consumer::{ConsumerSettings, GroupMember};
use super::writer::TopicWriter;
use crate::config::Config;
use crate::db::WriteError;
use crate::signals::Signals;

/// Capacity of the channel from the consumer to the writer, in requests.
const REQUESTS_IN_FLIGHT: usize = 1;

/// How long to wait before rejoining a group that had assigned a partition to another member.
const REJOIN_AFTER: Duration = Duration::from_secs(1);

/// How long after an offset was out of range this is an error.
const OUT_OF_RANGE_AGAIN: Duration = Duration::from_mins(1);

/// Stores a topic's records until a signal arrives, or until the end of the topic if
/// [`Topic::until_end`] is set.
///
/// # Errors
/// Returns an error if Kafka or the database is unavailable for too long or refuses a request, if
/// messages were dropped before they were stored, or if more records were rejected than allowed.
/// Committed batches stay.
pub(in crate::ingest) async fn store_topic(
    config: &Config,
    topic: &Topic,
    max_rejects: Option<u64>,
    shared: Arc<SharedState>,
    writer: &mut TopicWriter<'_, '_>,
) -> Result<(), Failure> {
    let settings = ConsumerSettings::new(config, topic);
    let signals = stop_on_signal(Arc::clone(&shared.stop))?;
    let mut rejects = Rejects::new(max_rejects, false);
    let mut out_of_range = None;
    let result = loop {
        let (sender, mut receiver) = channel(REQUESTS_IN_FLIGHT);
        let member = GroupMember::new(settings.clone(), Arc::clone(&shared), rejects, sender);
        let consuming = spawn_blocking(move || member.consume());
        let stored = writer.handle_requests(topic, &shared, &mut receiver).await;
        // Closing the channel stops the consumer if it is still running.
        drop(receiver);
        let consumed;
        (rejects, consumed) = consuming.await.context("the consumer thread panicked")?;
        match stored {
            Err(WriteError::Overtaken) => {
                log::warn!(
                    "another member of group {} has taken over a partition; rejoining the group",
                    topic.group
                );
                tokio::time::sleep(REJOIN_AFTER).await;
            }
            Err(error @ WriteError::CommitsLost(_)) => {
                log::warn!("{error}; reading them again");
                tokio::time::sleep(REJOIN_AFTER).await;
            }
            Err(error) => break Err(Failure::from(error)),
            Ok(()) => match consumed {
                Err(error) if may_claim_again(&error, &mut out_of_range) => {
                    log::warn!("{error}; rejoining the group");
                    tokio::time::sleep(REJOIN_AFTER).await;
                }
                other => break other.map_err(Failure::from),
            },
        }
    };
    signals.abort();
    result.map_err(|failure| {
        failure.context(format!("ingesting {} from {}", topic.name, topic.brokers))
    })
}

/// Whether to claim the partitions again after this error, which then tells what has changed. If it
/// does not, an offset stays out of range, so this is tried once a while.
fn may_claim_again(error: &anyhow::Error, out_of_range: &mut Option<Instant>) -> bool {
    match error.downcast_ref() {
        Some(ClaimAgain::OutOfRange(_)) => {
            let last = out_of_range.replace(Instant::now());
            last.is_none_or(|last| last.elapsed() > OUT_OF_RANGE_AGAIN)
        }
        Some(_) => true,
        None => false,
    }
}

/// Sets `stop` at the first SIGINT or SIGTERM, and exits at the second, which loses nothing either.
fn stop_on_signal(stop: Arc<AtomicBool>) -> anyhow::Result<JoinHandle<()>> {
    let mut signals = Signals::listen().context("listening for signals")?;
    Ok(tokio::spawn(async move {
        loop {
            signals.next().await;
            if stop.swap(true, Ordering::Relaxed) {
                std::process::exit(1);
            }
            log::info!("stopping once all records read so far are committed");
        }
    }))
}
