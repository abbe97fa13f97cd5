//! All that is said to TimescaleDB. Nothing else names tokio-postgres, but for the URL in the settings.

mod connect;
mod copy;
mod error;
mod inventory;
pub mod migrate;
mod pool;
pub mod queries;
mod refresh;
mod settings;

pub use connect::{Connection, connect};
pub use copy::{BatchWriter, RejectedRecord, TUPLE_BYTES, encode_usage_record};
pub use error::StorageError;
pub use inventory::{Directory, NoStamp, Stamp, store_inventory};
pub use pool::Pool;
pub use refresh::refresh_aggregates;
