//! The API through the real router, on a real database.

use std::collections::BTreeMap;

use actix_web::http::Method;
use chrono::{DateTime, DurationRound, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};
use simusage::db::Pool;

use crate::support::api::Api;
use crate::support::program::load_inventory;
use crate::support::{TestDatabase, UNREACHABLE, at, config};

const ONE: &str = "89440000000000000001";
const TWO: &str = "89440000000000000002";
const THREE: &str = "8944000000000000003";

fn text(instant: DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Records of two organizations and three SIM cards, the third of which moves within an hour.
fn example() -> Vec<(&'static str, &'static str, DateTime<Utc>, i64)> {
    vec![
        (ONE, "x00g8", at("2020-01-01T00:00:00Z"), 100),
        (ONE, "x00g8", at("2020-01-01T00:59:59.999999Z"), 20),
        (ONE, "x00g8", at("2020-01-01T05:30:00Z"), 3),
        (ONE, "x00g8", at("2020-01-31T23:59:59Z"), 4_000),
        (ONE, "x00g8", at("2020-02-01T00:00:00Z"), 50_000),
        (TWO, "x00g9", at("2020-01-01T00:15:00Z"), 7),
        (TWO, "x00g9", at("2020-01-02T00:00:00Z"), 0),
        (THREE, "x00g8", at("2020-01-03T10:15:00Z"), 1),
        (THREE, "x00g9", at("2020-01-03T10:45:00Z"), 2),
    ]
}

#[actix_web::test]
async fn a_series_has_the_documented_fields() {
    let database = TestDatabase::migrated().await;
    database.load(&example()).await;
    let api = Api::new(&database.config()).await;

    let path = "/api/v1/organization/x00g8/usage?start=2020-01-01&end=2020-01-31&every=1hour&page=1&size=2";
    let expected = json!({
        "items": [
            {"date": "2020-01-01T00:00:00Z", "bytes-used-total": 120, "records": 2},
            {"date": "2020-01-01T05:00:00Z", "bytes-used-total": 3, "records": 1},
        ],
        "total": 4, "page": 1, "size": 2,
        "start": "2020-01-01T00:00:00Z", "end": "2020-02-01T00:00:00Z", "every": "1hour", "tz": "UTC",
        "bytes-used-total": 4124,
        "next": "/api/v1/organization/x00g8/usage?start=2020-01-01&end=2020-01-31&every=1hour&size=2&page=2",
    });
    assert_eq!(api.page(path).await, expected);

    let path =
        format!("/api/v1/simcard/{ONE}/usage?start=2020-01-01T00:30:00Z&end=2020-02-01&every=P1D");
    let expected = json!({
        "items": [
            {"date": "2020-01-01T00:00:00Z", "bytes-used-total": 23, "records": 2},
            {"date": "2020-01-31T00:00:00Z", "bytes-used-total": 4000, "records": 1},
            {"date": "2020-02-01T00:00:00Z", "bytes-used-total": 50000, "records": 1},
        ],
        "total": 3, "page": 1, "size": 50,
        "start": "2020-01-01T00:30:00Z", "end": "2020-02-02T00:00:00Z", "every": "1day", "tz": "UTC",
        "bytes-used-total": 54023,
        "next": null,
    });
    assert_eq!(api.page(&path).await, expected);

    let answer = api.request(Method::HEAD, &path).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json")
    );
}

