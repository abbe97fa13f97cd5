//! HTTPS: the handshake, certificates replaced while the server runs, and unusable certificates.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::TestDatabase;
use crate::support::certificates::{Authority, Pair, PairFiles};
use crate::support::program::command;
use crate::support::server::Server;

fn start(database: &TestDatabase, files: &PairFiles) -> Server {
    let (certificate, key) = (files.certificate(), files.key());
    let settings = [
        (
            "SIMUSAGE_SERVE_TLS_CERTIFICATE",
            certificate.to_str().unwrap(),
        ),
        ("SIMUSAGE_SERVE_TLS_KEY", key.to_str().unwrap()),
    ];
    Server::start_with(database.url(), &[], &settings)
}

/// Connects with TLS, trusting the authority, to a server that must identify as `localhost`.
async fn connect(
    server: &Server,
    authority: &Authority,
    protocols: &[&str],
) -> TlsStream<TcpStream> {
    let mut client = authority.client();
    client.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(client))
        .connect(name, stream)
        .await
        .unwrap()
}

fn certificate(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

async fn get(mut stream: TlsStream<TcpStream>, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![];
    // Reading fails if the server closes without a TLS close_notify; the data before it counts.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn requests_are_served_over_tls() {
    let database = TestDatabase::migrated().await;
    let authority = Authority::new("authority");
    let server = start(&database, &PairFiles::new(&authority.issue(&["localhost"])));
    server.until_logged("listening on https://");
    // HTTP/2 is not offered, because its streams cannot be limited.
    for offered in [&["h2", "http/1.1"][..], &["http/1.1"]] {
        let stream = connect(&server, &authority, offered).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
    let answer = get(connect(&server, &authority, &[]).await, "/readyz").await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("{\"status\":\"ok\"}"),
        "{answer}"
    );
    server.signal("-TERM");
    assert_eq!(server.wait().code(), Some(0));
}

#[tokio::test]
async fn new_connections_use_a_replaced_certificate_unless_it_is_invalid() {
    let database = TestDatabase::migrated().await;
    let authority = Authority::new("authority");
    let (first, second) = (
        authority.issue(&["localhost"]),
        authority.issue(&["localhost"]),
    );
    let files = PairFiles::new(&first);
    let server = start(&database, &files);
    let open = connect(&server, &authority, &[]).await;
    assert_eq!(certificate(&open), first.der());

    std::fs::write(files.certificate(), second.pem()).unwrap();
    let complaint =
        server.until_logged("cannot reload the TLS certificate, keeping the current one");
    assert!(
        complaint.contains("server.key does not match the certificate in "),
        "{complaint}"
    );
    assert_eq!(
        certificate(&connect(&server, &authority, &[]).await),
        first.der()
    );

    files.write(&second);
    let deadline = Instant::now() + Duration::from_secs(20);
    while certificate(&connect(&server, &authority, &[]).await) != second.der() {
        assert!(
            Instant::now() < deadline,
            "the new certificate is not used: {:?}",
            server.logged()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let answer = get(open, "/livez").await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n"),
        "the connection opened before does not continue: {answer}"
    );
}

#[tokio::test]
async fn health_checks_use_tls_if_the_server_does() {
    let database = TestDatabase::migrated().await;
    let authority = Authority::new("authority");
    let files = PairFiles::new(&authority.issue(&["localhost"]));
    let with_tls = start(&database, &files);
    let plain = Server::start(database.url());
    let (certificate, key) = (files.certificate(), files.key());
    let health = |server: &Server, arguments: &[&str], uses_tls: bool| {
        let mut command = command(database.url(), &[&["health"], arguments].concat());
        command.env("SIMUSAGE_SERVE_LISTEN", server.address());
        if uses_tls {
            command
                .env("SIMUSAGE_SERVE_TLS_CERTIFICATE", &certificate)
                .env("SIMUSAGE_SERVE_TLS_KEY", &key);
        }
        crate::support::program::Run::from(command.output().unwrap())
    };
    for (server, uses_tls) in [(&with_tls, true), (&plain, false)] {
        for arguments in [&[] as &[&str], &["--ready"]] {
            let run = health(server, arguments, uses_tls);
            assert_eq!(
                (run.status, &*run.stdout, &*run.stderr),
                (0, "", ""),
                "{arguments:?}"
            );
        }
        let run = health(server, &[], !uses_tls);
        assert_eq!(run.status, 1, "{run:?}");
    }
    plain.signal("-TERM");
    let address = plain.address().to_owned();
    plain.wait();
    let mut stopped = command(database.url(), &["health"]);
    let run = stopped
        .env("SIMUSAGE_SERVE_LISTEN", &address)
        .output()
        .unwrap();
    let run = crate::support::program::Run::from(run);
    let expected = format!("cannot connect to {address}; check that serve is running");
    assert!(run.status == 1 && run.stderr.contains(&expected), "{run:?}");
}

#[tokio::test]
async fn sighup_reloads_tokens_and_certificate() {
    let database = TestDatabase::migrated().await;
    let authority = Authority::new("authority");
    let files = PairFiles::new(&authority.issue(&["localhost"]));
    let server = start(&database, &files);
    server.signal("-HUP");
    server.until_logged("reloading the tokens and the TLS certificate, because of SIGHUP");
    server.until_logged("reloaded the tokens");
    server.until_logged("reloaded the TLS certificate from");
    let answer = get(connect(&server, &authority, &[]).await, "/livez").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.contains("strict-transport-security: max-age=31536000\r\n"),
        "{answer}"
    );
    server.signal("-TERM");
    assert_eq!(server.wait().code(), Some(0));
}

#[tokio::test]
async fn an_expired_certificate_is_warned_about_and_not_loaded() {
    let database = TestDatabase::migrated().await;
    let expired = Pair::self_signed("localhost", 2001);
    let server = start(&database, &PairFiles::new(&expired));
    server.until_logged("expired on 2001-01-01 00:00:00 UTC, so clients reject it; renew it");
    drop(server);
    let authority = Authority::new("authority");
    let valid = authority.issue(&["localhost"]);
    let files = PairFiles::new(&valid);
    let server = start(&database, &files);
    files.write(&expired);
    let refused = server.until_logged("cannot reload the TLS certificate, keeping the current one");
    assert!(
        refused.ends_with("expired on 2001-01-01 00:00:00 UTC; renew it"),
        "{refused}"
    );
    assert_eq!(
        certificate(&connect(&server, &authority, &[]).await),
        valid.der()
    );
}

#[tokio::test]
async fn an_unusable_certificate_is_refused_at_startup() {
    let database = TestDatabase::migrated().await;
    let authority = Authority::new("authority");
    let (pair, other) = (
        authority.issue(&["localhost"]),
        authority.issue(&["localhost"]),
    );
    let files = PairFiles::new(&pair);
    let (certificate, key) = (files.certificate(), files.key());
    let run = || {
        let mut command = command(database.url(), &["serve", "--listen", "127.0.0.1:0"]);
        command
            .env("SIMUSAGE_SERVE_TLS_CERTIFICATE", &certificate)
            .env("SIMUSAGE_SERVE_TLS_KEY", &key);
        let run = crate::support::program::Run::from(command.output().unwrap());
        assert_eq!(run.status, 1, "{run:?}");
        run.stderr
    };
    let (certificate_name, key_name) = (certificate.display(), key.display());
    std::fs::write(&key, other.key_pem()).unwrap();
    let expected = format!("{key_name} does not match the certificate in {certificate_name}");
    assert!(run().contains(&expected));
    std::fs::write(&key, pair.pem()).unwrap();
    assert!(run().contains(&format!("{key_name} contains no private key in PEM format")));
    std::fs::write(&certificate, "nonsense").unwrap();
    assert!(run().contains(&format!(
        "{certificate_name} contains no certificate in PEM format"
    )));
    std::fs::remove_file(&certificate).unwrap();
    assert!(run().contains(&format!("cannot read {certificate_name}: No such file")));
}
