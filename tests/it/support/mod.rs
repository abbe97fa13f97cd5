//! Helpers for the integration tests: a database for each test, and the built program.
//!
//! If `SIMUSAGE_TEST_DATABASE_URL` names a server, each test creates and drops a database there.
//! Otherwise tests share a few embedded databases, which are emptied between tests.

pub mod api;
pub mod broker;
pub mod certificates;
pub mod cluster;
pub mod kafka;
pub mod pooler;
pub mod program;
pub mod proxy;
pub mod server;
pub mod stack;
pub mod tls_proxy;
pub mod usage;
mod watchdog;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex};

use chrono::{DateTime, Utc};
use simusage::config::{Config, Overrides, Storage};
use simusage::db::{self, Connection};

use crate::embedded_server::EmbeddedServer;

/// The environment variable with the URL of a native server.
const SERVER: &str = "SIMUSAGE_TEST_DATABASE_URL";

/// The number of embedded databases that run at once. Each needs a core.
const EMBEDDED_SERVERS: usize = 2;

/// The URL of a database on a port that nothing listens on.
pub const UNREACHABLE: &str = "postgresql://nobody@127.0.0.1:1/nothing";

/// Parses an RFC 3339 timestamp.
pub fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// A database for the exclusive use of one test.
pub struct TestDatabase {
    url: String,
    host: Host,
    _watched: watchdog::Watched,
}

enum Host {
    /// A database on a native server, dropped with this value.
    Native { server: String, name: String },
    /// An embedded server, returned for reuse when this value is dropped.
    Embedded(Option<EmbeddedServer>),
    /// A database that something else drops.
    Existing,
}

/// The URL of the native server to create databases on, if one is configured.
pub fn native_server() -> Option<String> {
    std::env::var(SERVER).ok().filter(|url| !url.is_empty())
}

/// Notes that a test, or a part of it, does nothing because something is not installed. `make test`
/// lists and counts these notes.
pub fn note_skipped(what: &str, why: &str) {
    use std::io::Write as _;
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("skipped.txt");
    let file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path);
    writeln!(file.unwrap(), "skipped: {what}, because {why}").unwrap();
}

/// Fails a test that needs several sessions or background workers if no native server is
/// configured. Such tests are ignored unless `--include-ignored` is given.
pub fn require_native_server() {
    assert!(
        native_server().is_some(),
        "set {SERVER} to the URL of a native TimescaleDB"
    );
}

/// The default settings with the database at `url`.
pub fn config(url: &str) -> Config {
    let overrides = Overrides {
        database_url: Some(url.to_owned()),
        ..Overrides::default()
    };
    let defaults = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    Config::load(Some(&defaults), [], &overrides).expect("the default settings are valid")
}

impl TestDatabase {
    /// An empty database.
    pub async fn empty() -> Self {
        match native_server() {
            Some(server) => Self::on_server(server).await,
            None => Self::embedded().await,
        }
    }

    /// A database with the schema.
    pub async fn migrated() -> Self {
        let database = Self::empty().await;
        database.migrate(&database.config().storage).await;
        database
    }

    /// A database that exists, and is not dropped with this value.
    pub fn existing(url: String) -> Self {
        Self {
            url,
            host: Host::Existing,
            _watched: watchdog::watch(),
        }
    }

    async fn migrate(&self, storage: &Storage) {
        db::migrate::migrate(&self.config().database, storage, &self.config().feeds)
            .await
            .expect("the schema applies");
    }

