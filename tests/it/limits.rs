//! What is refused for its size, its number or its pace, and that each refusal says which limit it is.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use actix_web::http::Method;
use actix_web::test::TestRequest;
use serde_json::Value;
use simusage::config::Config;

use crate::support::api::{Answer, Api};
use crate::support::server::{Server, read, status};
use crate::support::{TestDatabase, config};

/// A port that nothing listens on.
const AWAY: &str = "postgresql://postgres@127.0.0.1:1/postgres";

fn settings() -> Config {
    let mut config = config(AWAY);
    config.serve.max_url_bytes = 300;
    config.serve.max_header_bytes = 400;
    config.serve.max_body_bytes = 50;
    config
}

#[actix_web::test]
async fn a_request_that_is_too_large_is_refused_with_the_limit() {
    let api = Api::new(&settings()).await;
    let url = |bytes: usize| {
        TestRequest::get().uri(&format!("/livez?{}", "x".repeat(bytes - "/livez?".len())))
    };
    // "x-filler" makes a header of 12 more bytes than its value.
    let headers = |bytes: usize| {
        TestRequest::get()
            .uri("/livez")
            .insert_header(("x-filler", "x".repeat(bytes - 12)))
    };
    let body = |bytes: &str| {
        TestRequest::get()
            .uri("/livez")
            .insert_header(("content-length", bytes))
    };
    for (fits, too_large, status, detail) in [
        (
            url(300),
            url(301),
            414,
            "The path and query of the URL exceed 300 bytes (serve.max_url_bytes).",
        ),
        (
            headers(400),
            headers(401),
            431,
            "The headers exceed 400 bytes (serve.max_header_bytes).",
        ),
        (
            body("50"),
            body("51"),
            413,
            "The body exceeds 50 bytes (serve.max_body_bytes).",
        ),
    ] {
        let answer = api.ask(fits).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let answer = api.ask(too_large).await;
        assert_eq!((answer.status, answer.detail()), (status, detail));
    }
    let chunked = TestRequest::get()
        .uri("/livez")
        .insert_header(("transfer-encoding", "chunked"));
    let answer = api.ask(chunked).await;
    let detail = "A body needs a Content-Length of at most 50 bytes (serve.max_body_bytes).";
    assert_eq!((answer.status, answer.detail()), (411, detail));
}

/// Asks until there is a refusal, and returns how many requests were let through before.
async fn let_through(ask: impl AsyncFn() -> Answer) -> (usize, Answer) {
    for count in 0..1_000 {
        let answer = ask().await;
        if answer.status == 429 {
            return (count, answer);
        }
    }
    panic!("nothing was refused");
}

#[actix_web::test]
async fn requests_that_come_too_often_are_refused_with_the_time_to_wait() {
    let mut config = config(AWAY);
    config.serve.requests_per_second = 1;
    let api = Api::new(&config).await;
    let from = |address: &'static str| {
        let peer = format!("{address}:1000").parse().unwrap();
        TestRequest::get().uri("/api/v1/nothing").peer_addr(peer)
    };
    let (count, answer) = let_through(async || api.ask(from("192.0.2.1")).await).await;
    assert!(count >= 1, "the first request is let through");
    let detail =
        "The request rate exceeds 1 per second (serve.requests_per_second). Try again in 1 s.";
    assert_eq!(
        (answer.detail(), answer.header("retry-after")),
        (detail, "1")
    );
    // Another address has requests of its own, and what is no question of data is not counted.
    assert_eq!(api.ask(from("192.0.2.2")).await.status, 404);
    for _ in 0..20 {
        assert_eq!(api.get("/livez").await.status, 200);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(api.ask(from("192.0.2.1")).await.status, 404);

    config.serve.requests_per_second = 0;
    let api = Api::new(&config).await;
    for _ in 0..50 {
        assert_eq!(api.ask(from("192.0.2.1")).await.status, 404);
    }
}

