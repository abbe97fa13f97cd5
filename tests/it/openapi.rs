//! The OpenAPI description matches the API.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use simusage::http::openapi::description;

use crate::support::api::Api;
use crate::support::config;

/// An address where nothing listens, because no test here needs a database.
const UNREACHABLE: &str = "postgresql://postgres@127.0.0.1:1/postgres";

fn parsed() -> Value {
    serde_json::from_str(&description()).unwrap()
}

#[test]
fn the_description_in_the_repository_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    if std::env::var_os("SIMUSAGE_TEST_WRITE").is_some() {
        std::fs::write(&path, description()).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == description(),
        "docs/openapi.json is out of date: run this test with SIMUSAGE_TEST_WRITE=1"
    );
}

#[actix_web::test]
async fn the_description_and_swagger_ui_are_served_without_external_files() {
    let api = Api::new(&config(UNREACHABLE)).await;
    assert_eq!(api.ok("/openapi.json").await, parsed());
    assert_eq!(parsed()["openapi"], "3.1.0");
    let page = api.get("/docs/").await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, "text/html")
    );
    assert!(!page.text.contains("https://"), "{}", page.text);
    let assets: Vec<&str> = page
        .text
        .split(['"', '\''])
        .filter(|text| text.starts_with("./"))
        .collect();
    assert!(assets.len() > 3, "{assets:?}");
    for asset in assets {
        let answer = api
            .get(&format!("/docs/{}", asset.trim_start_matches("./")))
            .await;
        assert_eq!(answer.status, 200, "{asset}");
    }
}

#[actix_web::test]
async fn the_described_parameters_are_those_that_requests_may_have() {
    let api = Api::new(&config(UNREACHABLE)).await;
    let mut compared = 0;
    for (path, item) in parsed()["paths"].as_object().unwrap() {
        if !path.starts_with("/api/") {
            continue;
        }
        let described: BTreeSet<&str> = item["get"]["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        let uri = path
            .replace("{organization}", "x")
            .replace("{simcard}", "1");
        let (status, detail) = api.problem(&format!("{uri}?nonsense=1")).await;
        assert_eq!(status, 422, "{path}");
        let (_, known) = detail.split_once("(known: ").unwrap();
        let known = known.trim_end_matches(')').split(", ");
        let known: BTreeSet<&str> = known.filter(|name| *name != "none").collect();
        assert_eq!(described, known, "{path}");
        compared += 1;
    }
    assert_eq!(compared, 6);
}
