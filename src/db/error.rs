//! What can go wrong between simusage and its database, as far as somebody acts on the difference.

use std::error::Error as _;

use tokio_postgres::error::SqlState;

use super::tls;

/// A statement or connection that failed. The text is for logs: it may quote the database's own words.
#[derive(Debug, Clone, thiserror::Error)]
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
            return if is_broken(&error) {
                Self::Unavailable(text)
            } else {
                Self::Other(text)
            };
        };
        if *code == SqlState::NUMERIC_VALUE_OUT_OF_RANGE {
            Self::TotalOverflow
        } else if *code == SqlState::QUERY_CANCELED {
            Self::Timeout
        } else if [
            SqlState::UNDEFINED_TABLE,
            SqlState::UNDEFINED_COLUMN,
            SqlState::UNDEFINED_FUNCTION,
        ]
        .contains(code)
        {
            Self::NotMigrated(text)
        } else if is_connection_lost(code) || *code == SqlState::T_R_SERIALIZATION_FAILURE {
            // A replica cancels what is in the way of its primary's changes with the latter. Asked again, it answers.
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
    ["08", "57P", "53", "28", "3D"]
        .iter()
        .any(|class| code.starts_with(class))
}

/// Why something was not written. What it says is for people; which variant it is says what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The server did not answer.
    #[error("{0}")]
    Unreachable(String),
    /// The connection broke, the server has none to spare now, or it asks for the transaction to be repeated.
    #[error("{0}")]
    Passing(String),
    /// The server's disk is full.
    #[error("the database has no space left: {0}")]
    DiskFull(String),
    /// Another process has moved the source.
    #[error("another process ingests it")]
    Overtaken,
    /// Anything else; the same again would fail again.
    #[error("{0}")]
    Refused(String),
}

impl WriteError {
    /// Whether the same may succeed a little later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Passing(_))
    }

    /// The error with what was being done in front, as in "copying usage records: …".
    #[must_use]
    pub(crate) fn during(self, doing: &str) -> Self {
        self.map_text(|text| format!("{doing}: {text}"))
    }

    /// The error with another text.
    #[must_use]
    pub(super) fn with_text(self, text: String) -> Self {
        self.map_text(|_| text)
    }

    fn map_text(self, change: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Unreachable(text) => Self::Unreachable(change(text)),
            Self::Passing(text) => Self::Passing(change(text)),
            Self::DiskFull(text) => Self::DiskFull(change(text)),
            Self::Refused(text) => Self::Refused(change(text)),
            Self::Overtaken => Self::Overtaken,
        }
    }
}

impl From<tokio_postgres::Error> for WriteError {
    fn from(error: tokio_postgres::Error) -> Self {
        let text = describe(&error);
        match error.code() {
            Some(code) if *code == SqlState::DISK_FULL => Self::DiskFull(text),
            Some(code) if is_passing(code) => Self::Passing(text),
            None if is_broken(&error) => Self::Passing(text),
            _ => Self::Refused(text),
        }
    }
}

/// Whether the connection, and not a statement, is what failed.
fn is_broken(error: &tokio_postgres::Error) -> bool {
    error.is_closed()
        || error
            .source()
            .is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
}

/// Whether the code says that the session ended, that the server takes no new one now, or that the transaction
/// should be repeated.
fn is_passing(code: &SqlState) -> bool {
    // 08 connection exception, 57P operator intervention, 53300 too many connections, 55P03 lock not available,
    // 40 transaction rollback: serialization failures and deadlocks.
    let code = code.code();
    ["08", "57P", "53300", "55P03", "40"]
        .iter()
        .any(|class| code.starts_with(class))
}

/// The error with its causes: tokio-postgres's own text is only "db error".
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(server) = error.as_db_error() {
        let detail = server
            .detail()
            .map(|detail| format!(" ({detail})"))
            .unwrap_or_default();
        let hint = server
            .hint()
            .map(|hint| format!("; {hint}"))
            .unwrap_or_default();
        return format!(
            "{} [{}]{detail}{hint}",
            server.message(),
            server.code().code()
        );
    }
    let advice = tls::advice(error)
        .map(|advice| format!("; {advice}"))
        .unwrap_or_default();
    match error.source() {
        Some(source) => format!("{error}: {source}{advice}"),
        None => error.to_string(),
    }
}

/// The error as the command line shows it, with the server's own words.
#[expect(
    clippy::needless_pass_by_value,
    reason = "it is the argument of map_err"
)]
pub(crate) fn explained(error: tokio_postgres::Error) -> anyhow::Error {
    anyhow::anyhow!(describe(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_told_from_what_does_not() {
        for code in [
            "08006", "57P01", "57P02", "57P03", "53300", "40001", "40P01", "55P03",
        ] {
            assert!(is_passing(&SqlState::from_code(code)), "{code}");
        }
        for code in [
            "53100", "53200", "42P01", "23505", "28P01", "3D000", "57014", "XX000", "22003",
        ] {
            assert!(!is_passing(&SqlState::from_code(code)), "{code}");
        }
    }

    #[test]
    fn the_text_says_what_was_being_done() {
        let error = WriteError::DiskFull("could not extend file".to_owned())
            .during("copying usage records");
        let text = "the database has no space left: copying usage records: could not extend file";
        assert_eq!(error.to_string(), text);
        assert!(!error.is_passing());
    }
}
