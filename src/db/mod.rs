//! All that is said to TimescaleDB. Nothing else names tokio-postgres, but for the URL in the settings.

mod connect;
mod error;
pub mod migrate;
mod pool;
pub mod queries;

pub use connect::{Connection, connect};
pub use error::StorageError;
pub use pool::Pool;
