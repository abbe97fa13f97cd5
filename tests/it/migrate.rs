//! `simusage migrate`.

use simusage::db;
use simusage::db::migrate::Migration;

use crate::support::program::{command, simusage};
use crate::support::usage::AGGREGATES;
use crate::support::{TestDatabase, require_native_server};

/// Everything that a migration can change, as text.
async fn snapshot(database: &TestDatabase) -> Vec<String> {
    let connection = database.connect().await;
    let queries = [
        "select m::text from simusage_migrations as m order by number",
        "select f::text from simusage_functions as f order by name",
        "select concat_ws(' ', job_id, proc_name, schedule_interval, config) from timescaledb_information.jobs order by job_id",
        "select d::text from timescaledb_information.dimensions as d order by hypertable_name",
        "select format('%s %s %s', c.oid, c.relname, c.relkind) from pg_class as c \
         where relnamespace = 'public'::regnamespace order by oid",
    ];
    let mut snapshot = vec![];
    for query in queries {
        snapshot.extend(
            connection
                .query(query, &[])
                .await
                .unwrap()
                .iter()
                .map(|row| row.get::<_, String>(0)),
        );
    }
    snapshot
}

#[tokio::test]
async fn migrating_twice_changes_nothing() {
    let database = TestDatabase::empty().await;
    let first = simusage(database.url(), &["migrate"]);
    assert_eq!(first.status, 0, "{first:?}");
    assert!(
        first.stdout.contains("applied 0001_inventory\n"),
        "{first:?}"
    );
    assert!(
        first.stdout.contains("applied function usage_series\n"),
        "{first:?}"
    );
    let before = snapshot(&database).await;
    let second = simusage(database.url(), &["migrate"]);
    assert_eq!(
        (second.status, second.stdout.as_str()),
        (0, "nothing to migrate\n")
    );
    assert_eq!(snapshot(&database).await, before);
}

#[tokio::test]
async fn check_exits_with_1_while_migrations_are_pending_and_changes_nothing() {
    let database = TestDatabase::empty().await;
    let pending = simusage(database.url(), &["migrate", "--check"]);
    assert_eq!(pending.status, 1, "{pending:?}");
    assert!(
        pending.stdout.contains("pending 0001_inventory\n"),
        "{pending:?}"
    );
    assert!(
        pending.stdout.contains("pending function usage_series\n"),
        "{pending:?}"
    );
    assert_eq!(
        database
            .number("select count(*) from pg_tables where schemaname = 'public'")
            .await,
        0
    );
    assert_eq!(simusage(database.url(), &["migrate"]).status, 0);
    let current = simusage(database.url(), &["migrate", "--check"]);
    assert_eq!(
        (current.status, current.stdout.as_str()),
        (0, "the schema is up to date\n")
    );
}

