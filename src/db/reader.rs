//! The role that `serve` can read with. It cannot log in, and may read only what queries need.
//!
//! Every `migrate` grants the privileges it lacks, rather than a migration: the role belongs to the
//! server, and an administrator may create it after the schema.

use tokio_postgres::Client;

use super::aggregates::{AGGREGATES, RECORD_TABLES};
use super::error::Cause;

const READER: &str = "simusage_reader";

/// The tables that `serve` reads, besides those of records and the aggregates. A query of another table needs it here.
const TABLES: [&str; 11] = [
    "organizations",
    "sim_cards",
    "sim_card_assignments",
    "inventory_version",
    "ingest_sources",
    "usage_levels",
    "posting_days",
    "tokens",
    "token_organizations",
    "simusage_migrations",
    "simusage_functions",
];

/// A right that the reader lacks.
struct Privilege {
    /// The schema or relation.
    subject: String,
    /// The statement that grants it.
    command: String,
}

async fn missing_privileges(client: &Client) -> anyhow::Result<Vec<Privilege>> {
    let statement = include_str!("../../sql/settings/reader_lacks.sql");
    let relations: Vec<&str> = TABLES
        .into_iter()
        .chain(RECORD_TABLES)
        .chain(AGGREGATES)
        .collect();
    let rows = client
        .query(statement, &[&relations])
        .await
        .map_err(Cause::from)?;
    Ok(rows
        .iter()
        .map(|row| Privilege {
            subject: row.get("subject"),
            command: row.get("command"),
        })
        .collect())
}

/// A description of the privileges, if there are any.
fn describe(privileges: &[Privilege]) -> Option<String> {
    let subjects: Vec<_> = privileges
        .iter()
        .map(|right| right.subject.as_str())
        .collect();
    (!subjects.is_empty()).then(|| format!("{READER}: read access to {}", subjects.join(", ")))
}

/// Describes what [`grant_privileges`] would grant.
pub(super) async fn pending_privileges(client: &Client) -> anyhow::Result<Option<String>> {
    Ok(describe(&missing_privileges(client).await?))
}

/// Grants the reader the privileges that it lacks, and describes them. Logs a warning if the role does
/// not exist.
pub(super) async fn grant_privileges(client: &Client) -> anyhow::Result<Option<String>> {
    let statement = include_str!("../../sql/settings/reader_exists.sql");
    let exists: bool = client
        .query_one(statement, &[])
        .await
        .map_err(Cause::from)?
        .get("exists");
    if !exists {
        log::warn!(
            "the role {READER} does not exist, and this user may not create it; to use it for `serve`, run \
             `create role {READER} nologin` as a role with CREATEROLE, then `simusage migrate` again"
        );
    }
    let privileges = missing_privileges(client).await?;
    for right in &privileges {
        client
            .batch_execute(&right.command)
            .await
            .map_err(Cause::from)?;
    }
    Ok(describe(&privileges))
}
