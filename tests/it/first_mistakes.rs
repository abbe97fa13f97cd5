//! The mistakes that everybody makes first: each is told what to do next.

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

/// Asserts that a run failed, and said all of this.
fn assert_says(run: &Run, texts: &[&str]) {
    assert_eq!(run.status, 1, "{run:?}");
    for text in texts {
        assert!(run.stderr.contains(text), "no '{text}' in {run:?}");
    }
}

/// A server that refuses whoever connects, as PostgreSQL does with this code and text. Ends with the test.
fn refusing_server(code: &'static str, message: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut packet = [0; 1_024];
            // The first packet asks for TLS, unless the client does without.
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
fn a_database_server_that_is_not_there() {
    let url = "postgresql://me:confidential@127.0.0.1:1/things";
    for arguments in [
        &["migrate"][..],
        &["ingest", "-"],
        &["serve", "--listen", "127.0.0.1:0"],
    ] {
        let run = simusage(url, arguments);
        assert_says(
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
async fn a_database_that_does_not_exist() {
    let port = refusing_server("3D000", "database \"things\" does not exist");
    let run = simusage(
        &format!("postgresql://me@127.0.0.1:{port}/things"),
        &["migrate"],
    );
    assert_says(
        &run,
        &[
            "database \"things\" does not exist [3D000]",
            "`createdb things`",
        ],
    );
}

#[test]
fn a_wrong_password_and_a_role_that_may_not_come_in() {
    let port = refusing_server("28P01", "password authentication failed for user \"me\"");
    let url = format!("postgresql://me:confidential@127.0.0.1:{port}/things");
    for arguments in [
        &["migrate"][..],
        &["ingest", "-"],
        &["serve", "--listen", "127.0.0.1:0"],
    ] {
        let run = simusage(&url, arguments);
        assert_says(
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
    assert_says(
        &run,
        &["check that the role me exists and that pg_hba.conf lets it connect"],
    );
}

#[tokio::test]
async fn a_database_that_is_not_migrated() {
    let database = TestDatabase::empty().await;
    for arguments in [&["ingest", "-"][..], &["serve", "--listen", "127.0.0.1:0"]] {
        assert_says(
            &simusage(database.url(), arguments),
            &["run `simusage migrate`"],
        );
    }
}

/// The URL of a proxy behind which the server at `url` offers no `TimescaleDB`: it is asked for another extension.
fn without_timescaledb(url: &str) -> String {
    let (front, rest) = url.split_once('@').unwrap();
    let (server, path) = rest.split_once('/').unwrap();
    let (server, path) = (server.to_owned(), path.split('?').next().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Only what is not encrypted can be changed on its way.
    let url = format!(
        "{front}@{}/{path}?sslmode=disable",
        listener.local_addr().unwrap()
    );
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let upstream = TcpStream::connect(&server).unwrap();
            let (mut answers, mut back) =
                (upstream.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut answers, &mut back);
                let _ = back.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || pass_on(client, upstream));
        }
    });
    url
}

fn pass_on(mut client: TcpStream, mut server: TcpStream) {
    const ASKED: &[u8] = b"where name = 'timescaledb'";
    const INSTEAD: &[u8] = b"where name = 'timescale_x'";
    let mut buffer = [0; 16_384];
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        if let Some(at) = buffer[..read]
            .windows(ASKED.len())
            .position(|window| window == ASKED)
        {
            buffer[at..at + INSTEAD.len()].copy_from_slice(INSTEAD);
        }
        if server.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
}

#[tokio::test]
async fn a_server_without_timescaledb() {
    let database = TestDatabase::empty().await;
    let url = without_timescaledb(database.url());
    for arguments in [&["migrate"][..], &["migrate", "--check"]] {
        assert_says(
            &simusage(&url, arguments),
            &[
                "the server has no TimescaleDB: install it",
                "timescale/timescaledb",
            ],
        );
    }
}

#[tokio::test]
async fn a_port_that_is_taken() {
    let database = TestDatabase::migrated().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = simusage(database.url(), &["serve", "--listen", &address]);
    assert_says(
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
    assert_says(
        &run,
        &[
            &format!("cannot listen on {address}"),
            "another port with --metrics-listen)",
        ],
    );
}

#[tokio::test]
async fn a_csv_header_that_lacks_a_column() {
    let database = TestDatabase::migrated().await;
    let files = Files::new();
    let file = files.write("usage.csv", "89440001,1024,2020-02-01T10:00:00Z\n");
    let run = simusage(database.url(), &["ingest", &file]);
    assert_says(
        &run,
        &[
            &format!("{file}:1: the header has no column sim-card-id"),
            "in the first line",
        ],
    );
}

#[tokio::test]
async fn a_file_that_is_empty() {
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
            run.stdout
                .contains(&format!("{file}: empty, no record in it\n")),
            "{run:?}"
        );
    }
    assert!(!run.stdout.contains(&full), "{run:?}");
    let run = simusage_with_input(database.url(), &["ingest", "-"], "");
    assert!(
        run.stdout.contains("stdin: empty, no record in it\n"),
        "{run:?}"
    );
    let run = simusage(database.url(), &["ingest", "--inventory", &empty]);
    assert_says(
        &run,
        &[&format!("inventory {empty}: line 1: the header is empty")],
    );
}

#[tokio::test]
async fn an_inventory_that_is_missing() {
    let database = TestDatabase::migrated().await;
    let run = simusage(
        database.url(),
        &["ingest", "--inventory", "/nowhere/inventory.json"],
    );
    assert_says(
        &run,
        &[
            "reading the inventory /nowhere/inventory.json",
            "\"org-id\": \"a01b7\"}], or CSV",
        ],
    );
    let run = simusage_with_input(database.url(), &["ingest", "-"], &ndjson(0..1));
    assert_eq!(run.status, 3, "{run:?}");
    let advice = "the inventory is empty, so every record will be rejected: load one with `simusage ingest --inventory \
                  FILE`; --replay-rejects with it stores what was rejected before";
    assert!(run.stderr.contains(advice), "{run:?}");
    // The advice is good.
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
        database.number("select count(*) from usage_records").await,
        1
    );
}

#[tokio::test]
async fn a_topic_or_a_broker_that_is_not_there() {
    let database = TestDatabase::migrated().await;
    let kafka = Kafka::start(1);
    let brokers = kafka.brokers();
    let arguments = [
        "ingest", "--kafka", &brokers, "--topic", "usages", "--group", "billing",
    ];
    let create = format!("`kafka-topics.sh --bootstrap-server {brokers} --create --topic usages`");
    assert_says(
        &simusage(database.url(), &arguments),
        &["there is no topic usages (there are: usage)", &create],
    );
    // Asking has not made it.
    assert_says(
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
    assert_says(
        &simusage(database.url(), &arguments),
        &["asking the brokers: are they running"],
    );
}

#[tokio::test]
async fn a_token_that_is_missing() {
    let database = TestDatabase::migrated().await;
    let run = simusage(database.url(), &["serve", "--listen", "0.0.0.0:0"]);
    assert_says(
        &run,
        &[
            "there is no token yet",
            "`simusage token create NAME`, or say --allow-anonymous",
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
async fn colours_are_for_terminals_alone() {
    let database = TestDatabase::migrated().await;
    let arguments = ["ingest", "--metrics-listen", "127.0.0.1:0", "-"];
    let piped = simusage(database.url(), &arguments);
    assert!(
        piped.stderr.contains("metrics on") && !piped.stderr.contains('\x1b'),
        "{piped:?}"
    );
    let colour = "\x1b[32mINFO";
    for (no_color, colours) in [(None, true), (Some("1"), false)] {
        // script(1) runs a command on a terminal of its own, and copies what it shows.
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