#[tokio::test]
async fn a_changed_setting_is_pending_then_applied_and_can_be_reverted() {
    let database = TestDatabase::migrated().await;
    let changed = |arguments: &[&str]| {
        let output = command(database.url(), arguments)
            .env("SIMUSAGE_STORAGE_RETENTION_RECORDS_DAYS", "400")
            .env("SIMUSAGE_STORAGE_RETENTION_DAILY_DAYS", "1000")
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let (status, pending) = changed(&["migrate", "--check"]);
    assert_eq!(status, Some(1));
    for line in [
        "pending usage_records: retention unlimited -> 400 days\n",
        "pending sim_card_usage: retention unlimited -> 1000 days\n",
        "pending organization_usage_daily: retention unlimited -> 1000 days\n",
    ] {
        assert!(pending.contains(line), "{pending}");
    }
    assert!(!pending.contains("organization_usage:"), "{pending}");
    assert_eq!(changed(&["migrate"]).0, Some(0));
    assert_eq!(changed(&["migrate", "--check"]).0, Some(0));
    assert_eq!(changed(&["migrate"]).1, "nothing to migrate\n");
    assert_eq!(simusage(database.url(), &["migrate", "--check"]).status, 1);
    assert_eq!(simusage(database.url(), &["migrate"]).status, 0);
    assert_eq!(simusage(database.url(), &["migrate", "--check"]).status, 0);
}

#[tokio::test]
async fn a_database_migrated_by_a_newer_version_is_refused() {
    let database = TestDatabase::migrated().await;
    let insert = "insert into simusage_migrations values (9999, '9999_future', '', '99.0.0')";
    database
        .connect()
        .await
        .batch_execute(insert)
        .await
        .unwrap();
    for arguments in [&["migrate"][..], &["migrate", "--check"]] {
        let run = simusage(database.url(), arguments);
        assert_eq!(run.status, 1, "{run:?}");
        assert!(
            run.stderr
                .contains("migrated by a newer simusage (9999_future"),
            "{run:?}"
        );
    }
}

#[tokio::test]
async fn a_database_migrated_from_a_different_file_is_refused() {
    let database = TestDatabase::migrated().await;
    let update = "update simusage_migrations set checksum = repeat('0', 64) where number = 2";
    database
        .connect()
        .await
        .batch_execute(update)
        .await
        .unwrap();
    let run = simusage(database.url(), &["migrate"]);
    assert_eq!(run.status, 1, "{run:?}");
    assert!(
        run.stderr.contains("0002_usage differs from this program"),
        "{run:?}"
    );
}

/// Replaces the function `organization_list` by another one, as if an older simusage had applied it.
async fn apply_older_function(database: &TestDatabase, sql: &str) {
    let statements = format!(
        "drop function organization_list; {sql}; \
         update simusage_functions set checksum = '' where name = 'organization_list'"
    );
    let connection = database.connect().await;
    connection.batch_execute(&statements).await.unwrap();
}

#[tokio::test]
async fn a_changed_function_is_pending_then_applied() {
    let database = TestDatabase::migrated().await;
    let definitions = "select string_agg(pg_get_functiondef(oid), '' order by proname) from pg_proc \
                       where pronamespace = 'public'::regnamespace and proname like 'usage%'";
    let definitions = async || -> String {
        let connection = database.connect().await;
        connection.query_one(definitions, &[]).await.unwrap().get(0)
    };
    let current = definitions().await;
    let parameters = "sim_card integer, organizations integer[], record_starts timestamptz[], \
                      record_ends timestamptz[], hour_starts timestamptz[], hour_ends timestamptz[], \
                      day_starts timestamptz[], day_ends timestamptz[]";
    let columns = "table (instant timestamptz, bytes bigint, records bigint)";
    let body = "language plpgsql as 'begin return; end'";
    for older in [
        format!("create function organization_list({parameters}) returns {columns} {body}"),
        // Other columns, other types and other names of the parameters.
        format!(
            "create function organization_list({parameters}) returns table (bytes text) {body}"
        ),
        format!("create function organization_list(sim_card integer) returns {columns} {body}"),
        format!(
            "create function organization_list({}) returns {columns} {body}",
            parameters.replace("sim_card", "card")
        ),
    ] {
        apply_older_function(&database, &older).await;
        let serve = simusage(database.url(), &["serve", "--listen", "127.0.0.1:0"]);
        assert_eq!(serve.status, 1, "{serve:?}");
        assert!(
            serve.stderr.contains(
                "differ from the ones this program needs: organization_list; run `simusage migrate`"
            ),
            "{serve:?}"
        );
        let check = simusage(database.url(), &["migrate", "--check"]);
        assert_eq!(
            (check.status, &*check.stdout),
            (1, "pending function organization_list\n")
        );
        let migrate = simusage(database.url(), &["migrate"]);
        assert_eq!(
            (migrate.status, &*migrate.stdout),
            (0, "applied function organization_list\n"),
            "{migrate:?}"
        );
        assert_eq!(definitions().await, current, "{older}");
        assert_eq!(simusage(database.url(), &["migrate", "--check"]).status, 0);
    }
}

#[tokio::test]
async fn a_function_that_changes_keeps_what_depends_on_it() {
    let database = TestDatabase::migrated().await;
    let connection = database.connect().await;
    let dependants = "create view newest as select * from usage_freshness(now(), now()); \
                      revoke execute on function usage_freshness from public; \
                      update simusage_functions set checksum = ''";
    connection.batch_execute(dependants).await.unwrap();
    let before = snapshot(&database).await.len();
    let migrate = simusage(database.url(), &["migrate"]);
    assert_eq!(migrate.status, 0, "{migrate:?}");
    assert_eq!(snapshot(&database).await.len(), before);
    let public = "select count(*) from pg_proc, aclexplode(proacl) \
                  where proname = 'usage_freshness' and grantee = 0";
    assert_eq!(database.number(public).await, 0);
    connection.batch_execute("drop view newest").await.unwrap();
}

#[tokio::test]
async fn a_failed_migration_is_rolled_back() {
    let database = TestDatabase::migrated().await;
    let sql = "create table half_done (id integer); select 1 / 0";
    let migration = Migration {
        number: 9_998,
        name: "9998_failing",
        sql,
    };
    let error = db::migrate::apply(&mut database.connect().await, migration)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("division by zero"), "{error:#}");
    assert_eq!(
        database
            .number("select count(*) from pg_tables where tablename = 'half_done'")
            .await,
        0
    );
    assert_eq!(
        database
            .number("select count(*) from simusage_migrations where number = 9998")
            .await,
        0
    );
}

