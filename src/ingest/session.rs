//! A database connection that is reestablished after an outage.

use std::time::{Duration, Instant};

use crate::config::Config;
use crate::db::{self, Connection, InventoryIndex, NewestIds, WriteError};

/// The pause before the first retry. It doubles with each retry, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A connection, and the state of an outage if there is one.
pub(super) struct Session<'a> {
    config: &'a Config,
    connection: Connection,
    outage: Option<Outage>,
    losses: u32,
    /// Of the inventory that batches were made with.
    newest_ids: Option<NewestIds>,
    /// The source that this run is ingesting, if it is a file.
    claimed: Option<i64>,
}

/// A period in which nothing has succeeded.
struct Outage {
    since: Instant,
    attempts: u32,
}

impl<'a> Session<'a> {
    /// Connects. Waits for a server that is starting or has no free connection, but not for one
    /// that does not answer at all, because the URL may be wrong.
    ///
    /// # Errors
    /// Returns an error if the server does not answer, refuses the connection, or is unavailable
    /// for longer than `ingest.retry_for_ms`.
    pub async fn open(config: &'a Config) -> Result<Self, WriteError> {
        let mut outage = None;
        let connection = loop {
            let connected = db::connect_first(&config.database).await;
            match set_up(connected).await {
                Err(error @ WriteError::Transient(_)) => pause(config, &mut outage, error).await?,
                other => break other?,
            }
        };
        Ok(Self {
            config,
            connection,
            outage: None,
            losses: 0,
            newest_ids: None,
            claimed: None,
        })
    }

    /// Opens up to `count` additional connections, with a lock timeout.
    ///
    /// # Errors
    /// Returns an error if the database is unavailable for too long or rejects a setting.
    pub async fn open_additional(
        &mut self,
        count: usize,
        lock_timeout: Duration,
    ) -> Result<Vec<Connection>, WriteError> {
        let config = self.config;
        self.repeat(async |connection| {
            let additional = db::connect_additional(&config.database, connection, count).await;
            for another in &additional {
                another.prepare_copying().await?;
                another.set_lock_timeout(lock_timeout).await?;
            }
            Ok(additional)
        })
        .await
    }

    pub fn config(&self) -> &'a Config {
        self.config
    }

    /// The current connection, which may be broken.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Runs an idempotent action until it succeeds, reconnecting after transient errors.
    ///
    /// # Errors
    /// Returns the action's error if it is permanent or the outage lasts too long.
    pub async fn repeat<T>(
        &mut self,
        mut action: impl AsyncFnMut(&mut Connection) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        loop {
            match action(&mut self.connection).await {
                Ok(value) => {
                    self.succeeded();
                    return Ok(value);
                }
                Err(error) => self.recover(error).await?,
            }
        }
    }

    /// Reconnects after a transient error.
    ///
    /// # Errors
    /// Returns `error` if it is permanent, or the last error if the outage lasts too long.
    pub async fn recover(&mut self, error: WriteError) -> Result<(), WriteError> {
        let mut error = error;
        loop {
            pause(self.config, &mut self.outage, error).await?;
            match self.reconnect().await {
                Ok(()) => return Ok(()),
                Err(next) => error = next,
            }
        }
    }

    /// Replaces a connection that may be broken, in one attempt.
    ///
    /// # Errors
    /// Returns an error if the server does not answer or refuses the connection, or if it lacks some of
    /// the inventory that was loaded.
    pub async fn reconnect(&mut self) -> Result<(), WriteError> {
        let connection = set_up(db::connect(&self.config.database).await).await?;
        if let Some(newest) = &self.newest_ids
            && !newest.exist(&connection).await?
        {
            return Err(WriteError::InventoryLost);
        }
        if let Some(id) = self.claimed {
            db::claim_source(&connection, id).await?;
        }
        self.connection = connection;
        self.losses += 1;
        Ok(())
    }

    /// Keeps the claim to a source after a lost connection, too.
    pub fn set_claimed(&mut self, id: i64) {
        self.claimed = Some(id);
    }

    /// Ends the claim to the last source. A broken connection has lost it.
    pub async fn release_claimed(&mut self) {
        if let Some(id) = self.claimed.take()
            && let Err(error) = db::release_source(&self.connection, id).await
        {
            log::debug!("releasing source {id}: {error}");
        }
    }

    /// Loads the inventory. From then on, a server that lacks some of it is not connected to: batches
    /// may contain ids that it has given, or will give, to others.
    ///
    /// # Errors
    /// Returns an error if the database is unreachable or rejects a statement.
    pub async fn load_inventory(&mut self) -> Result<InventoryIndex, WriteError> {
        let index = InventoryIndex::load(&self.connection).await?;
        // Afterwards, so that they include those of the index.
        self.newest_ids = Some(NewestIds::load(&self.connection).await?);
        Ok(index)
    }

    /// How often the connection was replaced, perhaps by one to another server.
    pub fn losses(&self) -> u32 {
        self.losses
    }

    /// Ends an outage, if there is one.
    pub fn succeeded(&mut self) {
        if let Some(outage) = self.outage.take() {
            log::info!(
                "the database is back after {:.1} s",
                outage.since.elapsed().as_secs_f64()
            );
        }
    }
}

async fn set_up(connected: Result<Connection, WriteError>) -> Result<Connection, WriteError> {
    let connection = connected?;
    connection.prepare_copying().await?;
    Ok(connection)
}

/// Waits before a retry. The pause grows with each attempt, and is random so that processes that
/// failed together do not retry together.
///
/// # Errors
/// Returns `error` if it is permanent or the outage has lasted longer than `ingest.retry_for_ms`.
async fn pause(
    config: &Config,
    outage: &mut Option<Outage>,
    error: WriteError,
) -> Result<(), WriteError> {
    let timeout = Duration::from_millis(config.ingest.retry_for_ms);
    let outage = outage.get_or_insert_with(|| Outage {
        since: Instant::now(),
        attempts: 0,
    });
    if !error.is_transient() || outage.since.elapsed() >= timeout {
        return Err(error);
    }
    let longest = LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.saturating_pow(outage.attempts));
    let pause = longest.mul_f64(0.5 + fastrand::f64() / 2.0);
    outage.attempts += 1;
    log::warn!("{error}; trying again in {:.1} s", pause.as_secs_f64());
    tokio::time::sleep(pause).await;
    Ok(())
}
