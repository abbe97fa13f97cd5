//! Time zones, bucket widths, formats, cursors and caching of the API, through the real router.

use std::collections::BTreeMap;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use futures_util::FutureExt as _;
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::program::{command, simusage_with_input};
use crate::support::{TestDatabase, at};

const SIM: &str = "89440000000000000001";

/// One record every 17 minutes and 13 seconds for this many days, all with different bytes.
fn records(start: &str, days: i64) -> Vec<(&'static str, &'static str, DateTime<Utc>, i64)> {
    let (start, step) = (at(start), TimeDelta::seconds(17 * 60 + 13));
    let count = i32::try_from(days * 86_400 / step.num_seconds()).unwrap();
    (0..count)
        .map(|index| {
            (
                SIM,
                "x00g8",
                start + step * index,
                i64::from(index) * 1_000 + 7,
            )
        })
        .collect()
}

fn at_quarter(quarters: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(quarters * 900, 0).unwrap()
}

/// The start of the bucket of an instant in the zone. Unlike the program, it steps back through
/// the hours and days of the local time.
fn bucket_of(instant: DateTime<Utc>, every: &str, zone: Tz) -> String {
    let local = instant.with_timezone(&zone);
    let midnight = |date: NaiveDate| {
        zone.from_local_datetime(&date.and_hms_opt(0, 0, 0).unwrap())
            .earliest()
    };
    let start = match every {
        "1hour" => {
            // The last instant at which the clock showed a full hour or was moved forward. Both
            // happen at quarters of an hour.
            let quarter = TimeDelta::minutes(15);
            let quarters = instant.timestamp().div_euclid(quarter.num_seconds());
            let mut start = at_quarter(quarters).with_timezone(&zone);
            loop {
                let before = (start.to_utc() - quarter).with_timezone(&zone);
                let moved_forward = start.naive_local() - before.naive_local() > quarter;
                if start.format("%M").to_string() == "00" || moved_forward {
                    break start;
                }
                start = before;
            }
        }
        "1day" => midnight(local.date_naive()).unwrap(),
        "1week" => {
            let days = u64::from(local.weekday().num_days_from_monday());
            midnight(local.date_naive() - chrono::Days::new(days)).unwrap()
        }
        "1month" => midnight(local.date_naive().with_day(1).unwrap()).unwrap(),
        other => panic!("{other}"),
    };
    start.to_rfc3339_opts(chrono::SecondsFormat::Secs, zone == Tz::UTC)
}

#[actix_web::test]
async fn sums_are_exact_in_every_zone_across_clock_changes() {
    let database = TestDatabase::migrated().await;
    // Includes the clock changes of March, April (Lord Howe, Chatham) and October 2020.
    let mut all = records("2020-03-25T00:00:00Z", 14);
    all.extend(records("2020-10-20T00:00:00Z", 14));
    database.load(&all).await;
    let api = Api::new(&database.config()).await;
    for zone in [
        "UTC",
        "Europe/Berlin",
        "Asia/Kolkata",
        "Asia/Kathmandu",
        "America/St_Johns",
        "America/New_York",
        "Australia/Lord_Howe",
        "Pacific/Chatham",
        "Africa/Casablanca",
        "Etc/GMT+5",
    ] {
        let place: Tz = zone.parse().unwrap();
        for every in ["1hour", "1day", "1week", "1month"] {
            let mut expected: BTreeMap<DateTime<Utc>, (String, i64, i64)> = BTreeMap::new();
            for record in &all {
                let date = bucket_of(record.2, every, place);
                let sum = expected.entry(at(&date)).or_insert((date, 0, 0));
                (sum.1, sum.2) = (sum.1 + record.3, sum.2 + 1);
            }
            for resource in ["organization/x00g8", &format!("simcard/{SIM}")] {
                let path = format!(
                    "/api/v1/{resource}/usage?start=2020-03-01&end=2020-11-30&every={every}&tz={zone}&size=1000"
                );
                let body = api.ok(&path).await;
                let items: Vec<Value> = expected
                    .values()
                    .map(|(date, bytes, records)| json!({"date": date, "bytes-used-total": bytes, "records": records}))
                    .collect();
                assert_eq!(body["items"], json!(items), "{path}");
                assert_eq!(
                    (&body["tz"], &body["every"]),
                    (&json!(zone), &json!(every)),
                    "{path}"
                );
                let bytes: i64 = all.iter().map(|record| record.3).sum();
                assert_eq!(
                    (&body["total"], &body["bytes-used-total"]),
                    (&json!(items.len()), &json!(bytes)),
                    "{path}"
                );
            }
        }
    }
}

