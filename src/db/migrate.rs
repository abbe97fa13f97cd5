//! Brings a database to the schema this program was built with: numbered files, each applied once, then the
//! storage settings of the configuration.
//!
//! What is absent: there is no way down. A file that outcome is never edited; a mistake is mended by a new file.

use std::fmt::Write as _;

use anyhow::{Context as _, bail, ensure};
use sha2::{Digest as _, Sha256};
use tokio_postgres::Client;

use super::connect::{Connection, connect};
use super::error::{Cause, StorageError};
use super::reader;
use super::refresh::execute_with_retries;
use super::settings::{self, Change};
use crate::config::{Database, Storage};

/// The oldest TimescaleDB whose statements the schema is tested with.
const OLDEST_TIMESCALEDB: Version = Version(2, 23);

/// Key of the advisory lock that one migration at a time holds: "simusage" in ASCII.
const LOCK_KEY: i64 = 0x7369_6d75_7361_6765;

/// The first line of a file that must not run inside a transaction. Its statements then end with an empty
/// line each, and must bear being run again, because a failure leaves the earlier ones behind.
const OPT_OUT: &str = "-- simusage: no transaction";

/// A numbered file of `sql/migrations`.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Its number, from 1.
    pub number: i32,
    /// Its file name without the ending.
    pub name: &'static str,
    /// Its text.
    pub sql: &'static str,
}

/// `migration!(1, "0001_inventory")` embeds `sql/migrations/0001_inventory.sql`.
macro_rules! migration {
    ($number:literal, $name:literal) => {
        Migration {
            number: $number,
            name: $name,
            sql: include_str!(concat!("../../sql/migrations/", $name, ".sql")),
        }
    };
}

/// Every migration, in order.
const MIGRATIONS: &[Migration] = &[
    migration!(1, "0001_inventory"),
    migration!(2, "0002_usage"),
    migration!(3, "0003_rejected_records"),
    migration!(4, "0004_ingest_ledger"),
    migration!(5, "0005_inventory_version"),
    migration!(6, "0006_freshness"),
    migration!(7, "0007_tokens"),
    migration!(8, "0008_series"),
    migration!(9, "0009_every_change_is_logged"),
];

impl Migration {
    /// SHA-256 of the file, in hexadecimal.
    fn checksum(self) -> String {
        Sha256::digest(self.sql)
            .iter()
            .fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
    }

    fn in_transaction(self) -> bool {
        !self.sql.starts_with(OPT_OUT)
    }
}

/// What a migration changed, or would change.
#[derive(Debug, Default)]
pub struct Report {
    /// Names of the migrations, in order.
    pub migrations: Vec<&'static str>,
    /// Settings, one sentence each.
    pub settings: Vec<String>,
}

impl Report {
    /// Whether there is nothing to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.migrations.is_empty() && self.settings.is_empty()
    }
}

/// Applies what is missing. Waits for another migration of the same database to end first.
///
/// # Errors
/// The server has no usable TimescaleDB, the database was migrated by a newer simusage or an edited file, or a
/// statement fails. Files applied before the failure stay applied.
pub async fn migrate(database: &Database, storage: &Storage) -> anyhow::Result<Report> {
    // The lock has a session of its own, so nothing that a migration does to its session can release it.
    let lock = connect(database).await?;
    acquire_lock(&lock).await?;
    let report = migrate_locked(database, storage).await;
    lock.close().await;
    report
}

async fn migrate_locked(database: &Database, storage: &Storage) -> anyhow::Result<Report> {
    let mut connection = connect(database).await?;
    install_timescaledb(&connection).await?;
    check_server(&read_server(&connection).await?)?;
    connection
        .batch_execute(include_str!("../../sql/schema_history/create.sql"))
        .await
        .map_err(Cause::from)?;
    let mut report = Report::default();
    for migration in pending(&applied(&connection).await?)? {
        apply(&mut connection, migration)
            .await
            .with_context(|| format!("applying migration {}", migration.name))?;
        log::info!("applied {}", migration.name);
        report.migrations.push(migration.name);
    }
    let changes = settings::changes(&connection, storage).await?;
    settings::apply(&mut connection, &changes)
        .await
        .context("applying storage settings")?;
    report.settings = changes.iter().map(Change::to_string).collect();
    report.settings.extend(
        reader::grant_rights(&connection)
            .await
            .context("letting the reader read")?,
    );
    Ok(report)
}

