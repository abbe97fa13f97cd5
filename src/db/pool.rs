//! The pool of connections for requests. A pool belongs to one runtime, which drives its
//! connections.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    Client, Connect, Manager, ManagerConfig, PoolError, RecyclingMethod, Runtime, TimeoutType,
    Timeouts,
};
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;

use super::connect::{SETTINGS, connect_any, parameters};
use super::error::{StorageError, describe};
use super::queries::Rows;
use super::tls::Connector;
use crate::config::{Config, PoolMode, Serve};

/// What every query relies on, in a session that other programs use, too.
const TRANSACTION_SETTINGS: &str = include_str!("../../sql/session/transaction_settings.sql");

/// How much longer than the server's statement timeout a query may take. Exceeded only if the
/// server no longer responds: the network drops packets, or the machine has frozen.
const GRACE: Duration = Duration::from_secs(2);

/// Connections for reading, opened on demand.
#[derive(Clone)]
pub struct Pool {
    connections: deadpool_postgres::Pool,
    timeout: Duration,
    statement_timeout_ms: u64,
    stream_timeout_ms: u64,
    /// The settings of each transaction, if sessions are shared with other programs.
    transactions: Option<Arc<Settings>>,
}

/// What queries rely on.
#[derive(Debug)]
struct Settings {
    statement_timeout_ms: u64,
    /// Empty: the user's own role.
    role: String,
}

impl Settings {
    fn new(serve: &Serve) -> Self {
        Self {
            statement_timeout_ms: serve.statement_timeout_ms,
            role: serve.role.clone(),
        }
    }

    /// The statements at the start of a session.
    fn of_session(&self) -> String {
        format!(
            "{SETTINGS};{}",
            self.statements("set", self.statement_timeout_ms)
        )
    }

    /// The statements at the start of a transaction.
    fn of_transaction(&self, timeout_ms: u64) -> String {
        format!(
            "begin isolation level read committed not deferrable;{TRANSACTION_SETTINGS};{}",
            self.statements("set local", timeout_ms)
        )
    }

    fn statements(&self, set: &str, timeout_ms: u64) -> String {
        // Custom plans exclude chunks by time. With 1,155 daily chunks, planning took 0.6 ms;
        // trying the generic plan, which contains all chunks, took 160 ms once per connection.
        let mut statements = format!(
            "{set} statement_timeout = {timeout_ms}; {set} plan_cache_mode = force_custom_plan"
        );
        if !self.role.is_empty() {
            // As the last one, since it may take away the right to set others.
            let role = self.role.replace('"', "\"\"");
            let _ = write!(statements, "; {set} role \"{role}\"");
        }
        statements
    }
}

/// Opens connections, and sets what queries rely on unless other programs use the same sessions.
struct SessionConnector {
    tls: Connector,
    prefers_standby: bool,
    settings: Option<Arc<str>>,
}

impl Connect for SessionConnector {
    fn connect(
        &self,
        parameters: &tokio_postgres::Config,
    ) -> BoxFuture<'_, Result<(tokio_postgres::Client, JoinHandle<()>), tokio_postgres::Error>>
    {
        let (parameters, tls) = (parameters.clone(), self.tls.clone());
        let (settings, prefers_standby) = (self.settings.clone(), self.prefers_standby);
        Box::pin(async move {
            let (client, connection) = connect_any(&parameters, prefers_standby, tls).await?;
            let driver = tokio::spawn(async move {
                if let Err(error) = connection.await {
                    log::debug!("connection ended: {}", describe(&error));
                }
            });
            if let Some(settings) = settings {
                client.batch_execute(&settings).await?;
            }
            Ok((client, driver))
        })
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Pool")
            .field("status", &self.connections.status())
            .finish_non_exhaustive()
    }
}

/// The number of connections of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolStatus {
    /// The most connections that may be open.
    pub max: usize,
    /// Open connections.
    pub open: usize,
    /// Open connections that are not in use.
    pub idle: usize,
    /// Queries waiting for a connection.
    pub waiting: usize,
}