#[actix_web::test]
async fn dates_without_a_time_are_days_in_the_zone() {
    let database = TestDatabase::migrated().await;
    let edges = [
        "2020-01-31T18:29:59Z",
        "2020-01-31T18:30:00Z",
        "2020-02-01T18:29:59Z",
        "2020-02-01T18:30:00Z",
    ];
    let records: Vec<_> = edges
        .iter()
        .zip([1, 20, 300, 4_000])
        .map(|(time, bytes)| (SIM, "o", at(time), bytes))
        .collect();
    database.load(&records).await;
    let api = Api::new(&database.config()).await;
    for path in [
        "simcard/89440000000000000001/usage?every=1day&",
        "usage/simcards?",
        "usage/organizations?",
    ] {
        let body = api
            .ok(&format!(
                "/api/v1/{path}start=2020-02-01&end=2020-02-01&tz=Asia/Kolkata"
            ))
            .await;
        assert_eq!(body["bytes-used-total"], 320, "{path}");
        assert_eq!(
            (&body["start"], &body["end"]),
            (
                &json!("2020-02-01T00:00:00+05:30"),
                &json!("2020-02-02T00:00:00+05:30")
            )
        );
    }
}

#[actix_web::test]
async fn buckets_of_several_units_are_aligned_to_a_fixed_origin() {
    let database = TestDatabase::migrated().await;
    let times = [
        "2020-02-01T05:59:59Z",
        "2020-02-01T06:00:00Z",
        "2020-02-09T00:00:00Z",
        "2020-04-01T00:00:00Z",
    ];
    let records: Vec<_> = times
        .iter()
        .zip([1, 20, 300, 4_000])
        .map(|(time, bytes)| (SIM, "o", at(time), bytes))
        .collect();
    database.load(&records).await;
    let api = Api::new(&database.config()).await;
    for (every, expected) in [
        (
            "6hour",
            vec![
                "2020-02-01T00:00:00Z",
                "2020-02-01T06:00:00Z",
                "2020-02-09T00:00:00Z",
                "2020-04-01T00:00:00Z",
            ],
        ),
        (
            "P7D",
            vec![
                "2020-01-27T00:00:00Z",
                "2020-02-03T00:00:00Z",
                "2020-03-30T00:00:00Z",
            ],
        ),
        (
            "week",
            vec![
                "2020-01-27T00:00:00Z",
                "2020-02-03T00:00:00Z",
                "2020-03-30T00:00:00Z",
            ],
        ),
        ("P1M", vec!["2020-02-01T00:00:00Z", "2020-04-01T00:00:00Z"]),
        (
            "3month",
            vec!["2020-01-01T00:00:00Z", "2020-04-01T00:00:00Z"],
        ),
    ] {
        let body = api
            .ok(&format!(
                "/api/v1/organization/o/usage?start=2020-02-01&end=2020-04-30&every={every}"
            ))
            .await;
        let dates: Vec<_> = body["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["date"].as_str().unwrap())
            .collect();
        assert_eq!(
            (dates, &body["bytes-used-total"]),
            (expected, &json!(4_321)),
            "{every}"
        );
    }
}

#[actix_web::test]
async fn a_filled_series_has_every_bucket() {
    let database = TestDatabase::migrated().await;
    database
        .load(&[
            (SIM, "o", at("2020-01-02T05:00:00Z"), 5),
            (SIM, "o", at("2020-01-04T00:00:00Z"), 7),
        ])
        .await;
    let api = Api::new(&database.config()).await;
    let path = "/api/v1/organization/o/usage?start=2020-01-01&end=2020-01-05&every=1day&fill=zero";
    let bytes = |body: &Value| -> Vec<i64> {
        body["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["bytes-used-total"].as_i64().unwrap())
            .collect()
    };
    let body = api.ok(path).await;
    assert_eq!(
        (bytes(&body), &body["total"], &body["next"]),
        (vec![0, 5, 0, 7, 0], &json!(5), &Value::Null)
    );
    // The same page by page, and in each format.
    let mut pages = vec![];
    let mut next = format!("{path}&size=2");
    loop {
        let body = api.ok(&next).await;
        assert_eq!(
            (&body["total"], &body["bytes-used-total"]),
            (&json!(5), &json!(12)),
            "{next}"
        );
        pages.push(bytes(&body));
        let Some(path) = body["next"].as_str() else {
            break;
        };
        next = path.to_owned();
    }
    assert_eq!(pages, [vec![0, 5], vec![0, 7], vec![0]]);
    let csv = api.get(&format!("{path}&format=csv")).await.text;
    assert_eq!(csv.lines().count(), 6, "{csv}");
    assert!(
        csv.ends_with("2020-01-04T00:00:00Z,7,1\n2020-01-05T00:00:00Z,0,0\n"),
        "{csv}"
    );
    let page = api
        .get(&format!("{path}&format=ndjson&size=2&page=2"))
        .await
        .text;
    assert_eq!(page.lines().count(), 2, "{page}");
    assert!(
        page.starts_with(r#"{"date":"2020-01-03T00:00:00Z","bytes-used-total":0,"records":0}"#),
        "{page}"
    );
}

#[actix_web::test]
async fn lists_can_be_paged_in_each_order() {
    let database = TestDatabase::migrated().await;
    let time = at("2020-01-01T00:00:00Z");
    // Two pairs are equal, so that some pages end between equal totals.
    let ids = ["1", "2", "3", "4", "5", "6", "7"];
    let records: Vec<_> = ids
        .iter()
        .zip([5, 5, 1, 9, 9, 0, 3])
        .map(|(id, bytes)| (*id, "o", time, bytes))
        .collect();
    database.load(&records).await;
    let api = Api::new(&database.config()).await;
    for (sort, expected) in [
        ("-bytes", "4512736"),
        ("bytes", "6371245"),
        ("id", "1234567"),
    ] {
        for size in 1..=8 {
            let mut next = format!("/api/v1/usage/simcards?sort={sort}&size={size}");
            let mut found = String::new();
            loop {
                let body = api.ok(&next).await;
                assert_eq!(
                    (&body["total"], &body["bytes-used-total"]),
                    (&json!(7), &json!(32))
                );
                for item in body["items"].as_array().unwrap() {
                    found.push_str(item["simcard"].as_str().unwrap());
                }
                let Some(path) = body["next"].as_str() else {
                    break;
                };
                next = path.to_owned();
            }
            assert_eq!(found, expected, "{sort} by {size}");
        }
        let csv = api
            .get(&format!("/api/v1/usage/simcards?sort={sort}&format=csv"))
            .await
            .text;
        let ids: String = csv
            .lines()
            .skip(1)
            .map(|line| line.split(',').next().unwrap())
            .collect();
        assert_eq!(ids, expected);
    }
}

#[actix_web::test]
async fn a_cursor_is_valid_only_for_its_own_query() {
    let database = TestDatabase::migrated().await;
    database.load(&records("2020-01-01T00:00:00Z", 3)).await;
    let api = Api::new(&database.config()).await;
    let path =
        "/api/v1/organization/x00g8/usage?start=2020-01-01&end=2020-01-03&every=1hour&size=10";
    let next = api.ok(path).await["next"].as_str().unwrap().to_owned();
    assert_eq!(
        api.ok(&next).await["items"][0]["date"],
        "2020-01-01T10:00:00Z"
    );
    let other = next.replace("end=2020-01-03", "end=2020-01-04");
    let (status, detail) = api.problem(&other).await;
    assert!(
        status == 422 && detail.ends_with("it is not a cursor of this series."),
        "{status} {detail}"
    );
    for path in [
        &format!("{path}&cursor=hello"),
        "/api/v1/usage/simcards?cursor=hello",
        "/api/v1/inventory?cursor=hello",
    ] {
        let (status, detail) = api.problem(path).await;
        let expected = "Query parameter 'cursor' cannot be hello: this server did not create it; copy it \
                        from 'next' without changes.";
        assert_eq!((status, &*detail), (400, expected), "{path}");
    }
}

#[actix_web::test]
async fn cursors_are_valid_on_all_servers_of_a_database_until_its_key_changes() {
    let database = TestDatabase::migrated().await;
    database.load(&records("2020-01-01T00:00:00Z", 3)).await;
    let path =
        "/api/v1/organization/x00g8/usage?start=2020-01-01&end=2020-01-03&every=1hour&size=10";
    let next = {
        let api = Api::new(&database.config()).await;
        api.ok(path).await["next"].as_str().unwrap().to_owned()
    };
    let other = Api::new(&database.config()).await;
    other.ok(&next).await;
    let new_key = "update cursor_key set key = sha256(key)";
    database
        .connect()
        .await
        .batch_execute(new_key)
        .await
        .unwrap();
    other.ok(&next).await;
    other.refresh_tokens().await;
    assert_eq!(other.get(&next).await.status, 400);
    let next = other.ok(path).await["next"].as_str().unwrap().to_owned();
    other.ok(&next).await;
}

#[actix_web::test]
async fn a_forged_cursor_or_prefix_is_refused() {
    let database = TestDatabase::migrated().await;
    let mut loaded = records("2020-01-01T00:00:00Z", 3);
    loaded.push(("89440000000000000002", "x00g8", loaded[0].2, 1));
    database.load(&loaded).await;
    let api = Api::new(&database.config()).await;
    let series =
        "/api/v1/organization/x00g8/usage?start=2020-01-01&end=2020-01-03&every=1hour&size=1";
    for (path, forged) in [
        (series, json!({"from": 1, "total": -999, "bytes": 1})),
        // One that could be authentic.
        (series, json!({"from": 2, "total": 72, "bytes": 72})),
        (series, json!({"from": 1, "total": 1, "bytes": -999})),
        (
            "/api/v1/usage/simcards?size=1",
            json!({"bytes": 1, "id": "8944\u{0}"}),
        ),
        (
            "/api/v1/usage/simcards?size=1",
            json!({"bytes": -1, "id": "8944"}),
        ),
        (
            "/api/v1/inventory?size=1",
            json!({"sim_card": "8944\u{0}", "valid_from": null, "total": 1}),
        ),
        (
            "/api/v1/inventory?size=1",
            json!({"sim_card": "8944", "valid_from": null, "total": -1}),
        ),
    ] {
        let next = api.ok(path).await["next"].as_str().unwrap().to_owned();
        let (link, cursor) = next.split_once("&cursor=").unwrap();
        let cursor = URL_SAFE_NO_PAD.decode(cursor).unwrap();
        let (hash, contents) = cursor.split_at(16);
        let mut contents: Value = serde_json::from_slice(contents).unwrap();
        contents[1] = forged;
        let cursor = URL_SAFE_NO_PAD.encode([hash, contents.to_string().as_bytes()].concat());
        let (status, detail) = api.problem(&format!("{link}&cursor={cursor}")).await;
        assert!(
            status == 400 && detail.contains("this server did not create it"),
            "{path}: {status} {detail}"
        );
    }
    let detail = r"Query parameter 'q' cannot be 8\0: it contains a control character.";
    let path = "/api/v1/inventory?q=8%00";
    assert_eq!(api.problem(path).await, (422, detail.to_owned()));
}

#[actix_web::test]
async fn a_condition_on_any_response_holds_only_for_what_exists() {
    let database = TestDatabase::migrated().await;
    database.load(&records("2020-01-01T00:00:00Z", 3)).await;
    let api = Api::new(&database.config()).await;
    for (organization, expected) in [("x00g8", 304), ("nobody", 404)] {
        let path = format!(
            "/api/v1/organization/{organization}/usage?start=2020-01-01&end=2020-01-03&every=1hour"
        );
        let answer = api.get_with(&path, &[("if-none-match", "*")]).await;
        assert_eq!(answer.status, expected, "{organization}");
    }
}

#[actix_web::test]
async fn the_link_header_links_to_other_pages() {
    let database = TestDatabase::migrated().await;
    database.load(&records("2020-01-01T00:00:00Z", 1)).await;
    let api = Api::new(&database.config()).await;
    let path = "/api/v1/organization/x00g8/usage?start=2020-01-01&end=2020-01-01&every=1hour&size=10&page=2";
    let answer = api.get(path).await;
    let links: Vec<_> = answer.header("link").split(", ").collect();
    assert_eq!(
        links[0],
        format!("<{}>; rel=\"first\"", path.replace("page=2", "page=1"))
    );
    assert_eq!(
        links[1],
        format!("<{}>; rel=\"prev\"", path.replace("page=2", "page=1"))
    );
    assert_eq!(
        links[2],
        format!("<{}>; rel=\"next\"", answer.body["next"].as_str().unwrap())
    );
}

#[actix_web::test]
async fn csv_and_ndjson_have_the_same_content_as_json() {
    let database = TestDatabase::migrated().await;
    database.load(&records("2020-01-01T00:00:00Z", 5)).await;
    let api = Api::new(&database.config()).await;
    for (path, id) in [
        (
            "/api/v1/organization/x00g8/usage?start=2020-01-01&end=2020-01-31&every=1hour&tz=Asia/Kolkata",
            "date",
        ),
        (
            "/api/v1/usage/organizations?start=2020-01-02",
            "organization",
        ),
        ("/api/v1/usage/simcards?organization=x00g8", "simcard"),
    ] {
        let items = api.ok(&format!("{path}&size=1000")).await["items"].clone();
        let items = items.as_array().unwrap();
        let csv = api
            .get_with(path, &[("accept", "text/html;q=0.9, text/csv")])
            .await;
        assert_eq!(
            (csv.status, csv.header("content-type")),
            (200, "text/csv; charset=utf-8")
        );
        let mut lines = csv.text.lines();
        assert_eq!(
            lines.next().unwrap(),
            format!("{id},bytes-used-total,records")
        );
        let written: Vec<_> = items
            .iter()
            .map(|item| {
                format!(
                    "{},{},{}",
                    item[id].as_str().unwrap(),
                    item["bytes-used-total"],
                    item["records"]
                )
            })
            .collect();
        assert_eq!(lines.collect::<Vec<_>>(), written);
        let ndjson = api.get(&format!("{path}&format=ndjson")).await;
        assert_eq!(
            (ndjson.status, ndjson.header("content-type")),
            (200, "application/x-ndjson")
        );
        let parsed: Vec<Value> = ndjson
            .text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(&parsed, items);
    }
    let csv = api.get("/api/v1/inventory?format=csv").await.text;
    assert_eq!(
        csv,
        format!("sim-card-id,org-id,valid-from,valid-until\n{SIM},x00g8,,\n")
    );
    let refused = api
        .get_with("/api/v1/inventory", &[("accept", "image/png")])
        .await;
    assert_eq!(
        (refused.status, refused.header("content-type")),
        (406, "application/problem+json")
    );
    // An unknown organization is a problem response in every format.
    let nobody =
        "/api/v1/organization/nobody/usage?start=2020-01-01&end=2020-01-31&every=1day&format=csv";
    assert_eq!(
        api.problem(nobody).await,
        (404, "No organization nobody found!".to_owned())
    );
    // A connection can be reused after streaming.
    for _ in 0..5 {
        api.get("/api/v1/usage/organizations?format=csv").await;
        api.ok("/api/v1/usage/organizations").await;
    }
}

#[actix_web::test]
async fn the_inventory_can_be_filtered_by_organization_and_prefix() {
    let database = TestDatabase::migrated().await;
    let time = at("2020-01-01T00:00:00Z");
    database
        .load(&[
            ("8901", "abc", time, 1),
            ("8902", "abd", time, 1),
            ("8911", "xyz", time, 1),
        ])
        .await;
    let api = Api::new(&database.config()).await;
    let found = async |query: &str| -> Vec<String> {
        let body = api.ok(&format!("/api/v1/inventory?{query}")).await;
        assert_eq!(body["total"], body["items"].as_array().unwrap().len());
        body["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["simcard"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(found("q=890").await, ["8901", "8902"]);
    assert_eq!(found("q=ab").await, ["8901", "8902"]);
    assert_eq!(found("q=%25").await, Vec::<String>::new());
    assert_eq!(found("organization=abd").await, ["8902"]);
    assert_eq!(found("organization=abd&q=8901").await, Vec::<String>::new());
    assert_eq!(
        api.problem("/api/v1/inventory?organization=no").await,
        (404, "No organization no found!".to_owned())
    );
    // The second of two pages.
    let next = api.ok("/api/v1/inventory?size=2").await["next"]
        .as_str()
        .unwrap()
        .to_owned();
    let body = api.ok(&next).await;
    assert_eq!(
        (&body["items"][0]["simcard"], &body["total"], &body["next"]),
        (&json!("8911"), &json!(3), &Value::Null)
    );
}

#[actix_web::test]
async fn too_many_buckets_are_refused_and_the_limit_named() {
    let database = TestDatabase::migrated().await;
    let mut config = database.config();
    config.serve.max_buckets = 24;
    let api = Api::new(&config).await;
    let path = "/api/v1/organization/o/usage?start=2020-01-01&end=2020-01-02&every=1hour";
    let detail = "Query parameter 'every' cannot be 1hour: the interval has more than 24 buckets, \
                  the limit set by serve.max_buckets.";
    assert_eq!(api.problem(path).await, (422, detail.to_owned()));
    assert_eq!(api.get(&path.replace("1hour", "2hour")).await.status, 404);
}

fn ndjson(records: &[(&str, i64)]) -> String {
    let line = |&(date, bytes): &(&str, i64)| {
        format!(
            "{}\n",
            json!({"sim-card-id": SIM, "bytes-used": bytes, "date": date})
        )
    };
    records.iter().map(line).collect()
}

async fn ingest(database: &TestDatabase, records: &[(&str, i64)]) {
    let folder = tempfile::tempdir().unwrap();
    let inventory = folder.path().join("inventory.csv");
    std::fs::write(&inventory, format!("sim-card-id,org-id\n{SIM},o\n")).unwrap();
    if database.number("select count(*) from sim_cards").await == 0 {
        assert!(
            command(database.url(), &["ingest", "--inventory"])
                .arg(&inventory)
                .output()
                .unwrap()
                .status
                .success()
        );
    }
    assert_eq!(
        simusage_with_input(database.url(), &["ingest", "-"], &ndjson(records)).status,
        0
    );
}

#[actix_web::test]
async fn an_unchanged_response_is_not_sent_again() {
    let database = TestDatabase::migrated().await;
    ingest(
        &database,
        &[("2020-01-02T05:00:00Z", 5), ("2020-02-02T05:00:00Z", 7)],
    )
    .await;
    let api = Rc::new(Api::new(&database.config()).await);
    let january = "/api/v1/organization/o/usage?start=2020-01-01&end=2020-01-31&every=1day";
    let february = "/api/v1/usage/simcards?start=2020-02-01&end=2020-02-29";
    let mut tags = vec![];
    for path in [january, february, "/api/v1/inventory"] {
        let answer = api.get(path).await;
        let tag = answer.header("etag").to_owned();
        assert!(tag.starts_with("W/\""), "{path}: {tag}");
        assert_eq!(answer.header("vary"), "accept, authorization", "{path}");
        for format in ["", "csv", "ndjson"] {
            let (path, tag) = if format.is_empty() {
                (path.to_owned(), tag.clone())
            } else {
                let separator = if path.contains('?') { '&' } else { '?' };
                let path = format!("{path}{separator}format={format}");
                let other = api.get(&path).await.header("etag").to_owned();
                assert_ne!(other, tag, "{path}");
                (path, other)
            };
            let again = api.get_with(&path, &[("if-none-match", &tag)]).await;
            assert_eq!(
                (again.status, again.text.as_str(), again.header("etag")),
                (304, "", tag.as_str()),
                "{path}"
            );
            assert_eq!(
                api.get_with(&path, &[("if-none-match", "W/\"other\"")])
                    .await
                    .status,
                200
            );
        }
        tags.push(tag);
    }
    // A late record invalidates only the responses that include it.
    ingest(&database, &[("2020-01-03T05:00:00Z", 1)]).await;
    let changed = api.get_with(january, &[("if-none-match", &tags[0])]).await;
    assert_eq!(
        (changed.status, &changed.body["bytes-used-total"]),
        (200, &json!(6))
    );
    assert_eq!(
        api.get_with(february, &[("if-none-match", &tags[1])])
            .await
            .status,
        304
    );
}

#[actix_web::test]
async fn series_and_lists_are_cached_while_they_are_valid() {
    let database = TestDatabase::migrated().await;
    ingest(&database, &[("2020-01-02T05:00:00Z", 5)]).await;
    let api = Api::new(&database.config()).await;
    let january = "start=2020-01-01&end=2020-01-31";
    let paths = [
        format!("/api/v1/organization/o/usage?{january}&every=1day"),
        format!("/api/v1/usage/organizations?{january}"),
        format!("/api/v1/usage/simcards?{january}&organization=o"),
        format!("/api/v1/usage/simcards?{january}&sort=id&size=1"),
    ];
    let mut first = vec![];
    for path in &paths {
        first.push(api.ok(path).await);
    }
    // Records of another month change only the times up to which the response is complete.
    ingest(&database, &[("2020-02-02T05:00:00Z", 7)]).await;
    for (path, first) in paths.iter().zip(first) {
        let mut again = api.ok(path).await;
        assert_eq!(again["complete-through"], "2020-02-02T05:00:00Z");
        for field in ["complete-through", "last-ingested-at"] {
            again[field] = first[field].clone();
        }
        assert_eq!(again, first, "{path}");
    }
    // The record is changed without an ingest, so only cached answers still have the sum.
    let connection = database.connect().await;
    let change = "set simusage.change_records = on;
                  update usage_records_recent set bytes = 1 where time < '2020-02-01'";
    connection.batch_execute(change).await.unwrap();
    let close = "update usage_levels set closed_before = 1099511627776 where level = 'organization_usage_recent'";
    connection.batch_execute(close).await.unwrap();
    let mut without_cache = database.config();
    without_cache.serve.cache_mb = 0;
    let without_cache = Api::new(&without_cache).await;
    for path in paths.iter().chain(&paths) {
        assert_eq!(api.ok(path).await["bytes-used-total"], 5, "{path}");
        let read = without_cache.ok(path).await;
        assert_eq!(read["bytes-used-total"], 1, "{path}");
    }
    // An If-None-Match with another ETag gets the current answer.
    drop(connection);
    ingest(&database, &[("2020-01-03T05:00:00Z", 1)]).await;
    for path in paths.iter().chain(&paths) {
        let answer = api
            .get_with(path, &[("if-none-match", "W/\"other\"")])
            .await;
        assert_eq!(
            (answer.status, &answer.body["bytes-used-total"]),
            (200, &json!(2)),
            "{path}"
        );
    }
}

#[actix_web::test]
async fn concurrent_requests_that_validate_cached_series_each_get_their_own() {
    let database = TestDatabase::migrated().await;
    ingest(
        &database,
        &[
            ("2020-01-02T05:00:00Z", 5),
            ("2020-01-03T05:00:00Z", 6),
            ("2020-01-04T05:00:00Z", 7),
        ],
    )
    .await;
    let api = Api::new(&database.config()).await;
    let path = |day| {
        format!("/api/v1/organization/o/usage?start=2020-01-0{day}&end=2020-01-0{day}&every=1hour")
    };
    let mut days = vec![];
    for day in 1..=5 {
        days.push(api.ok(&path(day)).await);
    }
    // The request that started the validation may be cancelled.
    assert!(api.ok(&path(1)).now_or_never().is_none());
    let indexes: Vec<usize> = (0..40).map(|number| number % days.len()).collect();
    let paths: Vec<String> = indexes.iter().map(|&number| path(number + 1)).collect();
    let answers = futures_util::future::join_all(paths.iter().map(|path| api.ok(path))).await;
    for (number, answer) in indexes.into_iter().zip(answers) {
        assert_eq!(answer, days[number]);
    }
    // The cached series are validated again after an ingest.
    ingest(&database, &[("2020-01-02T06:00:00Z", 1)]).await;
    let answers = futures_util::future::join_all(paths.iter().map(|path| api.ok(path))).await;
    let bytes: Vec<_> = answers
        .iter()
        .take(5)
        .map(|answer| answer["bytes-used-total"].as_i64().unwrap())
        .collect();
    assert_eq!(bytes, [0, 6, 6, 7, 0]);
}

#[actix_web::test]
async fn a_response_says_up_to_when_it_is_complete() {
    let database = TestDatabase::migrated().await;
    let api = Api::new(&database.config()).await;
    let body = api.ok("/api/v1/usage/organizations").await;
    assert_eq!(
        (&body["complete-through"], &body["last-ingested-at"]),
        (&Value::Null, &Value::Null)
    );
    let before = Utc::now() - TimeDelta::minutes(1);
    ingest(
        &database,
        &[
            ("2020-01-02T05:00:00Z", 5),
            ("2020-02-02T05:12:34Z", 7),
            ("2020-02-01T05:00:00Z", 7),
        ],
    )
    .await;
    let path = "/api/v1/organization/o/usage?start=2020-01-01&end=2020-02-29&every=1day";
    let body = api.ok(path).await;
    assert_eq!(body["complete-through"], "2020-02-02T05:12:34Z");
    let last = at(body["last-ingested-at"].as_str().unwrap());
    assert!(
        before < last && last < Utc::now() + TimeDelta::minutes(1),
        "{last}"
    );
    // Older records change last-ingested-at, not complete-through.
    ingest(&database, &[("2019-01-02T05:00:00Z", 5)]).await;
    let body = api.ok(path).await;
    assert_eq!(body["complete-through"], "2020-02-02T05:12:34Z");
    assert!(at(body["last-ingested-at"].as_str().unwrap()) > last);
    let february = api
        .ok("/api/v1/usage/simcards?start=2020-02-01&tz=Europe/Berlin")
        .await;
    assert_eq!(february["complete-through"], "2020-02-02T06:12:34+01:00");
    // The slowest partition of a topic limits it as well.
    let partitions = "insert into ingest_sources (kind, identity, name, newest_record_at, batches) values
        ('kafka', 'c/usage/0/g', '', '2021-01-01T00:00:00Z', 1), ('kafka', 'c/usage/1/g', '', '2020-01-05T00:00:00Z', 1),
        ('kafka', 'c/usage/2/g', '', null, 1)";
    database
        .connect()
        .await
        .batch_execute(partitions)
        .await
        .unwrap();
    assert_eq!(
        api.ok("/api/v1/usage/simcards?start=2020-02-01").await["complete-through"],
        "2020-01-05T00:00:00Z"
    );
}

/// The server calculates the starts of many buckets, from runs at equal distances.
#[actix_web::test]
async fn a_long_series_has_the_buckets_of_shorter_ones() {
    let database = TestDatabase::migrated().await;
    ingest(
        &database,
        &[
            ("2020-01-01T00:30:00Z", 1),
            ("2020-03-29T00:59:59Z", 2),
            ("2020-03-29T01:00:00Z", 4),
            ("2020-07-01T12:00:00Z", 8),
            ("2020-10-25T00:30:00Z", 16),
            ("2020-10-25T01:30:00Z", 32),
            ("2020-12-31T12:59:59Z", 64),
        ],
    )
    .await;
    let api = Api::new(&database.config()).await;
    for subject in ["organization/o", &format!("simcard/{SIM}")] {
        for tz in ["UTC", "Europe/Berlin", "Australia/Lord_Howe"] {
            let series = async |start: &str, end: &str| {
                let path = format!(
                    "/api/v1/{subject}/usage?start={start}&end={end}&every=1hour&tz={tz}&size=1000"
                );
                api.ok(&path).await["items"].as_array().unwrap().clone()
            };
            let mut months = vec![];
            for (month, days) in [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
                .iter()
                .enumerate()
            {
                let month = format!("2020-{:02}", month + 1);
                months.extend(series(&format!("{month}-01"), &format!("{month}-{days}")).await);
            }
            assert_eq!(months.len(), 7, "{tz}: {months:?}");
            assert_eq!(
                series("2020-01-01", "2020-12-31").await,
                months,
                "{subject}, {tz}"
            );
        }
    }
}