/// Says what [`migrate`] would change, and changes nothing.
///
/// # Errors
/// As [`migrate`].
pub async fn check(database: &Database, storage: &Storage) -> anyhow::Result<Report> {
    let connection = connect(database).await?;
    let server = read_server(&connection).await?;
    if server.installed.is_none() {
        ensure!(server.available.is_some(), NO_TIMESCALEDB);
        return Ok(Report {
            migrations: MIGRATIONS.iter().map(|migration| migration.name).collect(),
            settings: vec![],
        });
    }
    check_server(&server)?;
    let migrations: Vec<_> = pending(&applied(&connection).await?)?
        .iter()
        .map(|migration| migration.name)
        .collect();
    // Settings belong to tables that pending migrations may yet create.
    let mut settings = vec![];
    if migrations.is_empty() {
        settings.extend(
            settings::changes(&connection, storage)
                .await?
                .iter()
                .map(Change::to_string),
        );
        settings.extend(reader::pending_rights(&connection).await?);
    }
    Ok(Report {
        migrations,
        settings,
    })
}

/// Whether every migration of this program, and none it does not know, has been applied.
///
/// # Errors
/// The database cannot be asked.
pub async fn ensure_current(client: &Client) -> Result<(), StorageError> {
    let number: Option<i32> = client
        .query_one(include_str!("../../sql/schema_history/newest.sql"), &[])
        .await?
        .get(0);
    let newest = MIGRATIONS.last().map(|migration| migration.number);
    if number == newest {
        return Ok(());
    }
    let text =
        |number: Option<i32>| number.map_or_else(|| "none".to_owned(), |number| number.to_string());
    let detail = format!(
        "the newest migration applied is {}, this program needs {}",
        text(number),
        text(newest)
    );
    Err(StorageError::NotMigrated(detail.into()))
}

async fn acquire_lock(connection: &Connection) -> anyhow::Result<()> {
    let row = connection
        .query_one(
            include_str!("../../sql/schema_history/try_lock.sql"),
            &[&LOCK_KEY],
        )
        .await
        .map_err(Cause::from)?;
    if !row.get::<_, bool>(0) {
        log::info!("another migration is running; waiting for it to end");
        connection
            .execute(
                include_str!("../../sql/schema_history/lock.sql"),
                &[&LOCK_KEY],
            )
            .await
            .map_err(Cause::from)?;
    }
    Ok(())
}

/// What matters about the server and its TimescaleDB.
#[derive(Debug, Clone, Default)]
struct Server {
    /// Version that `create extension` would install.
    available: Option<String>,
    /// Version that is installed in this database.
    installed: Option<String>,
    /// `timescaledb.license`, where the library is loaded.
    license: Option<String>,
}

/// `major.minor` of TimescaleDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(['.', '-']).map(str::parse);
        Some(Self(numbers.next()?.ok()?, numbers.next()?.ok()?))
    }
}

const NO_TIMESCALEDB: &str = "the server has no TimescaleDB: install it there (https://docs.timescale.com/self-hosted), \
                              or use the image timescale/timescaledb, and run this again";

async fn read_server(client: &Client) -> anyhow::Result<Server> {
    let row = client
        .query_opt(include_str!("../../sql/schema_history/server.sql"), &[])
        .await
        .map_err(Cause::from)?;
    Ok(row.map_or_else(Server::default, |row| Server {
        available: row.get("available"),
        installed: row.get("installed"),
        license: row.get("license"),
    }))
}

async fn install_timescaledb(client: &Client) -> anyhow::Result<()> {
    let server = read_server(client).await?;
    ensure!(
        server.available.is_some() || server.installed.is_some(),
        NO_TIMESCALEDB
    );
    if server.installed.is_none() {
        client.batch_execute("create extension if not exists timescaledb").await.map_err(Cause::from).context(
            "creating the extension timescaledb (the server must preload it, and the user must be allowed to)",
        )?;
    }
    Ok(())
}

fn check_server(server: &Server) -> anyhow::Result<()> {
    let Some(installed) = &server.installed else {
        bail!(NO_TIMESCALEDB)
    };
    let Version(major, minor) = OLDEST_TIMESCALEDB;
    if Version::parse(installed).is_none_or(|version| version < OLDEST_TIMESCALEDB) {
        bail!(
            "TimescaleDB {installed} is too old, simusage needs {major}.{minor} or later: install it on the server, \
             then run `alter extension timescaledb update`"
        );
    }
    if server.license.as_deref() == Some("apache") {
        bail!(
            "this TimescaleDB runs under its Apache license, without continuous aggregates: use the Community build \
             (timescale/timescaledb without -oss) with timescaledb.license = 'timescale'"
        );
    }
    Ok(())
}

/// A row of the ledger.
#[derive(Debug, Clone)]
struct Applied {
    number: i32,
    name: String,
    checksum: String,
}

