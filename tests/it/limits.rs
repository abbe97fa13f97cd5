//! Limits on the size, number and rate of requests; each refusal names the limit.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use actix_web::http::Method;
use actix_web::test::TestRequest;
use serde_json::Value;
use simusage::config::Config;

use crate::support::api::{Api, Response};
use crate::support::server::{Server, read, status};
use crate::support::{TestDatabase, UNREACHABLE, config};

fn settings() -> Config {
    let mut config = config(UNREACHABLE);
    config.serve.max_url_bytes = 300;
    config.serve.max_header_bytes = 400;
    config.serve.max_body_bytes = 50;
    config
}

#[actix_web::test]
async fn an_oversized_request_is_refused_and_the_limit_named() {
    let api = Api::new(&settings()).await;
    let url = |bytes: usize| {
        TestRequest::get().uri(&format!("/livez?{}", "x".repeat(bytes - "/livez?".len())))
    };
    // The header line "x-filler" is 12 bytes longer than its value.
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
        let answer = api.send(fits).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let answer = api.send(too_large).await;
        assert_eq!((answer.status, answer.detail()), (status, detail));
    }
    let chunked = TestRequest::get()
        .uri("/livez")
        .insert_header(("transfer-encoding", "chunked"));
    let answer = api.send(chunked).await;
    let detail = "A body needs a Content-Length of at most 50 bytes (serve.max_body_bytes).";
    assert_eq!((answer.status, answer.detail()), (411, detail));
}

/// Sends requests until one is refused with 429. Returns the number of requests accepted before,
/// and the refusal.
async fn count_until_refused(request: impl AsyncFn() -> Response) -> (usize, Response) {
    for count in 0..1_000 {
        let answer = request().await;
        if answer.status == 429 {
            return (count, answer);
        }
    }
    panic!("nothing was refused");
}

#[actix_web::test]
async fn requests_above_the_rate_limit_are_refused_with_the_time_to_wait() {
    let mut config = config(UNREACHABLE);
    config.serve.requests_per_second = 1;
    let api = Api::new(&config).await;
    let from = |address: &'static str| {
        let peer = format!("{address}:1000").parse().unwrap();
        TestRequest::get().uri("/api/v1/nothing").peer_addr(peer)
    };
    let (count, answer) = count_until_refused(async || api.send(from("192.0.2.1")).await).await;
    assert!(count >= 1, "the first request is refused");
    let detail =
        "The request rate exceeds 1 per second (serve.requests_per_second). Try again in 1 s.";
    assert_eq!(
        (answer.detail(), answer.header("retry-after")),
        (detail, "1")
    );
    // Each address has its own limit, and another one for probes.
    assert_eq!(api.send(from("192.0.2.2")).await.status, 404);
    let probe = || {
        let peer = "192.0.2.1:1000".parse().unwrap();
        TestRequest::get().uri("/livez").peer_addr(peer)
    };
    assert_eq!(api.send(probe()).await.status, 200);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(api.send(from("192.0.2.1")).await.status, 404);

    config.serve.requests_per_second = 0;
    let api = Api::new(&config).await;
    for _ in 0..50 {
        assert_eq!(api.send(from("192.0.2.1")).await.status, 404);
    }
}

#[actix_web::test]
async fn every_path_has_a_rate_limit() {
    let mut config = config(UNREACHABLE);
    config.serve.requests_per_second = 3;
    let address = std::cell::Cell::new(0);
    for path in [
        "/",
        "/docs/",
        "/openapi.json",
        "/nothing",
        "/api/v1/nothing",
        "/livez",
        "/metrics",
    ] {
        let api = Api::new(&config).await;
        address.set(address.get() + 1);
        let (count, _) = count_until_refused(async || {
            let peer = format!("192.0.2.{}:1000", address.get()).parse().unwrap();
            api.send(TestRequest::get().uri(path).peer_addr(peer)).await
        })
        .await;
        assert!((3..100).contains(&count), "{path}: {count}");
    }
}

#[actix_web::test]
async fn each_token_has_its_own_rate_limit_and_invalid_tokens_share_that_of_their_address() {
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
    let (count, _) = count_until_refused(async || api.get_as(&one, path).await).await;
    assert!(count >= 2);
    assert_eq!(api.get_as(&other, path).await.status, 404);
    let (count, answer) = count_until_refused(async || api.get_as("guess", path).await).await;
    assert!(count >= 2);
    assert!(
        answer
            .detail()
            .starts_with("The request rate exceeds 2 per second"),
        "{}",
        answer.body
    );
    // A valid token is not affected by invalid ones.
    tokio::time::sleep(Duration::from_secs(1)).await;
    count_until_refused(async || api.get_as("guess", path).await).await;
    assert_eq!(api.get_as(&other, path).await.status, 404);
}

