//! Connections outside the pool, for migrations and ingest, which need a session to themselves.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Socket};

use super::advice::on_connecting;
use super::error::{Cause, WriteError, describe};
use super::tls::{Connector, is_tls_failure};
use crate::config::Database;

/// What every session relies on. Sent after connecting, because poolers refuse it in the `options`
/// of a connection.
pub(super) const SETTINGS: &str = include_str!("../../sql/session/settings.sql");

/// Without keepalives, either side could wait for hours for a peer that vanished.
const KEEPALIVES: &str = include_str!("../../sql/session/keepalives.sql");
const KEEPALIVES_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVES_RETRIES: u32 = 3;

/// How long the server may leave what it was sent without acknowledgement: as long as the keepalives,
/// which are not sent then. Otherwise a COPY to a machine that has failed would take a quarter of an hour
/// to fail.
const UNACKNOWLEDGED: Duration = Duration::from_mins(1);

/// A connection and the task that drives it. After a drop, the session ends the next time that the
/// task runs.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    driver: JoinHandle<()>,
}

impl Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Connection {
    /// Sets what this program relies on in the session.
    pub(super) async fn set_up(&self) -> Result<(), WriteError> {
        Ok(self
            .client
            .batch_execute(&[SETTINGS, KEEPALIVES].join(";"))
            .await?)
    }

    /// The process ID of the session. Connections with the same one share a session, which runs one
    /// statement at a time: always with the embedded engine, and possibly with a pooler.
    async fn backend_pid(&self) -> Result<i32, WriteError> {
        Ok(self
            .client
            .query_one("select pg_backend_pid()", &[])
            .await?
            .get(0))
    }

    /// Prepares the session for storing records: COPY writes to the columnstore directly, if the
    /// server supports it.
    ///
    /// # Errors
    /// Returns an error if the database is unreachable or rejects the statement.
    pub async fn prepare_copying(&self) -> Result<(), WriteError> {
        self.client
            .query(include_str!("../../sql/ingest/set_copy_settings.sql"), &[])
            .await?;
        Ok(())
    }

    /// Limits how long a statement waits for a lock.
    ///
    /// # Errors
    /// Returns an error if the database is unreachable or rejects the statement.
    pub async fn set_lock_timeout(&self, timeout: Duration) -> Result<(), WriteError> {
        Ok(self
            .client
            .batch_execute(&format!("set lock_timeout = {}", timeout.as_millis()))
            .await?)
    }

    /// Ends the session and waits until the server is notified. Until then, the session keeps its
    /// locks.
    pub async fn close(self) {
        drop(self.client);
        // The driver ends once its client is dropped, and logs its own failure.
        let _ = self.driver.await;
    }
}

/// Opens up to `max` connections in addition to `main`. Returns fewer, possibly none, if the server
/// has no more free connections or if all connections share a session.
pub async fn connect_additional(
    database: &Database,
    main: &Connection,
    max: usize,
) -> Vec<Connection> {
    let mut additional = vec![];
    while additional.len() < max {
        let another = async {
            let another = connect(database).await?;
            Ok::<_, WriteError>(
                (another.backend_pid().await? != main.backend_pid().await?).then_some(another),
            )
        };
        match another.await {
            Ok(Some(another)) => additional.push(another),
            Ok(None) => break,
            Err(error) => {
                log::debug!(
                    "continuing with {} connections: {error}",
                    additional.len() + 1
                );
                break;
            }
        }
    }
    additional
}

/// The connection parameters of every session: those of the URL, and an application name.
pub(super) fn parameters(database: &Database) -> tokio_postgres::Config {
    let mut parameters = database.url.parameters().clone();
    if parameters.get_connect_timeout().is_none() {
        parameters.connect_timeout(Duration::from_millis(database.connect_timeout_ms));
    }
    if parameters.get_application_name().is_none() {
        parameters.application_name("simusage");
    }
    parameters
}

/// A connection that is to be driven.
type Undriven = tokio_postgres::Connection<Socket, <Connector as MakeTlsConnect<Socket>>::Stream>;

/// Connects to the first host that answers and has the right `target_session_attrs`.
pub(super) async fn connect_any(
    parameters: &tokio_postgres::Config,
    prefers_standby: bool,
    tls: Connector,
) -> Result<(Client, Undriven), tokio_postgres::Error> {
    if prefers_standby {
        let mut standby = parameters.clone();
        standby.target_session_attrs(TargetSessionAttrs::ReadOnly);
        if let Ok(connected) = standby.connect(tls.clone()).await {
            return Ok(connected);
        }
    }
    parameters.connect(tls).await
}

/// Opens a connection with its own session. Of several hosts, uses one that accepts writes.
///
/// # Errors
/// Returns an error if the server is unreachable or rejects the connection. It names the server,
/// without the password.
pub async fn connect(database: &Database) -> Result<Connection, WriteError> {
    let connection = open_for_writing(database).await?;
    connection.set_up().await?;
    Ok(connection)
}

/// Opens a connection without setting anything in its session. Of several hosts, uses one that
/// accepts writes, unless the URL says otherwise.
pub(super) async fn open_for_writing(database: &Database) -> Result<Connection, WriteError> {
    let mut parameters = parameters(database);
    if parameters.get_hosts().len() > 1
        && parameters.get_target_session_attrs() == TargetSessionAttrs::Any
    {
        parameters.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    open_with(database, parameters, false).await
}

/// Opens a connection without setting anything in its session.
pub(super) async fn open(database: &Database) -> Result<Connection, WriteError> {
    open_with(
        database,
        parameters(database),
        database.url.prefers_standby(),
    )
    .await
}

async fn open_with(
    database: &Database,
    mut parameters: tokio_postgres::Config,
    prefers_standby: bool,
) -> Result<Connection, WriteError> {
    if parameters.get_keepalives_idle() > KEEPALIVES_IDLE {
        parameters.keepalives_idle(KEEPALIVES_IDLE);
        parameters.keepalives_interval(KEEPALIVES_INTERVAL);
        parameters.keepalives_retries(KEEPALIVES_RETRIES);
    }
    if parameters.get_tcp_user_timeout().is_none() {
        parameters.tcp_user_timeout(UNACKNOWLEDGED);
    }
    let tls = Connector::new(database.url.tls());
    let (client, connection) = connect_any(&parameters, prefers_standby, tls)
        .await
        .map_err(|error| {
            let advice = on_connecting(&error, &database.url)
                .map(|advice| format!("; {advice}"))
                .unwrap_or_default();
            let problem = describe(&error);
            let text = format!("cannot connect to {}: {problem}{advice}", database.url);
            match error.code() {
                Some(_) => WriteError::on_connecting(error).with_text(text),
                None if is_tls_failure(&error) => WriteError::Refused(Cause::new(text, error)),
                None => WriteError::Unreachable(Cause::new(text, error)),
            }
        })?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            log::debug!("connection ended: {}", describe(&error));
        }
    });
    Ok(Connection { client, driver })
}
