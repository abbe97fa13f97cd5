//! Database errors, divided by how callers react to them.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use tokio_postgres::error::{DbError, Severity, SqlState};

use super::tls;

/// Why a database operation failed: a text for users, and the driver's error if there is one.
///
/// The text includes that of the driver's error, and may quote the server.
#[derive(Debug, Clone)]
pub struct Cause {
    text: String,
    source: Option<Arc<tokio_postgres::Error>>,
}

impl Cause {
    /// The cause `source` with another text.
    pub(super) fn new(text: String, source: tokio_postgres::Error) -> Self {
        Self {
            text,
            source: Some(Arc::new(source)),
        }
    }
}

/// Compares the texts.
impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Cause {}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<String> for Cause {
    fn from(text: String) -> Self {
        Self { text, source: None }
    }
}

impl From<&str> for Cause {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<tokio_postgres::Error> for Cause {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::new(describe(&error), error)
    }
}

/// The SQLSTATE of `sql/functions/check_kept.sql`.
const NOT_KEPT: &str = "SU001";

/// Why a query failed. The text is for logs, not for clients: it may quote the server.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageError {
    /// No connection could be opened, or it broke.
    #[error("the database is unavailable: {0}")]
    Unavailable(#[source] Cause),
    /// No connection of the pool became free in time.
    #[error("all connections are busy")]
    Busy,
    /// The query took longer than its timeout.
    #[error("the query timed out")]
    Timeout,
    /// A total does not fit into 64 bits.
    #[error("a total does not fit into 64 bits")]
    TotalOverflow,
    /// Retention has dropped some of the usage before this day, in the form that the query needs.
    #[error("usage before {0} is no longer kept")]
    NotKept(String),
    /// The schema is not the one that this program needs.
    #[error("the schema is out of date: {0}; run `simusage migrate`")]
    NotMigrated(#[source] Cause),
    /// The schema is that of a newer program.
    #[error("the database was migrated by a newer simusage: {0}; update simusage")]
    NewerSchema(#[source] Cause),
    /// Any other error.
    #[error("{0}")]
    Other(#[source] Cause),
}

impl StorageError {
    /// Whether the session ended or can no longer be used, so that a new one may succeed.
    pub(super) fn is_session_lost(&self) -> bool {
        let Self::Unavailable(Cause {
            source: Some(error),
            ..
        }) = self
        else {
            return false;
        };
        error.as_db_error().map_or_else(
            || is_broken(error),
            |server| is_session_over(server) || is_session_outdated(server),
        )
    }
}

impl From<tokio_postgres::Error> for StorageError {
    fn from(error: tokio_postgres::Error) -> Self {
        if error
            .as_db_error()
            .is_some_and(|server| is_session_over(server) || is_session_outdated(server))
        {
            return Self::Unavailable(error.into());
        }
        let Some(code) = error.code() else {
            return if is_broken(&error) {
                Self::Unavailable(error.into())
            } else {
                Self::Other(error.into())
            };
        };
        if code.code() == NOT_KEPT {
            let day = error.as_db_error().and_then(|error| error.detail());
            return Self::NotKept(day.unwrap_or_default().to_owned());
        }
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
            Self::NotMigrated(error.into())
        } else if is_connection_lost(code) || *code == SqlState::T_R_SERIALIZATION_FAILURE {
            // A replica cancels queries that conflict with changes of its primary with the latter.
            Self::Unavailable(error.into())
        } else {
            Self::Other(error.into())
        }
    }
}

/// Whether the server ended the session or accepts no new one.
fn is_connection_lost(code: &SqlState) -> bool {
    // Classes of PostgreSQL's appendix A: 08 connection exception, 57P operator intervention,
    // 53 insufficient resources (too many connections), 28 invalid authorization, 3D no such
    // database.
    let code = code.code();
    ["08", "57P", "53", "28", "3D"]
        .iter()
        .any(|class| code.starts_with(class))
}

/// Why a write failed. The variant decides whether to retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The server did not respond.
    #[error("{0}")]
    Unreachable(#[source] Cause),
    /// The connection broke, the server has no free connection, or the transaction conflicted with
    /// another one. A retry may succeed.
    #[error("{0}")]
    Transient(#[source] Cause),
    /// The server's disk is full.
    #[error("the database has no space left: {0}")]
    DiskFull(#[source] Cause),
    /// Another process has advanced the source.
    #[error("another process is ingesting it")]
    Overtaken,
    /// The database has lost batches of the source that it had committed, and has it only up to this
    /// position.
    #[error("the database no longer has records that it had committed")]
    CommitsLost(i64),
    /// The database has lost SIM cards or organizations whose ids records contain.
    #[error(
        "the database no longer has SIM cards or organizations that this run has loaded, as after a failover to \
         a standby that had not received them; load the inventory again, then run the same command again"
    )]
    InventoryLost,
    /// Any other error. A retry would also fail.
    #[error("{0}")]
    Refused(#[source] Cause),
}

impl WriteError {
    /// Whether a retry may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Transient(_))
    }

    /// The server's error code, if the server reported the error.
    pub(super) fn code(&self) -> Option<&SqlState> {
        let (Self::Unreachable(cause)
        | Self::Transient(cause)
        | Self::DiskFull(cause)
        | Self::Refused(cause)) = self
        else {
            return None;
        };
        cause.source.as_ref()?.code()
    }

    /// Prefixes the text with what failed, as in "copying usage records: …".
    #[must_use]
    pub(crate) fn during(self, action: &str) -> Self {
        self.map_text(|text| format!("{action}: {text}"))
    }

    /// Replaces the text.
    #[must_use]
    pub(super) fn with_text(self, text: String) -> Self {
        self.map_text(|_| text)
    }

    fn map_text(self, change: impl FnOnce(String) -> String) -> Self {
        let change = |Cause { text, source }| Cause {
            text: change(text),
            source,
        };
        match self {
            Self::Unreachable(cause) => Self::Unreachable(change(cause)),
            Self::Transient(cause) => Self::Transient(change(cause)),
            Self::DiskFull(cause) => Self::DiskFull(change(cause)),
            Self::Refused(cause) => Self::Refused(change(cause)),
            Self::Overtaken => Self::Overtaken,
            Self::InventoryLost => Self::InventoryLost,
            Self::CommitsLost(position) => Self::CommitsLost(position),
        }
    }
}

impl WriteError {
    /// The error of an attempt to connect, which reports everything as the end of the session.
    pub(super) fn on_connecting(error: tokio_postgres::Error) -> Self {
        match error.code() {
            Some(code) if *code == SqlState::DISK_FULL => Self::DiskFull(error.into()),
            Some(code) if is_transient(code) && !is_refused_by_pooler(&error) => {
                Self::Transient(error.into())
            }
            None if is_broken(&error) => Self::Transient(error.into()),
            _ => Self::Refused(error.into()),
        }
    }
}

impl From<tokio_postgres::Error> for WriteError {
    fn from(error: tokio_postgres::Error) -> Self {
        let is_lost = error
            .as_db_error()
            .is_some_and(|server| is_session_over(server) || is_session_outdated(server));
        if is_lost && !is_refused_by_pooler(&error) {
            return Self::Transient(error.into());
        }
        Self::on_connecting(error)
    }
}

/// Whether the server ended the session with this error, for example because another session has
/// updated the extension, or an administrator has terminated it.
fn is_session_over(server: &DbError) -> bool {
    matches!(
        server.parsed_severity(),
        Some(Severity::Fatal | Severity::Panic)
    )
}

/// Whether the session refers to something that another one has replaced: a table, an extension or
/// the result of a prepared statement.
fn is_session_outdated(server: &DbError) -> bool {
    let (code, message) = (server.code(), server.message());
    let is_outdated = |text: &&str| message.starts_with(text);
    if *code == SqlState::INTERNAL_ERROR {
        let internal = [
            "could not open relation with OID",
            "cache lookup failed for",
            "tuple concurrently",
        ];
        return internal.iter().any(is_outdated);
    }
    *code == SqlState::FEATURE_NOT_SUPPORTED && is_outdated(&"cached plan must not change")
}

/// Whether a pooler refuses the connection because of its or its client's configuration. It reports
/// this like a lost connection, as a protocol violation.
fn is_refused_by_pooler(error: &tokio_postgres::Error) -> bool {
    let refusals = [
        "unsupported startup parameter",
        "no such database",
        "no such user",
        "not allowed",
    ];
    error.as_db_error().is_some_and(|server| {
        *server.code() == SqlState::PROTOCOL_VIOLATION
            && refusals
                .iter()
                .any(|refusal| server.message().starts_with(refusal))
    })
}

/// What to do where prepared statements are lost between transactions.
pub(super) const NEEDS_STATEMENTS: &str = "this database is behind a connection pooler in transaction mode that does not keep \
                                prepared statements: set max_prepared_statements in pgbouncer.ini (PgBouncer 1.21 or \
                                later), use pool_mode = session, or connect to the server directly";

/// Whether the error says that a prepared statement is in another session.
pub(super) fn is_lost_statement(code: &SqlState) -> bool {
    [
        SqlState::INVALID_SQL_STATEMENT_NAME,
        SqlState::DUPLICATE_PSTATEMENT,
    ]
    .contains(code)
}

/// What to do about an error of a statement, if that depends on how the program is connected.
fn connection_advice(server: &DbError) -> Option<&'static str> {
    if is_lost_statement(server.code()) {
        Some(NEEDS_STATEMENTS)
    } else if *server.code() == SqlState::READ_ONLY_SQL_TRANSACTION {
        Some(
            "the server is a standby or the database is read-only; connect to a server that accepts writes, for \
             example with several hosts and target_session_attrs=read-write",
        )
    } else if [
        "unsupported startup parameter: options",
        "unsupported startup parameter in options",
    ]
    .iter()
    .any(|refusal| server.message().starts_with(refusal))
    {
        Some(
            "remove options from the database URL and PGOPTIONS, or add `ignore_startup_parameters = options` to \
             pgbouncer.ini, which then ignores them",
        )
    } else {
        None
    }
}

/// Whether the connection failed, rather than a statement.
fn is_broken(error: &tokio_postgres::Error) -> bool {
    error.is_closed()
        || error
            .source()
            .is_some_and(<dyn Error>::is::<std::io::Error>)
}

/// Whether the session ended, the server accepts no new one now, or the transaction should be
/// retried.
fn is_transient(code: &SqlState) -> bool {
    // 08 connection exception, 57P operator intervention, 53300 too many connections, 55P03 lock
    // not available, 40 transaction rollback: serialization failures and deadlocks.
    let code = code.code();
    ["08", "57P", "53300", "55P03", "40"]
        .iter()
        .any(|class| code.starts_with(class))
}

/// The error with its causes. Its own text would only be "db error".
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
        let advice = connection_advice(server)
            .map(|advice| format!("; {advice}"))
            .unwrap_or_default();
        return format!(
            "{} [{}]{detail}{hint}{advice}",
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

/// The error with its causes, on one line. Stops at a database error, whose text includes its
/// causes.
#[must_use]
pub fn with_causes(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    let includes_causes = |error: &&(dyn Error + 'static)| {
        error.is::<StorageError>() || error.is::<WriteError>() || error.is::<Cause>()
    };
    let mut chain = error.chain();
    while let Some(cause) = chain.next().filter(|cause| !includes_causes(cause)) {
        if let Some(source) = cause.source() {
            let _ = write!(text, ": {source}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn only_transient_errors_are_worth_a_retry() {
        for code in [
            "08006", "57P01", "57P02", "57P03", "53300", "40001", "40P01", "55P03",
        ] {
            assert!(is_transient(&SqlState::from_code(code)), "{code}");
        }
        for code in [
            "53100", "53200", "42P01", "23505", "28P01", "3D000", "57014", "XX000", "22003",
        ] {
            assert!(!is_transient(&SqlState::from_code(code)), "{code}");
        }
    }

    #[test]
    fn the_text_says_what_failed() {
        let error =
            WriteError::DiskFull("could not extend file".into()).during("copying usage records");
        let text = "the database has no space left: copying usage records: could not extend file";
        assert_eq!(error.to_string(), text);
        assert!(!error.is_transient());
    }

    #[test]
    fn a_database_error_keeps_its_source_and_is_printed_once() {
        let source = "port=x".parse::<tokio_postgres::Config>().unwrap_err();
        let text = describe(&source);
        let error = StorageError::Other(source.into());
        let cause = error.source().unwrap();
        assert!(cause.source().unwrap().is::<tokio_postgres::Error>());
        let error = anyhow::Error::from(error).context("reading");
        assert_eq!(with_causes(&error), format!("reading: {text}"));
        let error = Err::<(), _>(std::io::Error::other("broken")).context("reading");
        assert_eq!(with_causes(&error.unwrap_err()), "reading: broken");
    }
}
