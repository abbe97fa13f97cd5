//! Who may ask: tokens by the hash of their text. Rows are added and marked as revoked, never removed.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::bail;
use chrono::{DateTime, Utc};
use tokio_postgres::{Client, Row};

use super::connect::Connection;
use super::error::{StorageError, explained};
use crate::domain::{OrganizationId, Scope};
use crate::token::TokenHash;

/// A token to be.
#[derive(Debug)]
pub struct NewToken<'a> {
    /// What people call it; no other may have the name.
    pub name: &'a str,
    /// The hash of its text.
    pub hash: TokenHash,
    /// The organizations that it is bound to; with none it sees everything.
    pub organizations: &'a [OrganizationId],
    /// The first instant at which it is no longer valid.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Adds a token with its organizations, or nothing.
///
/// # Errors
/// The name is taken, an organization does not exist, or the database refuses or is away.
pub async fn create(connection: &mut Connection, token: &NewToken<'_>) -> anyhow::Result<()> {
    let transaction = connection.transaction().await.map_err(explained)?;
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
        .map_err(explained)?;
    let Some(added) = added else {
        bail!("there is a token {} already", token.name)
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
        .map_err(explained)?;
    let bound: HashSet<&str> = bound.iter().map(|row| row.get("name")).collect();
    let unknown: Vec<_> = organizations
        .into_iter()
        .filter(|name| !bound.contains(name))
        .collect();
    if !unknown.is_empty() {
        bail!(
            "no such organization in the inventory: {}",
            unknown.join(", ")
        );
    }
    transaction.commit().await.map_err(explained)
}

/// A token as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedToken {
    /// What people call it.
    pub name: String,
    /// Names of the organizations that it is bound to; `None` where it sees everything.
    pub organizations: Option<Vec<String>>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// The first instant at which it is no longer valid.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// Every token there ever was, the oldest first.
///
/// # Errors
/// The database refuses or is away.
pub async fn list(client: &Client) -> anyhow::Result<Vec<ListedToken>> {
    let rows = client
        .query(include_str!("../../sql/tokens/list.sql"), &[])
        .await
        .map_err(explained)?;
    let token = |row: &Row| ListedToken {
        name: row.get("name"),
        organizations: row.get("organizations"),
        created_at: row.get("created_at"),
        expires_at: row.get("expires_at"),
        revoked_at: row.get("revoked_at"),
    };
    Ok(rows.iter().map(token).collect())
}

/// Revokes a token; one that was revoked before stays so.
///
/// # Errors
/// There is no token of that name, or the database refuses or is away.
pub async fn revoke(client: &Client, name: &str) -> anyhow::Result<()> {
    match client
        .execute(include_str!("../../sql/tokens/revoke.sql"), &[&name])
        .await
        .map_err(explained)?
    {
        0 => bail!("there is no token {name}"),
        _ => Ok(()),
    }
}

/// A token as it is told who asks.
#[derive(Debug, Clone)]
pub struct KnownToken {
    /// Its number.
    pub id: i32,
    /// What people call it.
    pub name: Arc<str>,
    /// The hash of its text.
    pub hash: TokenHash,
    /// What it sees.
    pub scope: Scope,
    /// The first instant at which it is no longer valid.
    pub expires_at: Option<DateTime<Utc>>,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// Every token there ever was.
///
/// # Errors
/// See [`StorageError`].
pub async fn load(client: &Client) -> Result<Vec<KnownToken>, StorageError> {
    let rows = client
        .query(include_str!("../../sql/tokens/load.sql"), &[])
        .await?;
    rows.iter().map(known).collect()
}

fn known(row: &Row) -> Result<KnownToken, StorageError> {
    let hash: &[u8] = row.try_get("hash")?;
    let organizations: Option<Vec<i32>> = row.try_get("organizations")?;
    Ok(KnownToken {
        id: row.try_get("id")?,
        name: row.try_get::<_, &str>("name")?.into(),
        hash: hash
            .try_into()
            .map_err(|_| StorageError::Other("a token's hash has not 32 bytes".to_owned()))?,
        scope: organizations.map_or_else(Scope::everything, Scope::of),
        expires_at: row.try_get("expires_at")?,
        revoked: row.try_get("revoked")?,
    })
}