#[actix_web::test]
async fn lists_are_sorted_filtered_and_paged() {
    let database = TestDatabase::migrated().await;
    database.load(&example()).await;
    let api = Api::new(&database.config()).await;

    let expected = json!({
        "items": [
            {"organization": "x00g8", "bytes-used-total": 54124, "records": 6},
            {"organization": "x00g9", "bytes-used-total": 9, "records": 3},
        ],
        "total": 2, "page": 1, "size": 50, "start": null, "end": null, "tz": "UTC",
        "bytes-used-total": 54133, "next": null,
    });
    assert_eq!(api.page("/api/v1/usage/organizations").await, expected);
    assert_eq!(
        api.page("/api/v1/usage/organizations?every=1day").await,
        expected
    );

    let expected = json!({
        "items": [{"simcard": TWO, "bytes-used-total": 7, "records": 2}],
        "total": 3, "page": 2, "size": 1, "start": null, "end": "2020-01-04T00:00:00Z", "tz": "UTC",
        "bytes-used-total": 133, "next": "/api/v1/usage/simcards?size=1&end=2020-01-03&page=3",
    });
    assert_eq!(
        api.page("/api/v1/usage/simcards?page=2&size=1&end=2020-01-03")
            .await,
        expected
    );

    let body = api
        .ok("/api/v1/usage/simcards?organization=x00g8&start=2020-01-03")
        .await;
    let expected = json!([
        {"simcard": ONE, "bytes-used-total": 54000, "records": 2},
        {"simcard": THREE, "bytes-used-total": 1, "records": 1},
    ]);
    assert_eq!(
        (&body["items"], &body["start"]),
        (&expected, &json!("2020-01-03T00:00:00Z"))
    );

    // A SIM card whose records add up to 0 bytes is listed; one without records is not.
    let body = api
        .ok("/api/v1/usage/simcards?start=2020-01-02&end=2020-01-02")
        .await;
    assert_eq!(
        body["items"],
        json!([{"simcard": TWO, "bytes-used-total": 0, "records": 1}])
    );
    let body = api.ok("/api/v1/usage/organizations?start=2021-01-01").await;
    assert_eq!(
        (&body["items"], &body["total"], &body["bytes-used-total"]),
        (&json!([]), &json!(0), &json!(0))
    );
}

