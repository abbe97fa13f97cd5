//! The program connects as psql does: with its environment variables and files.

use std::os::unix::fs::PermissionsExt as _;

use crate::support::TestDatabase;
use crate::support::program::{Run, command};
use crate::support::server::{Server, get_from, status};

/// Runs `migrate --check` with these environment variables, and without a URL.
fn check(variables: &[(&str, &str)]) -> Run {
    let mut command = command("", &["migrate", "--check"]);
    command.envs(variables.iter().copied());
    command.output().unwrap().into()
}

#[tokio::test]
async fn psqls_variables_and_files_are_used() {
    let database = TestDatabase::migrated().await;
    let (_, rest) = database.url().split_once("://").unwrap();
    let (user, rest) = rest.split_once('@').unwrap();
    let (server, name) = rest.split_once('/').unwrap();
    let (host, port) = server.split_once(':').unwrap();
    let user = user.split(':').next().unwrap();
    let name = name.split('?').next().unwrap();
    let address = [("PGHOST", host), ("PGPORT", port)];
    let who = [("PGUSER", user), ("PGDATABASE", name)];
    let run = check(&[&address[..], &who].concat());
    assert_eq!(run.status, 0, "{run:?}");

    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_str().unwrap();
    let service = format!("[usage]\nhost={host}\nport={port}\nuser={user}\ndbname={name}\n");
    std::fs::write(folder.path().join(".pg_service.conf"), service).unwrap();
    let run = check(&[("HOME", home), ("PGSERVICE", "usage")]);
    assert_eq!(run.status, 0, "{run:?}");
    let run = check(&[("HOME", home), ("PGSERVICE", "other")]);
    assert_eq!(run.status, 2, "{run:?}");
    assert!(
        run.stderr.contains(&format!(
            "there is no service other in {home}/.pg_service.conf, "
        )),
        "{run:?}"
    );

    let run = check(&[("PGHOST", "127.0.0.1"), ("PGPORT", "1"), ("PGUSER", "me")]);
    assert_eq!(run.status, 1, "{run:?}");
    assert!(
        run.stderr.contains("cannot connect to me@127.0.0.1:1/me"),
        "{run:?}"
    );
}

#[test]
fn an_exposed_password_file_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    // Requests a password in clear text.
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 1_024]);
            let _ = stream.write_all(b"R\0\0\0\x08\0\0\0\x03");
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("passwords");
    std::fs::write(&file, "*:*:*:*:confidential\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let run = check(&[
        ("PGHOST", "127.0.0.1"),
        ("PGPORT", &port),
        ("PGUSER", "me"),
        ("PGSSLMODE", "disable"),
        ("PGPASSFILE", file.to_str().unwrap()),
    ]);
    assert_eq!(run.status, 1, "{run:?}");
    let advice = format!("run `chmod 600 {}`", file.display());
    assert!(run.stderr.contains(&advice), "{run:?}");
    assert!(!run.stderr.contains("confidential"), "{run:?}");
}

#[tokio::test]
async fn names_and_ports_can_be_listened_on() {
    let database = TestDatabase::migrated().await;
    for (listen, anonymous) in [("localhost:0", None), (":0", Some("--allow-anonymous"))] {
        let arguments: Vec<&str> = ["--listen", listen].into_iter().chain(anonymous).collect();
        let server = Server::start_with(database.url(), &arguments, &[]);
        let (_, port) = server.address().rsplit_once(':').unwrap();
        let answer = get_from(&format!("localhost:{port}"), "/livez");
        assert_eq!(status(&answer), 200, "{listen}: {answer}");
        let answer = get_from(&format!("127.0.0.1:{port}"), "/livez");
        assert_eq!(status(&answer), 200, "{listen}: {answer}");
    }
}
