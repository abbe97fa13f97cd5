//! What those who run `serve` see of it: the log, the names of requests.

use serde_json::Value;

use crate::support::TestDatabase;
use crate::support::program::{load_inventory, simusage};
use crate::support::proxy::Proxy;
use crate::support::server::{Server, read};

/// A header of an answer.
fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let (head, _) = answer.split_once("\r\n\r\n").unwrap();
    let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {name} in {head}"))
}

/// The lines of a log, each an object of JSON.
fn objects(lines: &[String]) -> Vec<Value> {
    lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
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
    assert!(line.contains("billing-42]") && line.ends_with(&format!(" ms {} bytes", body.len())), "{line}");

    let answer = read(server.send_with("/nowhere?confidential", "x-request-id: <script>\r\n"));
    let name = header(&answer, "x-request-id");
    assert_eq!(name.len(), 16, "a name that could do harm is replaced: {name}");
    assert!(server.until_logged("GET /nowhere 404 ").contains(name));
    let log = server.logged().join("\n");
    assert!(!["confidential", "size=1", "Bearer", "script"].iter().any(|secret| log.contains(secret)), "{log}");
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
    assert!(server.until_logged("answering 503: the database is away").contains("ERROR lost] "));
    assert!(server.until_logged("GET /api/v1/inventory 503 ").contains("INFO  lost] "));
}

#[tokio::test]
async fn the_log_can_be_of_json_in_every_subcommand() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let server = Server::start_with(database.url(), &["--log-format", "json"], &[]);
    read(server.send_with("/api/v1/inventory?size=1", "x-request-id: r1\r\n"));
    server.until_logged("\"path\"");
    let lines = objects(&server.logged());
    let line = lines.iter().find(|line| line["target"] == "simusage::access").unwrap();
    assert_eq!(
        (&line["method"], &line["path"], &line["status"]),
        (&"GET".into(), &"/api/v1/inventory".into(), &200.into())
    );
    assert_eq!((&line["request"], &line["level"]), (&"r1".into(), &"info".into()));
    assert!(line["ms"].as_f64().unwrap() > 0.0 && line["bytes"].as_u64().unwrap() > 0, "{line}");

    let nobody = "postgresql://nobody@127.0.0.1:1/nothing";
    for arguments in [&["migrate"][..], &["ingest", "-"], &["serve", "--listen", "127.0.0.1:0"]] {
        let run = simusage(nobody, &[arguments, &["--log-format", "json"]].concat());
        assert_eq!(run.status, 1, "{run:?}");
        let lines: Vec<_> = run.stderr.lines().map(str::to_owned).collect();
        let last = objects(&lines).pop().unwrap();
        assert_eq!(last["level"], "error");
        assert!(last["message"].as_str().unwrap().contains("cannot connect to nobody@127.0.0.1:1/nothing"), "{last}");
    }
}
