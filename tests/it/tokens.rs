//! Tokens: managing them on the command line, and the access they grant.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use simusage::db::Pool;

use crate::support::api::Api;
use crate::support::program::{Run, command, simusage, simusage_with_input};
use crate::support::proxy::Proxy;
use crate::support::server::{Server, status};
use crate::support::{TestDatabase, at, require_native_server};

/// The time within which a change must take effect.
const EFFECTIVE_WITHIN: Duration = Duration::from_secs(5);

/// One path of each kind in the API.
const PATHS: [&str; 5] = [
    "/api/v1/usage/organizations",
    "/api/v1/usage/simcards",
    "/api/v1/organization/x00g8/usage?start=2020-01-01&end=2020-01-31&every=1hour",
    "/api/v1/simcard/1/usage?start=2020-01-01&end=2020-01-31&every=1day",
    "/api/v1/inventory",
];

/// A database with two organizations that have one SIM card each.
async fn two_tenants() -> TestDatabase {
    let database = TestDatabase::migrated().await;
    let time: DateTime<Utc> = "2020-01-01T00:00:00Z".parse().unwrap();
    database
        .load(&[("1", "x00g8", time, 100), ("2", "x00g9", time, 7)])
        .await;
    database
}

/// Creates a token on the command line, and returns it.
fn create(database: &TestDatabase, arguments: &[&str]) -> String {
    let run = simusage(database.url(), &[&["token", "create"], arguments].concat());
    assert_eq!(run.status, 0, "{run:?}");
    let token = run.stdout.strip_suffix('\n').unwrap();
    assert!(
        token.starts_with("simusage_") && !token.contains(char::is_whitespace),
        "only the token is printed"
    );
    token.to_owned()
}

fn revoke(database: &TestDatabase, name: &str) {
    let run = simusage(database.url(), &["token", "revoke", name]);
    assert_eq!((run.status, &*run.stdout), (0, ""), "{run:?}");
}

#[tokio::test]
async fn a_token_is_printed_once_and_listed_without_its_secret() {
    let database = two_tenants().await;
    let all = create(&database, &["all"]);
    let bound = [
        "bound",
        "--organization",
        "x00g9",
        "--organization",
        "x00g8",
        "--expires",
        "2999-12-31",
    ];
    let bound = create(&database, &bound);
    revoke(&database, "all");
    revoke(&database, "all");
    let list = simusage(database.url(), &["token", "list"]).stdout;
    let cells: Vec<Vec<&str>> = list
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        cells[0],
        ["NAME", "STATE", "CREATED", "EXPIRES", "ORGANIZATIONS"]
    );
    assert_eq!(
        (cells[1][..2].to_vec(), cells[1][3..].to_vec()),
        (vec!["all", "revoked"], vec!["never", "everything"])
    );
    assert_eq!(cells[2][..2], ["bound", "valid"]);
    assert_eq!(cells[2][3..], ["3000-01-01T00:00:00Z", "x00g8,x00g9"]);
    for token in [&all, &bound] {
        assert!(
            !list.contains(token.strip_prefix("simusage_").unwrap()),
            "{list}"
        );
    }
    // The database stores only a hash, too.
    let row = database
        .connect()
        .await
        .query_one("select string_agg(tokens::text, '') from tokens", &[])
        .await
        .unwrap();
    let stored: String = row.get(0);
    assert!(
        stored.contains("bound") && !stored.contains(bound.strip_prefix("simusage_").unwrap()),
        "{stored}"
    );
}

