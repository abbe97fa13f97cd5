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
}

impl Database {
    pub(super) fn validate(&self) -> Result<(), InvalidValue> {
        check_positive([("connect_timeout_ms", self.connect_timeout_ms)])
    }
}