#[actix_web::test]
async fn each_token_has_a_rate_of_its_own_and_guesses_count_for_their_address() {
    let database = TestDatabase::migrated().await;
    let create = |name| {
        let run = crate::support::program::simusage(database.url(), &["token", "create", name]);
        run.stdout.trim_end().to_owned()
    };
    let (one, other) = (create("one"), create("other"));
    let mut config = database.config();
    config.serve.requests_per_second = 2;
    let api = Api::new(&config).await;
    let path = "/api/v1/nothing";
    let (count, _) = let_through(async || api.get_as(&one, path).await).await;
    assert!(count >= 2);
    assert_eq!(api.get_as(&other, path).await.status, 404);
    let (count, answer) = let_through(async || api.get_as("guess", path).await).await;
    assert!(count >= 2);
    assert!(
        answer
            .detail()
            .starts_with("The request rate exceeds 2 per second"),
        "{}",
        answer.body
    );
    // Who has a valid token is not held up by who has not.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let_through(async || api.get_as("guess", path).await).await;
    assert_eq!(api.get_as(&other, path).await.status, 404);
}

/// The problem in the body of an answer that came over a socket.
fn problem(answer: &str) -> Value {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains("content-type: application/problem+json"),
        "{answer}"
    );
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn over_a_socket_too_large_is_refused_before_a_body_is_read() {
    let database = TestDatabase::migrated().await;
    let server = Server::start(database.url());
    let long = format!("/livez?{}", "x".repeat(8_192));
    assert_eq!(problem(&server.get(&long))["status"], 414);
    let many = format!("x-filler: {}\r\n", "x".repeat(16_384));
    assert_eq!(
        problem(&read(server.send_with("/livez", &many)))["status"],
        431
    );
    // The body never comes, and is not waited for.
    assert_eq!(
        problem(&read(
            server.send_with("/livez", "content-length: 70000\r\n")
        ))["status"],
        413
    );
    assert_eq!(
        problem(&read(
            server.send_with("/livez", "transfer-encoding: chunked\r\n")
        ))["status"],
        411
    );
    // More than the server reads at all.
    assert_eq!(
        status(&read(server.send_with("/livez", &"a: b\r\n".repeat(100)))),
        431
    );
    assert_eq!(status(&server.get("/livez")), 200);
}

/// Sends a request that leaves the connection open, and reads the head of the answer.
fn ask_and_stay(stream: &mut TcpStream) -> String {
    write!(stream, "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = vec![0; 4_096];
    let length = stream.read(&mut answer).unwrap();
    String::from_utf8(answer[..length].to_vec()).unwrap()
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_ended() {
    let database = TestDatabase::migrated().await;
    let settings = [
        ("SIMUSAGE_SERVE_KEEP_ALIVE_MS", "300"),
        ("SIMUSAGE_SERVE_REQUEST_HEAD_TIMEOUT_MS", "600"),
    ];
    let server = Server::start_with(database.url(), &[], &settings);
    let start = Instant::now();
    let mut stream = server.connect();
    write!(stream, "GET /livez HTTP/1.1\r\nhost:").unwrap();
    assert_eq!(status(&read(stream)), 408, "a head that does not end");
    assert!(
        start.elapsed() >= Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
    let mut stream = server.connect();
    assert_eq!(status(&ask_and_stay(&mut stream)), 200);
    assert_eq!(
        status(&ask_and_stay(&mut stream)),
        200,
        "the connection stays open for a while"
    );
    assert_eq!(read(stream), "", "and is closed when nothing is asked");
}

#[tokio::test]
async fn more_connections_than_there_may_be_wait_for_one_to_end() {
    let database = TestDatabase::migrated().await;
    let settings = [
        ("SIMUSAGE_SERVE_MAX_CONNECTIONS", "1"),
        ("SIMUSAGE_SERVE_WORKERS", "1"),
        ("SIMUSAGE_SERVE_KEEP_ALIVE_MS", "60000"),
    ];
    let server = Server::start_with(database.url(), &[], &settings);
    let mut first = server.connect();
    assert_eq!(status(&ask_and_stay(&mut first)), 200);
    let mut second = server.send("/livez");
    second
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let waited = second.read(&mut [0; 1]).unwrap_err();
    assert_eq!(waited.kind(), std::io::ErrorKind::WouldBlock, "{waited}");
    drop(first);
    second
        .set_read_timeout(Some(Duration::from_mins(1)))
        .unwrap();
    assert_eq!(status(&read(second)), 200);
}

#[actix_web::test]
async fn a_method_is_refused_after_the_token_and_the_limits() {
    let api = Api::new(&settings()).await;
    assert_eq!(
        api.request(Method::POST, "/api/v1/inventory").await.status,
        405
    );
    let long = format!("/api/v1/inventory?{}", "x".repeat(300));
    assert_eq!(api.request(Method::POST, &long).await.status, 414);
}