    async fn on_server(server: String) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "simusage_test_{}_{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let admin = db::connect(&config(&server).database)
            .await
            .expect("connects to the test server");
        admin
            .batch_execute(&format!("create database {name}"))
            .await
            .expect("creates a database on the test server");
        let (base, parameters) = server
            .split_once('?')
            .map_or((&*server, ""), |(base, rest)| (base, rest));
        let (authority, _) = base
            .rsplit_once('/')
            .expect("the URL of the test server names a database");
        let separator = if parameters.is_empty() { "" } else { "?" };
        let url = format!("{authority}/{name}{separator}{parameters}");
        Self {
            url,
            host: Host::Native { server, name },
            _watched: watchdog::watch(),
        }
    }

    async fn embedded() -> Self {
        let server = tokio::task::spawn_blocking(take_embedded)
            .await
            .expect("an embedded server starts");
        let database = Self {
            url: server.url(),
            host: Host::Embedded(Some(server)),
            _watched: watchdog::watch(),
        };
        let connection = database.connect().await;
        drop_objects(&connection).await;
        database
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The default settings with this database.
    pub fn config(&self) -> Config {
        config(&self.url)
    }

    /// The role that can read this database.
    pub async fn reader(&self) -> String {
        let connection = self.connect().await;
        let name = "select 'simusage_reader_' || current_database()";
        connection.query_one(name, &[]).await.unwrap().get(0)
    }

    pub async fn connect(&self) -> Connection {
        db::connect(&self.config().database)
            .await
            .expect("connects to the test database")
    }

    /// The result of a query that returns a single `bigint`.
    pub async fn number(&self, query: &str) -> i64 {
        self.connect()
            .await
            .query_one(query, &[])
            .await
            .expect(query)
            .get(0)
    }

    /// Stores records (SIM card, organization, time, bytes) with matching inventory assignments: a
    /// third in a closed period, a third in a closed page, and a third in an open one.
    pub async fn load(&self, records: &[(&str, &str, DateTime<Utc>, i64)]) {
        let connection = self.connect().await;
        let mut sorted = records.to_vec();
        sorted.sort_by_key(|record| record.2);
        let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
        for (sim, organization, time, _) in &sorted {
            let previous = owners.insert(sim, organization);
            if previous == Some(organization) {
                continue;
            }
            connection
                .execute(
                    "insert into organizations (name) values ($1) on conflict do nothing",
                    &[organization],
                )
                .await
                .unwrap();
            connection
                .execute(
                    "insert into sim_cards (iccid) values ($1) on conflict do nothing",
                    &[sim],
                )
                .await
                .unwrap();
            let first = previous.is_none();
            connection
                .execute(
                    "insert into sim_card_assignments (sim_card_id, valid_from, organization_id, iccid)
                     select s.id, case when $4 then '-infinity'::timestamptz else $3 end, o.id, s.iccid
                     from sim_cards s, organizations o where s.iccid = $1 and o.name = $2",
                    &[sim, organization, time, &first],
                )
                .await
                .unwrap();
        }
        let mut connection = connection;
        for turn in 0..3 {
            let batch: Vec<_> = records.iter().skip(turn).step_by(3).collect();
            post(&connection, &batch).await;
            if turn == 0 {
                db::close_period(&mut connection, None)
                    .await
                    .expect("the period closes");
            } else if turn == 1 {
                db::close_page(&connection).await.expect("the page closes");
            }
        }
    }
}

