//! The inventory in memory, as loaded from the database.

use std::sync::Arc;

use super::session::Session;
use crate::db::{self, InventoryIndex, WriteError};

/// Loads the inventory, and warns if it is empty.
///
/// # Errors
/// Returns an error if the database is unavailable for too long or rejects the query.
pub(super) async fn load(session: &mut Session<'_>) -> Result<Arc<InventoryIndex>, WriteError> {
    let inventory = session
        .repeat(async |connection| InventoryIndex::load(connection).await)
        .await?;
    warn_if_empty(&inventory);
    Ok(Arc::new(inventory))
}

/// Loads the inventory again if it is newer than `inventory`.
///
/// # Errors
/// Returns an error if the database is unavailable for too long or rejects a query.
pub(super) async fn reload_if_changed(
    session: &mut Session<'_>,
    inventory: &mut Arc<InventoryIndex>,
) -> Result<(), WriteError> {
    let version = session
        .repeat(async |connection| db::inventory_version(connection).await)
        .await?;
    if version != inventory.version() {
        let loaded = session
            .repeat(async |connection| InventoryIndex::load(connection).await)
            .await?;
        log::info!(
            "the inventory has changed and now has {} SIM cards",
            loaded.len()
        );
        *inventory = Arc::new(loaded);
    }
    Ok(())
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