#[actix_web::test]
async fn equal_totals_are_sorted_by_identifier() {
    let database = TestDatabase::migrated().await;
    let time = at("2020-01-01T00:00:00Z");
    database
        .load(&[
            ("3", "b", time, 5),
            ("1", "c", time, 5),
            ("2", "a", time, 5),
        ])
        .await;
    let api = Api::new(&database.config()).await;
    for (path, name, expected) in [
        (
            "/api/v1/usage/organizations",
            "organization",
            ["a", "b", "c"],
        ),
        ("/api/v1/usage/simcards", "simcard", ["1", "2", "3"]),
    ] {
        let body = api.ok(path).await;
        let ids: Vec<_> = body["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item[name].as_str().unwrap())
            .collect();
        assert_eq!(ids, expected);
    }
}

#[actix_web::test]
async fn the_inventory_lists_every_assignment() {
    let database = TestDatabase::migrated().await;
    database.load(&example()).await;
    let api = Api::new(&database.config()).await;
    let moved = "2020-01-03T10:45:00Z";
    let expected = json!({
        "items": [
            {"simcard": ONE, "organization": "x00g8", "valid-from": null, "valid-until": null},
            {"simcard": TWO, "organization": "x00g9", "valid-from": null, "valid-until": null},
            {"simcard": THREE, "organization": "x00g8", "valid-from": null, "valid-until": moved},
        ],
        "total": 4, "page": 1, "size": 3, "next": "/api/v1/inventory?size=3&page=2",
    });
    assert_eq!(api.page("/api/v1/inventory?size=3").await, expected);
    let body = api.ok("/api/v1/inventory?size=3&page=2").await;
    assert_eq!(
        (&body["items"], &body["next"]),
        (
            &json!([{"simcard": THREE, "organization": "x00g9", "valid-from": moved, "valid-until": null}]),
            &Value::Null
        )
    );
    assert_eq!(api.ok("/api/v1/inventory?page=9").await["items"], json!([]));
}

#[actix_web::test]
async fn next_links_lead_through_all_pages() {
    let database = TestDatabase::migrated().await;
    let first = at("2020-01-01T00:30:00Z");
    let records: Vec<_> = (0..10)
        .map(|hour| (ONE, "x00g8", first + TimeDelta::hours(hour), 1 << hour))
        .collect();
    database.load(&records).await;
    let api = Api::new(&database.config()).await;

    let base = format!(
        "/api/v1/simcard/{ONE}/usage?start=2020-01-01T00:00:00+00:00&end=2020-01-01&every=hour"
    );
    let mut path = format!("{base}&size=4");
    let mut bytes = Vec::new();
    loop {
        let body = api.ok(&path).await;
        assert_eq!(
            (&body["total"], &body["bytes-used-total"]),
            (&json!(10), &json!(1023))
        );
        bytes.extend(
            body["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["bytes-used-total"].as_i64().unwrap()),
        );
        let Some(next) = body["next"].as_str() else {
            break;
        };
        next.clone_into(&mut path);
    }
    assert_eq!(bytes, (0..10).map(|hour| 1 << hour).collect::<Vec<i64>>());

    for page in ["4", "1000000000"] {
        let body = api.ok(&format!("{base}&size=4&page={page}")).await;
        assert_eq!(
            (&body["items"], &body["total"], &body["next"]),
            (&json!([]), &json!(10), &Value::Null)
        );
    }
}

#[actix_web::test]
async fn usage_of_a_sim_card_that_moved_within_an_hour_is_split_between_its_organizations() {
    let database = TestDatabase::migrated().await;
    database.load(&example()).await;
    let api = Api::new(&database.config()).await;
    let range = "start=2020-01-03&end=2020-01-03";
    for every in ["1hour", "1day"] {
        for (path, bytes) in [
            ("organization/x00g8", 1),
            ("organization/x00g9", 2),
            ("simcard/8944000000000000003", 3),
        ] {
            let body = api
                .ok(&format!("/api/v1/{path}/usage?{range}&every={every}"))
                .await;
            assert_eq!(
                (&body["bytes-used-total"], &body["total"]),
                (&json!(bytes), &json!(1)),
                "{path} {every}"
            );
        }
    }
    for (organization, bytes) in [("x00g8", 1), ("x00g9", 2)] {
        let body = api
            .ok(&format!(
                "/api/v1/usage/simcards?organization={organization}&{range}"
            ))
            .await;
        assert_eq!(
            body["items"],
            json!([{"simcard": THREE, "bytes-used-total": bytes, "records": 1}])
        );
    }
}

#[actix_web::test]
async fn a_sum_that_overflows_64_bits_fails_without_affecting_others() {
    let database = TestDatabase::migrated().await;
    let (first, second) = (at("2020-01-01T00:10:00Z"), at("2020-01-01T00:40:00Z"));
    let neighbour = (TWO, "x00g9", first, 1);
    database
        .load(&[
            (ONE, "x00g8", first, i64::MAX),
            (ONE, "x00g8", second, i64::MAX),
            neighbour,
        ])
        .await;
    let api = Api::new(&database.config()).await;

    let detail =
        "The total for this interval exceeds 9223372036854775807 bytes. Try a shorter interval.";
    for path in [
        &format!("/api/v1/simcard/{ONE}/usage?start=2020-01-01&end=2020-01-01&every=1hour"),
        &format!(
            "/api/v1/simcard/{ONE}/usage?start=2020-01-01T00:05:00Z&end=2020-01-01T00:50:00Z&every=1day"
        ),
        "/api/v1/organization/x00g8/usage?start=2020-01-01&end=2020-01-01&every=1day",
    ] {
        assert_eq!(api.problem(path).await, (500, detail.to_owned()), "{path}");
    }
    // Lists have the other items.
    for path in ["/api/v1/usage/organizations", "/api/v1/usage/simcards"] {
        let body = api.ok(path).await;
        assert_eq!(body["bytes-used-total"], Value::Null, "{path}");
        assert_eq!(body["items"][0]["bytes-used-total"], Value::Null, "{path}");
        assert_eq!(body["items"][1]["bytes-used-total"], 1, "{path}");
    }

    let path = format!(
        "/api/v1/simcard/{ONE}/usage?start=2020-01-01T00:30:00Z&end=2020-01-01&every=1hour"
    );
    assert_eq!(api.ok(&path).await["bytes-used-total"], json!(i64::MAX));
    let path = format!("/api/v1/simcard/{TWO}/usage?start=2020-01-01&end=2020-01-01&every=1hour");
    assert_eq!(api.ok(&path).await["bytes-used-total"], json!(1));
    let body = api.ok("/api/v1/usage/simcards?organization=x00g9").await;
    assert_eq!(body["bytes-used-total"], json!(1));
}

#[actix_web::test]
async fn consecutive_ranges_never_count_a_byte_twice() {
    let database = TestDatabase::migrated().await;
    let records = [
        (ONE, "x00g8", at("2020-01-01T00:00:00Z"), 1),
        (ONE, "x00g8", at("2020-01-01T23:59:59.999999Z"), 10),
        (ONE, "x00g8", at("2020-01-02T00:00:00Z"), 100),
        (ONE, "x00g8", at("2020-01-02T12:00:00Z"), 1_000),
    ];
    database.load(&records).await;
    let api = Api::new(&database.config()).await;
    for (range, bytes) in [
        ("start=2020-01-01&end=2020-01-01", 11),
        ("start=2020-01-02&end=2020-01-02", 1100),
        ("start=2020-01-01&end=2020-01-02", 1111),
        ("start=2020-01-01T00:00:00Z&end=2020-01-02T00:00:00Z", 11),
        ("start=2020-01-02T00:00:00Z&end=2020-01-03T00:00:00Z", 1100),
        ("start=2020-01-02T00:00:00Z&end=2020-01-02T12:00:00Z", 100),
        ("start=2020-01-02T12:00:00Z&end=2020-01-02", 1000),
        (
            "start=2020-01-01T23:59:59.999999Z&end=2020-01-02T00:00:00Z",
            10,
        ),
        (
            "start=2020-01-02T01:00:00%2B01:00&end=2020-01-02T13:00:00+01:00",
            100,
        ),
    ] {
        for every in ["1hour", "1day"] {
            let body = api
                .ok(&format!(
                    "/api/v1/simcard/{ONE}/usage?{range}&every={every}"
                ))
                .await;
            assert_eq!(body["bytes-used-total"], json!(bytes), "{range} {every}");
        }
        let body = api
            .ok(&format!("/api/v1/usage/organizations?{range}"))
            .await;
        assert_eq!(body["bytes-used-total"], json!(bytes), "{range}");
    }
}

/// A linear congruential generator, which produces the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: i64) -> i64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(self.0 >> 33).unwrap() % bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[usize::try_from(self.below(i64::try_from(from.len()).unwrap())).unwrap()]
    }

    /// An instant within five days around New Year, often at or one microsecond from the start of an
    /// hour or a day.
    fn instant(&mut self) -> DateTime<Utc> {
        let instant = at("2019-12-30T00:00:00Z")
            + TimeDelta::microseconds(self.below(5 * 86_400 * 1_000) * 1_000);
        let jitter = TimeDelta::microseconds(self.below(3) - 1);
        match self.below(4) {
            0 => instant,
            1 => instant.duration_trunc(TimeDelta::hours(1)).unwrap(),
            2 => instant.duration_trunc(TimeDelta::hours(1)).unwrap() + jitter,
            _ => instant.duration_trunc(TimeDelta::days(1)).unwrap() + jitter,
        }
    }
}