async fn applied(client: &Client) -> anyhow::Result<Vec<Applied>> {
    let exists: bool = client
        .query_one(include_str!("../../sql/schema_history/exists.sql"), &[])
        .await
        .map_err(Cause::from)?
        .get(0);
    if !exists {
        return Ok(vec![]);
    }
    let rows = client
        .query(include_str!("../../sql/schema_history/applied.sql"), &[])
        .await
        .map_err(Cause::from)?;
    Ok(rows
        .iter()
        .map(|row| Applied {
            number: row.get("number"),
            name: row.get("name"),
            checksum: row.get("checksum"),
        })
        .collect())
}

/// The migrations that are yet to be applied.
fn pending(applied: &[Applied]) -> anyhow::Result<Vec<Migration>> {
    for row in applied {
        let Some(migration) = MIGRATIONS
            .iter()
            .find(|migration| migration.number == row.number)
        else {
            bail!(
                "the database was migrated by a newer simusage ({} is unknown to this one): update it",
                row.name
            );
        };
        ensure!(
            migration.checksum() == row.checksum,
            "migration {} is not the file that was applied as {}: a file that outcome is never edited",
            migration.name,
            row.name
        );
    }
    let is_new = |migration: &&Migration| applied.iter().all(|row| row.number != migration.number);
    Ok(MIGRATIONS.iter().filter(is_new).copied().collect())
}

/// Applies one migration and records it: in one transaction, unless its first line opts out.
///
/// # Errors
/// A statement fails. Then nothing of the file is applied, or, where it opted out, the statements before.
pub async fn apply(connection: &mut Connection, migration: Migration) -> anyhow::Result<()> {
    let record = include_str!("../../sql/schema_history/record.sql");
    let version = env!("CARGO_PKG_VERSION");
    let checksum = migration.checksum();
    let row: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&migration.number, &migration.name, &checksum, &version];
    if migration.in_transaction() {
        let transaction = connection.transaction().await.map_err(Cause::from)?;
        transaction
            .batch_execute(migration.sql)
            .await
            .map_err(Cause::from)?;
        transaction
            .execute(record, &row)
            .await
            .map_err(Cause::from)?;
        Ok(transaction.commit().await.map_err(Cause::from)?)
    } else {
        // A simple query of several statements is one transaction, so each is sent alone.
        for statement in migration.sql.split(";\n\n") {
            execute_with_retries(connection, statement)
                .await
                .map_err(Cause::from)?;
        }
        connection
            .execute(record, &row)
            .await
            .map_err(Cause::from)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(installed: &str, license: &str) -> Server {
        Server {
            available: Some(installed.to_owned()),
            installed: Some(installed.to_owned()),
            license: Some(license.to_owned()),
        }
    }

    fn row(migration: &Migration) -> Applied {
        Applied {
            number: migration.number,
            name: migration.name.to_owned(),
            checksum: migration.checksum(),
        }
    }

    #[test]
    fn every_file_of_the_folder_is_embedded_in_order() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/migrations");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let embedded: Vec<_> = MIGRATIONS
            .iter()
            .map(|migration| format!("{}.sql", migration.name))
            .collect();
        assert_eq!(files, embedded);
        for (index, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(usize::try_from(migration.number).unwrap(), index + 1);
            assert!(
                migration
                    .name
                    .starts_with(&format!("{:04}_", migration.number))
            );
        }
    }

    #[test]
    fn an_unusable_timescaledb_is_refused() {
        let message = |server: &Server| check_server(server).unwrap_err().to_string();
        assert!(message(&Server::default()).contains("has no TimescaleDB"));
        assert!(message(&server("2.22.1", "timescale")).contains("2.22.1 is too old"));
        assert!(message(&server("1.7.5", "timescale")).contains("too old"));
        assert!(message(&server("2.28.3", "apache")).contains("Apache license"));
        for version in ["2.23.0", "2.28.3", "2.30.0-dev", "3.0.0"] {
            check_server(&server(version, "timescale")).unwrap();
        }
    }

    #[test]
    fn only_what_is_missing_is_pending() {
        assert_eq!(pending(&[]).unwrap().len(), MIGRATIONS.len());
        let first = [row(&MIGRATIONS[0])];
        assert_eq!(pending(&first).unwrap()[0].number, 2);
        let all: Vec<_> = MIGRATIONS.iter().map(row).collect();
        assert!(pending(&all).unwrap().is_empty());
    }

    #[test]
    fn a_newer_or_edited_ledger_is_refused() {
        let newer = Applied {
            number: 9_999,
            name: "9999_future".to_owned(),
            checksum: String::new(),
        };
        assert!(
            pending(&[newer])
                .unwrap_err()
                .to_string()
                .contains("newer simusage (9999_future")
        );
        let edited = Applied {
            checksum: "0".repeat(64),
            ..row(&MIGRATIONS[1])
        };
        assert!(
            pending(&[edited])
                .unwrap_err()
                .to_string()
                .contains("0002_usage is not the file")
        );
    }
}
