//! What every request to `/api` passes: who asks ([`super::auth`]), and how much of it ([`super::limits`]). One access
//! stands before all workers of a process.

use std::time::{Duration, Instant};

use actix_web::web::Data;
use anyhow::Context as _;

use super::auth::Tokens;
use super::limits::Limits;
use crate::config::{Config, Serve};
use crate::db::tokens::{self, KnownToken};
use crate::db::{Pool, StorageError};

/// How often the tokens are read. What changes them elsewhere is to be in effect within 5 seconds.
const REFRESH_EVERY: Duration = Duration::from_secs(2);

/// The tokens and limits that all workers share.
#[derive(Clone)]
pub struct Access {
    pub(super) tokens: Data<Tokens>,
    pub(super) limits: Data<Limits>,
}

impl Access {
    /// A access that knows these tokens, as of now.
    #[must_use]
    pub fn new(serve: &Serve, tokens: Vec<KnownToken>) -> Self {
        Self {
            tokens: Data::new(Tokens::new(tokens, Instant::now())),
            limits: Data::new(Limits::new(serve)),
        }
    }

    /// A access that knows the tokens of the database.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn open(config: &Config, pool: &Pool) -> anyhow::Result<Self> {
        let tokens = pool
            .run(async |client| tokens::load(client).await)
            .await
            .with_context(|| {
                let role = match &*config.serve.role {
                    "" => String::new(),
                    role => format!(" as {role}"),
                };
                format!("reading the tokens from {}{role}", config.database.url)
            })?;
        Ok(Self::new(&config.serve, tokens))
    }

    /// Whether there is, or ever was, a token.
    #[must_use]
    pub fn needs_token(&self) -> bool {
        self.tokens.needed()
    }

    /// Reads the tokens again.
    ///
    /// # Errors
    /// The database cannot be asked; then those known stay.
    pub async fn refresh(&self, pool: &Pool) -> Result<(), StorageError> {
        let tokens = pool.run(async |client| tokens::load(client).await).await?;
        self.tokens.replace(tokens, Instant::now());
        Ok(())
    }

    /// Reads the tokens again and again, so that no request has to wait for them, and forgets who asks no more.
    pub async fn keep_current(&self, pool: &Pool) {
        let mut failing = false;
        loop {
            tokio::time::sleep(REFRESH_EVERY).await;
            let outcome = self.refresh(pool).await;
            match &outcome {
                Err(error) if !failing => {
                    log::warn!("reading the tokens: {error}; those known stay for a while");
                }
                Ok(()) if failing => log::info!("the tokens are read again"),
                _ => {}
            }
            failing = outcome.is_err();
            self.limits.forget_idle();
        }
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Access")
            .field("needs_token", &self.needs_token())
            .finish_non_exhaustive()
    }
}
