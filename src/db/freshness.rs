//! How fresh intervals are, asked once for all who wait at the same time.
//!
//! An answer may be too old for whoever came after its question went out, so those wait for the next question, which
//! goes out as soon as the answer is there. However many requests come at once, there is one question under way, on one
//! connection, and each interval is in it once.

use std::cell::RefCell;
use std::rc::Rc;

use futures_util::future::try_join_all;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot::{Sender, channel};
use tokio::task::spawn_local;

use super::{Pool, StorageError, queries};
use crate::domain::{Freshness, Interval};

/// Asks a pool how fresh intervals are, for the tasks of one thread.
#[derive(Debug, Clone)]
pub struct FreshnessLoader {
    pool: Pool,
    queue: Rc<RefCell<Queue>>,
}

/// Who waits for the next question.
#[derive(Debug, Default)]
struct Queue {
    waiting: FxHashMap<Interval, Vec<Sender<Result<Freshness, StorageError>>>>,
    /// Whether a question is under way, behind which the next will go out.
    is_asking: bool,
}

impl FreshnessLoader {
    /// A desk that has asked nothing yet.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self {
            pool,
            queue: Rc::default(),
        }
    }

    /// How fresh an answer over the interval would be now, or later.
    ///
    /// # Errors
    /// As [`Pool::ask`].
    ///
    /// # Panics
    /// The task does not run in a [`tokio::task::LocalSet`].
    pub async fn freshness(&self, interval: Interval) -> Result<Freshness, StorageError> {
        let (sender, answer) = channel();
        let is_asking = {
            let mut queue = self.queue.borrow_mut();
            queue.waiting.entry(interval).or_default().push(sender);
            std::mem::replace(&mut queue.is_asking, true)
        };
        if !is_asking {
            // A task of its own: the request that began it may be given up while others wait.
            spawn_local(self.clone().ask());
        }
        answer.await.unwrap_or_else(|_| {
            Err(StorageError::Other(
                "nobody asked how fresh an interval is".to_owned(),
            ))
        })
    }

    /// Asks for those who wait, until nobody does.
    async fn ask(self) {
        let _asking = Asking(Rc::clone(&self.queue));
        loop {
            let waiting = std::mem::take(&mut self.queue.borrow_mut().waiting);
            if waiting.is_empty() {
                return;
            }
            let intervals: Vec<Interval> = waiting.keys().copied().collect();
            let question = async |client: &_| {
                try_join_all(
                    intervals
                        .iter()
                        .map(|&interval| queries::freshness(client, interval)),
                )
                .await
            };
            let answers = self.pool.ask(question).await;
            for (place, senders) in waiting.into_values().enumerate() {
                for sender in senders {
                    // Who has gone away meanwhile needs no answer.
                    let _ = sender.send(
                        answers
                            .as_ref()
                            .map(|answers| answers[place])
                            .map_err(Clone::clone),
                    );
                }
            }
        }
    }
}

/// Ends the asking, however it ends.
struct Asking(Rc<RefCell<Queue>>);

impl Drop for Asking {
    fn drop(&mut self) {
        let mut queue = self.0.borrow_mut();
        queue.is_asking = false;
        queue.waiting.clear();
    }
}
