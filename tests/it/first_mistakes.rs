//! The errors for common mistakes say what to do next.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;

use crate::support::TestDatabase;
use crate::support::kafka::Kafka;
use crate::support::program::{
    Run, command, inventory, load_inventory, simusage, simusage_with_input,
};
use crate::support::server::{Server, read};
use crate::support::usage::{Files, ndjson};

/// Asserts that a run failed, with each of these texts on standard error.
fn assert_fails_with(run: &Run, texts: &[&str]) {
    assert_eq!(run.status, 1, "{run:?}");
    for text in texts {
        assert!(run.stderr.contains(text), "no '{text}' in {run:?}");
    }
}

/// Starts a server that refuses every connection with this PostgreSQL error. Returns its port.
fn refusing_server(code: &'static str, message: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut packet = [0; 1_024];
            // The first packet is a request for TLS, unless the client has disabled it.
            let read = stream.read(&mut packet).unwrap_or_default();
            if packet[..read].ends_with(&80_877_103_u32.to_be_bytes()) {
                stream.write_all(b"N").unwrap();
                let _ = stream.read(&mut packet);
            }
            let fields = format!("SFATAL\0VFATAL\0C{code}\0M{message}\0\0");
            let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
            stream
                .write_all(&[b"E", &length[..], fields.as_bytes()].concat())
                .unwrap();
        }
    });
    port
}

#[test]
fn an_unreachable_database_server_is_explained() {
    let url = "postgresql://me:confidential@127.0.0.1:1/things";
    for arguments in [
        &["migrate"][..],
        &["ingest", "-"],
        &["serve", "--listen", "127.0.0.1:0"],
    ] {
        let run = simusage(url, arguments);
        assert_fails_with(
            &run,
            &[
                "cannot connect to me@127.0.0.1:1/things",
                "is the server running",
                "DATABASE_URL",
            ],
        );
        assert!(!run.stderr.contains("confidential"), "{run:?}");
    }
}

#[tokio::test]
async fn a_missing_database_is_explained() {
    let port = refusing_server("3D000", "database \"things\" does not exist");
    let run = simusage(
        &format!("postgresql://me@127.0.0.1:{port}/things"),
        &["migrate"],
    );
    assert_fails_with(
        &run,
        &[
            "database \"things\" does not exist [3D000]",
            "`createdb things`",
        ],
    );
}

#[test]
fn a_wrong_password_or_an_unknown_role_is_explained() {
    let port = refusing_server("28P01", "password authentication failed for user \"me\"");
    let url = format!("postgresql://me:confidential@127.0.0.1:{port}/things");
    for arguments in [
        &["migrate"][..],
        &["ingest", "-"],
        &["serve", "--listen", "127.0.0.1:0"],
    ] {
        let run = simusage(&url, arguments);
        assert_fails_with(
            &run,
            &[
                "password authentication failed for user \"me\" [28P01]",
                "user:password@host",
            ],
        );
        assert!(!run.stderr.contains("confidential"), "{run:?}");
    }
    let port = refusing_server("28000", "role \"me\" does not exist");
    let run = simusage(
        &format!("postgresql://me@127.0.0.1:{port}/things"),
        &["migrate"],
    );
    assert_fails_with(
        &run,
        &["check that the role me exists and that pg_hba.conf lets it connect"],
    );
}

#[tokio::test]
async fn an_unmigrated_database_is_explained() {
    let database = TestDatabase::empty().await;
    for arguments in [&["ingest", "-"][..], &["serve", "--listen", "127.0.0.1:0"]] {
        assert_fails_with(
            &simusage(database.url(), arguments),
            &["run `simusage migrate`"],
        );
    }
}

