//! The inventory in memory, as loaded from the database, and reloaded when it has changed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::record_encoder::{Limits, RecordEncoder};
use super::session::Session;
use crate::db::{self, InventoryIndex, Retention, WriteError};

/// How often to check whether the inventory has changed.
pub(super) const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The encoder for the newest inventory, shared with the thread that reads records.
pub(super) struct SharedEncoder {
    newest: Mutex<Arc<RecordEncoder>>,
    /// How often it was replaced.
    version: AtomicU64,
}

impl SharedEncoder {
    pub fn new(encoder: RecordEncoder) -> Self {
        Self {
            newest: Mutex::new(Arc::new(encoder)),
            version: AtomicU64::new(0),
        }
    }

    pub fn get(&self) -> Arc<RecordEncoder> {
        Arc::clone(&self.newest.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A number that grows whenever the encoder is replaced: cheap enough to compare at every record.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn set(&self, encoder: RecordEncoder) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(encoder);
        self.version.fetch_add(1, Ordering::Release);
    }
}

/// The inventory and the retention of a run, which follow changes in the database.
pub(super) struct CurrentInventory {
    index: Arc<InventoryIndex>,
    retention: Retention,
    encoder: Arc<SharedEncoder>,
    checked: Instant,
}

impl CurrentInventory {
    /// Loads the inventory, and warns if it is empty.
    ///
    /// # Errors
    /// Returns an error if the database is unavailable for too long or rejects the query.
    pub async fn load(session: &mut Session<'_>) -> Result<Self, WriteError> {
        let index = loop {
            match session.load_inventory().await {
                Err(error) => session.recover(error).await?,
                Ok(index) => break index,
            }
        };
        session.succeeded();
        warn_if_empty(&index);
        let index = Arc::new(index);
        let retention = session
            .repeat(async |connection| Retention::load(connection).await)
            .await?;
        let limits = Limits::new(&session.config().ingest, retention);
        let encoder = RecordEncoder::new(Arc::clone(&index), limits);
        Ok(Self {
            index,
            retention,
            encoder: Arc::new(SharedEncoder::new(encoder)),
            checked: Instant::now(),
        })
    }

    /// The encoder, which is replaced when the inventory changes.
    pub fn encoder(&self) -> Arc<SharedEncoder> {
        Arc::clone(&self.encoder)
    }

    /// When the next check is due.
    pub fn due(&self) -> Instant {
        self.checked + CHECK_EVERY
    }

    /// Loads the inventory or the retention again if they have changed. Does not wait for a database that is unavailable:
    /// the next batch does, and a run that has nothing to store need not end.
    ///
    /// # Errors
    /// Returns an error if the database rejects a query.
    pub async fn check(&mut self, session: &mut Session<'_>) -> Result<(), WriteError> {
        let checked = match self.reload_if_changed(session).await {
            // The connection may have broken long ago, while there was nothing to do.
            Err(error) if error.is_transient() => match session.reconnect().await {
                Ok(()) => self.reload_if_changed(session).await,
                Err(error) => Err(error),
            },
            checked => checked,
        };
        self.checked = Instant::now();
        match checked {
            Err(error) if error.is_transient() => {
                log::debug!("checking whether the inventory has changed: {error}");
                Ok(())
            }
            checked => checked,
        }
    }

    async fn reload_if_changed(&mut self, session: &mut Session<'_>) -> Result<(), WriteError> {
        let connection = session.connection();
        let retention = Retention::load(connection).await?;
        let has_changed = db::inventory_version(connection).await? != self.index.version();
        if has_changed {
            self.index = Arc::new(session.load_inventory().await?);
            log::info!(
                "the inventory has changed and now has {} SIM cards",
                self.index.len()
            );
        }
        if has_changed || retention != self.retention {
            self.retention = retention;
            let limits = Limits::new(&session.config().ingest, retention);
            let encoder = RecordEncoder::new(Arc::clone(&self.index), limits);
            self.encoder.set(encoder);
        }
        Ok(())
    }
}

/// Warns that an empty inventory makes every record a reject.
pub(super) fn warn_if_empty(inventory: &InventoryIndex) {
    if inventory.is_empty() {
        log::warn!(
            "the inventory is empty, so every record will be rejected; load one with \
             `simusage ingest --inventory FILE`, and add --replay-rejects to store records that \
             were rejected earlier"
        );
    }
}
