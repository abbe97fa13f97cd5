//! Who a request comes from: the token and address in the log, trusted proxies, and failures counted
//! by reason.

use std::net::SocketAddr;

use actix_web::test::TestRequest;
use serde_json::Value;

use crate::support::api::Api;
use crate::support::program::{load_inventory, simusage};
use crate::support::server::{Server, read, status};
use crate::support::{TestDatabase, UNREACHABLE, config};

const INVENTORY: &str = "/api/v1/inventory";

/// Creates a token, and returns it.
fn create(database: &TestDatabase, arguments: &[&str]) -> String {
    let run = simusage(database.url(), &[&["token", "create"], arguments].concat());
    assert_eq!(run.status, 0, "{run:?}");
    run.stdout.trim().to_owned()
}

#[tokio::test]
async fn each_request_is_logged_with_its_client_and_each_failure_with_its_reason() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let billing = create(&database, &["billing"]);
    let old = create(&database, &["old"]);
    let revoked = simusage(database.url(), &["token", "revoke", "old"]);
    assert_eq!(revoked.status, 0, "{revoked:?}");
    let server = Server::start_with(
        database.url(),
        &["--log-format", "json"],
        &[("SIMUSAGE_SERVE_TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8")],
    );
    let entry = |id: &str| -> Value {
        serde_json::from_str(&server.until_logged(&format!("\"request\":\"{id}\""))).unwrap()
    };
    let guess = "simusage_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    for (id, token, forwarded, expected_status, client, name, failure) in [
        ("r1", &*billing, "", 200, "127.0.0.1", Some("billing"), None),
        (
            "r2",
            &*billing,
            "198.51.100.9",
            200,
            "198.51.100.9",
            Some("billing"),
            None,
        ),
        (
            "r3",
            &*billing,
            "203.0.113.5, 198.51.100.9, 10.0.0.2",
            200,
            "198.51.100.9",
            Some("billing"),
            None,
        ),
        (
            "r4",
            &*old,
            "198.51.100.9",
            401,
            "198.51.100.9",
            Some("old"),
            Some("token_revoked"),
        ),
        (
            "r5",
            guess,
            "2001:db8::7",
            401,
            "2001:db8::7",
            None,
            Some("token_unknown"),
        ),
    ] {
        let headers = format!(
            "x-request-id: {id}\r\nauthorization: Bearer {token}\r\nx-forwarded-for: {forwarded}\r\n"
        );
        let answer = read(server.send_with(INVENTORY, &headers));
        assert_eq!(status(&answer), expected_status, "{answer}");
        let entry = entry(id);
        assert_eq!(
            (
                entry["client"].as_str(),
                entry["token"].as_str(),
                entry["failure"].as_str()
            ),
            (Some(client), name, failure),
            "{entry}"
        );
    }
    for (path, expected) in [(INVENTORY, 401), ("/nowhere", 404), ("/nowhere", 404)] {
        assert_eq!(status(&server.get(path)), expected);
    }
    let text = entry("r4")["message"].as_str().unwrap().to_owned();
    assert!(
        text.ends_with(" bytes from 198.51.100.9 as old, token_revoked"),
        "{text}"
    );
    let metrics = server.get("/metrics");
    for (reason, count) in [
        ("token_unknown", 1),
        ("token_revoked", 1),
        ("token_missing", 1),
        ("not_found", 2),
    ] {
        let line = format!("simusage_http_failures_total{{reason=\"{reason}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    let log = server.logged().join("\n");
    assert!(!log.contains(guess) && !log.contains(&billing), "{log}");
}

#[tokio::test]
async fn connections_beyond_the_limit_are_counted_and_their_address_is_logged() {
    let database = TestDatabase::migrated().await;
    for (proxies, is_limited) in [("", true), ("127.0.0.0/8", false)] {
        let settings = [
            ("SIMUSAGE_SERVE_MAX_CONNECTIONS_PER_ADDRESS", "2"),
            ("SIMUSAGE_SERVE_TRUSTED_PROXIES", proxies),
        ];
        let server = Server::start_with(database.url(), &[], &settings);
        let mut open = vec![server.connect(), server.connect()];
        if is_limited {
            // The third is closed without an answer.
            open.push(server.connect());
            server.until_logged("connections from 127.0.0.1 are closed: it has 2 already");
            open.truncate(1);
        } else {
            assert_eq!(status(&server.get("/livez")), 200);
        }
        drop(open);
        if is_limited {
            std::thread::sleep(std::time::Duration::from_millis(200));
            let metrics = server.get("/metrics");
            assert!(
                metrics.contains("simusage_http_refused_connections_total 1\n"),
                "{metrics}"
            );
        }
    }
}

#[actix_web::test]
async fn the_rate_limit_counts_the_client_behind_a_trusted_proxy() {
    let proxy: SocketAddr = "192.0.2.1:40000".parse().unwrap();
    let send = |client: &'static str| {
        TestRequest::get()
            .uri("/")
            .peer_addr(proxy)
            .insert_header(("x-forwarded-for", client))
    };
    let mut config = config(UNREACHABLE);
    config.serve.requests_per_second = 1;
    for (trusted, other_client) in [("", 429), ("192.0.2.1", 200)] {
        config.serve.trusted_proxies = trusted.to_owned().try_into().unwrap();
        let api = Api::new(&config).await;
        assert_eq!(
            api.send(send("198.51.100.1")).await.status,
            200,
            "{trusted}"
        );
        assert_eq!(
            api.send(send("198.51.100.1")).await.status,
            429,
            "{trusted}"
        );
        // The first address is made up by the client.
        let made_up = "203.0.113.1, 198.51.100.1";
        assert_eq!(api.send(send(made_up)).await.status, 429, "{trusted}");
        assert_eq!(
            api.send(send("198.51.100.2")).await.status,
            other_client,
            "{trusted}"
        );
    }
}
