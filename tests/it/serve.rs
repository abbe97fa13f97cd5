//! `simusage serve` as a process: startup errors, responses and shutdown.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::support::program::{load_inventory, simusage};
use crate::support::server::{Server, read, status};
use crate::support::{TestDatabase, require_native_server};

#[tokio::test]
async fn a_server_responds_and_exits_cleanly_on_either_signal() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    for signal in ["-TERM", "-INT"] {
        let server = Server::start(database.url());
        assert!(server.get("/livez").starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(server.get("/readyz").ends_with("{\"status\":\"ok\"}"));
        assert!(
            server
                .get("/api/v1/inventory?size=1")
                .contains("\"simcard\":\"89440001\"")
        );
        server.signal(signal);
        assert!(server.wait().success());
    }
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn a_request_in_flight_is_completed_before_the_server_exits() {
    require_native_server();
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let server = Server::start(database.url());
    assert!(server.get("/api/v1/inventory").starts_with("HTTP/1.1 200"));
    let mut blocker = database.connect().await;
    let transaction = blocker.transaction().await.unwrap();
    transaction
        .batch_execute("lock table sim_card_assignments in access exclusive mode")
        .await
        .unwrap();
    let stream = server.send("/api/v1/inventory?size=1");
    let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
    while database.number(waiting).await == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.signal("-TERM");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(
        TcpStream::connect(server.address()).is_err(),
        "a stopping server accepts new connections"
    );
    transaction.commit().await.unwrap();
    let answer = tokio::task::spawn_blocking(move || read(stream))
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(server.wait().success());
}

#[actix_web::test]
#[ignore = "needs a native TimescaleDB"]
async fn a_statement_timeout_returns_503() {
    require_native_server();
    let database = TestDatabase::migrated().await;
    let mut blocker = database.connect().await;
    let transaction = blocker.transaction().await.unwrap();
    transaction
        .batch_execute("lock table sim_card_assignments in access exclusive mode")
        .await
        .unwrap();
    let mut config = database.config();
    config.serve.statement_timeout_ms = 200;
    let api = crate::support::api::Api::new(&config).await;
    let answer = api.get("/api/v1/inventory").await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, "5"),
        "{}",
        answer.body
    );
    assert!(
        answer.detail().starts_with("The query timed out."),
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn the_error_of_a_server_that_cannot_start_says_why() {
    let database = TestDatabase::migrated().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = simusage(database.url(), &["serve", "--listen", &address]);
    assert_eq!(run.status, 1, "{run:?}");
    assert!(
        run.stderr.contains(&format!("cannot listen on {address}")),
        "{run:?}"
    );
    let run = simusage(database.url(), &["serve", "--listen", "everywhere"]);
    assert_eq!(run.status, 2, "{run:?}");
    assert!(
        run.stderr
            .contains("--listen: serve.listen: 'everywhere' is not an address and port"),
        "{run:?}"
    );
    drop(database);
    let empty = TestDatabase::empty().await;
    let run = simusage(empty.url(), &["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(run.status, 1, "{run:?}");
    assert!(run.stderr.contains("run `simusage migrate`"), "{run:?}");
}

#[tokio::test]
async fn a_malformed_request_writes_no_error_to_the_log() {
    let database = TestDatabase::migrated().await;
    let server = Server::start(database.url());
    let mut stream = server.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nhost\r\n\r\n").unwrap();
    assert_eq!(status(&read(stream)), 400);
    assert_eq!(status(&server.get("/livez")), 200);
    std::thread::sleep(Duration::from_millis(200));
    let log = server.logged().join("\n");
    assert!(
        !log.contains("ERROR") && !log.contains("stream error"),
        "{log}"
    );
}
