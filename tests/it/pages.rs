//! Pages of lists that change between two requests.

use std::fmt::Write as _;

use crate::support::TestDatabase;
use crate::support::api::Api;
use crate::support::program::simusage;
use crate::support::usage::Files;

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