/// Starts a proxy that hides the `TimescaleDB` extension of the server at `url`, by changing the
/// query for it. Returns its URL.
fn hide_timescaledb(url: &str) -> String {
    let (front, rest) = url.split_once('@').unwrap();
    let (server, path) = rest.split_once('/').unwrap();
    let (server, path) = (server.to_owned(), path.split('?').next().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // The proxy can change only unencrypted queries.
    let url = format!(
        "{front}@{}/{path}?sslmode=disable",
        listener.local_addr().unwrap()
    );
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let upstream = TcpStream::connect(&server).unwrap();
            let (mut responses, mut client_writer) =
                (upstream.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut responses, &mut client_writer);
                let _ = client_writer.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || forward_requests(client, upstream));
        }
    });
    url
}

fn forward_requests(mut client: TcpStream, mut server: TcpStream) {
    const ORIGINAL: &[u8] = b"where name = 'timescaledb'";
    const REPLACEMENT: &[u8] = b"where name = 'timescale_x'";
    let mut buffer = [0; 16_384];
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        if let Some(at) = buffer[..read]
            .windows(ORIGINAL.len())
            .position(|window| window == ORIGINAL)
        {
            buffer[at..at + REPLACEMENT.len()].copy_from_slice(REPLACEMENT);
        }
        if server.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
}

#[tokio::test]
async fn a_server_without_timescaledb_is_explained() {
    let database = TestDatabase::empty().await;
    let url = hide_timescaledb(database.url());
    for arguments in [&["migrate"][..], &["migrate", "--check"]] {
        assert_fails_with(
            &simusage(&url, arguments),
            &[
                "the server has no TimescaleDB: install it",
                "timescale/timescaledb",
            ],
        );
    }
}

#[tokio::test]
async fn a_port_in_use_is_explained() {
    let database = TestDatabase::migrated().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = simusage(database.url(), &["serve", "--listen", &address]);
    assert_fails_with(
        &run,
        &[
            &format!("cannot listen on {address}"),
            "another port with --listen)",
        ],
    );
    let run = simusage(
        database.url(),
        &["ingest", "--metrics-listen", &address, "-"],
    );
    assert_fails_with(
        &run,
        &[
            &format!("cannot listen on {address}"),
            "another port with --metrics-listen)",
        ],
    );
}

#[tokio::test]
async fn a_missing_csv_column_is_explained() {
    let database = TestDatabase::migrated().await;
    let files = Files::new();
    let file = files.write("usage.csv", "89440001,1024,2020-02-01T10:00:00Z\n");
    let run = simusage(database.url(), &["ingest", &file]);
    assert_fails_with(
        &run,
        &[
            &format!("{file}:1: the header has no column sim-card-id"),
            "in the first line",
        ],
    );
}

#[tokio::test]
async fn an_empty_file_is_reported() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let files = Files::new();
    let empty = files.write("empty.ndjson", "");
    let header = files.write("header.csv", "sim-card-id,bytes-used,date\n");
    let full = files.write("full.ndjson", ndjson(0..1));
    let run = simusage(database.url(), &["ingest", &empty, &header, &full]);
    assert_eq!(run.status, 0, "{run:?}");
    for file in [&empty, &header] {
        assert!(
            run.stdout.contains(&format!("{file}: no records\n")),
            "{run:?}"
        );
    }
    assert!(!run.stdout.contains(&full), "{run:?}");
    let run = simusage_with_input(database.url(), &["ingest", "-"], "");
    assert!(run.stdout.contains("stdin: no records\n"), "{run:?}");
    let run = simusage(database.url(), &["ingest", "--inventory", &empty]);
    assert_fails_with(
        &run,
        &[&format!("inventory {empty}: line 1: the header is empty")],
    );
}

