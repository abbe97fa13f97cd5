//! Several hosts in one URL: one that is away, all of them in turn, and the kind that is asked for.

use simusage::db::{Pool, StorageError, connect, migrate};

use crate::support::proxy::Proxy;
use crate::support::{TestDatabase, config, has_native_server};

/// A URL of the same database behind both proxies.
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
async fn a_host_that_is_away_leaves_the_work_to_the_other() {
    let database = TestDatabase::migrated().await;
    let (first, second) = (Proxy::start(database.url()), Proxy::start(database.url()));
    let config = config(&url(&first, &second, "application_name=simusage"));
    let pool = Pool::new(&config, 1);
    ready(&pool).await.unwrap();
    assert_eq!(
        (first.taken(), second.taken()),
        (1, 0),
        "the first is the first choice"
    );
    first.go_down();
    // The session that broke may cost one answer; the one after it has a new session.
    let _ = ready(&pool).await;
    ready(&pool).await.unwrap();
    connect(&config.database).await.unwrap().close().await;
    assert_eq!((first.taken(), second.taken()), (1, 2));
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
    // Each of these 64 goes one way or the other; that all of them agree does not happen.
    for _ in 0..32 {
        connect(&config.database).await.unwrap().close().await;
    }
    let (by_first, by_second) = (first.taken(), second.taken());
    assert!(by_first > 0 && by_second > 0, "{by_first} and {by_second}");
    for _ in 0..32 {
        ready(&Pool::new(&config, 1)).await.unwrap();
    }
    assert_eq!(first.taken() + second.taken(), 64);
    assert!(
        first.taken() > by_first && second.taken() > by_second,
        "the pool, too"
    );
}

#[tokio::test]
async fn only_a_server_of_the_kind_that_is_asked_for_is_taken() {
    let database = TestDatabase::migrated().await;
    let (first, second) = (Proxy::start(database.url()), Proxy::start(database.url()));
    let can_be_read_only = has_native_server("a session that is read-only from its start");
    for (attributes, read_only, refusal) in [
        ("read-write", false, None),
        ("read-only", true, None),
        ("read-write", true, Some("database does not allow writes")),
        ("read-only", false, Some("database is not read only")),
    ] {
        if read_only && !can_be_read_only {
            continue;
        }
        let mode = if read_only { "on" } else { "off" };
        let parameters = format!(
            "target_session_attrs={attributes}&options=-c default_transaction_read_only%3D{mode}"
        );
        let config = config(&url(&first, &second, &parameters));
        let before = (first.taken(), second.taken());
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
            (first.taken(), second.taken()),
            (before.0 + 2, before.1 + 2),
            "both were tried, twice"
        );
    }
}
