//! Records from a Kafka topic, one a message, as a member of a consumer group.
//!
//! ```text
//! group ─> consumer ─> parse ─> stamp ─> a batch per partition ═ bounded channel ═> COPY, commit ─> refresh
//!          └──────────────── one thread ─────────────────────┘                 └──── async ────┘
//! ```
//!
//! A partition is a source of the ledger like any other, and its position is the offset of the next message. When
//! the group assigns a partition, reading begins where the ledger says; when it takes one away, what was read of it
//! is committed first. Should two members ever believe to have one partition, the ledger lets only one of them
//! move it: the other leaves the group and joins it anew. What Kafka keeps as the group's offsets is written after
//! the commit, for lag tools; nobody reads it here.

mod consumer;
mod producer;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rustc_hash::FxHashMap;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::{JoinHandle, spawn_blocking};

use super::batch_builder::Rejects;
use super::failure::Failure;
use super::inventory;
use super::options::Topic;
use super::parallel_copy::ParallelCopy;
use super::pending_batch::PartialBatch;
use super::progress::Counters;
use super::record_encoder::RecordEncoder;
use super::store::Store;
use crate::config::Config;
use crate::db::{self, Claim, Identity, InventoryIndex, WriteError};
use crate::signals::Signals;
use consumer::Member;
pub use producer::Producer;

/// How many batches may wait for the database.
const BATCHES_IN_FLIGHT: usize = 1;

/// How long to wait before joining a group again that had given a partition to somebody else.
const REJOIN_AFTER: Duration = Duration::from_secs(1);

/// What the consuming thread asks of the storing side, which does one after the other.
enum Request {
    /// Where the ledger has these partitions of the cluster; `None` where nothing is stored of one yet.
    Begin {
        cluster: String,
        partitions: Vec<i32>,
        reply: SyncSender<Vec<Option<i64>>>,
    },
    /// Store batches, of which no two are of one partition.
    Store(Vec<PartitionBatch>),
    /// See whether the inventory has changed.
    Inventory,
    /// Say when everything before this is done.
    Barrier(SyncSender<()>),
}

/// A batch of a partition.
pub(super) struct PartitionBatch {
    pub partition: i32,
    /// The offset at which it begins.
    pub from: i64,
    pub batch: PartialBatch,
}

/// What the consuming thread shares with the others.
pub(super) struct ConsumerShared {
    pub counters: Arc<Counters>,
    /// Whether to finish.
    pub stop: Arc<AtomicBool>,
    /// The next offset of partitions that were stored lately and Kafka was not told about.
    stored: Mutex<FxHashMap<i32, i64>>,
    /// What stamps records, by the newest inventory.
    encoder: Mutex<Arc<RecordEncoder>>,
}

