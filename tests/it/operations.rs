//! Operating `serve`: the log, request IDs, metrics, readiness and shutdown.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::program::{load_inventory, simusage};
use crate::support::proxy::Proxy;
use crate::support::server::{Server, get_from, read};
use crate::support::{TestDatabase, UNREACHABLE};

/// The value of a header in a raw HTTP response.
fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let (head, _) = answer.split_once("\r\n\r\n").unwrap();
    let line = head
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {name} in {head}"))
}

/// Parses each line of a log as JSON.
fn parse_lines(lines: &[String]) -> Vec<Value> {
    lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[tokio::test]
async fn each_request_is_logged_with_its_id_and_without_secrets() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let server = Server::start(database.url());
    let headers = "authorization: Bearer confidential\r\nx-request-id: billing-42\r\n";
    let answer = read(server.send_with("/api/v1/inventory?size=1&page=1", headers));
    assert_eq!(header(&answer, "x-request-id"), "billing-42");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let line = server.until_logged("GET /api/v1/inventory 200 ");
    assert!(
        line.contains("billing-42]")
            && line.ends_with(&format!(" ms {} bytes from 127.0.0.1", body.len())),
        "{line}"
    );

    let answer = read(server.send_with("/nowhere?confidential", "x-request-id: <script>\r\n"));
    let id = header(&answer, "x-request-id");
    assert_eq!(id.len(), 16, "an unsafe request ID is not replaced: {id}");
    assert!(server.until_logged("GET /nowhere 404 ").contains(id));
    let log = server.logged().join("\n");
    assert!(
        !["confidential", "size=1", "Bearer", "script"]
            .iter()
            .any(|secret| log.contains(secret)),
        "{log}"
    );
    assert!(!log.contains("/livez"), "a probe is logged");
}

#[tokio::test]
async fn errors_are_logged_with_the_request_id() {
    let database = TestDatabase::migrated().await;
    let proxy = Proxy::start(database.url());
    let server = Server::start(proxy.url());
    proxy.go_down();
    let answer = read(server.send_with("/api/v1/inventory", "x-request-id: lost\r\n"));
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        server
            .until_logged("request failed with status 503: the database is unavailable")
            .contains("ERROR lost] ")
    );
    assert!(
        server
            .until_logged("GET /api/v1/inventory 503 ")
            .contains("INFO  lost] ")
    );
}

#[tokio::test]
async fn every_subcommand_can_log_json() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let server = Server::start_with(database.url(), &["--log-format", "json"], &[]);
    read(server.send_with("/api/v1/inventory?size=1", "x-request-id: r1\r\n"));
    server.until_logged("\"path\"");
    let lines = parse_lines(&server.logged());
    let line = lines
        .iter()
        .find(|line| line["target"] == "simusage::access")
        .unwrap();
    assert_eq!(
        (&line["method"], &line["path"], &line["status"]),
        (&"GET".into(), &"/api/v1/inventory".into(), &200.into())
    );
    assert_eq!(
        (&line["request"], &line["level"]),
        (&"r1".into(), &"info".into())
    );
    assert!(
        line["ms"].as_f64().unwrap() > 0.0 && line["bytes"].as_u64().unwrap() > 0,
        "{line}"
    );

    for arguments in [
        &["migrate"][..],
        &["ingest", "-"],
        &["serve", "--listen", "127.0.0.1:0"],
    ] {
        let run = simusage(
            UNREACHABLE,
            &[arguments, &["--log-format", "json"]].concat(),
        );
        assert_eq!(run.status, 1, "{run:?}");
        let lines: Vec<_> = run.stderr.lines().map(str::to_owned).collect();
        let last = parse_lines(&lines).pop().unwrap();
        assert_eq!(last["level"], "error");
        assert!(
            last["message"]
                .as_str()
                .unwrap()
                .contains("cannot connect to nobody@127.0.0.1:1/nothing"),
            "{last}"
        );
    }
}