impl Pool {
    /// A pool of at most `size` connections. Opens none yet.
    ///
    /// # Panics
    /// Never: the builder requires a runtime for its timeouts, and has one.
    #[must_use]
    pub fn new(config: &Config, size: usize) -> Self {
        let serve = &config.serve;
        // An open connection is reused unchecked, because a round trip per request would double the
        // cost of a short one. If it has broken, the query runs again on a new one.
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let settings = Settings::new(serve);
        let mode = config.database.pool_mode;
        let tls = Connector::new(config.database.url.tls());
        let wait = Duration::from_millis(serve.pool_timeout_ms);
        let mut parameters = parameters(&config.database);
        // A host that drops packets must leave time for trying the other hosts.
        let hosts = u32::try_from(parameters.get_hosts().len())
            .unwrap_or(1)
            .max(1);
        let prefers_standby = config.database.url.prefers_standby();
        let attempts = hosts * if prefers_standby { 2 } else { 1 };
        let connect_timeout = parameters.get_connect_timeout().copied().unwrap_or(wait);
        parameters.connect_timeout(connect_timeout.min(wait / attempts));
        let is_shared = mode == PoolMode::Transaction;
        let connector = SessionConnector {
            tls,
            prefers_standby,
            settings: (!is_shared).then(|| settings.of_session().into()),
        };
        let manager = Manager::from_connect(parameters, connector, recycling);
        let connections = deadpool_postgres::Pool::builder(manager)
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(wait),
                create: Some(wait),
                recycle: Some(wait),
            })
            .build()
            .expect("a pool with a runtime is valid");
        Self {
            connections,
            timeout: Duration::from_millis(serve.statement_timeout_ms) + GRACE,
            statement_timeout_ms: serve.statement_timeout_ms,
            stream_timeout_ms: serve.stream_timeout_ms,
            transactions: is_shared.then(|| settings.into()),
        }
    }

    /// The number of its connections now.
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

    /// Runs a query on one of the connections. If its session has ended or can no longer be used,
    /// the query runs again on a new connection, once.
    ///
    /// # Errors
    /// Returns an error if no connection becomes available in time, or that of the query.
    pub async fn run<T>(
        &self,
        query: impl AsyncFn(&Client) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        self.with_second_attempt(async |client| self.run_on(client, &query).await)
            .await
    }

    /// Runs an attempt on a connection and, if that has lost its session, another on a new one.
    async fn with_second_attempt<T>(
        &self,
        attempt: impl AsyncFn(Client) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        match attempt(self.connection().await?).await {
            Err(error) if error.is_session_lost() => {
                self.close_idle(&error);
                attempt(self.connection().await?).await
            }
            other => other,
        }
    }

    /// A connection that is not in use, or a new one.
    async fn connection(&self) -> Result<Client, StorageError> {
        self.connections.get().await.map_err(no_connection)
    }

    /// Closes the connections that are not in use, because they have probably met the same fate.
    fn close_idle(&self, error: &StorageError) {
        log::debug!("trying again on a new connection: {error}");
        self.connections.retain(|_, _| false);
    }

    async fn run_on<T>(
        &self,
        client: Client,
        query: &impl AsyncFn(&Client) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        if let Some(settings) = &self.transactions {
            let begin = settings.of_transaction(self.statement_timeout_ms);
            let (result, mut lease) = in_transaction(client, &begin, self.timeout, query).await?;
            lease.give_back().await;
            return Ok(result);
        }
        let mut lease = Lease::new(client, "".into());
        let result = tokio::time::timeout(self.timeout, query(lease.client()))
            .await
            .unwrap_or(Err(StorageError::Timeout));
        // After other errors, the session may still be running the query, or have prepared statements
        // that fail since a migration. A new connection is cheap compared with further errors.
        if !matches!(
            result,
            Err(StorageError::Timeout
                | StorageError::NotMigrated(_)
                | StorageError::Unavailable(_)
                | StorageError::Other(_))
        ) {
            lease.keep();
        }
        result
    }

    /// Runs a query whose rows are streamed. The lease holds the connection until the rows are
    /// read.
    ///
    /// # Errors
    /// Returns an error if no connection becomes available in time, or that of the query.
    pub async fn open<T>(
        &self,
        query: impl AsyncFn(&Client) -> Result<T, StorageError>,
    ) -> Result<(T, Lease), StorageError> {
        self.with_second_attempt(async |client| self.open_on(client, &query).await)
            .await
    }

    async fn open_on<T>(
        &self,
        client: Client,
        query: &impl AsyncFn(&Client) -> Result<T, StorageError>,
    ) -> Result<(T, Lease), StorageError> {
        // The first row arrives after all rows are sorted, so it may take as long as the whole
        // query.
        let timeout = Duration::from_millis(self.stream_timeout_ms) + GRACE;
        if let Some(settings) = &self.transactions {
            let begin = settings.of_transaction(self.stream_timeout_ms);
            return in_transaction(client, &begin, timeout, query).await;
        }
        let reset = format!("set statement_timeout = {}", self.statement_timeout_ms);
        let lease = Lease::new(client, reset.into());
        let opening = async {
            let client = lease.client();
            client
                .batch_execute(&format!(
                    "set statement_timeout = {}",
                    self.stream_timeout_ms
                ))
                .await?;
            query(client).await
        };
        let result = tokio::time::timeout(timeout, opening)
            .await
            .unwrap_or(Err(StorageError::Timeout));
        Ok((result?, lease))
    }
}

