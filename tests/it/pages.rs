//! Pages of lists that change between two requests.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};

use serde_json::Value;

use crate::support::api::Api;
use crate::support::program::simusage;
use crate::support::server::Server;
use crate::support::usage::Files;
use crate::support::{TestDatabase, at};

fn ingest(database: &TestDatabase, files: &Files, name: &str, rows: &[(&str, i64, &str)]) {
    let mut text = "sim-card-id,bytes-used,date\n".to_owned();
    for (sim_card, bytes, date) in rows {
        writeln!(text, "{sim_card},{bytes},{date}").unwrap();
    }
    let file = files.write(name, text);
    let run = simusage(database.url(), &["ingest", &file]);
    assert_eq!(run.status, 0, "{run:?}");
}

#[actix_web::test]
async fn a_page_says_that_the_list_has_changed_since_the_first_page() {
    let (database, files) = (TestDatabase::migrated().await, Files::new());
    let inventory = files.write("i.csv", "sim-card-id,org-id\n1,a\n2,a\n3,b\n4,c\n");
    let run = simusage(database.url(), &["ingest", "--inventory", &inventory]);
    assert_eq!(run.status, 0, "{run:?}");
    let rows = [
        ("1", 10, "2020-02-01T00:00:00Z"),
        ("2", 20, "2020-02-02T00:00:00Z"),
        ("3", 30, "2020-02-03T00:00:00Z"),
        ("4", 40, "2020-02-04T00:00:00Z"),
        ("1", 1, "2020-02-05T00:00:00Z"),
    ];
    ingest(&database, &files, "1.csv", &rows);
    let api = Api::new(&database.config()).await;
    let interval = "start=2020-02-01&end=2020-02-10";
    let series = format!("/api/v1/organization/a/usage?{interval}&every=1day&size=1");
    let paths = [
        format!("/api/v1/usage/simcards?{interval}&size=2"),
        format!("/api/v1/usage/simcards?{interval}&size=2&sort=bytes"),
        format!("/api/v1/usage/simcards?{interval}&size=2&sort=id"),
        format!("/api/v1/usage/organizations?{interval}&size=1"),
        series.clone(),
        format!("{series}&fill=zero"),
        "/api/v1/inventory?size=2".to_owned(),
    ];
    let mut links = vec![];
    for path in &paths {
        let first = api.ok(path).await;
        assert_eq!(first.get("list-changed"), None, "{path}");
        let next = first["next"].as_str().unwrap().to_owned();
        let second = api.get(&next).await;
        assert_eq!(
            (
                second.header("list-changed"),
                second.body.get("list-changed")
            ),
            ("", None),
            "{path}"
        );
        for name in ["total", "bytes-used-total"] {
            assert_eq!(first[name], second.body[name], "{path}");
        }
        links.push((next, second.header("etag").to_owned()));
    }

    // Usage on other days does not change the list.
    ingest(
        &database,
        &files,
        "2.csv",
        &[("1", 500, "2020-02-20T00:00:00Z")],
    );
    for (next, _) in &links {
        assert_eq!(api.ok(next).await.get("list-changed"), None, "{next}");
    }

    ingest(
        &database,
        &files,
        "3.csv",
        &[
            ("1", 100, "2020-02-01T12:00:00Z"),
            ("1", 7, "2020-02-07T00:00:00Z"),
        ],
    );
    let added = files.write("added.csv", "sim-card-id,org-id\n5,a\n");
    let run = simusage(database.url(), &["ingest", "--inventory", &added]);
    assert_eq!(run.status, 0, "{run:?}");
    for (path, (link, etag)) in paths.iter().zip(&links) {
        let first = api.ok(path).await;
        let mut next = Some(link.clone());
        let mut pages = 0;
        // Every further page says so, and has totals that match its items.
        while let Some(path) = next {
            let page = api.get(&path).await;
            assert_eq!(
                (page.status, page.header("list-changed")),
                (200, "true"),
                "{path}"
            );
            assert_eq!(page.body["list-changed"], true, "{path}");
            for name in ["total", "bytes-used-total"] {
                assert_eq!(page.body[name], first[name], "{path}: {name}");
            }
            // The same from the cache.
            assert_eq!(api.ok(&path).await, page.body, "{path}");
            next = page.body["next"].as_str().map(str::to_owned);
            pages += 1;
        }
        assert!(pages >= 1);
        let csv = api.get(&format!("{link}&format=csv")).await;
        assert_eq!((csv.status, csv.header("list-changed")), (200, "true"));
        let unchanged = api.get_with(link, &[("if-none-match", etag)]).await;
        assert_eq!(unchanged.status, 200, "{link}");
    }
}