#[tokio::test]
async fn an_invalid_request_for_a_token_is_refused_and_nothing_is_stored() {
    let database = two_tenants().await;
    create(&database, &["taken"]);
    for (arguments, status, problem) in [
        (
            &["create", "taken"] as &[&str],
            1,
            "a token named taken already exists",
        ),
        (
            &[
                "create",
                "new",
                "--organization",
                "x00g8",
                "--organization",
                "nobody",
            ],
            1,
            "no such organization in the inventory: nobody",
        ),
        (
            &["create", "new", "--organization", "a/b"],
            2,
            "'a/b' is not an identifier",
        ),
        (
            &["create", "new", "--expires", "2020-01-01"],
            2,
            "this date is in the past",
        ),
        (
            &["create", "new", "--expires", "soon"],
            2,
            "not a date (e.g. 2030-12-31 / 2030-12-31T12:00:00Z)",
        ),
        (&["create", " "], 2, "a name must have 1 to 64 characters"),
        (&["create"], 2, "<NAME>"),
        (&["revoke", "new"], 1, "there is no token named new"),
    ] {
        let run = simusage(database.url(), &[&["token"], arguments].concat());
        assert_eq!((run.status, &*run.stdout), (status, ""), "{run:?}");
        assert!(run.stderr.contains(problem), "{run:?}");
    }
    assert_eq!(database.number("select count(*) from tokens").await, 1);
    drop(database);
    let empty = TestDatabase::empty().await;
    let run = simusage(empty.url(), &["token", "list"]);
    assert_eq!(run.status, 1, "{run:?}");
    assert!(run.stderr.contains("run `simusage migrate`"), "{run:?}");
}

