//! Migrates a database to the schema of this program: numbered files, each applied once, then the
//! SQL functions, the storage settings and the privileges of the reader.
//!
//! There are no down migrations. An applied file is never edited; a new file corrects its mistakes.

use anyhow::{Context as _, bail, ensure};
use tokio_postgres::Client;

use super::connect::{Connection, connect};
use super::error::{Cause, StorageError};
use super::feeds;
use super::functions::{self, FUNCTIONS, Function, checksum};
use super::pooling::connect_first;
use super::reader;
use super::settings::{self, Change};
use crate::config::{Database, Feeds, Storage};

/// The oldest TimescaleDB that the schema is tested with.
const OLDEST_TIMESCALEDB: Version = Version(2, 23);

/// The key of the advisory lock that lets one migration run at a time: "simusage" in ASCII.
const LOCK_KEY: i64 = 0x7369_6d75_7361_6765;

/// The first line of a file that cannot run in a transaction. Its statements are separated by empty
/// lines, and must be repeatable, because a failure does not undo the earlier ones.
const NO_TRANSACTION: &str = "-- simusage: no transaction";

/// A numbered file of `sql/migrations`.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Counted from 1.
    pub number: i32,
    /// The file name without `.sql`.
    pub name: &'static str,
    /// The content of the file.
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
    migration!(3, "0003_ingest"),
    migration!(4, "0004_tokens"),
    migration!(5, "0005_kafka_topics"),
    migration!(6, "0006_cursor_key"),
    migration!(7, "0007_rejected_age"),
    migration!(8, "0008_feeds"),
];

impl Migration {
    fn checksum(self) -> String {
        checksum(self.sql)
    }

    fn in_transaction(self) -> bool {
        !self.sql.starts_with(NO_TRANSACTION)
    }
}

/// The changes that were applied, or are pending.
#[derive(Debug, Default)]
pub struct Report {
    /// Names of the migrations, in order.
    pub migrations: Vec<&'static str>,
    /// Names of the SQL functions, in order.
    pub functions: Vec<&'static str>,
    /// Descriptions of the changes of settings and privileges.
    pub settings: Vec<String>,
}

impl Report {
    /// Whether there are no changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.migrations.is_empty() && self.functions.is_empty() && self.settings.is_empty()
    }
}

/// Applies all pending changes. First waits for any other migration of the same database to end.
///
/// # Errors
/// Returns an error if the server has no suitable TimescaleDB, if the database was migrated by a
/// newer or different simusage, or if a statement fails. Changes before the failure remain applied.
pub async fn migrate(
    database: &Database,
    storage: &Storage,
    feeds: &Feeds,
) -> anyhow::Result<Report> {
    // In a separate session, so that no migration can release the lock by accident.
    let lock = connect_first(database).await?;
    acquire_lock(&lock).await?;
    let report = migrate_locked(database, storage, feeds).await;
    lock.close().await;
    report
}

async fn migrate_locked(
    database: &Database,
    storage: &Storage,
    feeds: &Feeds,
) -> anyhow::Result<Report> {
    let mut connection = connect(database).await?;
    check_writable(&read_server(&connection).await?)?;
    install_timescaledb(&connection).await?;
    check_server(&read_server(&connection).await?)?;
    // As one string, these statements run in one transaction.
    connection
        .batch_execute(concat!(
            include_str!("../../sql/schema_history/create.sql"),
            ";",
            include_str!("../../sql/schema_history/create_functions.sql")
        ))
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
    let functions = outdated_functions(&connection).await?;
    functions::apply(&mut connection, &functions)
        .await
        .map_err(Cause::from)
        .context("applying SQL functions")?;
    report.functions = functions.iter().map(|function| function.name).collect();
    let changes = settings::changes(&connection, storage).await?;
    settings::apply(&mut connection, &changes)
        .await
        .context("applying storage settings")?;
    report.settings = changes.iter().map(Change::to_string).collect();
    report.settings.extend(
        feeds::apply(&mut connection, feeds)
            .await
            .context("applying the feeds")?,
    );
    report.settings.extend(
        reader::grant_privileges(&connection)
            .await
            .context("granting read access")?,
    );
    Ok(report)
}