type Record = (&'static str, &'static str, DateTime<Utc>, i64);

/// The expected (bytes, records) by key, computed from the records.
fn sums<K: Ord>(records: &[Record], key: impl Fn(&Record) -> Option<K>) -> BTreeMap<K, (i64, i64)> {
    let mut sums = BTreeMap::new();
    for record in records {
        if let Some(key) = key(record) {
            let sum: &mut (i64, i64) = sums.entry(key).or_default();
            sum.0 += record.3;
            sum.1 += 1;
        }
    }
    sums
}

#[actix_web::test]
async fn any_interval_is_summed_exactly() {
    let sims = [ONE, TWO, THREE];
    let mut random = Random(20_200_101);
    let mut records = Vec::new();
    for _ in 0..600 {
        // Every SIM card changes its organization every half hour.
        let time = random.instant();
        let organization = if time.timestamp() / 1_800 % 2 == 0 {
            "x00g8"
        } else {
            "x00g9"
        };
        records.push((
            random.pick(&sims),
            organization,
            time,
            random.below(1_000_000_000_000),
        ));
    }
    let database = TestDatabase::migrated().await;
    database.load(&records).await;
    let api = Api::new(&database.config()).await;

    for _ in 0..25 {
        let (one, two) = (random.instant(), random.instant());
        let (start, end) = (one.min(two), one.max(two));
        if start == end {
            continue;
        }
        let range = format!("start={}&end={}&size=1000", text(start), text(end));
        let inside: Vec<_> = records
            .iter()
            .copied()
            .filter(|record| start <= record.2 && record.2 < end)
            .collect();
        for (every, width) in [("1hour", TimeDelta::hours(1)), ("1day", TimeDelta::days(1))] {
            for id in ["x00g8", "x00g9", ONE, TWO, THREE] {
                let resource = if id.starts_with('x') {
                    "organization"
                } else {
                    "simcard"
                };
                let path = format!("/api/v1/{resource}/{id}/usage?{range}&every={every}");
                let expected = sums(&inside, |record| {
                    (record.0 == id || record.1 == id)
                        .then(|| text(record.2.duration_trunc(width).unwrap()))
                });
                assert_same(
                    &api.ok(&path).await,
                    "date",
                    expected.into_iter().collect(),
                    &path,
                );
            }
        }
        for (path, name, expected) in [
            (
                "organizations?",
                "organization",
                sums(&inside, |record| Some(record.1.to_owned())),
            ),
            (
                "simcards?",
                "simcard",
                sums(&inside, |record| Some(record.0.to_owned())),
            ),
            (
                "simcards?organization=x00g9&",
                "simcard",
                sums(&inside, |record| {
                    (record.1 == "x00g9").then(|| record.0.to_owned())
                }),
            ),
        ] {
            let path = format!("/api/v1/usage/{path}{range}");
            let mut expected: Vec<_> = expected.into_iter().collect();
            expected.sort_by_key(|(_, (bytes, _))| -bytes);
            assert_same(&api.ok(&path).await, name, expected, &path);
        }
    }
}

