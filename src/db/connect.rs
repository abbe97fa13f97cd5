//! One connection of one's own, for what must not share a session: migrations and ingest.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::advice::on_connecting;
use super::error::{WriteError, describe};
use super::tls::{Connector, is_refusal};
use crate::config::{Database, DirectCompress};

/// Both sides look whether the other is still there, because either would else wait for hours on one that went
/// without a word; and what a lost session has locked stays locked until the server knows.
const KEEPALIVES: &str =
    "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3";
const KEEPALIVES_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVES_RETRIES: u32 = 3;

/// A connection and the task that drives it. After a drop, the session ends as soon as the task gets its turn.
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
    /// The number that the server gave the session. Connections of one number are one session, which does one thing
    /// at a time: so it is behind the embedded engine, and may be behind a pooler.
    ///
    /// # Errors
    /// The database refuses or is away.
    pub async fn session_number(&self) -> Result<i32, WriteError> {
        Ok(self
            .client
            .query_one("select pg_backend_pid()", &[])
            .await?
            .get(0))
    }

    /// Has COPY write straight into the columnstore, or not. A server that does not know how to is none the worse for it.
    ///
    /// # Errors
    /// The database refuses or is away.
    pub async fn set_direct_compress(&self, setting: DirectCompress) -> Result<(), WriteError> {
        let value = match setting {
            DirectCompress::Auto => return Ok(()),
            DirectCompress::On => "on",
            DirectCompress::Off => "off",
        };
        self.client
            .query(
                include_str!("../../sql/ingest/set_direct_compress.sql"),
                &[&value],
            )
            .await?;
        Ok(())
    }

    /// Whether COPY writes straight into the columnstore.
    ///
    /// # Errors
    /// The database refuses or is away.
    pub async fn compresses_directly(&self) -> Result<bool, WriteError> {
        Ok(self
            .client
            .query_one(
                include_str!("../../sql/ingest/compresses_directly.sql"),
                &[],
            )
            .await?
            .get(0))
    }

    /// Has the server wait for a lock no longer than that.
    ///
    /// # Errors
    /// The database refuses or is away.
    pub async fn set_lock_timeout(&self, longest: Duration) -> Result<(), WriteError> {
        Ok(self
            .client
            .batch_execute(&format!("set lock_timeout = {}", longest.as_millis()))
            .await?)
    }

    /// Ends the session and waits until the server was told. What a session holds, such as a lock, it holds
    /// until then.
    pub async fn close(self) {
        drop(self.client);
        // The driver ends by itself when its client is gone; a failure of it was logged there.
        let _ = self.driver.await;
    }
}

/// Up to so many connections beside `main`. Fewer, down to none, where the server has none to spare, and where all
/// connections are one session.
pub async fn connect_beside(
    database: &Database,
    main: &Connection,
    most: usize,
) -> Vec<Connection> {
    let mut beside = vec![];
    while beside.len() < most {
        let another = async {
            let another = connect(database).await?;
            Ok::<_, WriteError>(
                (another.session_number().await? != main.session_number().await?)
                    .then_some(another),
            )
        };
        match another.await {
            Ok(Some(another)) => beside.push(another),
            Ok(None) => break,
            Err(error) => {
                log::debug!("going on with {} connections: {error}", beside.len() + 1);
                break;
            }
        }
    }
    beside
}

/// The connection parameters of every simusage session: those of the URL, a name the server's
/// administrator can recognise, and UTC, so that no statement depends on the server's time zone.
pub(super) fn parameters(database: &Database, session_options: &str) -> tokio_postgres::Config {
    let mut parameters = database.url.parameters().clone();
    if parameters.get_connect_timeout().is_none() {
        parameters.connect_timeout(Duration::from_millis(database.connect_timeout_ms));
    }
    if parameters.get_application_name().is_none() {
        parameters.application_name("simusage");
    }
    let options = [
        parameters.get_options().unwrap_or_default(),
        "-c TimeZone=UTC",
        session_options,
    ]
    .join(" ");
    parameters.options(options.trim());
    parameters
}

/// Opens a connection.
///
/// # Errors
/// The server cannot be reached or refuses. The error names the server, without the password.
pub async fn connect(database: &Database) -> Result<Connection, WriteError> {
    let mut parameters = parameters(database, KEEPALIVES);
    if parameters.get_keepalives_idle() > KEEPALIVES_IDLE {
        parameters.keepalives_idle(KEEPALIVES_IDLE);
        parameters.keepalives_interval(KEEPALIVES_INTERVAL);
        parameters.keepalives_retries(KEEPALIVES_RETRIES);
    }
    let (client, connection) = parameters
        .connect(Connector::new(database.url.tls()))
        .await
        .map_err(|error| {
            let place = format!("cannot connect to {}", database.url);
            let advice = on_connecting(&error, &database.url)
                .map(|advice| format!("; {advice}"))
                .unwrap_or_default();
            let text = describe(&error) + &advice;
            match error.code() {
                Some(_) => WriteError::from(error).with_text(text).during(&place),
                None if is_refusal(&error) => WriteError::Refused(text).during(&place),
                None => WriteError::Unreachable(text).during(&place),
            }
        })?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            log::debug!("connection ended: {}", describe(&error));
        }
    });
    Ok(Connection { client, driver })
}
