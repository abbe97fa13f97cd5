//! `[database]`

use serde::Deserialize;

use super::database_url::DatabaseUrl;
use super::error::{InvalidValue, check_positive};

/// How to connect to the database.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// Server, database, user, password and TLS parameters.
    pub url: DatabaseUrl,
    /// Timeout of one attempt to connect.
    pub connect_timeout_ms: u64,
    /// Whether a pooler gives each connection its own session.
    pub pool_mode: PoolMode,
}

/// What a connection has for itself. The names are `PgBouncer`'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolMode {
    /// To be found out.
    Auto,
    /// A session.
    Session,
    /// A session for the duration of each transaction, which may be another one each time.
    Transaction,
}

impl Database {
    pub(super) fn validate(&self) -> Result<(), InvalidValue> {
        check_positive([("connect_timeout_ms", self.connect_timeout_ms)])
    }
}