/// Compares a response with the expected items: key, (bytes, records).
fn assert_same(body: &Value, name: &str, expected: Vec<(String, (i64, i64))>, path: &str) {
    let total: i64 = expected.iter().map(|(_, (bytes, _))| bytes).sum();
    assert_eq!(
        (&body["bytes-used-total"], &body["total"]),
        (&json!(total), &json!(expected.len())),
        "{path}"
    );
    let items: Vec<_> = expected
        .into_iter()
        .map(|(key, (bytes, records))| json!({name: key, "bytes-used-total": bytes, "records": records}))
        .collect();
    assert_eq!(body["items"], json!(items), "{path}");
}

#[actix_web::test]
async fn an_unknown_identifier_is_not_found() {
    let database = TestDatabase::migrated().await;
    database.load(&example()).await;
    let api = Api::new(&database.config()).await;
    let range = "start=2020-01-01&end=2020-01-31&every=1day";
    for (path, detail) in [
        (
            format!("/api/v1/organization/x30g5/usage?{range}"),
            "No organization x30g5 found!",
        ),
        (
            format!("/api/v1/simcard/89440000/usage?{range}"),
            "No simcard 89440000 found!",
        ),
        (
            format!("/api/v1/simcard/89440000/usage?{range}&every=1hour")
                .replace("&every=1day", ""),
            "No simcard 89440000 found!",
        ),
        (
            "/api/v1/usage/simcards?organization=x30g5".to_owned(),
            "No organization x30g5 found!",
        ),
        // An invalid identifier is unknown as well.
        (
            format!("/api/v1/organization/a%20%00b/usage?{range}"),
            "No organization a \0b found!",
        ),
        (
            format!("/api/v1/simcard/%27/usage?{range}"),
            "No simcard ' found!",
        ),
        (
            format!("/api/v1/simcard/%FF/usage?{range}"),
            "No simcard \u{fffd} found!",
        ),
        (
            "/api/v1/usage/simcards?organization=%22".to_owned(),
            "No organization \" found!",
        ),
    ] {
        assert_eq!(api.problem(&path).await, (404, detail.to_owned()), "{path}");
    }
    // The organization exists but has no usage.
    let body = api
        .ok("/api/v1/organization/x00g8/usage?start=2019-01-01&end=2019-01-31&every=1day")
        .await;
    assert_eq!((&body["items"], &body["total"]), (&json!([]), &json!(0)));
    assert_eq!(
        api.ok("/api/v1/usage/simcards?organization=x00g8&end=2019-01-01")
            .await["items"],
        json!([])
    );
}

#[actix_web::test]
async fn invalid_parameters_are_refused_without_a_database_query() {
    let api = Api::new(&config(UNREACHABLE)).await;
    let answer = api
        .get("/api/v1/organization/x00g8/usage?start=2020-01-01&end=2020-01-31&every=hello&tx=UTC")
        .await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (422, "application/problem+json")
    );
    let every = "Query parameter 'every' cannot be hello. (ex: 1day / 1hour)";
    let unknown = "Query parameter 'tx' is unknown. \
                   (known: tz, start, end, every, fill, page, size, cursor, format, csv)";
    let expected = json!({
        "type": "about:blank", "title": "Unprocessable Entity", "status": 422,
        "detail": format!("{every} {unknown}"),
        "errors": [{"parameter": "every", "detail": every}, {"parameter": "tx", "detail": unknown}],
    });
    assert_eq!(answer.body, expected);

    for (path, detail) in [
        (
            "/api/v1/simcard/1/usage?start=2020-01-01&end=2020-01-31",
            "Query parameter 'every' is required. (ex: 1day / 1hour)",
        ),
        (
            "/api/v1/usage/simcards?every=2days",
            "Query parameter 'every' cannot be 2days. (ex: 1day / 1hour)",
        ),
        (
            "/api/v1/usage/organizations?organization=x",
            "Query parameter 'organization' is unknown. (known: tz, start, end, every, sort, page, size, cursor, format, csv)",
        ),
        (
            "/api/v1/inventory?start=2020-01-01",
            "Query parameter 'start' is unknown. (known: organization, simcard, q, page, size, cursor, format, csv)",
        ),
        (
            "/api/v1/inventory?size=0",
            "Query parameter 'size' cannot be 0. (1 to 1000)",
        ),
    ] {
        assert_eq!(api.problem(path).await, (422, detail.to_owned()), "{path}");
    }
}

