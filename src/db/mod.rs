//! All that is said to TimescaleDB. Nothing else names tokio-postgres, but for the URL in the settings.

mod advice;
mod chunks;
mod connect;
mod copy;
mod error;
mod freshness;
mod inventory;
pub mod migrate;
mod pool;
pub mod queries;
mod reader;
mod refresh;
mod replay;
mod settings;
mod sources;
mod tls;
pub mod tokens;

pub use deadpool_postgres::Client;

pub use chunks::open_chunks;
pub use connect::{Connection, connect, connect_beside};
pub use copy::{BatchEnd, BatchWriter, RejectedRecord, TUPLE_BYTES, encode_usage_record};
pub use error::{StorageError, WriteError};
pub use freshness::FreshnessLoader;
pub use inventory::{InventoryIndex, NoStamp, Stamp, inventory_version, store_inventory};
pub use pool::{Lease, Pool, PoolStatus, Streaming};
pub use refresh::{StaleHours, refresh_aggregates, refresh_helpers};
pub use replay::{Replay, StillRejected, TakenRecord, count_rejected};
pub use sources::{
    Checkpoint, Claim, HEAD_BYTES, Identity, KnownSource, Outcome, enter_source, find_file,
    head_lengths, outcome, remove_run, rename_source,
};
