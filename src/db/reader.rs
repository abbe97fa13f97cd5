//! The role that `serve` can read this database with. It cannot log in, and may read only what queries
//! need.
//!
//! Roles belong to the whole server. Each database has its own, so that a login made for one cannot read
//! another. Every `migrate` creates the role and corrects its privileges, rather than a migration: a dump
//! contains no roles, and an administrator may have to create it after the schema.

use tokio_postgres::Client;

use super::aggregates::{AGGREGATES, RECORD_TABLES};
use super::error::Cause;
use super::functions::FUNCTIONS;

/// The tables that `serve` reads, besides those of records and the aggregates. A query of another
/// table needs it here.
const TABLES: [&str; 14] = [
    "organizations",
    "sim_cards",
    "sim_card_assignments",
    "inventory_version",
    "ingest_sources",
    "feed_patterns",
    "usage_levels",
    "posting_days",
    "sim_card_spans",
    "tokens",
    "token_organizations",
    "cursor_key",
    "simusage_migrations",
    "simusage_functions",
];

/// A right that a reader lacks or has in excess.
struct Privilege {
    /// The name of the role.
    reader: String,
    lacks: bool,
    /// The schema, relation or function.
    subject: String,
    /// The statement that grants or revokes it.
    command: String,
}

/// The role that can read this database.
struct Reader {
    name: String,
    exists: bool,
    /// Whether this user may create it.
    may_create: bool,
    /// The statement that creates it.
    command: String,
}

async fn reader(client: &Client) -> anyhow::Result<Reader> {
    let row = client
        .query_one(include_str!("../../sql/settings/reader_name.sql"), &[])
        .await
        .map_err(Cause::from)?;
    let name: String = row.get("name");
    let statement = include_str!("../../sql/settings/reader_exists.sql");
    let row = client
        .query_one(statement, &[&name])
        .await
        .map_err(Cause::from)?;
    Ok(Reader {
        name,
        exists: row.get("exists"),
        may_create: row.get("may_create"),
        command: row.get("command"),
    })
}

/// The privileges to change, in order.
async fn wrong_privileges(client: &Client, reader: &Reader) -> anyhow::Result<Vec<Privilege>> {
    let statement = include_str!("../../sql/settings/reader_lacks.sql");
    let relations: Vec<&str> = TABLES
        .into_iter()
        .chain(RECORD_TABLES)
        .chain(AGGREGATES)
        .collect();
    let functions: Vec<&str> = FUNCTIONS.iter().map(|function| function.name).collect();
    let rows = client
        .query(statement, &[&reader.name, &relations, &functions])
        .await
        .map_err(Cause::from)?;
    Ok(rows
        .iter()
        .map(|row| Privilege {
            reader: row.get("reader"),
            lacks: row.get("lacks"),
            subject: row.get("subject"),
            command: row.get("command"),
        })
        .collect())
}

/// Describes the changes of each role's privileges.
fn describe(privileges: &[Privilege]) -> Vec<String> {
    let mut described = vec![];
    for run in
        privileges.chunk_by(|one, other| (&one.reader, one.lacks) == (&other.reader, other.lacks))
    {
        let subjects: Vec<_> = run.iter().map(|right| right.subject.as_str()).collect();
        let (reader, change) = (&run[0].reader, if run[0].lacks { "read" } else { "no" });
        described.push(format!(
            "{reader}: {change} access to {}",
            subjects.join(", ")
        ));
    }
    described
}

/// Describes what [`grant_privileges`] would do.
pub(super) async fn pending_privileges(client: &Client) -> anyhow::Result<Vec<String>> {
    let reader = reader(client).await?;
    let mut pending = vec![];
    if !reader.exists {
        if reader.may_create {
            pending.push(format!("{}: new role with read access", reader.name));
        } else {
            warn_missing(&reader.name);
        }
    }
    pending.extend(describe(&wrong_privileges(client, &reader).await?));
    Ok(pending)
}

/// Creates the reader if this user may, grants it the privileges that it lacks, revokes those of the
/// readers of other databases, and describes the changes. Logs a warning if there is no reader.
pub(super) async fn grant_privileges(client: &Client) -> anyhow::Result<Vec<String>> {
    let reader = reader(client).await?;
    let mut changes = vec![];
    if !reader.exists {
        if reader.may_create {
            let created = client.batch_execute(&reader.command).await;
            created.map_err(Cause::from)?;
            changes.push(format!("{}: new role", reader.name));
        } else {
            warn_missing(&reader.name);
        }
    }
    let privileges = wrong_privileges(client, &reader).await?;
    for right in &privileges {
        client
            .batch_execute(&right.command)
            .await
            .map_err(Cause::from)?;
    }
    changes.extend(describe(&privileges));
    Ok(changes)
}

fn warn_missing(name: &str) {
    log::warn!(
        "the role {name} does not exist, and this user may not create it; to use it for `serve`, run \
         `create role {name} nologin` as a role with CREATEROLE, then `simusage migrate` again"
    );
}
