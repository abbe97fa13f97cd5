//! What can go wrong between simusage and its database, as far as somebody acts on the difference.

use std::error::Error as _;

use tokio_postgres::error::SqlState;

/// A statement or connection that failed. The text is for logs: it may quote the database's own words.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// No connection could be had, or it broke.
    #[error("the database is away: {0}")]
    Unavailable(String),
    /// All connections of the pool were in use for as long as a request waits.
    #[error("all connections are busy")]
    Busy,
    /// The statement took longer than it may.
    #[error("the database took too long")]
    Timeout,
    /// A total does not fit into 64 bits.
    #[error("a total does not fit into 64 bits")]
    TotalOverflow,
    /// The database is not migrated: a table, view or column is missing.
    #[error("the schema is behind: {0}; run `simusage migrate`")]
    NotMigrated(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<tokio_postgres::Error> for StorageError {
    fn from(error: tokio_postgres::Error) -> Self {
        let text = describe(&error);
        let Some(code) = error.code() else {
            return if error.is_closed() || error.source().is_some_and(<dyn std::error::Error>::is::<std::io::Error>) {
                Self::Unavailable(text)
            } else {
                Self::Other(text)
            };
        };
        if *code == SqlState::NUMERIC_VALUE_OUT_OF_RANGE {
            Self::TotalOverflow
        } else if *code == SqlState::QUERY_CANCELED {
            Self::Timeout
        } else if [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN, SqlState::UNDEFINED_FUNCTION].contains(code) {
            Self::NotMigrated(text)
        } else if is_connection_lost(code) {
            Self::Unavailable(text)
        } else {
            Self::Other(text)
        }
    }
}

/// Whether the code says that the server ended the session, or takes no new one.
fn is_connection_lost(code: &SqlState) -> bool {
    // Classes of PostgreSQL's appendix A: 08 connection exception, 57P operator intervention,
    // 53 insufficient resources (too many connections), 28 invalid authorization, 3D no such database.
    let code = code.code();
    ["08", "57P", "53", "28", "3D"].iter().any(|class| code.starts_with(class))
}

/// The error with its causes: tokio-postgres's own text is only "db error".
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(server) = error.as_db_error() {
        let detail = server.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
        let hint = server.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        return format!("{} [{}]{detail}{hint}", server.message(), server.code().code());
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The error as the command line shows it, with the server's own words.
#[expect(clippy::needless_pass_by_value, reason = "it is the argument of map_err")]
pub(crate) fn explained(error: tokio_postgres::Error) -> anyhow::Error {
    anyhow::anyhow!(describe(&error))
}
