//! Recognises poolers that do not give each client its own session, as `PgBouncer` in transaction
//! mode.
//!
//! Such a pooler runs each transaction in any of its sessions, so settings, locks and prepared
//! statements of one transaction are not there in the next. `serve` can do without the first two.

use super::connect::{Connection, open, open_for_writing};
use super::error::{NEEDS_STATEMENTS, WriteError, is_lost_statement};
use crate::config::{Database, PoolMode};

const POOLING: &str = include_str!("../../sql/session/pooling.sql");

/// How often two connections compare their sessions. The pool may be in use by others.
const COMPARISONS: usize = 3;

const NEEDS_SESSIONS: &str = "this database is behind a connection pooler in transaction mode, and this command needs \
                              a session of its own: connect to the server directly, or through a pool in session \
                              mode (pool_mode = session in pgbouncer.ini)";

/// What lies between this program and its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pooling {
    /// Each connection has its own session.
    None,
    /// All connections share the one session of the embedded engine.
    Embedded,
    /// A transaction runs in any session. Prepared statements can be used in all of them.
    Transactions,
    /// A transaction runs in any session. Prepared statements are lost between transactions.
    TransactionsOnly,
}

/// Whether connections have their own sessions, or only transactions do. Connects to find out,
/// unless `database.pool_mode` tells.
///
/// # Errors
/// Returns an error if the database cannot be reached, or if prepared statements cannot be used.
pub async fn pool_mode(database: &Database) -> Result<PoolMode, WriteError> {
    if database.pool_mode != PoolMode::Auto {
        return Ok(database.pool_mode);
    }
    let connection = open(database).await?;
    let pooling = detect(database, &connection).await?;
    connection.close().await;
    match pooling {
        Pooling::None => Ok(PoolMode::Session),
        Pooling::Embedded | Pooling::Transactions => Ok(PoolMode::Transaction),
        Pooling::TransactionsOnly => Err(WriteError::Refused(NEEDS_STATEMENTS.into())),
    }
}

/// Opens the first connection of a command that needs its own sessions. [`super::connect()`] opens
/// more.
///
/// # Errors
/// Returns an error if the server is unreachable or rejects the connection, or if a pooler gives
/// each transaction another session.
pub async fn connect_first(database: &Database) -> Result<Connection, WriteError> {
    let connection = open_for_writing(database).await?;
    ensure_own_session(database, &connection).await?;
    connection.set_up().await?;
    Ok(connection)
}

/// Checks that the connection has its own session, before anything is set in it.
///
/// # Errors
/// Returns [`WriteError::Refused`] if it does not, or an error if the database is unreachable.
async fn ensure_own_session(
    database: &Database,
    connection: &Connection,
) -> Result<(), WriteError> {
    let has_own = match database.pool_mode {
        PoolMode::Session => true,
        PoolMode::Transaction => false,
        PoolMode::Auto => matches!(
            detect(database, connection).await?,
            Pooling::None | Pooling::Embedded
        ),
    };
    if has_own {
        Ok(())
    } else {
        Err(WriteError::Refused(NEEDS_SESSIONS.into()))
    }
}

async fn detect(database: &Database, connection: &Connection) -> Result<Pooling, WriteError> {
    match compare(database, connection).await {
        Err(error) if error.code().is_some_and(is_lost_statement) => Ok(Pooling::TransactionsOnly),
        other => Ok(other?),
    }
}

async fn compare(
    database: &Database,
    connection: &Connection,
) -> Result<Pooling, tokio_postgres::Error> {
    let row = connection.query_one(POOLING, &[]).await?;
    if row.get("is_embedded") {
        return Ok(Pooling::Embedded);
    }
    if row.get("is_renamed") {
        return Ok(Pooling::Transactions);
    }
    let mut own: i32 = row.get("pid");
    // The server may have no more free connections. Then this is not the place to fail.
    let Ok(other) = open(database).await else {
        return Ok(Pooling::None);
    };
    let mut is_shared = false;
    for _ in 0..COMPARISONS {
        // A pool gives out the session that was returned last, or the one that was returned first.
        // In the former case the other connection gets the same one, in the latter this one gets
        // another.
        let others = backend_pid(&other).await?;
        let next = backend_pid(connection).await?;
        let again = backend_pid(connection).await?;
        is_shared |= others == own || next != own || again != next;
        own = again;
    }
    other.close().await;
    Ok(if is_shared {
        Pooling::TransactionsOnly
    } else {
        Pooling::None
    })
}

async fn backend_pid(connection: &Connection) -> Result<i32, tokio_postgres::Error> {
    let row = connection.query_one(POOLING, &[]).await?;
    Ok(row.get("pid"))
}