/// Stores records as one batch.
async fn post(connection: &Connection, records: &[&(&str, &str, DateTime<Utc>, i64)]) {
    let sim_cards: Vec<_> = records.iter().map(|record| record.0).collect();
    let organizations: Vec<_> = records.iter().map(|record| record.1).collect();
    let times: Vec<_> = records.iter().map(|record| record.2).collect();
    let bytes: Vec<_> = records.iter().map(|record| record.3).collect();
    connection
        .execute(
            "with batch as (
                 select begin_posting() as posting
             ),
             stored as (
                 insert into usage_records_recent (posting, time, sim_card_id, organization_id, bytes)
                 select batch.posting, r.time, s.id, o.id, r.bytes
                 from batch, unnest($1::text[], $2::text[], $3::timestamptz[], $4::bigint[])
                     as r (sim, organization, time, bytes)
                 join sim_cards s on s.iccid = r.sim
                 join organizations o on o.name = r.organization
                 returning posting, time, bytes
             )
             insert into posting_days (day, posting, records, is_large, is_recent)
             select (time at time zone 'UTC')::date, posting, count(*), bool_or(bytes >= 1::bigint << 38), true
             from stored
             group by 1, 2",
            &[&sim_cards, &organizations, &times, &bytes],
        )
        .await
        .unwrap();
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        match &mut self.host {
            Host::Native { server, name } => {
                // Drop cannot await, and a runtime cannot be nested in the test's own.
                let (server, name) = (server.clone(), name.clone());
                let dropped = std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .unwrap();
                    runtime.block_on(async {
                        let admin = db::connect(&config(&server).database).await.unwrap();
                        admin
                            .batch_execute(&format!("drop database {name} with (force)"))
                            .await
                            .unwrap();
                        admin
                            .batch_execute(&format!("drop role if exists simusage_reader_{name}"))
                            .await
                            .unwrap();
                    });
                });
                dropped.join().expect("the test database is dropped");
            }
            Host::Embedded(server) => return_embedded(server.take()),
            Host::Existing => {}
        }
    }
}

/// The pool of embedded servers.
struct Embedded {
    idle: Vec<EmbeddedServer>,
    started: usize,
}

static EMBEDDED: Mutex<Embedded> = Mutex::new(Embedded {
    idle: vec![],
    started: 0,
});
static RETURNED: Condvar = Condvar::new();

fn take_embedded() -> EmbeddedServer {
    let mut embedded = EMBEDDED.lock().unwrap();
    loop {
        if let Some(server) = embedded.idle.pop() {
            return server;
        }
        if embedded.started < EMBEDDED_SERVERS {
            embedded.started += 1;
            drop(embedded);
            return start_embedded();
        }
        embedded = RETURNED.wait(embedded).unwrap();
    }
}

/// Starts a server. If it fails, the next test that waits for one tries again.
fn start_embedded() -> EmbeddedServer {
    struct Place;
    impl Drop for Place {
        fn drop(&mut self) {
            return_embedded(None);
        }
    }
    let place = Place;
    let server = EmbeddedServer::start();
    std::mem::forget(place);
    server
}

fn return_embedded(server: Option<EmbeddedServer>) {
    let mut embedded = EMBEDDED
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    match server {
        // A failed test may have left the engine in any state, so its server is not reused.
        Some(server) if !std::thread::panicking() => embedded.idle.push(server),
        _ => embedded.started -= 1,
    }
    RETURNED.notify_one();
}

/// Drops all objects that the previous test left on an embedded server.
async fn drop_objects(connection: &Connection) {
    let has_timescaledb: bool = connection
        .query_one(
            "select exists (select from pg_extension where extname = 'timescaledb')",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    if has_timescaledb {
        // The newest first: an aggregate that another one is based on cannot be dropped, not even
        // with cascade.
        let views = "select format('drop materialized view %I.%I', view_schema, view_name) \
                     from timescaledb_information.continuous_aggregates \
                     order by substring(materialization_hypertable_name from '[0-9]+$')::integer desc";
        for row in connection.query(views, &[]).await.unwrap() {
            connection.batch_execute(row.get(0)).await.unwrap();
        }
    }
    let rest = "select format('drop table if exists %I.%I cascade', schemaname, tablename) from pg_tables \
                where schemaname = 'public' \
                union all \
                select format('drop sequence if exists %I.%I cascade', schemaname, sequencename) from pg_sequences \
                where schemaname = 'public' \
                union all \
                select format('drop function %s', oid::regprocedure) from pg_proc \
                where pronamespace = 'public'::regnamespace and not exists \
                (select from pg_depend where objid = pg_proc.oid and deptype = 'e')";
    for row in connection.query(rest, &[]).await.unwrap() {
        connection.batch_execute(row.get(0)).await.unwrap();
    }
}