#[tokio::test]
async fn a_missing_inventory_is_explained() {
    let database = TestDatabase::migrated().await;
    let run = simusage(
        database.url(),
        &["ingest", "--inventory", "/nowhere/inventory.json"],
    );
    assert_fails_with(
        &run,
        &[
            "reading the inventory /nowhere/inventory.json",
            "\"org-id\": \"a01b7\"}], or CSV",
        ],
    );
    let run = simusage_with_input(database.url(), &["ingest", "-"], &ndjson(0..1));
    assert_eq!(run.status, 3, "{run:?}");
    let advice = "the inventory is empty, so every record will be rejected; load one with `simusage ingest --inventory \
                  FILE`, and add --replay-rejects to store records that were rejected earlier";
    assert!(run.stderr.contains(advice), "{run:?}");
    // Following the advice works.
    let run = simusage(
        database.url(),
        &[
            "ingest",
            "--inventory",
            inventory().to_str().unwrap(),
            "--replay-rejects",
        ],
    );
    assert_eq!(run.status, 0, "{run:?}");
    assert_eq!(
        database
            .number("select count(*) from all_usage_records")
            .await,
        1
    );
}

#[tokio::test]
async fn a_missing_topic_or_broker_is_explained() {
    let database = TestDatabase::migrated().await;
    let kafka = Kafka::start(1);
    let brokers = kafka.brokers();
    let arguments = [
        "ingest", "--kafka", &brokers, "--topic", "usages", "--group", "billing",
    ];
    let create = format!("`kafka-topics.sh --bootstrap-server {brokers} --create --topic usages`");
    assert_fails_with(
        &simusage(database.url(), &arguments),
        &["there is no topic usages (existing topics: usage)", &create],
    );
    // The first attempt did not create the topic.
    assert_fails_with(
        &simusage(database.url(), &arguments),
        &["there is no topic usages"],
    );
    let arguments = [
        "ingest",
        "--kafka",
        "127.0.0.1:1",
        "--topic",
        "usage",
        "--group",
        "billing",
    ];
    assert_fails_with(
        &simusage(database.url(), &arguments),
        &["cannot query the brokers; check that they are running"],
    );
}

#[tokio::test]
async fn a_missing_token_is_explained() {
    let database = TestDatabase::migrated().await;
    let run = simusage(database.url(), &["serve", "--listen", "0.0.0.0:0"]);
    assert_fails_with(
        &run,
        &[
            "no tokens exist",
            "`simusage token create NAME`, or pass --allow-anonymous",
        ],
    );
    let token = simusage(database.url(), &["token", "create", "billing"]);
    let server = Server::start(database.url());
    let answer = server.get("/api/v1/inventory");
    assert!(
        answer.starts_with("HTTP/1.1 401 ") && answer.contains("Authorization: Bearer"),
        "{answer}"
    );
    let headers = format!("authorization: Bearer {}\r\n", token.stdout.trim());
    let answer = read(server.send_with("/api/v1/inventory", &headers));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn colours_are_used_only_on_terminals() {
    let database = TestDatabase::migrated().await;
    let arguments = ["ingest", "--metrics-listen", "127.0.0.1:0", "-"];
    let piped = simusage(database.url(), &arguments);
    assert!(
        piped.stderr.contains("metrics on") && !piped.stderr.contains('\x1b'),
        "{piped:?}"
    );
    let colour = "\x1b[32mINFO";
    for (no_color, colours) in [(None, true), (Some("1"), false)] {
        // script(1) runs a command in a pseudo-terminal, and prints its output.
        let mut script = Command::new("script");
        let line = format!("{} {}", env!("CARGO_BIN_EXE_simusage"), arguments.join(" "));
        script
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .env("DATABASE_URL", database.url());
        script
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .env_remove("SIMUSAGE_LOG")
            .stdin(std::process::Stdio::null());
        script.envs(no_color.map(|value| ("NO_COLOR", value)));
        let output = script.output().expect("script(1) runs");
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(shown.contains("metrics on"), "{shown}");
        assert_eq!(shown.contains(colour), colours, "{shown:?}");
    }
    let help: Run = command(database.url(), &["ingest", "--help"])
        .output()
        .unwrap()
        .into();
    assert!(!help.stdout.contains('\x1b'), "{help:?}");
}
