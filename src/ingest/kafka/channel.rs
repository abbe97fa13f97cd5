//! What the consumer thread and the writer exchange.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::{FxHashMap, FxHashSet};

use super::super::batch::Batch;
use super::super::inventory::SharedEncoder;
use super::super::progress::Counters;
use super::start::{Available, Refused, Start};

/// A request of the consumer to the writer, which handles them in order.
pub(super) enum Request {
    /// Claim these partitions of a topic. The reply says where to start reading each of them.
    Claim {
        cluster: String,
        topic_id: Option<String>,
        partitions: Vec<Available>,
        reply: SyncSender<Result<Vec<Start>, Refused>>,
    },
    /// Store batches, no two of them of one partition.
    Store(Vec<PartitionBatch>),
    /// Reply once all earlier requests are done.
    Barrier(SyncSender<()>),
}

/// A batch of one partition.
pub(super) struct PartitionBatch {
    pub partition: i32,
    /// The offset at which the batch begins.
    pub from: i64,
    /// How many messages were empty.
    pub empty: u64,
    pub batch: Batch,
}

/// State that the consumer shares with the writer and the signal handler.
pub(in crate::ingest) struct SharedState {
    pub counters: Arc<Counters>,
    /// Set to stop the consumer.
    pub stop: Arc<AtomicBool>,
    pub encoder: Arc<SharedEncoder>,
    /// Next offsets, by partition, that are stored but not yet committed to Kafka.
    stored: Mutex<FxHashMap<i32, i64>>,
    /// Partitions that are known to have another message where the last one was read.
    replaced: Mutex<FxHashSet<i32>>,
}

impl SharedState {
    pub fn new(counters: Arc<Counters>, encoder: Arc<SharedEncoder>) -> Self {
        Self {
            counters,
            stop: Arc::default(),
            encoder,
            stored: Mutex::default(),
            replaced: Mutex::default(),
        }
    }

    /// Adds the next offset of a partition, to be committed to Kafka.
    pub fn add_stored(&self, partition: i32, next: i64) {
        lock(&self.stored).insert(partition, next);
    }

    /// Marks a partition as having another message where the last one was read.
    pub fn set_replaced(&self, partition: i32) {
        lock(&self.replaced).insert(partition);
    }

    /// Whether a partition was marked. Removes the mark.
    pub fn take_replaced(&self, partition: i32) -> bool {
        lock(&self.replaced).remove(&partition)
    }

    /// Takes the next offsets to commit to Kafka, by partition.
    pub fn take_stored(&self) -> FxHashMap<i32, i64> {
        std::mem::take(&mut *lock(&self.stored))
    }
}

/// Locks a mutex, also after a panic of another thread.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
