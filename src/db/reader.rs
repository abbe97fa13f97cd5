//! The role that `serve` can read with: nobody's login, and the right to read what the answers are made of.
//!
//! Its rights are looked after by every `migrate`, not by a migration: the role belongs to the server and may come
//! after the schema, made by somebody who may.

use tokio_postgres::Client;

use super::error::Cause;

/// The role's name.
const READER: &str = "simusage_reader";

/// What `serve` reads. A query that reads more adds it here.
const READ: [&str; 15] = [
    "organizations",
    "sim_cards",
    "sim_card_assignments",
    "usage_records",
    "usage_hourly",
    "usage_daily",
    "organization_usage_hourly",
    "organization_usage_daily",
    "inventory_version",
    "ingest_sources",
    "stale_hours",
    "usage_versions",
    "tokens",
    "token_organizations",
    "simusage_migrations",
];

/// A right that the reader lacks.
struct Right {
    /// The schema or relation.
    subject: String,
    /// The statement that gives it.
    command: String,
}

async fn lacking(client: &Client) -> anyhow::Result<Vec<Right>> {
    let statement = include_str!("../../sql/settings/reader_lacks.sql");
    let rows = client
        .query(statement, &[&READ.as_slice()])
        .await
        .map_err(Cause::from)?;
    Ok(rows
        .iter()
        .map(|row| Right {
            subject: row.get("subject"),
            command: row.get("command"),
        })
        .collect())
}

/// The rights as one sentence, where there are any.
fn sentence(rights: &[Right]) -> Option<String> {
    let subjects: Vec<_> = rights.iter().map(|right| right.subject.as_str()).collect();
    (!subjects.is_empty()).then(|| format!("{READER}: may read {}", subjects.join(", ")))
}

/// What [`give_rights`] would give.
pub(super) async fn pending_rights(client: &Client) -> anyhow::Result<Option<String>> {
    Ok(sentence(&lacking(client).await?))
}

/// Gives the reader the rights that it lacks, and says which. Where there is no such role, it says so in the log.
pub(super) async fn give_rights(client: &Client) -> anyhow::Result<Option<String>> {
    let statement = include_str!("../../sql/settings/reader_exists.sql");
    let exists: bool = client
        .query_one(statement, &[])
        .await
        .map_err(Cause::from)?
        .get("exists");
    if !exists {
        log::warn!(
            "there is no role {READER}, and this user may not create it; for `serve` to read with it, run \
             `create role {READER} nologin` as one who may, then `simusage migrate` again"
        );
    }
    let rights = lacking(client).await?;
    for right in &rights {
        client
            .batch_execute(&right.command)
            .await
            .map_err(Cause::from)?;
    }
    Ok(sentence(&rights))
}