impl ConsumerShared {
    fn encoder(&self) -> Arc<RecordEncoder> {
        Arc::clone(&self.encoder.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take_stored(&self) -> FxHashMap<i32, i64> {
        std::mem::take(&mut *self.stored.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the consuming thread needs to know.
#[derive(Clone)]
struct ConsumerSettings {
    topic: Topic,
    /// Names and values as librdkafka has them.
    connection: Vec<(&'static str, String)>,
    batch_rows: u64,
    batch_age: Duration,
    max_record_bytes: usize,
    max_rejects: Option<u64>,
}

/// The storing side.
pub(super) struct TopicWriter<'a, 's> {
    pub store: &'a mut Store<'s>,
    pub parallel_copy: &'a mut ParallelCopy,
    pub run_id: i64,
    pub inventory: Arc<InventoryIndex>,
    pub retention_days: u32,
}

impl TopicWriter<'_, '_> {
    fn encoder(&self) -> Arc<RecordEncoder> {
        Arc::new(RecordEncoder::new(
            Arc::clone(&self.inventory),
            self.retention_days,
        ))
    }
}

/// Stores a topic's records until it is told to stop, or the topic ends.
///
/// # Errors
/// Kafka or the database refuses or is away for too long, messages are gone that were not stored, or there were more
/// rejects than allowed. What was committed stays.
pub(super) async fn store_topic(
    config: &Config,
    topic: &Topic,
    max_rejects: Option<u64>,
    counters: Arc<Counters>,
    storing: &mut TopicWriter<'_, '_>,
) -> Result<(), Failure> {
    let settings = ConsumerSettings {
        topic: topic.clone(),
        connection: config.kafka.properties(),
        batch_rows: config.ingest.batch_rows,
        batch_age: Duration::from_millis(config.ingest.batch_age_ms),
        max_record_bytes: config.ingest.max_record_bytes,
        max_rejects,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let shared = Arc::new(ConsumerShared {
        counters,
        stop: Arc::clone(&stop),
        stored: Mutex::default(),
        encoder: Mutex::new(storing.encoder()),
    });
    let signals = stop_on_signal(stop)?;
    let mut rejects = Rejects::default();
    let result = loop {
        let (sender, mut receiver) = channel(BATCHES_IN_FLIGHT);
        let member = Member::new(settings.clone(), Arc::clone(&shared), rejects, sender);
        let consuming = spawn_blocking(move || member.consume());
        let stored = store_requests(storing, topic, &shared, &mut receiver).await;
        // This is what tells the consuming thread, should it still be at work.
        drop(receiver);
        let (back, consumed) = consuming.await.context("the consuming thread panicked")?;
        rejects = back;
        match stored {
            Err(WriteError::Overtaken) => {
                log::warn!(
                    "another member of group {} has moved a partition; joining the group anew",
                    topic.group
                );
                tokio::time::sleep(REJOIN_AFTER).await;
            }
            Err(error) => break Err(Failure::from(error)),
            Ok(()) => break consumed.map_err(Failure::from),
        }
    };
    signals.abort();
    result.map_err(|failure| {
        failure.context(format!("ingesting {} from {}", topic.name, topic.brokers))
    })
}

/// Does what the consuming thread asks for, until it has no more.
async fn store_requests(
    storing: &mut TopicWriter<'_, '_>,
    topic: &Topic,
    shared: &ConsumerShared,
    receiver: &mut Receiver<Request>,
) -> Result<(), WriteError> {
    let mut claims: FxHashMap<i32, Claim> = FxHashMap::default();
    while let Some(request) = storing.store.next_message(receiver).await? {
        let session = &mut storing.store.session;
        match request {
            Request::Begin {
                cluster,
                partitions,
                reply,
            } => {
                let mut offsets = vec![];
                for partition in partitions {
                    let name = format!("{}/{partition}", topic.name);
                    let (group, topic) = (topic.group.clone(), topic.name.clone());
                    let identity = Identity::Partition {
                        cluster: cluster.clone(),
                        group,
                        topic,
                        partition,
                    };
                    let known = session
                        .repeat(async |connection| {
                            db::enter_source(connection, &identity, &name).await
                        })
                        .await?;
                    offsets.push((known.batches > 0).then_some(known.position));
                    claims.insert(
                        partition,
                        Claim::new(&known, true, storing.run_id, name.into()),
                    );
                }
                // A thread that no longer waits has gone, and the channel says so.
                let _ = reply.send(offsets);
            }
            Request::Store(batches) => {
                store_partitions(storing, shared, &mut claims, batches).await?;
            }
            Request::Inventory => {
                inventory::reload_if_changed(session, &mut storing.inventory).await?;
                // Also where it has not changed: what is too old to be kept has.
                *shared
                    .encoder
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = storing.encoder();
            }
            Request::Barrier(reply) => {
                let _ = reply.send(());
            }
        }
    }
    Ok(())
}

/// Stores batches of partitions, several at a time.
async fn store_partitions(
    storing: &mut TopicWriter<'_, '_>,
    shared: &ConsumerShared,
    claims: &mut FxHashMap<i32, Claim>,
    batches: Vec<PartitionBatch>,
) -> Result<(), WriteError> {
    let TopicWriter {
        store,
        parallel_copy,
        ..
    } = storing;
    let (mut partitions, mut claimed) = (vec![], vec![]);
    for PartitionBatch {
        partition,
        from,
        batch,
    } in batches
    {
        let Some(claim) = claims.get(&partition) else {
            continue;
        };
        // The partition was taken away and came back while a batch was under way: one of them is a repetition.
        if claim.position != from {
            return Err(WriteError::Overtaken);
        }
        partitions.push(partition);
        claimed.push((claim.clone(), batch));
    }
    let results = parallel_copy
        .store_independent(&mut store.session, claimed)
        .await;
    // Those that are stored count, whatever became of the others.
    let mut failed = Ok(());
    for (partition, result) in partitions.into_iter().zip(results) {
        match (result, claims.get_mut(&partition)) {
            (Ok(Some(end)), Some(claim)) => {
                store.committed(claim, &end);
                let mut stored = shared.stored.lock().unwrap_or_else(PoisonError::into_inner);
                stored.insert(partition, end.checkpoint.position);
            }
            (Err(error), _) => failed = Err(error),
            _ => {}
        }
    }
    failed
}

/// Lets SIGINT and SIGTERM end the ingest once what was read is committed; the second one ends it at once, which
/// loses nothing either.
fn stop_on_signal(stop: Arc<AtomicBool>) -> anyhow::Result<JoinHandle<()>> {
    let mut signals = Signals::listen().context("listening for signals")?;
    Ok(tokio::spawn(async move {
        loop {
            signals.next().await;
            if stop.swap(true, Ordering::Relaxed) {
                std::process::exit(1);
            }
            log::info!("stopping once everything that was read is committed");
        }
    }))
}