#[actix_web::test]
async fn unknown_paths_and_methods_return_problem_details() {
    let api = Api::new(&config(UNREACHABLE)).await;
    for path in ["/nothing", "/api/v1", "/api/v1/simcard//usage"] {
        assert_eq!(
            api.problem(path).await,
            (404, "No resource exists at this path.".to_owned()),
            "{path}"
        );
    }
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let answer = api.request(method, "/api/v1/inventory").await;
        assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD"));
        assert_eq!(answer.detail(), "This path supports only GET and HEAD.");
    }
}

#[actix_web::test]
async fn an_unavailable_database_returns_503_with_retry_after() {
    let api = Api::new(&config(UNREACHABLE)).await;
    for path in [
        "/api/v1/simcard/1/usage?start=2020-01-01&end=2020-01-31&every=1day",
        "/api/v1/usage/organizations",
        "/api/v1/inventory",
        "/readyz",
    ] {
        let answer = api.get(path).await;
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (503, "5"),
            "{path}"
        );
        assert_eq!(
            answer.detail(),
            "The database is unavailable. Try again later."
        );
    }
    assert_eq!(api.ok("/livez").await, json!({"status": "ok"}));
}

#[actix_web::test]
async fn a_database_without_the_schema_is_not_ready() {
    let database = TestDatabase::migrated().await;
    let api = Api::new(&database.config()).await;
    assert_eq!(api.ok("/readyz").await, json!({"status": "ok"}));
    drop((api, database));

    let database = TestDatabase::empty().await;
    let api = Api::new(&database.config()).await;
    let detail = "The database has not been migrated to this version. Try again later.".to_owned();
    for path in ["/readyz", "/api/v1/usage/organizations"] {
        assert_eq!(api.problem(path).await, (503, detail.clone()), "{path}");
    }
}

#[actix_web::test]
async fn a_request_times_out_while_it_waits_for_a_connection() {
    let database = TestDatabase::migrated().await;
    let mut config = database.config();
    // Long enough to connect on a busy machine.
    config.serve.pool_timeout_ms = 1_000;
    let pool = Pool::new(&config, 1);
    let api = Api::with_pool(&config, pool.clone()).await;
    let (answer, after) = pool
        .run(async |_| {
            let answer = api.get("/api/v1/inventory").await;
            Ok((answer, api.get("/livez").await))
        })
        .await
        .unwrap();
    assert_eq!(
        (answer.status, answer.header("retry-after"), after.status),
        (503, "5", 200)
    );
    assert_eq!(
        answer.detail(),
        "All database connections are busy. Try again later."
    );
    api.ok("/api/v1/inventory").await;
}

#[actix_web::test]
async fn a_path_with_a_trailing_slash_answers_like_the_one_without() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let api = Api::new(&database.config()).await;
    for (path, query) in [
        ("/api/v1/usage/organizations", ""),
        ("/api/v1/usage/simcards", "?size=2"),
        (
            "/api/v1/organization/x00g8/usage",
            "?start=2020-02-01&end=2020-02-02&every=1hour",
        ),
        (
            "/api/v1/simcard/89440001/usage",
            "?start=2020-02-01&end=2020-02-02&every=1hour",
        ),
        ("/api/v1/inventory", "?format=csv"),
        ("/api/v1/organization/x30g5/usage", ""),
        ("/openapi.json", ""),
        ("/livez", ""),
        ("/readyz", ""),
    ] {
        let (plain, slashed) = (
            api.get(&format!("{path}{query}")).await,
            api.get(&format!("{path}/{query}")).await,
        );
        let without_links = |text: &str| text.replace(&format!("{path}/?"), &format!("{path}?"));
        assert_eq!(slashed.status, plain.status, "{path}");
        assert_eq!(without_links(&slashed.text), plain.text, "{path}");
    }
    for path in ["/api/v1/", "/api/", "/api/v1/inventory//", "//"] {
        assert_eq!(api.get(path).await.status, 404, "{path}");
    }
}
