//! What every test of the whole needs: a database of its own, and the program.
//!
//! `SIMUSAGE_TEST_DATABASE_URL` names a server, on which each test makes a database and drops it. Without it,
//! tests take turns on a few embedded databases, which are emptied between them.

pub mod api;
pub mod certificates;
pub mod kafka;
pub mod program;
pub mod proxy;
pub mod server;
pub mod stack;
pub mod tls_proxy;
pub mod usage;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex};

use chrono::{DateTime, TimeDelta, Utc};
use simusage::config::{Config, Overrides, Storage};
use simusage::db::{self, Connection};
use simusage::domain::Interval;

use crate::embedded_server::EmbeddedServer;

/// The variable that names a server.
const SERVER: &str = "SIMUSAGE_TEST_DATABASE_URL";

/// How many embedded databases run at once; each needs a core.
const EMBEDDED_SERVERS: usize = 2;

/// A database that one test has to itself.
pub struct TestDatabase {
    url: String,
    home: Home,
}

enum Home {
    /// A database on a server; dropped with this.
    Native { server: String, name: String },
    /// A whole embedded server; given back with this.
    Embedded(Option<EmbeddedServer>),
}

/// The server that tests may make databases on, if there is one.
pub fn native_server() -> Option<String> {
    std::env::var(SERVER).ok().filter(|url| !url.is_empty())
}

/// Fails a test that needs several sessions or background workers where no server is named. Such
/// tests are ignored unless `--include-ignored` is given.
pub fn require_native_server() {
    assert!(
        native_server().is_some(),
        "set {SERVER} to the URL of a native TimescaleDB"
    );
}

/// Settings with the defaults, and the database at `url`.
pub fn config(url: &str) -> Config {
    let overrides = Overrides {
        database_url: Some(url.to_owned()),
        ..Overrides::default()
    };
    let defaults = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    Config::load(Some(&defaults), [], &overrides).expect("the default settings are valid")
}

impl TestDatabase {
    /// A database with nothing in it.
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

    /// A database with the schema, where the server does nothing by itself.
    pub async fn without_jobs() -> Self {
        let database = Self::empty().await;
        let storage = Storage {
            columnstore_after_days: 0,
            refresh_every_minutes: 0,
            ..database.config().storage
        };
        database.migrate(&storage).await;
        database
    }

    async fn migrate(&self, storage: &Storage) {
        db::migrate::migrate(&self.config().database, storage)
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
            .expect("the test server answers");
        admin
            .batch_execute(&format!("create database {name}"))
            .await
            .expect("the test server makes a database");
        let (base, parameters) = server
            .split_once('?')
            .map_or((&*server, ""), |(base, rest)| (base, rest));
        let (authority, _) = base
            .rsplit_once('/')
            .expect("the test server's URL names a database");
        let separator = if parameters.is_empty() { "" } else { "?" };
        let url = format!("{authority}/{name}{separator}{parameters}");
        Self {
            url,
            home: Home::Native { server, name },
        }
    }

    async fn embedded() -> Self {
        let server = tokio::task::spawn_blocking(take_embedded)
            .await
            .expect("an embedded server starts");
        let database = Self {
            url: server.url(),
            home: Home::Embedded(Some(server)),
        };
        let connection = database.connect().await;
        empty_out(&connection).await;
        database
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Default settings with its URL.
    pub fn config(&self) -> Config {
        config(&self.url)
    }

    /// A connection to it.
    pub async fn connect(&self) -> Connection {
        db::connect(&self.config().database)
            .await
            .expect("the test database answers")
    }

    /// Runs a query of one number.
    pub async fn number(&self, query: &str) -> i64 {
        self.connect()
            .await
            .query_one(query, &[])
            .await
            .expect(query)
            .get(0)
    }

    /// Stores records (SIM card, organization, time, bytes) and what the inventory would say for them, and
    /// refreshes the aggregates.
    pub async fn load(&self, records: &[(&str, &str, DateTime<Utc>, i64)]) {
        let connection = self.connect().await;
        let mut sorted = records.to_vec();
        sorted.sort_by_key(|record| record.2);
        let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
        for (sim, organization, time, _) in &sorted {
            let before = owners.insert(sim, organization);
            if before == Some(organization) {
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
            let first = before.is_none();
            connection
                .execute(
                    "insert into sim_card_assignments (sim_card_id, valid_from, organization_id)
                     select s.id, case when $4 then '-infinity'::timestamptz else $3 end, o.id
                     from sim_cards s, organizations o where s.iccid = $1 and o.name = $2",
                    &[sim, organization, time, &first],
                )
                .await
                .unwrap();
        }
        let column = |index: usize| -> Vec<&str> {
            records
                .iter()
                .map(|record| if index == 0 { record.0 } else { record.1 })
                .collect()
        };
        let times: Vec<_> = records.iter().map(|record| record.2).collect();
        let bytes: Vec<_> = records.iter().map(|record| record.3).collect();
        connection
            .execute(
                "insert into usage_records (time, sim_card_id, organization_id, bytes)
                 select r.time, s.id, o.id, r.bytes
                 from unnest($1::text[], $2::text[], $3::timestamptz[], $4::bigint[])
                     as r (sim, organization, time, bytes)
                 join sim_cards s on s.iccid = r.sim
                 join organizations o on o.name = r.organization",
                &[&column(0), &column(1), &times, &bytes],
            )
            .await
            .unwrap();
        let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) else {
            return;
        };
        let touched = Interval::new(*first, *last + TimeDelta::hours(1)).expect("an hour");
        db::refresh_aggregates(&[&connection], &[touched])
            .await
            .expect("the aggregates refresh");
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        match &mut self.home {
            Home::Native { server, name } => {
                // Dropping waits for the server, which needs a runtime that is not the test's own.
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
                    });
                });
                dropped.join().expect("the test database is dropped");
            }
            Home::Embedded(server) => give_back(server.take()),
        }
    }
}

/// Embedded servers that no test has now, and how many were started.
struct Embedded {
    idle: Vec<EmbeddedServer>,
    started: usize,
}

static EMBEDDED: Mutex<Embedded> = Mutex::new(Embedded {
    idle: vec![],
    started: 0,
});
static GIVEN_BACK: Condvar = Condvar::new();

fn take_embedded() -> EmbeddedServer {
    let mut embedded = EMBEDDED.lock().unwrap();
    loop {
        if let Some(server) = embedded.idle.pop() {
            return server;
        }
        if embedded.started < EMBEDDED_SERVERS {
            embedded.started += 1;
            drop(embedded);
            return EmbeddedServer::start();
        }
        embedded = GIVEN_BACK.wait(embedded).unwrap();
    }
}

fn give_back(server: Option<EmbeddedServer>) {
    let mut embedded = EMBEDDED
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    match server {
        // A test that failed may have left the engine in any state, so the next one gets a fresh one.
        Some(server) if !std::thread::panicking() => embedded.idle.push(server),
        _ => embedded.started -= 1,
    }
    GIVEN_BACK.notify_one();
}

/// Drops what a test before left on an embedded server.
async fn empty_out(connection: &Connection) {
    let has_timescaledb: bool = connection
        .query_one(
            "select exists (select from pg_extension where extname = 'timescaledb')",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    if has_timescaledb {
        // The last one made goes first: an aggregate cannot be dropped under another, not even with cascade.
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
                where pronamespace = 'public'::regnamespace and proname like 'usage%'";
    for row in connection.query(rest, &[]).await.unwrap() {
        connection.batch_execute(row.get(0)).await.unwrap();
    }
}
