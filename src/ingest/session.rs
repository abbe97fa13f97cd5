//! A connection that survives the database going away for a while.

use std::time::{Duration, Instant};

use crate::config::Config;
use crate::db::{self, Connection, WriteError};

/// The first pause before a new attempt; each further one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A connection, and the patience to have it anew.
pub(super) struct Session<'a> {
    config: &'a Config,
    connection: Connection,
    /// Since when nothing has succeeded, and how often it was tried.
    outage: Option<(Instant, u32)>,
}

impl<'a> Session<'a> {
    /// Connects. A server that does not answer at all is an error at once, because the URL may be wrong; one that
    /// is starting, or has no connection to spare, is waited for.
    pub async fn open(config: &'a Config) -> Result<Self, WriteError> {
        let mut outage = None;
        let connection = loop {
            match connect(config).await {
                Err(error @ WriteError::Transient(_)) => pause(config, &mut outage, error).await?,
                other => break other?,
            }
        };
        Ok(Self {
            config,
            connection,
            outage: None,
        })
    }

    /// Up to so many further connections, that wait for a lock no longer than that.
    pub async fn open_beside(
        &mut self,
        most: usize,
        lock_timeout: Duration,
    ) -> Result<Vec<Connection>, WriteError> {
        let config = self.config;
        self.repeat(async |connection| {
            let beside = db::connect_additional(&config.database, connection, most).await;
            for another in &beside {
                another
                    .set_direct_compress(config.ingest.direct_compress)
                    .await?;
                another.set_lock_timeout(lock_timeout).await?;
            }
            Ok(beside)
        })
        .await
    }

    /// The settings it connects by.
    pub fn config(&self) -> &'a Config {
        self.config
    }

    /// The connection as it is.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Does something that may be done twice, again and again until it succeeds or patience is over.
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

    /// Connects anew after an error that may pass. Any other error comes back, and so does one that lasts.
    pub async fn recover(&mut self, error: WriteError) -> Result<(), WriteError> {
        let mut error = error;
        loop {
            pause(self.config, &mut self.outage, error).await?;
            match connect(self.config).await {
                Ok(connection) => {
                    self.connection = connection;
                    return Ok(());
                }
                Err(next) => error = next,
            }
        }
    }

    /// Ends an outage, if there was one.
    pub fn succeeded(&mut self) {
        if let Some((since, _)) = self.outage.take() {
            log::info!(
                "the database is back after {:.1} s",
                since.elapsed().as_secs_f64()
            );
        }
    }
}

/// A connection with the settings that ingest has for a session.
async fn connect(config: &Config) -> Result<Connection, WriteError> {
    let connection = db::connect(&config.database).await?;
    connection
        .set_direct_compress(config.ingest.direct_compress)
        .await?;
    Ok(connection)
}

/// Waits before a new attempt: longer each time, and never as long as another process that failed with this one.
async fn pause(
    config: &Config,
    outage: &mut Option<(Instant, u32)>,
    error: WriteError,
) -> Result<(), WriteError> {
    let patience = Duration::from_millis(config.ingest.retry_for_ms);
    let (since, attempts) = outage.get_or_insert_with(|| (Instant::now(), 0));
    if !error.is_transient() || since.elapsed() >= patience {
        return Err(error);
    }
    let longest = LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.saturating_pow(*attempts));
    let pause = longest.mul_f64(0.5 + fastrand::f64() / 2.0);
    *attempts += 1;
    log::warn!("{error}; trying again in {:.1} s", pause.as_secs_f64());
    tokio::time::sleep(pause).await;
    Ok(())
}
