//! Feeds: what `complete-through` waits for.

use serde_json::{Value, json};

use crate::support::TestDatabase;
use crate::support::api::Api;
use crate::support::program::{command, simusage, simusage_with_input};
use crate::support::usage::Files;

const ALL: &str = "/api/v1/usage/organizations?start=2020-02-01&end=2020-02-05";

fn row(date: &str) -> String {
    format!("sim-card-id,bytes-used,date\n1,5,{date}\n")
}

async fn with_inventory() -> (TestDatabase, Files) {
    let (database, files) = (TestDatabase::migrated().await, Files::new());
    let inventory = files.write("inventory.csv", "sim-card-id,org-id\n1,o\n");
    let run = simusage(database.url(), &["ingest", "--inventory", &inventory]);
    assert_eq!(run.status, 0, "{run:?}");
    (database, files)
}

fn ingest(database: &TestDatabase, files: &Files, name: &str, date: &str) {
    let file = files.write(name, row(date));
    let run = simusage(database.url(), &["ingest", &file]);
    assert_eq!(run.status, 0, "{run:?}");
}

/// The feeds as (name, complete through, expected, live).
async fn feeds(api: &Api) -> Value {
    let feeds = api.ok("/api/v1/feeds").await;
    assert_eq!(
        feeds["complete-through"],
        api.ok(ALL).await["complete-through"]
    );
    let item = |item: &Value| {
        json!([
            item["feed"],
            item["complete-through"],
            item["expected"],
            item["live"]
        ])
    };
    feeds["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(item)
        .collect()
}

/// Lets the sources of a feed have been silent for this long.
async fn age(database: &TestDatabase, feed: &str, hours: i32) {
    let age =
        "update ingest_sources set updated_at = now() - make_interval(hours => $2) where feed = $1";
    let connection = database.connect().await;
    assert!(
        connection.execute(age, &[&feed, &hours]).await.unwrap() > 0,
        "{feed}"
    );
}

#[actix_web::test]
async fn usage_is_complete_up_to_the_slowest_live_feed() {
    let (database, files) = with_inventory().await;
    let api = Api::new(&database.config()).await;
    let complete = async || api.ok(ALL).await["complete-through"].clone();
    ingest(
        &database,
        &files,
        "a-2020-02-01.csv",
        "2020-02-01T12:00:00Z",
    );
    assert_eq!(complete().await, "2020-02-01T12:00:00Z");
    let before = api.get(ALL).await;
    ingest(&database, &files, "b-17.csv", "2020-01-15T03:00:00Z");
    assert_eq!(complete().await, "2020-01-15T03:00:00Z");
    // The answer is another one, although the usage of its interval is the same.
    let again = api
        .get_with(ALL, &[("if-none-match", before.header("etag"))])
        .await;
    assert_eq!(again.status, 200);
    // The next file of a feed moves it, wherever the file is.
    std::fs::create_dir(files.0.path().join("folder-9")).unwrap();
    ingest(
        &database,
        &files,
        "folder-9/b-18.csv",
        "2020-02-03T00:00:00Z",
    );
    ingest(
        &database,
        &files,
        "a-2020-02-04.csv",
        "2020-02-04T00:00:00Z",
    );
    assert_eq!(complete().await, "2020-02-03T00:00:00Z");
    let run = simusage_with_input(
        database.url(),
        &["ingest", "--source-id", "gateway", "--format", "csv", "-"],
        &row("2020-02-02T00:00:00Z"),
    );
    assert_eq!(run.status, 0, "{run:?}");
    assert_eq!(
        feeds(&api).await,
        json!([
            ["a-*.csv", "2020-02-04T00:00:00Z", true, true],
            ["b-*.csv", "2020-02-03T00:00:00Z", true, true],
            ["gateway", "2020-02-02T00:00:00Z", true, true],
        ])
    );
    // A feed that has been silent for too long is shown, but not waited for.
    age(&database, "gateway", 23).await;
    assert_eq!(complete().await, "2020-02-02T00:00:00Z");
    age(&database, "gateway", 25).await;
    assert_eq!(complete().await, "2020-02-03T00:00:00Z");
    assert_eq!(
        feeds(&api).await[2],
        json!(["gateway", "2020-02-02T00:00:00Z", true, false])
    );
    // Silence is measured from the last ingest, so nothing changes while everything is silent.
    for feed in ["a-*.csv", "b-*.csv"] {
        age(&database, feed, 1_000).await;
    }
    age(&database, "gateway", 1_030).await;
    assert_eq!(complete().await, "2020-02-03T00:00:00Z");

    // A token of an organization does not see the names.
    let run = simusage(
        database.url(),
        &["token", "create", "one", "--organization", "o"],
    );
    let token = run.stdout.trim();
    api.refresh_tokens().await;
    let seen = api.get_as(token, "/api/v1/feeds").await;
    assert_eq!(
        seen.body,
        json!({"items": [], "complete-through": "2020-02-03T00:00:00Z"})
    );
    let run = simusage(database.url(), &["token", "create", "all"]);
    api.refresh_tokens().await;
    let seen = api.get_as(run.stdout.trim(), "/api/v1/feeds").await;
    assert_eq!(seen.body["items"].as_array().unwrap().len(), 3);
    let refused = api.get_as(run.stdout.trim(), "/api/v1/feeds?size=1").await;
    assert_eq!(refused.status, 422);
}

#[actix_web::test]
async fn feeds_can_be_named() {
    let (database, files) = with_inventory().await;
    let api = Api::new(&database.config()).await;
    ingest(&database, &files, "gw_a-1.csv", "2020-02-01T00:00:00Z");
    ingest(&database, &files, "gw_b-1.csv", "2020-02-02T00:00:00Z");
    ingest(&database, &files, "backfill.csv", "2019-01-01T00:00:00Z");
    ingest(&database, &files, "gwxb.csv", "2019-02-01T00:00:00Z");
    let migrate = |names: &str, arguments: &[&str]| {
        let run = command(database.url(), arguments)
            .env("SIMUSAGE_FEEDS_NAMES", names)
            .output();
        let run = run.unwrap();
        (run.status.code(), String::from_utf8(run.stdout).unwrap())
    };
    let change = "feeds: others (24 h) -> gw_a* (24 h), gw_b*=72 (24 h)";
    let names = "gw_a*, gw_b*=72, later";
    let change = change.replace(
        "gw_b*=72 (24 h)",
        "gw_b* (72 h), later (24 h), others (24 h)",
    );
    let pending = migrate(names, &["migrate", "--check"]);
    assert_eq!(pending, (Some(1), format!("pending {change}\n")));
    assert_eq!(
        migrate(names, &["migrate"]),
        (Some(0), format!("applied {change}\n"))
    );
    assert_eq!(
        migrate(names, &["migrate"]),
        (Some(0), "nothing to migrate\n".to_owned())
    );
    let expected = json!([
        ["backfill.csv", "2019-01-01T00:00:00Z", false, true],
        ["gw_a*", "2020-02-01T00:00:00Z", true, true],
        ["gw_b*", "2020-02-02T00:00:00Z", true, true],
        ["gwxb.csv", "2019-02-01T00:00:00Z", false, true],
        ["later", null, true, false],
    ]);
    assert_eq!(feeds(&api).await, expected);
    age(&database, "gw_a*", 30).await;
    age(&database, "gw_b*", 30).await;
    ingest(&database, &files, "gw_a-2.csv", "2020-02-03T00:00:00Z");
    // Both are live, because the second may be silent for longer.
    assert_eq!(
        api.ok(ALL).await["complete-through"],
        "2020-02-02T00:00:00Z"
    );
    age(&database, "gw_b*", 73).await;
    assert_eq!(
        api.ok(ALL).await["complete-through"],
        "2020-02-03T00:00:00Z"
    );
    // Without names, every feed is expected again.
    assert_eq!(migrate("", &["migrate"]).0, Some(0));
    assert_eq!(
        api.ok(ALL).await["complete-through"],
        "2019-01-01T00:00:00Z"
    );
}

#[actix_web::test]
async fn feeds_can_be_named_by_folders() {
    let (database, files) = with_inventory().await;
    let api = Api::new(&database.config()).await;
    for (folder, date) in [
        ("site1", "2020-02-01T00:00:00Z"),
        ("site2", "2020-02-02T00:00:00Z"),
        ("my-site1", "2020-02-03T00:00:00Z"),
    ] {
        std::fs::create_dir(files.0.path().join(folder)).unwrap();
        ingest(&database, &files, &format!("{folder}/usage.csv"), date);
    }
    let path = files.0.path().to_str().unwrap();
    for (names, feed) in [
        ("site1/*, site2/*", "site1/*".to_owned()),
        ("site2/*", "usage.csv".to_owned()),
    ]
    .into_iter()
    .chain([(
        &*format!("{path}/site1/*.csv,*/usage.csv"),
        format!("{path}/site1/*.csv"),
    )]) {
        let run = command(database.url(), &["migrate"])
            .env("SIMUSAGE_FEEDS_NAMES", names)
            .output()
            .unwrap();
        assert!(run.status.success(), "{run:?}");
        let item = json!([feed, "2020-02-01T00:00:00Z", true, true]);
        let listed = feeds(&api).await;
        if feed == "usage.csv" {
            let other = json!([feed, "2020-02-03T00:00:00Z", false, true]);
            assert_eq!(
                listed,
                json!([["site2/*", "2020-02-02T00:00:00Z", true, true], other])
            );
        } else {
            assert!(
                listed.as_array().unwrap().contains(&item),
                "{names}: {listed}"
            );
        }
    }
    // A file that was given without its parent folder is the same.
    let connection = database.connect().await;
    let query =
        "select feed_of('file', 'x', 'site1/usage.csv'), feed_of('stream', 'a/usage.csv', 'stdin')";
    let row = connection.query_one(query, &[]).await.unwrap();
    let feeds: (String, String) = (row.get(0), row.get(1));
    assert_eq!(feeds, ("*/usage.csv".to_owned(), "*/usage.csv".to_owned()));
    let run = command(database.url(), &["migrate"])
        .env("SIMUSAGE_FEEDS_NAMES", "site1/")
        .output()
        .unwrap();
    let text = String::from_utf8(run.stderr).unwrap();
    assert!(
        text.contains("'site1/' is a folder; write site1/* for its files"),
        "{text}"
    );
}

#[actix_web::test]
async fn nothing_is_complete_beyond_its_ingest_or_without_records() {
    let (database, files) = with_inventory().await;
    let api = Api::new(&database.config()).await;
    let soon = chrono::Utc::now() + chrono::TimeDelta::hours(23);
    ingest(&database, &files, "a.csv", &soon.to_rfc3339());
    let answer = api.ok(ALL).await;
    let complete = answer["complete-through"].as_str().unwrap().to_owned();
    assert!(complete <= chrono::Utc::now().to_rfc3339(), "{complete}");
    assert_eq!(answer["complete-through"], answer["last-ingested-at"]);
    // A source that was found and not read yet is not waited for.
    let connection = database.connect().await;
    let add = "insert into ingest_sources (kind, identity, name) values ('stream', 'b', 'b')";
    connection.batch_execute(add).await.unwrap();
    assert_eq!(api.ok(ALL).await["complete-through"], complete.as_str());
    let rejected =
        "{\"sim-card-id\":\"unknown\",\"bytes-used\":1,\"date\":\"2020-02-01T00:00:00Z\"}\n";
    for arguments in [&["ingest", "--source-id", "b", "-"][..], &["ingest", "-"]] {
        let run = simusage_with_input(database.url(), arguments, rejected);
        assert_eq!(run.status, 3, "{run:?}");
        assert_eq!(api.ok(ALL).await["complete-through"], Value::Null);
    }
    assert_eq!(
        feeds(&api).await,
        json!([
            ["a.csv", complete, true, true],
            ["b", null, true, true],
            ["stdin", null, true, true],
        ])
    );
    age(&database, "b", 25).await;
    age(&database, "stdin", 25).await;
    assert_eq!(api.ok(ALL).await["complete-through"], complete.as_str());
}

#[tokio::test]
async fn sources_are_divided_into_feeds_by_their_names() {
    let database = TestDatabase::migrated().await;
    let connection = database.connect().await;
    for (kind, identity, name, feed) in [
        (
            "file",
            "x",
            "/data/usage-2026-03-01T05.ndjson.gz",
            "usage-*.ndjson",
        ),
        ("file", "x", "usage_20260301_000123.csv.zst", "usage_*.csv"),
        ("file", "x", "gw1/usage.csv", "usage.csv"),
        ("file", "x", "gw-a.2.csv", "gw-a.*.csv"),
        (
            "file",
            "x",
            "export-3f2a9c1e-77aa-4bcd-8e9f-001122334455.json",
            "export-*.json",
        ),
        ("stream", "gateway 7", "stdin", "gateway 7"),
        ("run", "123", "stdin", "stdin"),
        ("run", "ended", "runs that ended", "stdin"),
        (
            "kafka",
            "cluster-1/usage.eu/12/group/a",
            "usage.eu/12",
            "usage.eu",
        ),
    ] {
        let query = "select feed_of($1, $2, $3)";
        let row = connection
            .query_one(query, &[&kind, &identity, &name])
            .await
            .unwrap();
        assert_eq!(row.get::<_, String>(0), feed, "{name}");
    }
}

#[tokio::test]
async fn a_silent_partition_does_not_hold_its_topic_back() {
    let database = TestDatabase::migrated().await;
    let connection = database.connect().await;
    let add = "insert into ingest_sources (kind, identity, name, newest_record_at, updated_at) values
        ('kafka', 'c/t/0/g', 't/0', '2020-02-03Z', now()), ('kafka', 'c/t/1/g', 't/1', '2020-02-02Z', now() - interval '23 hours'),
        ('kafka', 'c/t/2/g', 't/2', '2020-02-01Z', now() - interval '25 hours'), ('kafka', 'c/t/3/g', 't/3', null, now());
        update ingest_sources set batches = 1";
    connection.batch_execute(add).await.unwrap();
    let complete =
        "select to_char(complete_through at time zone 'UTC', 'YYYY-MM-DD') from feeds(true)";
    let complete: String = connection.query_one(complete, &[]).await.unwrap().get(0);
    assert_eq!(complete, "2020-02-02");
}
