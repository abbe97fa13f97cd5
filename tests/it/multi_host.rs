//! URLs with several hosts: failover, `load_balance_hosts` and `target_session_attrs`.

use simusage::db::{Pool, StorageError, connect, migrate};

use crate::support::proxy::Proxy;
use crate::support::{TestDatabase, config, require_native_server};

/// A URL with both proxies as hosts of the same database.
fn url(first: &Proxy, second: &Proxy, parameters: &str) -> String {
    let (front, rest) = second.url().split_once('@').unwrap();
    let (_, first) = first.url().split_once('@').unwrap();
    let (first, _) = first.split_once('/').unwrap();
    let separator = if rest.contains('?') { '&' } else { '?' };
    format!("{front}@{first},{rest}{separator}{parameters}")
}

async fn ready(pool: &Pool) -> Result<(), StorageError> {
    pool.run(async |client| migrate::ensure_current(client).await)
        .await
}

#[tokio::test]
async fn the_second_host_is_used_while_the_first_is_unavailable() {
    let database = TestDatabase::migrated().await;
    let (first, second) = (Proxy::start(database.url()), Proxy::start(database.url()));
    let config = config(&url(&first, &second, "application_name=simusage"));
    let pool = Pool::new(&config, 1);
    ready(&pool).await.unwrap();
    assert_eq!(
        (first.accepted(), second.accepted()),
        (1, 0),
        "the first host was not preferred"
    );
    first.go_down();
    // The broken connection may fail one request; the next one gets a new connection.
    let _ = ready(&pool).await;
    ready(&pool).await.unwrap();
    connect(&config.database).await.unwrap().close().await;
    assert_eq!((first.accepted(), second.accepted()), (1, 2));
    second.go_down();
    assert!(
        connect(&config.database).await.unwrap_err().is_transient(),
        "they may come back"
    );
}

#[tokio::test]
async fn random_balance_uses_every_host() {
    let database = TestDatabase::migrated().await;
    let (first, second) = (Proxy::start(database.url()), Proxy::start(database.url()));
    let config = config(&url(&first, &second, "load_balance_hosts=random"));
    // The chance that all of these connections choose the same host is negligible.
    for _ in 0..32 {
        connect(&config.database).await.unwrap().close().await;
    }
    let (by_first, by_second) = (first.accepted(), second.accepted());
    assert!(by_first > 0 && by_second > 0, "{by_first} and {by_second}");
    for _ in 0..32 {
        ready(&Pool::new(&config, 1)).await.unwrap();
    }
    assert_eq!(first.accepted() + second.accepted(), 64);
    assert!(
        first.accepted() > by_first && second.accepted() > by_second,
        "the pool used only one host"
    );
}

#[tokio::test]
async fn a_writable_server_is_used_only_for_read_write() {
    assert_target_session_attrs(&[
        ("read-write", false, None),
        ("read-only", false, Some("database is not read only")),
    ])
    .await;
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn a_read_only_server_is_used_only_for_read_only() {
    require_native_server();
    assert_target_session_attrs(&[
        ("read-only", true, None),
        ("read-write", true, Some("database does not allow writes")),
    ])
    .await;
}

/// Connects with `target_session_attrs` through two proxies to servers that are read-only or not,
/// and expects success or the given refusal.
async fn assert_target_session_attrs(cases: &[(&str, bool, Option<&str>)]) {
    let database = TestDatabase::migrated().await;
    let (first, second) = (Proxy::start(database.url()), Proxy::start(database.url()));
    for &(attributes, read_only, refusal) in cases {
        let mode = if read_only { "on" } else { "off" };
        let parameters = format!(
            "target_session_attrs={attributes}&options=-c default_transaction_read_only%3D{mode}"
        );
        let config = config(&url(&first, &second, &parameters));
        let before = (first.accepted(), second.accepted());
        let by_pool = ready(&Pool::new(&config, 1)).await;
        let by_connection = connect(&config.database).await;
        let Some(refusal) = refusal else {
            by_pool.unwrap();
            by_connection.unwrap().close().await;
            continue;
        };
        assert!(
            by_pool.unwrap_err().to_string().contains(refusal),
            "{parameters}"
        );
        assert!(
            by_connection.unwrap_err().to_string().contains(refusal),
            "{parameters}"
        );
        assert_eq!(
            (first.accepted(), second.accepted()),
            (before.0 + 2, before.1 + 2),
            "each host should be tried twice"
        );
    }
}