/// Repeats a GET request until the response has this status, and returns it.
fn until_status(server: &Server, path: &str, status: u16) -> String {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = server.get(path);
        if answer.starts_with(&format!("HTTP/1.1 {status} ")) {
            return answer;
        }
        assert!(
            Instant::now() < deadline,
            "{path} is not {status}: {answer}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The value of a series in the text of /metrics.
fn metric(text: &str, series: &str) -> f64 {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value
        .unwrap_or_else(|| panic!("no {series} in {text}"))
        .parse()
        .unwrap()
}

#[tokio::test]
async fn metrics_count_requests_by_route_across_all_workers() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let settings = [
        ("SIMUSAGE_SERVE_WORKERS", "2"),
        ("SIMUSAGE_SERVE_POOL_SIZE", "6"),
    ];
    let server = Server::start_with(database.url(), &[], &settings);
    let series =
        "/api/v1/simcard/89440001/usage?start=2020-01-01&end=2020-01-02&every=1day&fill=zero";
    for (path, times) in [
        (series, 3),
        ("/api/v1/simcard/x/usage?every=1day", 2),
        ("/nowhere/at/all", 1),
    ] {
        for _ in 0..times {
            server.get(path);
        }
    }
    let answer = server.get("/metrics");
    assert_eq!(
        header(&answer, "content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let count = |route: &str, status: &str| {
        let labels = format!("{{route=\"{route}\",status=\"{status}\"}}");
        metric(
            &answer,
            &format!("simusage_http_request_duration_seconds_count{labels}"),
        )
    };
    assert_eq!(
        count("/api/v1/simcard/{simcard}/usage", "2xx").to_string(),
        "3"
    );
    assert_eq!(
        count("/api/v1/simcard/{simcard}/usage", "4xx").to_string(),
        "2"
    );
    assert_eq!(count("", "4xx").to_string(), "1");
    assert_eq!(
        metric(&answer, "simusage_http_requests_in_flight").to_string(),
        "1",
        "only the request for /metrics is in flight"
    );
    assert_eq!(
        metric(&answer, "simusage_pool_connections_max").to_string(),
        "6"
    );
    assert!((1.0..=6.0).contains(&metric(&answer, "simusage_pool_connections")));
    assert_eq!(
        metric(&answer, "simusage_pool_waiting_requests").to_string(),
        "0"
    );
    assert_eq!(
        metric(&answer, "simusage_http_response_rows_total").to_string(),
        "6"
    );
    // Each worker reads a series once.
    let answers = |source: &str| {
        metric(
            &answer,
            &format!("simusage_http_usage_responses_total{{source=\"{source}\"}}"),
        )
    };
    assert!(
        answers("database") <= 2.0 && answers("cache") >= 1.0,
        "{answer}"
    );
    assert!(metric(&answer, "simusage_http_response_body_bytes_total") > 100.0);
    if cfg!(target_os = "linux") {
        assert!(metric(&answer, "process_resident_memory_bytes") > 1e6);
        assert!(metric(&answer, "process_cpu_seconds_total") > 0.0);
    }
}

#[tokio::test]
async fn metrics_can_have_a_separate_port_or_be_off() {
    let database = TestDatabase::migrated().await;
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let server = Server::start_with(
        database.url(),
        &[],
        &[("SIMUSAGE_SERVE_METRICS_LISTEN", &free)],
    );
    assert!(server.get("/metrics").starts_with("HTTP/1.1 404 "));
    let elsewhere = get_from(&free, "/metrics");
    assert!(elsewhere.starts_with("HTTP/1.1 200 "), "{elsewhere}");
    let not_found = "simusage_http_request_duration_seconds_count{route=\"\",status=\"4xx\"}";
    assert_eq!(
        metric(&elsewhere, not_found).to_string(),
        "1",
        "the 404 for /metrics is counted"
    );
    let server = Server::start_with(
        database.url(),
        &[],
        &[("SIMUSAGE_SERVE_METRICS_LISTEN", "off")],
    );
    assert!(server.get("/metrics").starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn readiness_follows_the_database() {
    let database = TestDatabase::migrated().await;
    let proxy = Proxy::start(database.url());
    let server = Server::start(proxy.url());
    until_status(&server, "/readyz", 200);
    proxy.go_down();
    let away = until_status(&server, "/readyz", 503);
    assert!(
        away.contains("The database is unavailable.") && away.contains("retry-after: "),
        "{away}"
    );
    assert!(
        server.get("/livez").starts_with("HTTP/1.1 200 "),
        "the process is not live"
    );
    proxy.come_back();
    until_status(&server, "/readyz", 200);
}

#[tokio::test]
async fn a_draining_server_serves_requests_but_is_not_ready() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let server = Server::start_with(database.url(), &[], &[("SIMUSAGE_SERVE_DRAIN_MS", "3000")]);
    until_status(&server, "/readyz", 200);
    server.signal("-TERM");
    let told = until_status(&server, "/readyz", 503);
    assert!(told.contains("The server is shutting down."), "{told}");
    assert!(server.get("/api/v1/inventory").starts_with("HTTP/1.1 200 "));
    assert_eq!(server.wait().code(), Some(0));
}

#[tokio::test]
async fn a_request_in_flight_is_completed_after_the_signal() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let proxy = Proxy::start(database.url());
    let server = Server::start(proxy.url());
    proxy.hold(true);
    let waiting = server.send("/api/v1/inventory?size=1");
    let deadline = Instant::now() + Duration::from_secs(20);
    // The inventory request and the request for /metrics.
    while metric(&server.get("/metrics"), "simusage_http_requests_in_flight") < 2.0 {
        assert!(Instant::now() < deadline, "the request did not arrive");
    }
    server.signal("-TERM");
    while TcpStream::connect(server.address()).is_ok() {
        assert!(
            Instant::now() < deadline,
            "a stopping server accepts new connections"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    proxy.hold(false);
    let answer = read(waiting);
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"simcard\":\"89440001\""),
        "{answer}"
    );
    assert_eq!(server.wait().code(), Some(0));
}