/// Reports what [`migrate`] would change, without changing anything.
///
/// # Errors
/// See [`migrate`].
pub async fn check(
    database: &Database,
    storage: &Storage,
    feeds: &Feeds,
) -> anyhow::Result<Report> {
    let connection = connect_first(database).await?;
    let server = read_server(&connection).await?;
    check_encoding(&server)?;
    if server.installed.is_none() {
        ensure!(server.available.is_some(), NO_TIMESCALEDB);
        return Ok(Report {
            migrations: MIGRATIONS.iter().map(|migration| migration.name).collect(),
            functions: FUNCTIONS.iter().map(|function| function.name).collect(),
            settings: vec![],
        });
    }
    check_server(&server)?;
    let migrations: Vec<_> = pending(&applied(&connection).await?)?
        .iter()
        .map(|migration| migration.name)
        .collect();
    let functions = outdated_functions(&connection).await?;
    // Pending migrations may create the relations that settings and privileges refer to.
    let mut settings = vec![];
    if migrations.is_empty() {
        settings.extend(
            settings::changes(&connection, storage)
                .await?
                .iter()
                .map(Change::to_string),
        );
        settings.extend(feeds::change(&connection, feeds).await?);
        settings.extend(reader::pending_privileges(&connection).await?);
    }
    Ok(Report {
        migrations,
        functions: functions.iter().map(|function| function.name).collect(),
        settings,
    })
}

/// The version of a database's schema.
struct SchemaVersion {
    /// The newest migration that has been applied.
    migration: Option<i32>,
    /// This program's SQL functions that have not been applied.
    outdated_functions: Vec<String>,
}

async fn schema_version(client: &Client) -> Result<SchemaVersion, tokio_postgres::Error> {
    let (names, checksums) = functions::checksums();
    let statement = include_str!("../../sql/schema_history/version.sql");
    let row = client.query_one(statement, &[&names, &checksums]).await?;
    Ok(SchemaVersion {
        migration: row.get("number"),
        outdated_functions: row.get("outdated"),
    })
}

/// Checks that the schema is the one of this program: the same newest migration and SQL functions.
///
/// # Errors
/// Returns [`StorageError::NotMigrated`] or [`StorageError::NewerSchema`] if it is not, or an error if
/// the database is unreachable.
pub async fn ensure_current(client: &Client) -> Result<(), StorageError> {
    let version = schema_version(client).await?;
    let newest = MIGRATIONS.last().map(|migration| migration.number);
    if version.migration != newest {
        let text = |number: Option<i32>| {
            number.map_or_else(|| "none".to_owned(), |number| number.to_string())
        };
        let detail = format!(
            "the newest applied migration is {}, but this program needs {}",
            text(version.migration),
            text(newest)
        );
        return Err(if version.migration > newest {
            StorageError::NewerSchema(detail.into())
        } else {
            StorageError::NotMigrated(detail.into())
        });
    }
    match version.outdated_functions.as_slice() {
        [] => Ok(()),
        outdated => {
            let detail = format!(
                "these SQL functions differ from the ones this program needs: {}",
                outdated.join(", ")
            );
            Err(StorageError::NotMigrated(detail.into()))
        }
    }
}

