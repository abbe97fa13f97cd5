//! API tokens, and the key of cursors. Tokens are added and marked as revoked, but never deleted.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use tokio_postgres::{Client, Row};

use super::connect::Connection;
use super::error::{Cause, StorageError};
use crate::domain::{OrganizationId, Scope};
use crate::token::TokenHash;

/// A token to create.
#[derive(Debug)]
pub struct NewToken<'a> {
    /// Unique, also among revoked tokens.
    pub name: &'a str,
    /// The hash of its text.
    pub hash: TokenHash,
    /// The organizations that it gives access to; empty for all.
    pub organizations: &'a [OrganizationId],
    /// The first instant at which it is invalid.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Creates a token with its organizations. Calls `deliver`, which gives the token to its user, before it
/// is committed.
///
/// # Errors
/// Returns an error if the name is taken, an organization does not exist, `deliver` fails, or the
/// database is unreachable or rejects a statement. Then nothing is created.
pub async fn create(
    connection: &mut Connection,
    token: &NewToken<'_>,
    deliver: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let transaction = connection.transaction().await.map_err(Cause::from)?;
    let add = include_str!("../../sql/tokens/add.sql");
    let everything = token.organizations.is_empty();
    let added = transaction
        .query_opt(
            add,
            &[
                &token.name,
                &token.hash.as_bytes(),
                &everything,
                &token.expires_at,
            ],
        )
        .await
        .map_err(Cause::from)?;
    let Some(added) = added else {
        bail!(
            "a token named {} already exists; choose another name",
            token.name
        )
    };
    let id: i32 = added.get("id");
    let organizations: Vec<_> = token
        .organizations
        .iter()
        .map(OrganizationId::as_str)
        .collect();
    let bound = transaction
        .query(
            include_str!("../../sql/tokens/bind.sql"),
            &[&id, &organizations],
        )
        .await
        .map_err(Cause::from)?;
    let bound: HashSet<&str> = bound.iter().map(|row| row.get("name")).collect();
    let unknown: Vec<_> = organizations
        .into_iter()
        .filter(|name| !bound.contains(name))
        .collect();
    if !unknown.is_empty() {
        bail!(
            "no such organization in the inventory: {}; check the spelling, or load an inventory that contains it",
            unknown.join(", ")
        );
    }
    deliver()?;
    let committed = transaction.commit().await.map_err(Cause::from);
    committed
        .context("the token that was printed may not be valid; check with `simusage token list`")
}

/// A token as `token list` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedToken {
    /// Its unique name.
    pub name: String,
    /// Names of the organizations that it gives access to; `None` for all.
    pub organizations: Option<Vec<String>>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// The first instant at which it is invalid.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// Lists all tokens, revoked ones included, the oldest first.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects the statement.
pub async fn list(client: &Client) -> anyhow::Result<Vec<ListedToken>> {
    let rows = client
        .query(include_str!("../../sql/tokens/list.sql"), &[])
        .await
        .map_err(Cause::from)?;
    let token = |row: &Row| ListedToken {
        name: row.get("name"),
        organizations: row.get("organizations"),
        created_at: row.get("created_at"),
        expires_at: row.get("expires_at"),
        revoked_at: row.get("revoked_at"),
    };
    Ok(rows.iter().map(token).collect())
}

/// Revokes a token. Has no effect on a token that is already revoked.
///
/// # Errors
/// Returns an error if there is no such token, or if the database is unreachable or rejects the
/// statement.
pub async fn revoke(client: &Client, name: &str) -> anyhow::Result<()> {
    match client
        .execute(include_str!("../../sql/tokens/revoke.sql"), &[&name])
        .await
        .map_err(Cause::from)?
    {
        0 => bail!("there is no token named {name}; `simusage token list` lists all tokens"),
        _ => Ok(()),
    }
}

/// A token, for authentication.
#[derive(Debug, Clone)]
pub struct KnownToken {
    /// Its key in `tokens`.
    pub id: i32,
    /// Its unique name.
    pub name: Arc<str>,
    /// The hash of its text.
    pub hash: TokenHash,
    /// The organizations that it gives access to.
    pub scope: Scope,
    /// The first instant at which it is invalid.
    pub expires_at: Option<DateTime<Utc>>,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// What `serve` needs to recognise its clients and its own cursors.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// All tokens, revoked ones included.
    pub tokens: Vec<KnownToken>,
    /// Authenticates page cursors.
    pub cursor_key: CursorKey,
}

/// The key that authenticates page cursors. `Debug` does not print it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct CursorKey(pub [u8; 32]);

impl fmt::Debug for CursorKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

/// Loads all tokens and the key of cursors.
///
/// # Errors
/// Returns an error if the database is unreachable or rejects a statement.
pub async fn load(client: &Client) -> Result<Credentials, StorageError> {
    let rows = client
        .query(include_str!("../../sql/tokens/load.sql"), &[])
        .await?;
    let key = client
        .query_one(include_str!("../../sql/tokens/cursor_key.sql"), &[])
        .await?;
    let key: &[u8] = key.try_get("key")?;
    let key = key
        .try_into()
        .map_err(|_| StorageError::Other("the key of cursors does not have 32 bytes".into()))?;
    Ok(Credentials {
        tokens: rows.iter().map(known).collect::<Result<_, _>>()?,
        cursor_key: CursorKey(key),
    })
}

fn known(row: &Row) -> Result<KnownToken, StorageError> {
    let hash: &[u8] = row.try_get("hash")?;
    let organizations: Option<Vec<i32>> = row.try_get("organizations")?;
    Ok(KnownToken {
        id: row.try_get("id")?,
        name: row.try_get::<_, &str>("name")?.into(),
        hash: hash.try_into().map_err(|_| {
            StorageError::Other("the hash of a token does not have 32 bytes".into())
        })?,
        scope: organizations.map_or_else(Scope::everything, Scope::of),
        expires_at: row.try_get("expires_at")?,
        revoked: row.try_get("revoked")?,
    })
}
