//! Connection poolers and proxies between the program and the database.
//!
//! The tests need a native server, and skip what is not installed.

use std::process::Stdio;
use std::time::Duration;

use simusage::config::PoolMode;
use simusage::db::{Pool, pool_mode};

use crate::support::pooler::{Forwarder, installed_or_skip, pgbouncer_version};
use crate::support::program::{Run, command, load_inventory, simusage};
use crate::support::server::{Server, read, status};
use crate::support::usage::{Files, ndjson};
use crate::support::{TestDatabase, config, note_skipped, require_native_server};

const PATHS: [&str; 4] = [
    "/api/v1/usage/organizations",
    "/api/v1/simcard/89440001/usage?start=2020-02-01&end=2020-02-03&every=1hour",
    "/api/v1/inventory?format=csv",
    "/readyz",
];

/// A migrated database with some usage.
async fn loaded() -> TestDatabase {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let files = Files::new();
    let file = files.write("usage.ndjson", ndjson(0..200));
    assert_eq!(simusage(database.url(), &["ingest", &file]).status, 3);
    database
}

/// Starts `serve`, and sends each path several times, also concurrently.
fn assert_serves(url: &str, settings: &[(&str, &str)]) {
    let server = Server::start_with(url, &[], settings);
    for _ in 0..5 {
        let requests = PATHS.map(|path| (path, server.send(path)));
        for (path, stream) in requests {
            let answer = read(stream);
            let log = server.logged().join("\n");
            assert_eq!(status(&answer), 200, "{path}: {answer}\n{log}");
        }
    }
    let answer = server.get(PATHS[2]);
    assert!(
        answer.ends_with('\n') && answer.contains("89440001"),
        "{answer}"
    );
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn everything_works_through_pgbouncer_in_session_mode() {
    require_native_server();
    let Some(program) = installed_or_skip("pgbouncer", "PgBouncer in session mode") else {
        return;
    };
    let database = TestDatabase::empty().await;
    let pooler = Forwarder::pgbouncer(program, database.url(), "pool_mode = session");
    let url = pooler.url();
    let run = simusage(url, &["migrate"]);
    assert_eq!(run.status, 0, "{run:?}");
    load_inventory(url);
    let files = Files::new();
    let file = files.write("usage.ndjson", ndjson(0..400));
    let run = simusage(url, &["ingest", "--json", &file]);
    assert_eq!((run.status, run.counts()), (3, (400, 360, 40)), "{run:?}");
    database.assert_has_exactly(400).await;
    assert_serves(url, &[("SIMUSAGE_SERVE_ROLE", &database.reader().await)]);
    let run = simusage(url, &["token", "create", "billing"]);
    assert_eq!(run.status, 0, "{run:?}");
    // The sessions that the pooler keeps have nothing left of what was set in them.
    let other = simusage::db::connect(&config(url).database).await.unwrap();
    let role: String = other
        .query_one("select current_setting('role')", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(role, "none");
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn what_needs_a_session_says_so_in_transaction_mode() {
    require_native_server();
    let Some(program) = installed_or_skip("pgbouncer", "PgBouncer in transaction mode") else {
        return;
    };
    let database = loaded().await;
    for settings in [
        "pool_mode = transaction",
        "pool_mode = transaction\nserver_round_robin = 1\nmin_pool_size = 3",
        "pool_mode = transaction\ndefault_pool_size = 1",
    ] {
        let pooler = Forwarder::pgbouncer(program.clone(), database.url(), settings);
        for arguments in [
            &["migrate"][..],
            &["migrate", "--check"],
            &["ingest", "-"],
            &["token", "list"],
        ] {
            let run = simusage(pooler.url(), arguments);
            assert_eq!(run.status, 1, "{settings}: {run:?}");
            assert!(
                run.stderr
                    .contains("this command needs a session of its own")
                    && run.stderr.contains("pool_mode = session")
                    && !run.stderr.contains("trying again"),
                "{settings}: {run:?}"
            );
        }
    }
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn serve_works_in_transaction_mode_if_prepared_statements_do() {
    require_native_server();
    let Some(program) = installed_or_skip("pgbouncer", "serve in transaction mode") else {
        return;
    };
    let database = loaded().await;
    let url = database.url();
    let start = |settings: &str| {
        let settings = format!("pool_mode = transaction\n{settings}");
        Forwarder::pgbouncer(program.clone(), url, &settings)
    };
    let keeps_statements = pgbouncer_version(&program) >= (1, 21);
    let without = start(if keeps_statements {
        "max_prepared_statements = 0"
    } else {
        ""
    });
    let run = simusage(without.url(), &["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(run.status, 1, "{run:?}");
    assert!(
        run.stderr
            .contains("set max_prepared_statements in pgbouncer.ini (PgBouncer 1.21 or later)"),
        "{run:?}"
    );
    if !keeps_statements {
        note_skipped(
            "serve with max_prepared_statements",
            "PgBouncer is older than 1.21",
        );
        return;
    }
    for settings in [
        "max_prepared_statements = 100\ndefault_pool_size = 1",
        "max_prepared_statements = 100\nserver_round_robin = 1\nmin_pool_size = 4",
    ] {
        let pooler = start(settings);
        assert_eq!(
            pool_mode(&config(pooler.url()).database).await.unwrap(),
            PoolMode::Transaction
        );
        let role = database.reader().await;
        assert_serves(pooler.url(), &[("SIMUSAGE_SERVE_ROLE", &role)]);
        // Nothing is left in the sessions, which other programs use, too.
        let mut other = config(pooler.url());
        other.database.pool_mode = PoolMode::Transaction;
        let left = Pool::new(&other, 1)
            .run(async |client| {
                let row = client
                    .query_one("select reset_val <> setting from pg_settings where name = 'plan_cache_mode'", &[])
                    .await?;
                client.batch_execute("commit").await?;
                let after = client
                    .query_one("select current_setting('plan_cache_mode') || current_setting('role')", &[])
                    .await?;
                Ok((row.get::<_, bool>(0), after.get::<_, String>(0)))
            })
            .await
            .unwrap();
        assert_eq!(left, (true, "autonone".to_owned()), "{settings}");
    }
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn a_connection_has_its_own_session_without_a_pooler() {
    require_native_server();
    let database = TestDatabase::empty().await;
    let mode = pool_mode(&database.config().database).await.unwrap();
    assert_eq!(mode, PoolMode::Session);
    let mut config = database.config();
    config.database.pool_mode = PoolMode::Transaction;
    let error = simusage::db::connect_first(&config.database)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("needs a session of its own"),
        "{error}"
    );
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn a_role_without_superuser_rights_can_do_everything() {
    require_native_server();
    let database = TestDatabase::empty().await;
    let admin = database.connect().await;
    let name = database.url().rsplit('/').next().unwrap();
    let name = name.split('?').next().unwrap();
    let role = format!("{name}_user");
    // As on managed services, which create the extension, and let the user create roles.
    admin
        .batch_execute(&format!(
            "create role {role} login createrole; alter database {name} owner to {role}; \
             create extension timescaledb"
        ))
        .await
        .unwrap();
    let (_, rest) = database.url().split_once('@').unwrap();
    let url = format!("postgresql://{role}@{rest}");
    let migrated = simusage(&url, &["migrate"]);
    let check = simusage(&url, &["migrate", "--check"]);
    let files = Files::new();
    let file = files.write("usage.ndjson", ndjson(0..400));
    load_inventory(&url);
    let ingested = simusage(&url, &["ingest", "--json", &file]);
    database.assert_has_exactly(400).await;
    assert_serves(&url, &[]);
    let token = simusage(&url, &["token", "create", "billing"]);
    let clean = format!(
        "reassign owned by {role} to current_user; drop owned by {role} cascade; drop role {role}"
    );
    admin.batch_execute(&clean).await.unwrap();
    for run in [migrated, check, token] {
        assert_eq!(run.status, 0, "{run:?}");
    }
    assert_eq!(ingested.counts(), (400, 360, 40), "{ingested:?}");
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn startup_options_that_a_pooler_refuses_are_named_at_once() {
    require_native_server();
    let Some(program) = installed_or_skip("pgbouncer", "startup options through PgBouncer") else {
        return;
    };
    let database = TestDatabase::migrated().await;
    let pooler = Forwarder::pgbouncer(program, database.url(), "pool_mode = session");
    let url = format!("{}?options=-c%20jit%3Doff", pooler.url());
    let run = simusage(&url, &["ingest", "-"]);
    assert_eq!(run.status, 1, "{run:?}");
    assert!(
        run.stderr.contains("unsupported startup parameter")
            && run
                .stderr
                .contains("remove options from the database URL and PGOPTIONS")
            && !run.stderr.contains("trying again"),
        "{run:?}"
    );
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn ingest_and_serve_continue_after_haproxy_restarts() {
    require_native_server();
    let Some(program) = installed_or_skip("haproxy", "HAProxy") else {
        return;
    };
    let database = loaded().await;
    let mut proxy = Forwarder::haproxy(program, database.url());
    let server = Server::start(proxy.url());
    let files = Files::new();
    let file = files.write("more.ndjson", ndjson(200..4_000));
    let child = command(proxy.url(), &["ingest", "--json", &file])
        .env("SIMUSAGE_INGEST_BATCH_ROWS", "20")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let count = "select count(*) from all_usage_records";
    for stored in [600, 1_500] {
        database
            .until_at_least(count, stored, Duration::from_secs(20))
            .await;
        proxy.restart();
    }
    let run: Run = child.wait_with_output().unwrap().into();
    assert_eq!((run.status, run.counts().0), (3, 3_800), "{run:?}");
    database.assert_has_exactly(4_000).await;
    // A broken connection may fail one request each.
    let answered = (0..20).any(|_| status(&server.get(PATHS[0])) == 200);
    assert!(answered, "{}", server.logged().join("\n"));
}
