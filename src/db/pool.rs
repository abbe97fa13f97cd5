//! The connections that requests share. One pool belongs to one runtime: its connections are driven there.

use std::fmt;
use std::time::Duration;

use deadpool_postgres::{
    Client, Manager, ManagerConfig, PoolError, RecyclingMethod, Runtime, TimeoutType, Timeouts,
};

use super::connect::parameters;
use super::error::{StorageError, describe};
use super::queries::Rows;
use super::tls::Connector;
use crate::config::Config;

/// How much longer than the server's own limit a statement is waited for. It is over only where the server says
/// nothing any more: a network that swallows packets, a machine that froze.
const GRACE: Duration = Duration::from_secs(2);

/// Connections for reading, opened when they are needed.
#[derive(Clone)]
pub struct Pool {
    connections: deadpool_postgres::Pool,
    patience: Duration,
    statement_timeout_ms: u64,
    stream_timeout_ms: u64,
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Pool")
            .field("status", &self.connections.status())
            .finish_non_exhaustive()
    }
}

/// How busy a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolStatus {
    /// Connections that there may be.
    pub max: usize,
    /// Connections that are open.
    pub open: usize,
    /// Open connections that nobody uses.
    pub idle: usize,
    /// Questions that wait for a connection.
    pub waiting: usize,
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
        let role = if serve.role.is_empty() {
            String::new()
        } else {
            format!(" -c role={}", serve.role)
        };
        let options = format!(
            "-c statement_timeout={} -c plan_cache_mode=force_custom_plan{role}",
            serve.statement_timeout_ms
        );
        // A session that is not closed is taken for good, because a round trip per request would double the cost of
        // a short one. One that broke meanwhile fails one request with 503.
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let tls = Connector::new(config.database.url.tls());
        let wait = Duration::from_millis(serve.pool_timeout_ms);
        let mut parameters = parameters(&config.database, &options);
        // Of several hosts, one that swallows packets must leave time for the others.
        let hosts = u32::try_from(parameters.get_hosts().len())
            .unwrap_or(1)
            .max(1);
        let connect_timeout = parameters.get_connect_timeout().copied().unwrap_or(wait);
        parameters.connect_timeout(connect_timeout.min(wait / hosts));
        let manager = Manager::from_config(parameters, tls, recycling);
        let connections = deadpool_postgres::Pool::builder(manager)
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(wait),
                create: Some(wait),
                recycle: Some(wait),
            })
            .build()
            .expect("a pool with a runtime can be built");
        Self {
            connections,
            patience: Duration::from_millis(serve.statement_timeout_ms) + GRACE,
            statement_timeout_ms: serve.statement_timeout_ms,
            stream_timeout_ms: serve.stream_timeout_ms,
        }
    }

    /// How busy it is.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        let status = self.connections.status();
        PoolStatus {
            max: status.max_size,
            open: status.size,
            idle: status.available,
            waiting: status.waiting,
        }
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
        let answer = tokio::time::timeout(self.patience, question(&client))
            .await
            .unwrap_or(Err(StorageError::Timeout));
        if let Err(StorageError::Timeout | StorageError::NotMigrated(_) | StorageError::Other(_)) =
            answer
        {
            // The session may still be at work, or hold statements that were prepared before a migration and fail
            // for ever after. A new one costs little beside an error.
            drop(Client::take(client));
        }
        answer
    }

    /// Asks a question whose rows are read one after the other, at the reader's pace. The connection stays with
    /// what is returned.
    ///
    /// # Errors
    /// No connection can be had in time, or the question's own error.
    pub async fn open<T>(
        &self,
        question: impl AsyncFnOnce(&Client) -> Result<T, StorageError>,
    ) -> Result<(T, Lease), StorageError> {
        let client = self.connections.get().await.map_err(no_connection)?;
        let asking = async {
            client
                .batch_execute(&format!(
                    "set statement_timeout = {}",
                    self.stream_timeout_ms
                ))
                .await?;
            question(&client).await
        };
        // The first row comes when all of them are sorted, so it may take as long as the whole.
        let patience = Duration::from_millis(self.stream_timeout_ms) + GRACE;
        let answer = tokio::time::timeout(patience, asking)
            .await
            .unwrap_or(Err(StorageError::Timeout));
        let lease = Lease {
            client: Some(client),
            statement_timeout_ms: self.statement_timeout_ms,
        };
        Ok((answer?, lease))
    }
}

/// A connection from which rows are being read. One that is dropped is closed, because the server may still be at
/// work on it.
pub struct Lease {
    client: Option<Client>,
    statement_timeout_ms: u64,
}

impl Lease {
    /// Gives the connection back to its pool.
    pub async fn give_back(&mut self) {
        let Some(client) = self.client.take() else {
            return;
        };
        let usual = format!("set statement_timeout = {}", self.statement_timeout_ms);
        if client.batch_execute(&usual).await.is_err() {
            drop(Client::take(client));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            drop(Client::take(client));
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Lease").finish_non_exhaustive()
    }
}

/// Rows and the connection that they come from.
#[derive(Debug)]
pub struct Streaming<T> {
    /// The rows.
    pub rows: Rows<T>,
    /// The connection.
    pub lease: Lease,
}

impl<T> Streaming<T> {
    /// The next row; after the last, `None`, and the connection is given back.
    ///
    /// # Errors
    /// The statement failed half-way, or the connection broke.
    pub async fn next(&mut self) -> Result<Option<T>, StorageError> {
        let row = self.rows.next().await?;
        if row.is_none() {
            self.lease.give_back().await;
        }
        Ok(row)
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
