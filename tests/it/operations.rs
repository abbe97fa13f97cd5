//! What those who run `serve` see of it: the log, the names of requests, metrics, readiness, the end.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::TestDatabase;
use crate::support::program::{load_inventory, simusage};
use crate::support::proxy::Proxy;
use crate::support::server::{Server, get_from, read};

/// A header of an answer.
fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let (head, _) = answer.split_once("\r\n\r\n").unwrap();
    let line = head
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {name} in {head}"))
}

/// The lines of a log, each an object of JSON.
fn objects(lines: &[String]) -> Vec<Value> {
    lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[tokio::test]
async fn each_request_has_a_name_and_a_line_without_secrets() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let server = Server::start(database.url());
    let headers = "authorization: Bearer confidential\r\nx-request-id: billing-42\r\n";
    let answer = read(server.send_with("/api/v1/inventory?size=1&page=1", headers));
    assert_eq!(header(&answer, "x-request-id"), "billing-42");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let line = server.until_logged("GET /api/v1/inventory 200 ");
    assert!(
        line.contains("billing-42]") && line.ends_with(&format!(" ms {} bytes", body.len())),
        "{line}"
    );

    let answer = read(server.send_with("/nowhere?confidential", "x-request-id: <script>\r\n"));
    let name = header(&answer, "x-request-id");
    assert_eq!(
        name.len(),
        16,
        "a name that could do harm is replaced: {name}"
    );
    assert!(server.until_logged("GET /nowhere 404 ").contains(name));
    let log = server.logged().join("\n");
    assert!(
        !["confidential", "size=1", "Bearer", "script"]
            .iter()
            .any(|secret| log.contains(secret)),
        "{log}"
    );
    assert!(!log.contains("/livez"), "a probe has no line");
}

#[tokio::test]
async fn what_went_wrong_is_logged_under_the_requests_name() {
    let database = TestDatabase::migrated().await;
    let proxy = Proxy::start(database.url());
    let server = Server::start(proxy.url());
    proxy.go_down();
    let answer = read(server.send_with("/api/v1/inventory", "x-request-id: lost\r\n"));
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        server
            .until_logged("answering 503: the database is unavailable")
            .contains("ERROR lost] ")
    );
    assert!(
        server
            .until_logged("GET /api/v1/inventory 503 ")
            .contains("INFO  lost] ")
    );
}

#[tokio::test]
async fn the_log_can_be_of_json_in_every_subcommand() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let server = Server::start_with(database.url(), &["--log-format", "json"], &[]);
    read(server.send_with("/api/v1/inventory?size=1", "x-request-id: r1\r\n"));
    server.until_logged("\"path\"");
    let lines = objects(&server.logged());
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

    let nobody = "postgresql://nobody@127.0.0.1:1/nothing";
    for arguments in [
        &["migrate"][..],
        &["ingest", "-"],
        &["serve", "--listen", "127.0.0.1:0"],
    ] {
        let run = simusage(nobody, &[arguments, &["--log-format", "json"]].concat());
        assert_eq!(run.status, 1, "{run:?}");
        let lines: Vec<_> = run.stderr.lines().map(str::to_owned).collect();
        let last = objects(&lines).pop().unwrap();
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

/// Asks until the answer's status is as expected.
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

/// The value of a series.
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
async fn metrics_count_requests_by_route_over_all_workers() {
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
        "this one"
    );
    assert_eq!(
        metric(&answer, "simusage_pool_connections_max").to_string(),
        "6"
    );
    assert!((1.0..=6.0).contains(&metric(&answer, "simusage_pool_connections")));
    assert_eq!(metric(&answer, "simusage_pool_waiting").to_string(), "0");
    assert_eq!(metric(&answer, "simusage_http_rows_total").to_string(), "6");
    // Each worker reads a series once.
    let answers = |source: &str| {
        metric(
            &answer,
            &format!("simusage_http_answers_total{{source=\"{source}\"}}"),
        )
    };
    assert!(
        answers("database") <= 2.0 && answers("memory") >= 1.0,
        "{answer}"
    );
    assert!(metric(&answer, "simusage_http_response_body_bytes_total") > 100.0);
    if cfg!(target_os = "linux") {
        assert!(metric(&answer, "process_resident_memory_bytes") > 1e6);
        assert!(metric(&answer, "process_cpu_seconds_total") > 0.0);
    }
}

#[tokio::test]
async fn metrics_can_have_a_port_of_their_own_or_none() {
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
    let asked = "simusage_http_request_duration_seconds_count{route=\"\",status=\"4xx\"}";
    assert_eq!(metric(&elsewhere, asked).to_string(), "1", "the one above");
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
        away.contains("The database is away.") && away.contains("retry-after: "),
        "{away}"
    );
    assert!(
        server.get("/livez").starts_with("HTTP/1.1 200 "),
        "it lives all the same"
    );
    proxy.come_back();
    until_status(&server, "/readyz", 200);
}

#[tokio::test]
async fn a_server_that_drains_answers_on_but_is_not_ready() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let server = Server::start_with(database.url(), &[], &[("SIMUSAGE_SERVE_DRAIN_MS", "3000")]);
    until_status(&server, "/readyz", 200);
    server.signal("-TERM");
    let told = until_status(&server, "/readyz", 503);
    assert!(told.contains("This server is about to stop."), "{told}");
    assert!(server.get("/api/v1/inventory").starts_with("HTTP/1.1 200 "));
    assert_eq!(server.wait().code(), Some(0));
}

#[tokio::test]
async fn a_request_in_flight_is_answered_after_the_signal() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let proxy = Proxy::start(database.url());
    let server = Server::start(proxy.url());
    proxy.hold(true);
    let waiting = server.send("/api/v1/inventory?size=1");
    let deadline = Instant::now() + Duration::from_secs(20);
    // This request and the one that asks.
    while metric(&server.get("/metrics"), "simusage_http_requests_in_flight") < 2.0 {
        assert!(Instant::now() < deadline, "the request does not come");
    }
    server.signal("-TERM");
    while TcpStream::connect(server.address()).is_ok() {
        assert!(
            Instant::now() < deadline,
            "a server that ends takes no new connection"
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
