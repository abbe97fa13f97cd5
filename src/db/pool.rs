//! The connections that requests share. One pool belongs to one runtime: its connections are driven there.

use std::fmt;
use std::time::Duration;

use deadpool_postgres::{Client, Manager, ManagerConfig, PoolError, RecyclingMethod, Runtime, TimeoutType, Timeouts};
use tokio_postgres::NoTls;

use super::connect::parameters;
use super::error::{StorageError, describe};
use crate::config::Config;

/// How much longer than the server's own limit a statement is waited for. It is over only where the server says
/// nothing any more: a network that swallows packets, a machine that froze.
const GRACE: Duration = Duration::from_secs(2);

/// Connections for reading, opened when they are needed.
#[derive(Clone)]
pub struct Pool {
    connections: deadpool_postgres::Pool,
    patience: Duration,
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pool").field("status", &self.connections.status()).finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool of at most `size` connections. It connects to nothing yet.
    ///
    /// # Panics
    /// Never: the builder asks for a runtime where there are timeouts, and it is given one.
    #[must_use]
    pub fn new(config: &Config, size: usize) -> Self {
        let serve = &config.serve;
        // The generic plan of a statement expands every chunk there is; with 1,155 daily chunks it took 160 ms to
        // find out that it loses, in each connection, against 0.6 ms for planning with the instants at hand.
        let options =
            format!("-c statement_timeout={} -c plan_cache_mode=force_custom_plan", serve.statement_timeout_ms);
        // A session that is not closed is taken for good, because a round trip per request would double the cost of
        // a short one. One that broke meanwhile fails one request with 503.
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(parameters(&config.database, &options), NoTls, recycling);
        let wait = Some(Duration::from_millis(serve.pool_timeout_ms));
        let connections = deadpool_postgres::Pool::builder(manager)
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts { wait, create: wait, recycle: wait })
            .build()
            .expect("a pool with a runtime can be built");
        Self { connections, patience: Duration::from_millis(serve.statement_timeout_ms) + GRACE }
    }

    /// Asks a question on one of the connections.
    ///
    /// # Errors
    /// No connection can be had in time, or the question's own error.
    pub async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&Client) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let client = self.connections.get().await.map_err(no_connection)?;
        let answer = tokio::time::timeout(self.patience, question(&client)).await.unwrap_or(Err(StorageError::Timeout));
        if let Err(StorageError::Timeout | StorageError::NotMigrated(_) | StorageError::Other(_)) = answer {
            // The session may still be at work, or hold statements that were prepared before a migration and fail
            // for ever after. A new one costs little beside an error.
            drop(Client::take(client));
        }
        answer
    }
}

/// Why the pool gave no connection.
fn no_connection(error: PoolError) -> StorageError {
    match error {
        PoolError::Timeout(TimeoutType::Wait) => StorageError::Busy,
        PoolError::Timeout(_) => StorageError::Unavailable("connecting took too long".to_owned()),
        PoolError::Backend(error) => StorageError::Unavailable(describe(&error)),
        other => StorageError::Unavailable(other.to_string()),
    }
}