#[actix_web::test]
async fn once_a_token_exists_every_api_request_needs_one() {
    let database = two_tenants().await;
    let api = Api::new(&database.config()).await;
    for path in PATHS {
        api.ok(path).await;
    }
    let token = create(&database, &["one"]);
    api.refresh_tokens().await;
    // Regardless of how a path is encoded and whether it exists.
    let others = [
        "/api",
        "/api/v1/nothing",
        "/%61pi/v1/inventory",
        "/api/v1/usage/simcards?every=hello",
    ];
    for path in PATHS.into_iter().chain(others) {
        let answer = api.get(path).await;
        assert_eq!(
            (answer.status, answer.header("www-authenticate")),
            (401, r#"Bearer realm="simusage""#),
            "{path}"
        );
        assert_eq!(
            answer.detail(),
            "A token is required: send the header `Authorization: Bearer TOKEN`."
        );
        let wrong = api.get_as(&format!("{token}0"), path).await;
        let challenge = r#"Bearer realm="simusage", error="invalid_token", error_description="The token is unknown.""#;
        assert_eq!(
            (wrong.status, wrong.header("www-authenticate")),
            (401, challenge),
            "{path}"
        );
    }
    for path in PATHS {
        assert_eq!(api.get_as(&token, path).await.status, 200, "{path}");
    }
    assert_eq!(api.get_as(&token, "/api/v1/nothing").await.status, 404);
    for path in ["/livez", "/readyz"] {
        api.ok(path).await;
    }
    revoke(&database, "one");
    api.refresh_tokens().await;
    for path in PATHS {
        let revoked = api.get_as(&token, path).await;
        assert_eq!(
            (revoked.status, revoked.detail()),
            (401, "The token was revoked."),
            "{path}"
        );
        assert_eq!(
            api.get(path).await.status,
            401,
            "revoking the last token opens nothing: {path}"
        );
    }
}

/// Paths with an identifier of x00g8, and the detail of the problem if it does not exist.
const FOREIGN: [(&str, &str); 4] = [
    (
        "/api/v1/organization/x00g8/usage?start=2020-01-01&end=2020-01-31&every=1hour",
        "No organization x00g8 found!",
    ),
    (
        "/api/v1/organization/x00g8/usage?start=2020-01-01&end=2020-01-31&every=1day",
        "No organization x00g8 found!",
    ),
    (
        "/api/v1/simcard/1/usage?start=2020-01-01&end=2020-01-31&every=1day",
        "No simcard 1 found!",
    ),
    (
        "/api/v1/usage/simcards?organization=x00g8",
        "No organization x00g8 found!",
    ),
];

/// Lists, the key of their items, and the item that a token of x00g9 sees.
const LISTS: [(&str, &str, &str); 3] = [
    ("/api/v1/usage/organizations", "organization", "x00g9"),
    ("/api/v1/usage/simcards", "simcard", "2"),
    ("/api/v1/inventory", "simcard", "2"),
];

#[actix_web::test]
async fn a_token_of_one_organization_sees_nothing_of_another() {
    let database = two_tenants().await;
    // SIM card 3 moves from one organization to the other within a day.
    let moved = [
        ("3", "x00g8", at("2020-01-05T10:10:00Z"), 1_000),
        ("3", "x00g9", at("2020-01-05T10:40:00Z"), 30),
    ];
    database.load(&moved).await;
    let all = create(&database, &["all"]);
    let own = create(&database, &["own", "--organization", "x00g9"]);
    let both = create(
        &database,
        &["both", "--organization", "x00g9", "--organization", "x00g8"],
    );
    let api = Api::new(&database.config()).await;
    let mut leaks = vec![];
    let mut expect = |path: &str, what: &str, seen: Value, expected: Value| {
        if seen != expected {
            leaks.push(format!("{path}: {what} {seen}, not {expected}"));
        }
    };
    for (path, detail) in FOREIGN {
        let foreign = api.get_as(&own, path).await;
        expect(
            path,
            "answer",
            json!([foreign.status, foreign.body["detail"]]),
            json!([404, detail]),
        );
        // An identifier that does not exist gets the same response, apart from its name.
        let unknown = path
            .replace("x00g8", "nobody")
            .replace("simcard/1/", "simcard/nothing/");
        let unknown = api.get_as(&all, &unknown).await;
        let unknown_detail = detail
            .replace("x00g8", "nobody")
            .replace("simcard 1 ", "simcard nothing ");
        expect(
            path,
            "unknown",
            json!([unknown.status, unknown.body["detail"]]),
            json!([404, unknown_detail]),
        );
        assert_eq!(api.get_as(&both, path).await.status, 200, "{path}");
    }
    for (path, key, id) in LISTS {
        for size in ["", "?size=1", "?size=1&page=2", "?size=1&page=3"] {
            let path = format!("{path}{size}");
            let seen = api.get_as(&own, &path).await.body;
            let ids: Vec<&str> = seen["items"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|item| item[key].as_str())
                .collect();
            let own_ids = if key == "organization" {
                vec![id]
            } else {
                vec![id, "3"]
            };
            let foreign: Vec<_> = ids.iter().filter(|id| !own_ids.contains(id)).collect();
            expect(&path, "foreign items", json!(foreign), json!([]));
            expect(&path, "total", seen["total"].clone(), json!(own_ids.len()));
            if path.contains("usage") {
                expect(&path, "bytes", seen["bytes-used-total"].clone(), json!(37));
            }
            let (both, all) = (
                api.get_as(&both, &path).await.body,
                api.get_as(&all, &path).await.body,
            );
            assert_eq!(
                (&both["items"], &both["total"]),
                (&all["items"], &all["total"]),
                "{path}"
            );
            // A cursor of another token's list is not valid here.
            if let Some(next) = all["next"].as_str() {
                expect(
                    next,
                    "cursor",
                    json!(api.get_as(&own, next).await.status),
                    json!(422),
                );
            }
        }
        for format in ["csv", "ndjson"] {
            let path = format!("{path}?format={format}");
            let text = api.get_as(&own, &path).await.text;
            let lines = text.lines().count() - usize::from(format == "csv");
            expect(
                &path,
                "lines",
                json!(lines),
                json!(if key == "organization" { 1 } else { 2 }),
            );
            expect(
                &path,
                "foreign names",
                json!(text.contains("x00g8")),
                json!(false),
            );
        }
    }
    for format in ["csv", "ndjson"] {
        let path = format!(
            "/api/v1/simcard/3/usage?start=2020-01-01&end=2020-01-31&every=1day&format={format}"
        );
        let text = api.get_as(&own, &path).await.text;
        expect(
            &path,
            "sum of both",
            json!(text.contains("1030")),
            json!(false),
        );
        let foreign = api
            .get_as(&own, &path.replace("simcard/3", "simcard/1"))
            .await
            .status;
        expect(&path, "foreign card", json!(foreign), json!(404));
        // The ETag differs from that of a token that sees more.
        let tag = api.get_as(&all, &path).await.header("etag").to_owned();
        let own_tag = api.get_as(&own, &path).await.header("etag").to_owned();
        expect(
            &path,
            "same tag",
            json!(!tag.is_empty() && tag == own_tag),
            json!(false),
        );
    }
    // Each organization sees only its own part of the usage of a SIM card that moved.
    for every in ["1hour", "1day"] {
        let path = format!("/api/v1/simcard/3/usage?start=2020-01-01&end=2020-01-31&every={every}");
        let seen = api.get_as(&own, &path).await.body;
        expect(&path, "bytes", seen["bytes-used-total"].clone(), json!(30));
        expect(
            &path,
            "bucket",
            seen["items"][0]["bytes-used-total"].clone(),
            json!(30),
        );
        assert_eq!(
            api.get_as(&all, &path).await.body["bytes-used-total"],
            1_030
        );
    }
    let part = "/api/v1/usage/simcards?start=2020-01-05T10:00:00Z&end=2020-01-05T10:30:00Z";
    expect(
        part,
        "items",
        api.get_as(&own, part).await.body["items"].clone(),
        json!([]),
    );
    assert!(leaks.is_empty(), "{leaks:#?}");
}

#[actix_web::test]
async fn a_token_expires_on_time() {
    let database = two_tenants().await;
    let token = create(&database, &["brief", "--expires", "2999-12-31"]);
    let expires_at = Utc::now() + Duration::from_secs(1);
    database
        .connect()
        .await
        .execute("update tokens set expires_at = $1", &[&expires_at])
        .await
        .unwrap();
    let api = Api::new(&database.config()).await;
    loop {
        let before = Utc::now();
        let answer = api.get_as(&token, PATHS[0]).await;
        if answer.status == 401 {
            assert!(Utc::now() >= expires_at, "refused too early");
            assert_eq!(answer.detail(), "The token has expired.");
            break;
        }
        assert!(
            answer.status == 200 && before < expires_at,
            "accepted too late: {}",
            answer.body
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_running_server_notices_token_changes_within_seconds_and_logs_no_secret() {
    let database = two_tenants().await;
    let server = Server::start_with(database.url(), &[], &[("SIMUSAGE_LOG", "trace")]);
    assert_eq!(status(&server.get(PATHS[0])), 200);
    let first = create(&database, &["first", "--organization", "x00g8"]);
    until(|| status(&server.get(PATHS[0])) == 401).await;
    assert_eq!(server.status_as(&first, PATHS[0]), 200);
    let second = create(&database, &["second"]);
    until(|| server.status_as(&second, PATHS[0]) == 200).await;
    revoke(&database, "first");
    until(|| server.status_as(&first, PATHS[0]) == 401).await;
    assert_eq!(server.status_as(&second, PATHS[0]), 200);
    let log = server.logged().join("\n");
    assert!(log.contains("no tokens exist"), "{log}");
    for token in [first, second] {
        assert!(
            !log.contains(token.strip_prefix("simusage_").unwrap()),
            "a token is in the log"
        );
    }
}

#[tokio::test]
async fn tokens_are_still_checked_while_the_database_is_unavailable() {
    let database = two_tenants().await;
    let token = create(&database, &["one"]);
    let proxy = Proxy::start(database.url());
    let server = Server::start(proxy.url());
    assert_eq!(server.status_as(&token, PATHS[0]), 200);
    proxy.go_down();
    for _ in 0..2 {
        assert_eq!(server.status_as(&token, PATHS[0]), 503);
        assert_eq!(server.status_as("another", PATHS[0]), 401);
        assert_eq!(status(&server.get(PATHS[0])), 401);
        // Long enough for the next attempt to load the tokens.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
    }
    assert_eq!(
        server
            .logged()
            .join("\n")
            .matches("cannot reload the tokens")
            .count(),
        1,
        "{}",
        server.logged().join("\n")
    );
    proxy.come_back();
    until(|| server.status_as(&token, PATHS[0]) == 200).await;
    revoke(&database, "one");
    until(|| server.status_as(&token, PATHS[0]) == 401).await;
}

/// Waits until a change takes effect, for at most [`EFFECTIVE_WITHIN`].
async fn until(in_effect: impl Fn() -> bool) {
    let start = Instant::now();
    while !in_effect() {
        assert!(
            start.elapsed() < EFFECTIVE_WITHIN,
            "not in effect after {EFFECTIVE_WITHIN:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn without_tokens_the_server_listens_only_locally_unless_anonymous_access_is_allowed() {
    let database = two_tenants().await;
    for address in ["0.0.0.0:0", "[::]:0"] {
        let run = simusage(database.url(), &["serve", "--listen", address]);
        assert_eq!(run.status, 1, "{run:?}");
        let way_out = format!(
            "no tokens exist, so anyone who can reach {address} could read all data: create a token with \
             `simusage token create NAME`, or pass --allow-anonymous"
        );
        assert!(run.stderr.contains(&way_out), "{run:?}");
    }
    let everywhere = [("SIMUSAGE_SERVE_LISTEN", "0.0.0.0:0")];
    let server = Server::start_with(database.url(), &["--allow-anonymous"], &everywhere);
    assert_eq!(status(&server.get(PATHS[0])), 200);
    drop(server);
    let token = create(&database, &["one"]);
    for options in [&["--allow-anonymous"] as &[&str], &[]] {
        let server = Server::start_with(database.url(), options, &everywhere);
        assert_eq!(status(&server.get(PATHS[0])), 401, "{options:?}");
        assert_eq!(server.status_as(&token, PATHS[0]), 200);
    }
}

#[tokio::test]
async fn a_token_is_required_always_or_never_if_the_settings_say_so() {
    let database = two_tenants().await;
    let required = ("SIMUSAGE_SERVE_REQUIRE_TOKEN", "true");
    let optional = ("SIMUSAGE_SERVE_REQUIRE_TOKEN", "false");
    let everywhere = ("SIMUSAGE_SERVE_LISTEN", "0.0.0.0:0");
    // An empty or wrong database opens nothing.
    let server = Server::start_with(database.url(), &[], &[required, everywhere]);
    server.until_logged("no tokens exist, and serve.require_token is true");
    for path in PATHS {
        assert_eq!(status(&server.get(path)), 401, "{path}");
    }
    let token = create(&database, &["bound", "--organization", "x00g9"]);
    let deadline = Instant::now() + EFFECTIVE_WITHIN;
    while server.status_as(&token, "/api/v1/inventory") != 200 {
        assert!(Instant::now() < deadline, "the token is not accepted");
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(server);
    let server = Server::start_with(database.url(), &[], &[optional, everywhere]);
    server.until_logged("serve.require_token is false: anyone who can reach 0.0.0.0:0");
    let foreign = FOREIGN[0].0;
    assert_eq!(status(&server.get(foreign)), 200);
    assert_eq!(server.status_as(&token, foreign), 404);
    assert_eq!(server.status_as("simusage_0", foreign), 401);
    drop(server);
    for (settings, arguments, expected_status, expected) in [
        (
            required,
            &["--allow-anonymous"] as &[&str],
            1,
            "--allow-anonymous contradicts serve.require_token = true",
        ),
        (
            ("SIMUSAGE_SERVE_REQUIRE_TOKEN", "yes"),
            &[],
            2,
            "SIMUSAGE_SERVE_REQUIRE_TOKEN: serve.require_token: cannot be 'yes'; use true, false or auto",
        ),
    ] {
        let mut command = command(
            database.url(),
            &[&["serve", "--listen=127.0.0.1:0"], arguments].concat(),
        );
        let run = Run::from(command.env(settings.0, settings.1).output().unwrap());
        assert!(
            run.status == expected_status && run.stderr.contains(expected),
            "{run:?}"
        );
    }
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn the_reader_role_can_serve_every_path_and_change_nothing() {
    require_native_server();
    let database = two_tenants().await;
    create(&database, &["all"]);
    let reader = database.reader().await;
    let settings = [("SIMUSAGE_SERVE_ROLE", &*reader)];
    let server = Server::start_with(database.url(), &[], &settings);
    let token = create(&database, &["another"]);
    until(|| server.status_as(&token, PATHS[0]) == 200).await;
    for path in PATHS {
        assert_eq!(
            server.status_as(&token, path),
            200,
            "{path}: {}",
            server.logged().join("\n")
        );
    }
    assert_eq!(status(&server.get("/readyz")), 200);

    let mut config = database.config();
    config.serve.role = reader;
    let pool = Pool::new(&config, 1);
    for statement in [
        "insert into organizations (name) values ('x')",
        "delete from usage_records",
        "delete from usage_records_recent",
        "update usage_levels set closed_before = 0",
        "update tokens set revoked_at = null",
        "truncate token_organizations",
        "select raw from rejected_records",
        "drop table tokens",
        "create table public.more (id integer)",
    ] {
        let error = pool
            .run(async |client| Ok(client.batch_execute(statement).await?))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("[42501]"), "{statement}: {error}");
    }
    assert_eq!(
        database
            .number("select count(*) from all_usage_records")
            .await,
        2
    );
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn a_role_that_does_not_exist_is_named_at_startup() {
    require_native_server();
    let database = TestDatabase::migrated().await;
    let run =
        crate::support::program::command(database.url(), &["serve", "--listen", "127.0.0.1:0"])
            .env("SIMUSAGE_SERVE_ROLE", "nobody_has_this_name")
            .output()
            .unwrap();
    let error = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(1), "{error}");
    assert!(
        error.contains("role \"nobody_has_this_name\" does not exist"),
        "{error}"
    );
}

/// The URL of the database for another user.
fn url_as(database: &TestDatabase, user: &str) -> String {
    let (_, host) = database.url().split_once('@').unwrap();
    format!("postgresql://{user}@{host}")
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn a_user_who_may_not_create_roles_migrates_without_the_reader_role() {
    require_native_server();
    let database = TestDatabase::empty().await;
    let admin = database.connect().await;
    let reader = database.reader().await;
    let owner = reader.replace("simusage_reader", "owner");
    admin
        .batch_execute(&format!(
            "create role {owner} login; create extension if not exists timescaledb; \
             grant all on schema public to {owner}"
        ))
        .await
        .unwrap();
    let url = url_as(&database, &owner);
    let migrated = simusage(&url, &["migrate"]);
    let checked = simusage(&url, &["migrate", "--check"]);
    let as_admin = simusage(database.url(), &["migrate"]);
    let again = simusage(&url, &["migrate", "--check"]);
    let drop = format!("drop owned by {owner} cascade; drop role {owner}");
    admin.batch_execute(&drop).await.unwrap();
    for run in [&migrated, &checked] {
        let warning = format!("the role {reader} does not exist, and this user may not create it");
        assert!(run.status == 0 && run.stderr.contains(&warning), "{run:?}");
    }
    let created = format!("applied {reader}: new role\napplied {reader}: read access to ");
    assert!(as_admin.stdout.contains(&created), "{as_admin:?}");
    assert_eq!((again.status, &*again.stderr), (0, ""), "{again:?}");
}

#[tokio::test]
async fn migrate_restores_missing_rights_and_check_reports_them() {
    let database = TestDatabase::migrated().await;
    let connection = database.connect().await;
    let reader = database.reader().await;
    let check = || simusage(database.url(), &["migrate", "--check"]);
    assert_eq!(check().status, 0);
    for (damage, expected) in [
        (
            format!("revoke select on tokens from {reader}"),
            "read access to tokens",
        ),
        (
            format!("revoke usage on schema public from {reader}, public"),
            "read access to schema public",
        ),
        (
            format!(
                "revoke all on ingest_sources from {reader}; \
                 revoke execute on all functions in schema public from public"
            ),
            "read access to ingest_sources, function ",
        ),
        // As in a dump that was restored on another server.
        (
            format!("drop owned by {reader}; drop role {reader}"),
            "new role",
        ),
    ] {
        connection.batch_execute(&damage).await.unwrap();
        let pending = check();
        let line = format!("pending {reader}: {expected}");
        assert!(
            pending.status == 1 && pending.stdout.contains(&line),
            "{damage}: {pending:?}"
        );
        assert_eq!(check().stdout, pending.stdout, "--check changes something");
        let repaired = simusage(database.url(), &["migrate"]);
        assert_eq!(repaired.status, 0, "{repaired:?}");
        let after = check();
        assert_eq!(
            (after.status, &*after.stdout),
            (0, "the schema is up to date\n")
        );
        let read = format!("set role {reader}; select from tokens; reset role");
        connection.batch_execute(&read).await.unwrap();
    }
    // For the databases of other tests.
    let public = "grant usage on schema public to public; \
                  grant execute on all functions in schema public to public";
    connection.batch_execute(public).await.unwrap();
}

#[tokio::test]
async fn the_reader_of_another_database_loses_its_rights() {
    let database = TestDatabase::migrated().await;
    let connection = database.connect().await;
    let other = format!("{}_other", database.reader().await);
    let create = format!(
        "drop role if exists {other}; create role {other}; \
         grant select on tokens, organizations, ingest_sources to {other}"
    );
    connection.batch_execute(&create).await.unwrap();
    let pending = simusage(database.url(), &["migrate", "--check"]);
    let migrated = simusage(database.url(), &["migrate"]);
    let rights = format!(
        "select count(*) from unnest(array['tokens', 'organizations', 'ingest_sources']) as r (name) \
         where has_table_privilege('{other}', name, 'select')"
    );
    let left = database.number(&rights).await;
    let drop = format!("drop owned by {other}; drop role {other}");
    connection.batch_execute(&drop).await.unwrap();
    let line = format!("pending {other}: no access to ingest_sources, organizations, tokens\n");
    assert!(pending.status == 1 && pending.stdout == line, "{pending:?}");
    assert_eq!((migrated.status, left), (0, 0), "{migrated:?}");
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn a_login_of_one_database_cannot_read_another() {
    require_native_server();
    let (one, other) = (two_tenants().await, two_tenants().await);
    let (reader, other_reader) = (one.reader().await, other.reader().await);
    assert_ne!(reader, other_reader);
    let login = reader.replace("simusage_reader", "login");
    let admin = one.connect().await;
    let create = format!("create role {login} login in role {reader}");
    admin.batch_execute(&create).await.unwrap();
    let read = async |database: &TestDatabase, statement: &str| {
        let config = crate::support::config(&url_as(database, &login));
        let connection = simusage::db::connect(&config.database).await.unwrap();
        let read = connection.batch_execute(statement).await;
        connection.close().await;
        read.map_err(|error| error.code().unwrap().code().to_owned())
    };
    let mut outcomes = vec![];
    for statement in [
        "select from tokens",
        "select from organizations",
        "select from ingest_sources",
    ] {
        outcomes.push((read(&one, statement).await, read(&other, statement).await));
    }
    let switch = format!("set role {other_reader}");
    outcomes.push((Ok(()), read(&other, &switch).await));
    admin
        .batch_execute(&format!("drop role {login}"))
        .await
        .unwrap();
    for outcome in outcomes {
        assert_eq!(outcome, (Ok(()), Err("42501".to_owned())));
    }
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn concurrently_migrated_databases_have_a_reader_each() {
    require_native_server();
    let databases = [(); 4].map(|()| TestDatabase::empty());
    let databases = futures_util::future::join_all(databases).await;
    let migrations = databases.iter().map(|database| async {
        let config = database.config();
        simusage::db::migrate::migrate(&config.database, &config.storage, &config.feeds).await
    });
    let reports = futures_util::future::join_all(migrations).await;
    for (database, report) in databases.iter().zip(reports) {
        let (report, reader) = (report.unwrap(), database.reader().await);
        assert!(
            report.settings.contains(&format!("{reader}: new role")),
            "{report:?}"
        );
    }
}

/// Stores a record of x00g8 or x00g9, and loads an inventory.
fn store(database: &TestDatabase, sim_card: &str, bytes: u32, inventory: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("inventory.csv");
    std::fs::write(&file, format!("sim-card-id,org-id\n{inventory}")).unwrap();
    let record = format!(
        "{{\"sim-card-id\": \"{sim_card}\", \"bytes-used\": {bytes}, \"date\": \"2020-01-01T00:00:00Z\"}}\n"
    );
    let arguments = ["ingest", "--inventory", file.to_str().unwrap(), "-"];
    let run = simusage_with_input(database.url(), &arguments, &record);
    assert_eq!(run.status, 0, "{run:?}");
}

#[actix_web::test]
async fn what_others_store_changes_no_tag_of_a_page_for_a_token_of_one_organization() {
    let database = two_tenants().await;
    let token = create(&database, &["tenant", "--organization", "x00g8"]);
    let all = create(&database, &["all"]);
    let bearer = format!("Bearer {token}");
    let get = async |api: &Api, path: &str, tag: &str| {
        let headers = [("authorization", &*bearer), ("if-none-match", tag)];
        api.get_with(path, &headers).await
    };
    let api = Api::new(&database.config()).await;
    let mut tags = vec![];
    for path in PATHS {
        let answer = api.get_as(&token, path).await;
        assert_eq!(answer.status, 200, "{path}");
        let tag = answer.header("etag").to_owned();
        assert_ne!(tag, api.get_as(&all, path).await.header("etag"), "{path}");
        tags.push(tag);
    }
    // Another organization's usage of the same day, and another SIM card of it.
    store(&database, "2", 1_000, "3,x00g9\n");
    // Another worker, which has answered nothing yet.
    let other = Api::new(&database.config()).await;
    for (path, tag) in PATHS.iter().zip(&tags) {
        for api in [&api, &api, &other, &other] {
            let answer = get(api, path, tag).await;
            assert_eq!(
                (answer.status, answer.header("etag")),
                (304, &**tag),
                "{path}"
            );
            let answer = get(api, path, "\"other\"").await;
            assert_eq!(
                (answer.status, answer.header("etag")),
                (200, &**tag),
                "{path}"
            );
        }
    }
    // Once that has been found out, no usage is read until something is stored again.
    let connection = database.connect().await;
    let change = "set simusage.change_records = on;
                  update usage_records set bytes = 1; update usage_records_recent set bytes = 1;
                  update usage_levels set closed_before = 1099511627776
                      where level = 'organization_usage_recent'";
    connection.batch_execute(change).await.unwrap();
    drop(connection);
    for (path, tag) in PATHS.iter().zip(&tags) {
        let answer = get(&api, path, tag).await;
        assert_eq!(
            (answer.status, answer.header("etag")),
            (304, &**tag),
            "{path}"
        );
    }
    // Its own usage, and its own SIM cards.
    store(&database, "1", 5, "4,x00g8\n");
    for (path, tag) in PATHS.iter().zip(&tags) {
        for api in [&api, &other] {
            let answer = get(api, path, tag).await;
            assert_eq!(answer.status, 200, "{path}");
            let tag = answer.header("etag");
            assert_eq!(get(api, path, tag).await.status, 304, "{path}");
        }
    }
}