#[tokio::test]
async fn a_migration_can_opt_out_of_the_transaction() {
    let database = TestDatabase::migrated().await;
    let mut connection = database.connect().await;
    let refresh =
        "call refresh_continuous_aggregate('organization_usage', 1099511627776, 2199023255552)";
    let refused = Migration {
        number: 9_998,
        name: "9998_refused",
        sql: refresh,
    };
    let error = db::migrate::apply(&mut connection, refused)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("transaction block"), "{error:#}");
    let sql = "-- simusage: no transaction\n\ncreate table beside (id integer);\n\n\
               call refresh_continuous_aggregate('organization_usage', 1099511627776, 2199023255552);\n";
    db::migrate::apply(
        &mut connection,
        Migration {
            number: 9_998,
            name: "9998_opted_out",
            sql,
        },
    )
    .await
    .unwrap();
    assert_eq!(
        database
            .number("select count(*) from pg_tables where tablename = 'beside'")
            .await,
        1
    );
    assert_eq!(
        database
            .number("select count(*) from simusage_migrations where number = 9998")
            .await,
        1
    );
}

#[tokio::test]
async fn the_views_have_the_columns_that_queries_need() {
    let database = TestDatabase::migrated().await;
    let connection = database.connect().await;
    for view in AGGREGATES {
        let statement = connection
            .prepare(&format!(
                "select period, organization_id, bytes, records from {view}"
            ))
            .await;
        assert!(statement.is_ok(), "{view}: {statement:?}");
    }
}

#[tokio::test]
async fn the_error_for_an_unreachable_server_names_it_without_the_password() {
    let run = simusage(
        "postgresql://someone:secret@127.0.0.1:1/nothing",
        &["migrate"],
    );
    assert_eq!(run.status, 1, "{run:?}");
    assert!(
        run.stderr
            .contains("cannot connect to someone@127.0.0.1:1/nothing"),
        "{run:?}"
    );
    assert!(!run.stderr.contains("secret"), "{run:?}");
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn concurrent_migrations_wait_for_each_other() {
    require_native_server();
    let database = TestDatabase::empty().await;
    let children: Vec<_> = (0..4)
        .map(|_| {
            command(database.url(), &["migrate"])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let runs: Vec<_> = children
        .into_iter()
        .map(|child| {
            child
                .wait_with_output()
                .map(|output| (output.status.code(), output.stdout))
                .unwrap()
        })
        .collect();
    let applied = runs
        .iter()
        .filter(|(_, stdout)| !stdout.starts_with(b"nothing"))
        .count();
    assert!(runs.iter().all(|(status, _)| *status == Some(0)));
    assert_eq!(applied, 1);
}