/// The SQL functions that are yet to be applied.
async fn outdated_functions(client: &Client) -> anyhow::Result<Vec<Function>> {
    if !has_history(client).await? {
        return Ok(FUNCTIONS.to_vec());
    }
    let version = schema_version(client).await.map_err(Cause::from)?;
    let is_outdated = |function: &&Function| {
        version
            .outdated_functions
            .iter()
            .any(|name| name == function.name)
    };
    Ok(FUNCTIONS.iter().filter(is_outdated).copied().collect())
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

/// What the schema depends on.
#[derive(Debug, Clone, Default)]
struct Server {
    /// The version of TimescaleDB that `create extension` would install.
    available: Option<String>,
    /// The version installed in this database.
    installed: Option<String>,
    /// `timescaledb.license`, if the library is loaded.
    license: Option<String>,
    /// The name of the database.
    database: String,
    /// The encoding of the database.
    encoding: String,
    /// Whether the server replays another server's changes.
    is_standby: bool,
    /// Whether transactions are read-only by default.
    is_read_only: bool,
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

const NO_TIMESCALEDB: &str = "the server has no TimescaleDB: install it (https://docs.timescale.com/self-hosted) or use \
                              the image timescale/timescaledb, then run this again";

async fn read_server(client: &Client) -> anyhow::Result<Server> {
    let row = client
        .query_one(include_str!("../../sql/schema_history/server.sql"), &[])
        .await
        .map_err(Cause::from)?;
    Ok(Server {
        available: row.get("available"),
        installed: row.get("installed"),
        license: row.get("license"),
        database: row.get("database"),
        encoding: row.get("encoding"),
        is_standby: row.get("is_standby"),
        is_read_only: row.get("is_read_only"),
    })
}

/// Checks that the schema can be created and changed in this database.
fn check_writable(server: &Server) -> anyhow::Result<()> {
    let Server { database, .. } = server;
    check_encoding(server)?;
    if server.is_standby {
        bail!(
            "the server is a standby, so its schema cannot be changed: connect to the primary, for example with \
             several hosts and target_session_attrs=read-write"
        );
    }
    if server.is_read_only {
        bail!(
            "transactions in the database {database} are read-only by default, so its schema cannot be changed: \
             run `alter database {database} reset default_transaction_read_only`, or reset it for the role or \
             the server, then run this again"
        );
    }
    Ok(())
}

fn check_encoding(server: &Server) -> anyhow::Result<()> {
    let Server {
        database, encoding, ..
    } = server;
    ensure!(
        encoding == "UTF8",
        "the database {database} has the encoding {encoding}, but simusage needs UTF8: create another with \
         `createdb --encoding UTF8 --template template0 NAME`, and use that one"
    );
    Ok(())
}

async fn install_timescaledb(client: &Client) -> anyhow::Result<()> {
    let server = read_server(client).await?;
    ensure!(
        server.available.is_some() || server.installed.is_some(),
        NO_TIMESCALEDB
    );
    if server.installed.is_none() {
        client.batch_execute("create extension if not exists timescaledb").await.map_err(Cause::from).context(
            "creating the extension timescaledb (the server must preload it, and the user must have permission to create it)",
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
            "TimescaleDB {installed} is too old: install {major}.{minor} or later on the server, then run \
             `alter extension timescaledb update`"
        );
    }
    if server.license.as_deref() == Some("apache") {
        bail!(
            "TimescaleDB has no continuous aggregates under its Apache license: use the Community build (the image \
             timescale/timescaledb without -oss) with timescaledb.license = 'timescale'"
        );
    }
    Ok(())
}

/// A migration in the schema history.
#[derive(Debug, Clone)]
struct Applied {
    number: i32,
    name: String,
    checksum: String,
}

/// Whether the tables of the schema history exist.
async fn has_history(client: &Client) -> anyhow::Result<bool> {
    Ok(client
        .query_one(include_str!("../../sql/schema_history/exists.sql"), &[])
        .await
        .map_err(Cause::from)?
        .get(0))
}

async fn applied(client: &Client) -> anyhow::Result<Vec<Applied>> {
    if !has_history(client).await? {
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
                "the database was migrated by a newer simusage ({} is not part of this one): update simusage",
                row.name
            );
        };
        ensure!(
            migration.checksum() == row.checksum,
            "the database was migrated by a different simusage: its migration {} differs from this program's {}; \
             use the simusage that migrated it, or a new database",
            row.name,
            migration.name
        );
    }
    let is_new = |migration: &&Migration| applied.iter().all(|row| row.number != migration.number);
    Ok(MIGRATIONS.iter().filter(is_new).copied().collect())
}

/// Applies a migration and records it, in one transaction unless its first line opts out.
///
/// # Errors
/// Returns an error if a statement fails. Then nothing is applied, or, without a transaction, the
/// statements before it.
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
        transaction.commit().await.map_err(Cause::from)?;
    } else {
        // Several statements in one string would run in one transaction.
        for statement in migration.sql.split(";\n\n") {
            connection
                .batch_execute(statement)
                .await
                .map_err(Cause::from)?;
        }
        connection
            .execute(record, &row)
            .await
            .map_err(Cause::from)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(installed: &str, license: &str) -> Server {
        Server {
            available: Some(installed.to_owned()),
            installed: Some(installed.to_owned()),
            license: Some(license.to_owned()),
            ..Server::default()
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
        for (number, migration) in (1..).zip(MIGRATIONS) {
            assert_eq!(migration.number, number);
            assert!(migration.name.starts_with(&format!("{number:04}_")));
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
    fn a_newer_or_edited_history_is_refused() {
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
                .contains("0002_usage differs from this program")
        );
    }
}
