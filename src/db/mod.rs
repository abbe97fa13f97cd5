//! All that is said to TimescaleDB. Nothing else names tokio-postgres, but for the URL in the settings.

mod connect;
mod error;
pub mod migrate;

pub use connect::{Connection, connect};
pub use error::StorageError;
