//! A database per test.
//!
//! `SIMUSAGE_TEST_DATABASE_URL` says where databases can be created.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use chrono::{DateTime, Utc};
use simusage::config::{Config, Database, Overrides};
use simusage::db::{self, Connection};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The aggregates, each after the one that it reads.
const AGGREGATES: [&str; 4] = ["usage_hourly", "usage_daily", "organization_usage_hourly", "organization_usage_daily"];

/// A migrated database of one's own, dropped with the value.
pub struct TestDatabase {
    server: Config,
    name: String,
    url: String,
}

/// The default settings with another URL.
pub fn config(url: &str) -> Config {
    let overrides = Overrides { database_url: Some(url.to_owned()), ..Overrides::default() };
    Config::load(None, [], &overrides).unwrap()
}

impl TestDatabase {
    pub async fn migrated() -> Self {
        let server = std::env::var("SIMUSAGE_TEST_DATABASE_URL")
            .unwrap_or_else(|_| "postgresql://postgres@127.0.0.1:5432/postgres".to_owned());
        let name = format!("http_test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let (base, _) = server.rsplit_once('/').unwrap();
        let database = Self { server: config(&server), url: format!("{base}/{name}"), name };
        execute(&database.server.database, &format!("create database {}", database.name)).await;
        let connection = database.connect().await;
        connection.batch_execute("create extension if not exists timescaledb").await.unwrap();
        for migration in [
            include_str!("../../../sql/migrations/0001_inventory.sql"),
            include_str!("../../../sql/migrations/0002_usage.sql"),
            include_str!("../../../sql/migrations/0003_rejected_records.sql"),
        ] {
            connection.batch_execute(migration).await.unwrap();
        }
        database
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn config(&self) -> Config {
        config(self.url())
    }

    pub async fn connect(&self) -> Connection {
        db::connect(&self.config().database).await.unwrap()
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
                .execute("insert into organizations (name) values ($1) on conflict do nothing", &[organization])
                .await
                .unwrap();
            connection
                .execute("insert into sim_cards (iccid) values ($1) on conflict do nothing", &[sim])
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
            records.iter().map(|record| if index == 0 { record.0 } else { record.1 }).collect()
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
        for aggregate in AGGREGATES {
            let statement = format!("call refresh_continuous_aggregate('{aggregate}', null, null)");
            connection.batch_execute(&statement).await.unwrap();
        }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (server, name) = (self.server.database.clone(), self.name.clone());
        // A runtime cannot wait for a future from inside itself, so this needs a thread and a runtime.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(execute(&server, &format!("drop database if exists {name} with (force)")));
        });
        thread.join().ok();
    }
}

async fn execute(server: &Database, statement: &str) {
    db::connect(server).await.unwrap().batch_execute(statement).await.unwrap();
}