/// The problem details in the body of a raw HTTP response.
fn problem(answer: &str) -> Value {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains("content-type: application/problem+json"),
        "{answer}"
    );
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn an_oversized_request_over_a_socket_is_refused_before_its_body_is_read() {
    let database = TestDatabase::migrated().await;
    let server = Server::start(database.url());
    let long = format!("/livez?{}", "x".repeat(8_192));
    assert_eq!(problem(&server.get(&long))["status"], 414);
    let many = format!("x-filler: {}\r\n", "x".repeat(16_384));
    assert_eq!(
        problem(&read(server.send_with("/livez", &many)))["status"],
        431
    );
    // The server does not wait for the body, which is never sent.
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
    // More headers than the HTTP parser accepts.
    assert_eq!(
        status(&read(server.send_with("/livez", &"a: b\r\n".repeat(100)))),
        431
    );
    assert_eq!(status(&server.get("/livez")), 200);
}

/// Sends a request that keeps the connection open, and returns the response.
fn get_keep_alive(stream: &mut TcpStream) -> String {
    write!(stream, "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = vec![0; 4_096];
    let length = stream.read(&mut answer).unwrap();
    String::from_utf8(answer[..length].to_vec()).unwrap()
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let database = TestDatabase::migrated().await;
    let settings = [
        ("SIMUSAGE_SERVE_KEEP_ALIVE_MS", "300"),
        ("SIMUSAGE_SERVE_REQUEST_HEAD_TIMEOUT_MS", "600"),
    ];
    let server = Server::start_with(database.url(), &[], &settings);
    let start = Instant::now();
    let mut stream = server.connect();
    write!(stream, "GET /livez HTTP/1.1\r\nhost:").unwrap();
    assert_eq!(status(&read(stream)), 408, "an incomplete request head");
    assert!(
        start.elapsed() >= Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
    let mut stream = server.connect();
    assert_eq!(status(&get_keep_alive(&mut stream)), 200);
    assert_eq!(
        status(&get_keep_alive(&mut stream)),
        200,
        "the connection was not kept open"
    );
    assert_eq!(read(stream), "", "the idle connection was not closed");
}

#[tokio::test]
async fn connections_above_the_maximum_wait_for_another_to_close() {
    let database = TestDatabase::migrated().await;
    let settings = [
        ("SIMUSAGE_SERVE_MAX_CONNECTIONS", "1"),
        ("SIMUSAGE_SERVE_WORKERS", "1"),
        ("SIMUSAGE_SERVE_KEEP_ALIVE_MS", "60000"),
    ];
    let server = Server::start_with(database.url(), &[], &settings);
    let mut first = server.connect();
    assert_eq!(status(&get_keep_alive(&mut first)), 200);
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
async fn size_limits_are_checked_before_the_method() {
    let api = Api::new(&settings()).await;
    assert_eq!(
        api.request(Method::POST, "/api/v1/inventory").await.status,
        405
    );
    let long = format!("/api/v1/inventory?{}", "x".repeat(300));
    assert_eq!(api.request(Method::POST, &long).await.status, 414);
}

#[tokio::test]
async fn refused_requests_do_not_fill_the_log() {
    let database = TestDatabase::migrated().await;
    let settings = [
        ("SIMUSAGE_SERVE_REQUESTS_PER_SECOND", "1"),
        ("SIMUSAGE_SERVE_REQUIRE_TOKEN", "true"),
    ];
    let server = Server::start_with(database.url(), &[], &settings);
    let began = Instant::now();
    let mut refused = 0;
    while refused < 200 {
        let status = status(&server.get("/api/v1/inventory"));
        assert!(status == 401 || status == 429, "{status}");
        refused += 1;
    }
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    let logged = || {
        let lines = server.logged();
        let is_refused = |line: &&String| line.contains("GET /api/v1/inventory 4");
        lines.iter().filter(is_refused).count()
    };
    assert!((5..=10 * seconds).contains(&logged()), "{} lines", logged());
    // The next line says how many are missing.
    std::thread::sleep(Duration::from_secs(1));
    server.get("/api/v1/inventory");
    server.until_logged("further requests with status 401 or 429 were not logged");
}
