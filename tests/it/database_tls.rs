//! TLS to the database: what each `sslmode` accepts and refuses, and the advice in its errors.

use std::path::Path;

use simusage::db::{Pool, WriteError, connect};

use crate::support::certificates::{Authority, Pair, PairFiles};
use crate::support::tls_proxy::TlsProxy;
use crate::support::{TestDatabase, config};

/// Connects and runs a query.
async fn ask(url: &str) -> Result<i32, WriteError> {
    let connection = connect(&config(url).database).await?;
    let value = connection.query_one("select 42", &[]).await.unwrap().get(0);
    connection.close().await;
    Ok(value)
}

/// The error of a connection that must fail permanently.
async fn refusal(url: &str) -> String {
    let error = ask(url).await.expect_err(url);
    assert!(!error.is_transient(), "trying again does not help: {error}");
    error.to_string()
}

/// A path, encoded for a URL.
fn encoded(file: &Path) -> String {
    file.to_str().unwrap().replace(' ', "%20")
}

#[tokio::test]
async fn each_sslmode_verifies_what_it_promises() {
    let database = TestDatabase::empty().await;
    let (authority, other) = (Authority::new("authority"), Authority::new("somebody else"));
    let folder = tempfile::tempdir().unwrap();
    let (root, other_root) = (
        folder.path().join("the root.pem"),
        folder.path().join("other.pem"),
    );
    authority.write(&root);
    other.write(&other_root);
    let server = TlsProxy::start(database.url(), Some(&authority.issue(&["localhost"]))).await;
    let root = format!("sslrootcert={}", encoded(&root));
    let other_root = format!("sslrootcert={}", encoded(&other_root));

    assert_eq!(
        ask(&server.url("localhost", "sslmode=disable")).await,
        Ok(42)
    );
    assert_eq!(server.encrypted(), 0);
    for (index, (host, parameters)) in [
        ("127.0.0.1", "application_name=x".to_owned()),
        ("127.0.0.1", "sslmode=prefer".to_owned()),
        ("127.0.0.1", "sslmode=require".to_owned()),
        ("127.0.0.1", format!("sslmode=require&{root}")),
        ("127.0.0.1", format!("sslmode=verify-ca&{root}")),
        ("localhost", format!("sslmode=verify-full&{root}")),
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(
            ask(&server.url(host, parameters)).await,
            Ok(42),
            "{parameters}"
        );
        assert_eq!(server.encrypted(), index + 1, "{parameters}");
    }

    let wrong_name =
        refusal(&server.url("127.0.0.1", &format!("sslmode=verify-full&{root}"))).await;
    assert!(
        wrong_name.contains("not valid for name \"127.0.0.1\""),
        "{wrong_name}"
    );
    assert!(
        wrong_name.contains("connect to a host name in the certificate"),
        "{wrong_name}"
    );
    for mode in ["require", "verify-ca", "verify-full"] {
        let unknown =
            refusal(&server.url("localhost", &format!("sslmode={mode}&{other_root}"))).await;
        assert!(
            unknown.contains("set sslrootcert to the certificate of the authority"),
            "{unknown}"
        );
    }
    let unknown_to_system =
        refusal(&server.url("localhost", "sslmode=verify-full&sslrootcert=system")).await;
    assert!(
        unknown_to_system.contains("sslrootcert"),
        "{unknown_to_system}"
    );
    let missing = refusal(&server.url(
        "localhost",
        "sslmode=verify-ca&sslrootcert=/nowhere/root.pem",
    ))
    .await;
    assert!(
        missing.contains("cannot read /nowhere/root.pem: No such file"),
        "{missing}"
    );
}

#[tokio::test]
async fn a_server_without_tls_is_accepted_by_prefer_but_not_by_require() {
    let database = TestDatabase::empty().await;
    let server = TlsProxy::start(database.url(), None).await;
    assert_eq!(
        ask(&server.url("localhost", "sslmode=prefer")).await,
        Ok(42)
    );
    for mode in ["require", "verify-full"] {
        let error = refusal(&server.url("localhost", &format!("sslmode={mode}"))).await;
        assert!(
            error.contains("enable ssl on the server, or use sslmode=prefer"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_self_signed_certificate_is_accepted_as_root_until_it_expires() {
    let database = TestDatabase::empty().await;
    for (expires, valid) in [(4096, true), (2020, false)] {
        let pair = Pair::self_signed("localhost", expires);
        let files = PairFiles::new(&pair);
        let server = TlsProxy::start(database.url(), Some(&pair)).await;
        let root = encoded(&files.certificate());
        for mode in ["verify-ca", "verify-full"] {
            let url = server.url("localhost", &format!("sslmode={mode}&sslrootcert={root}"));
            if valid {
                assert_eq!(ask(&url).await, Ok(42));
            } else {
                assert!(
                    refusal(&url)
                        .await
                        .contains("renew the server's certificate")
                );
            }
        }
        let wrong_name = refusal(&server.url(
            "127.0.0.1",
            &format!("sslmode=verify-full&sslrootcert={root}"),
        ))
        .await;
        assert_eq!(
            wrong_name.contains("not valid for name"),
            valid,
            "{wrong_name}"
        );
    }
}

#[tokio::test]
async fn the_configured_client_certificate_is_presented() {
    let database = TestDatabase::empty().await;
    let authority = Authority::new("authority");
    let server =
        TlsProxy::for_clients_of(database.url(), &authority.issue(&["localhost"]), &authority)
            .await;
    let (files, other) = (
        PairFiles::new(&authority.issue(&["simusage"])),
        PairFiles::new(&authority.issue(&["other"])),
    );
    let (certificate, key, other_key) = (
        encoded(&files.certificate()),
        encoded(&files.key()),
        encoded(&other.key()),
    );
    let identity = format!("sslmode=require&sslcert={certificate}&sslkey={key}");
    assert_eq!(ask(&server.url("localhost", &identity)).await, Ok(42));
    let none = refusal(&server.url("localhost", "sslmode=require")).await;
    assert!(none.contains("check sslcert and sslkey"), "{none}");
    let mixed = refusal(&server.url(
        "localhost",
        &format!("sslcert={certificate}&sslkey={other_key}"),
    ))
    .await;
    assert!(mixed.contains("is not the key of sslcert"), "{mixed}");
}

#[tokio::test]
async fn the_connection_pool_uses_the_same_tls_settings() {
    let database = TestDatabase::migrated().await;
    let authority = Authority::new("authority");
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root.pem");
    authority.write(&root);
    let server = TlsProxy::start(database.url(), Some(&authority.issue(&["localhost"]))).await;
    let url = |host| {
        server.url(
            host,
            &format!("sslmode=verify-full&sslrootcert={}", encoded(&root)),
        )
    };
    let ready = async |url: &str| {
        let pool = Pool::new(&config(url), 1);
        pool.run(async |client| simusage::db::migrate::ensure_current(client).await)
            .await
    };
    ready(&url("localhost")).await.unwrap();
    assert_eq!(server.encrypted(), 1);
    let refused = ready(&url("127.0.0.1")).await.unwrap_err().to_string();
    assert!(refused.contains("not valid for name"), "{refused}");
}
