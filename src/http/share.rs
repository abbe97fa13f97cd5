//! The share of the server that one client may use at the same time, so that a client that floods
//! the server waits only for itself.
//!
//! A client is a token, or an address without one. Its queries beyond the limit wait in a queue of
//! their own, and reach the connection pool only in turn. The pool serves first come, first served,
//! so another client waits for a few of their queries at most.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::limits::{ClientKey, Limit};
use crate::config::Serve;
use crate::db::{Pool, StorageError};

/// The settings of all shares.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    queries: usize,
    waiting: usize,
    streams: usize,
    timeout: Duration,
}

/// The shares of the clients that are using the server.
#[derive(Debug)]
pub(super) struct Shares {
    bounds: Bounds,
    by_client: Mutex<FxHashMap<ClientKey, Arc<Share>>>,
}

impl Shares {
    #[must_use]
    pub fn new(serve: &Serve) -> Self {
        let bounds = Bounds {
            queries: serve.max_queries_per_token,
            waiting: serve.max_waiting_per_token,
            streams: serve.max_streams_per_token,
            timeout: Duration::from_millis(serve.pool_timeout_ms),
        };
        Self {
            bounds,
            by_client: Mutex::default(),
        }
    }

    #[must_use]
    pub fn of(&self, client: ClientKey) -> Arc<Share> {
        let mut shares = self.lock();
        let share = shares
            .entry(client)
            .or_insert_with(|| Arc::new(Share::new(self.bounds)));
        Arc::clone(share)
    }

    /// Discards the shares that no request uses.
    pub fn discard_idle(&self) {
        let mut shares = self.lock();
        shares.retain(|_, share| Arc::strong_count(share) > 1);
        shares.shrink_to_fit();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, FxHashMap<ClientKey, Arc<Share>>> {
        // A panic cannot leave the map half changed.
        self.by_client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The share of one client.
#[derive(Debug)]
pub(super) struct Share {
    bounds: Bounds,
    queries: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// The right to run a query, or to send a stream, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
    /// A semaphore does not keep its share from being discarded.
    _share: Arc<Share>,
}

impl Share {
    fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            queries: Arc::new(Semaphore::new(bounds.queries)),
            streams: Arc::new(Semaphore::new(bounds.streams)),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Waits until the client may run another query.
    ///
    /// # Errors
    /// Returns an error if too many of its requests are waiting, or if it waits for too long.
    pub async fn query(self: &Arc<Self>) -> Result<Turn, Limit> {
        let queries = Arc::clone(&self.queries);
        if let Ok(permit) = Arc::clone(&queries).try_acquire_owned() {
            return Ok(self.turn(permit));
        }
        let Bounds {
            queries: running,
            waiting,
            timeout: longest,
            ..
        } = self.bounds;
        let _waiting = Waiting::enter(&self.waiting, waiting).ok_or(Limit::Waiting(waiting))?;
        match timeout(longest, queries.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(self.turn(permit)),
            _ => Err(Limit::Queries(running)),
        }
    }

    /// # Errors
    /// Returns an error if the client is receiving as many streams as it may.
    pub fn stream(self: &Arc<Self>) -> Result<Turn, Limit> {
        let permit = Arc::clone(&self.streams).try_acquire_owned();
        permit
            .map(|permit| self.turn(permit))
            .map_err(|_| Limit::Streams(self.bounds.streams))
    }

    fn turn(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Turn {
        Turn {
            _permit: permit,
            _share: Arc::clone(self),
        }
    }
}

/// A place in a queue, which a request also gives up when it is cancelled.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    /// Returns `None` if `max` requests are in the queue.
    fn enter(count: &'a AtomicUsize, max: usize) -> Option<Self> {
        let place = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < max).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The streams of one worker. There are fewer than connections in its pool, so that pages are
/// answered however slowly streams are read.
#[derive(Debug)]
pub(super) struct Streams {
    slots: Arc<Semaphore>,
    wait: Duration,
    timeout_ms: u64,
}

impl Streams {
    #[must_use]
    pub fn new(serve: &Serve, workers: usize, pool: &Pool) -> Self {
        let below_pool = pool.status().max.saturating_sub(1);
        let slots = (serve.max_streams / workers).min(below_pool).max(1);
        Self {
            slots: Arc::new(Semaphore::new(slots)),
            wait: Duration::from_millis(serve.pool_timeout_ms),
            timeout_ms: serve.stream_timeout_ms,
        }
    }

    /// How long a stream may take, in milliseconds.
    #[must_use]
    pub fn timeout_ms(&self) -> u64 {
        self.timeout_ms
    }

    /// Waits until another stream may begin.
    ///
    /// # Errors
    /// Returns an error if none ends in time.
    pub async fn slot(&self) -> Result<OwnedSemaphorePermit, StorageError> {
        match timeout(self.wait, Arc::clone(&self.slots).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(StorageError::Busy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};

    fn shares() -> Shares {
        let mut serve = Config::load(None, [], &Overrides::default()).unwrap().serve;
        serve.max_queries_per_token = 2;
        serve.max_waiting_per_token = 1;
        serve.max_streams_per_token = 1;
        serve.pool_timeout_ms = 50;
        Shares::new(&serve)
    }

    #[tokio::test]
    async fn a_client_waits_only_for_its_own_queries() {
        let shares = shares();
        let share = shares.of(ClientKey::Token(1));
        let (one, _two) = (share.query().await.unwrap(), share.query().await.unwrap());
        let waiting = tokio::spawn({
            let share = Arc::clone(&share);
            async move { share.query().await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert_eq!(share.query().await.unwrap_err(), Limit::Waiting(1));
        shares.of(ClientKey::Token(2)).query().await.unwrap();
        drop(one);
        waiting.await.unwrap().unwrap();
        assert_eq!(share.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_client_that_waits_too_long_exceeds_its_limit() {
        let share = shares().of(ClientKey::Token(1));
        let _turns = (share.query().await.unwrap(), share.query().await.unwrap());
        assert_eq!(share.query().await.unwrap_err(), Limit::Queries(2));
    }

    #[tokio::test]
    async fn a_share_is_discarded_only_while_nothing_uses_it() {
        let shares = shares();
        let stream = shares.of(ClientKey::Token(1)).stream().unwrap();
        shares.discard_idle();
        let again = || shares.of(ClientKey::Token(1)).stream();
        assert_eq!(again().unwrap_err(), Limit::Streams(1));
        drop(stream);
        shares.discard_idle();
        assert_eq!(shares.lock().len(), 0);
        again().unwrap();
    }
}