/// Runs a query in a transaction, of which the lease ends the rest. If it fails, the connection is
/// closed, and the pooler rolls back.
async fn in_transaction<T>(
    client: Client,
    begin: &str,
    timeout: Duration,
    query: &impl AsyncFn(&Client) -> Result<T, StorageError>,
) -> Result<(T, Lease), StorageError> {
    let lease = Lease::new(client, "commit".into());
    let running = async {
        let client = lease.client();
        // Sent together, in one round trip.
        let (started, result) = tokio::join!(client.batch_execute(begin), query(client));
        started?;
        result
    };
    let result = tokio::time::timeout(timeout, running)
        .await
        .unwrap_or(Err(StorageError::Timeout));
    Ok((result?, lease))
}

/// A connection in use. Dropping the lease closes the connection, because the server may still be
/// running the query, or the session may have other settings.
pub struct Lease {
    client: Option<Client>,
    /// The statement that ends the use of the connection.
    at_end: Cow<'static, str>,
}

impl Lease {
    fn new(client: Client, at_end: Cow<'static, str>) -> Self {
        Self {
            client: Some(client),
            at_end,
        }
    }

    fn client(&self) -> &Client {
        self.client.as_ref().expect("the connection is in use")
    }

    /// Returns the connection to its pool as it is.
    fn keep(&mut self) {
        drop(self.client.take());
    }

    /// Returns the connection to its pool.
    pub async fn give_back(&mut self) {
        let Some(client) = self.client.take() else {
            return;
        };
        let returning = Self::new(client, std::mem::take(&mut self.at_end));
        returning.finish().await;
    }

    /// Closes the connection if this fails or is dropped before the end.
    async fn finish(mut self) {
        if let Some(client) = &self.client
            && client.batch_execute(&self.at_end).await.is_ok()
        {
            self.keep();
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

/// Rows, and the connection they are read from.
#[derive(Debug)]
pub struct Streaming<T> {
    /// The rows, not read yet.
    pub rows: Rows<T>,
    /// Holds their connection.
    pub lease: Lease,
}

impl<T> Streaming<T> {
    /// The next row. After the last, returns `None`, and the connection to its pool.
    ///
    /// # Errors
    /// Returns an error if the query failed midway or the connection broke.
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
        PoolError::Timeout(_) => StorageError::Unavailable("connecting timed out".into()),
        PoolError::Backend(error) => StorageError::Unavailable(error.into()),
        other => StorageError::Unavailable(other.to_string().into()),
    }
}