#[actix_web::test]
async fn a_list_in_which_a_total_overflows_has_the_others() {
    let database = TestDatabase::migrated().await;
    let time = at("2020-02-01T12:00:00Z");
    let most = i64::MAX;
    let mut records = vec![("5", "small", time, 7), ("6", "small", time, 8)];
    for card in ["1", "2", "3"] {
        let organization = if card == "3" { "large" } else { "larger" };
        records.extend([
            (card, organization, time, most),
            (card, organization, time, most - 1),
        ]);
    }
    database.load(&records).await;
    let api = Api::new(&database.config()).await;
    let by_id = [
        ["large", "larger", "small"].as_slice(),
        &["1", "2", "3", "5", "6"],
    ];
    let descending = [
        ["larger", "large", "small"].as_slice(),
        &["1", "2", "3", "6", "5"],
    ];
    let ascending = [
        ["small", "large", "larger"].as_slice(),
        &["5", "6", "1", "2", "3"],
    ];
    for (index, (list, name)) in [("organizations", "organization"), ("simcards", "simcard")]
        .into_iter()
        .enumerate()
    {
        for (sort, expected) in [("-bytes", descending), ("bytes", ascending), ("id", by_id)] {
            let expected = expected[index];
            let mut next = Some(format!(
                "/api/v1/usage/{list}?start=2020-01-01&end=2020-12-31&size=1&sort={sort}"
            ));
            let mut found = vec![];
            while let Some(path) = next {
                let page = api.ok(&path).await;
                assert_eq!(page["bytes-used-total"], Value::Null, "{path}");
                let item = &page["items"][0];
                let is_large = item["bytes-used-total"].is_null();
                let id = item[name].as_str().unwrap().to_owned();
                assert_eq!(is_large, !["small", "5", "6"].contains(&&*id), "{path}");
                assert!(item["records"].as_i64().unwrap() > 0);
                found.push(id);
                next = page["next"].as_str().map(str::to_owned);
            }
            assert_eq!(found, expected, "{list} {sort}");
        }
    }
    let csv = api.get("/api/v1/usage/organizations?format=csv").await;
    let lines: Vec<_> = csv.text.lines().skip(1).collect();
    assert_eq!(lines, ["larger,,4", "large,,2", "small,15,2"]);
    // The series of the one that is too large fails, and no other.
    let series = |id: &str| {
        format!("/api/v1/organization/{id}/usage?start=2020-02-01&end=2020-02-01&every=1day")
    };
    assert_eq!(api.get(&series("large")).await.status, 500);
    assert_eq!(api.ok(&series("small")).await["bytes-used-total"], 15);
}

#[actix_web::test]
async fn csv_has_no_formulas_unless_it_is_raw() {
    let database = TestDatabase::migrated().await;
    let time = at("2020-02-01T12:00:00Z");
    database
        .load(&[
            ("=1+1", "@SUM(1)", time, 1),
            ("+2", "-3", time, 2),
            ("a=", "b", time, 3),
        ])
        .await;
    let api = Api::new(&database.config()).await;
    let csv = async |path: &str| {
        let answer = api.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        let mut lines: Vec<_> = answer.text.lines().skip(1).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let list = "/api/v1/usage/simcards?format=csv";
    assert_eq!(csv(list).await, ["\"'+2\",2,1", "\"'=1+1\",1,1", "a=,3,1"]);
    assert_eq!(
        csv(&format!("{list}&csv=raw")).await,
        ["+2,2,1", "=1+1,1,1", "a=,3,1"]
    );
    let inventory = "/api/v1/inventory?format=csv";
    let expected = ["\"'+2\",\"'-3\",,", "\"'=1+1\",\"'@SUM(1)\",,", "a=,b,,"];
    assert_eq!(csv(inventory).await, expected);
    assert_eq!(
        csv(&format!("{inventory}&csv=raw")).await,
        ["+2,-3,,", "=1+1,@SUM(1),,", "a=,b,,"]
    );
    let organizations = "/api/v1/usage/organizations?format=csv&size=2";
    assert_eq!(csv(organizations).await, ["\"'-3\",2,1", "b,3,1"]);
    assert_eq!(api.get(&format!("{list}&csv=other")).await.status, 422);
}

#[tokio::test]
async fn http_1_0_clients_receive_no_chunks() {
    let database = TestDatabase::migrated().await;
    database
        .load(&[("1", "o", at("2020-02-01T12:00:00Z"), 5)])
        .await;
    let server = Server::start(database.url());
    for headers in [
        "",
        "Connection: keep-alive\r\n",
        "Accept-Encoding: gzip\r\n",
    ] {
        for path in [
            "/api/v1/usage/simcards?format=csv",
            "/api/v1/usage/simcards",
            "/api/v1/nothing",
            "/",
        ] {
            let mut stream = server.connect();
            write!(
                stream,
                "GET {path} HTTP/1.0\r\nHost: localhost\r\n{headers}\r\n"
            )
            .unwrap();
            let mut response = vec![];
            stream.read_to_end(&mut response).unwrap();
            let end = response
                .windows(4)
                .position(|bytes| bytes == b"\r\n\r\n")
                .unwrap();
            let head = String::from_utf8_lossy(&response[..end]).to_lowercase();
            assert!(!head.contains("transfer-encoding"), "{path}: {head}");
            let body = &response[end + 4..];
            if let Some((_, length)) = head.split_once("content-length: ") {
                let length: usize = length.lines().next().unwrap().parse().unwrap();
                assert_eq!(body.len(), length, "{path}: {head}");
            }
            if path.ends_with("csv") && !headers.contains("gzip") {
                assert_eq!(body, b"simcard,bytes-used-total,records\n1,5,1\n");
            }
        }
    }
}
