//! Loads the freshness of intervals, in one batch for all concurrent requests.
//!
//! A result may be out of date for a request that arrived after its query was sent, so such a
//! request waits for the next batch, which starts as soon as the current one ends. At any time, at
//! most one batch is running, on one connection, with each interval once.

use std::cell::RefCell;
use std::rc::Rc;

use futures_util::future::try_join_all;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot::{Sender, channel};
use tokio::task::spawn_local;

use super::{Pool, StorageError, queries};
use crate::domain::{Freshness, Interval};

/// Loads the freshness of intervals from a pool, for the tasks of one thread.
#[derive(Debug, Clone)]
pub struct FreshnessLoader {
    pool: Pool,
    queue: Rc<RefCell<Queue>>,
}

/// The requests for the next batch.
#[derive(Debug, Default)]
struct Queue {
    waiting: FxHashMap<Interval, Vec<Sender<Result<Freshness, StorageError>>>>,
    /// Whether a task is running batches.
    is_running: bool,
}

impl FreshnessLoader {
    /// A loader with an empty queue.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self {
            pool,
            queue: Rc::default(),
        }
    }

    /// Loads how fresh the usage of the interval is, no earlier than the time of the call.
    ///
    /// # Errors
    /// See [`Pool::run`].
    ///
    /// # Panics
    /// Panics outside of a [`tokio::task::LocalSet`].
    pub async fn freshness(&self, interval: Interval) -> Result<Freshness, StorageError> {
        let (sender, receiver) = channel();
        let is_running = {
            let mut queue = self.queue.borrow_mut();
            queue.waiting.entry(interval).or_default().push(sender);
            std::mem::replace(&mut queue.is_running, true)
        };
        if !is_running {
            // In a separate task: the request that starts it may be cancelled while others wait.
            spawn_local(self.clone().run_batches());
        }
        receiver.await.unwrap_or_else(|_| {
            Err(StorageError::Other(
                "the task that loads freshness has ended".into(),
            ))
        })
    }

    /// Runs batches until the queue is empty.
    async fn run_batches(self) {
        let _running = Running(Rc::clone(&self.queue));
        loop {
            let waiting = std::mem::take(&mut self.queue.borrow_mut().waiting);
            if waiting.is_empty() {
                return;
            }
            let intervals: Vec<Interval> = waiting.keys().copied().collect();
            let query = async |client: &_| {
                try_join_all(
                    intervals
                        .iter()
                        .map(|&interval| queries::freshness(client, interval)),
                )
                .await
            };
            let results = self.pool.run(query).await;
            for (index, senders) in waiting.into_values().enumerate() {
                for sender in senders {
                    // Fails if the request was cancelled.
                    let _ = sender.send(
                        results
                            .as_ref()
                            .map(|results| results[index])
                            .map_err(Clone::clone),
                    );
                }
            }
        }
    }
}

/// Resets the queue when the task ends, even by a panic.
struct Running(Rc<RefCell<Queue>>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut queue = self.0.borrow_mut();
        queue.is_running = false;
        queue.waiting.clear();
    }
}
