//! Uses the client that openapi-generator generates for Rust.

use openapi::apis::configuration::Configuration;
use openapi::apis::inventory_api::list_assignments;
use openapi::apis::usage_api::{get_organization_usage, list_organization_totals};
use openapi::apis::Error;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let base_path = std::env::args().nth(1).unwrap();
    let api = &Configuration { base_path, ..Configuration::default() };
    let (start, end) = ("2020-02-01", "2020-02-02T12:00:00Z");
    let series = get_organization_usage(
        api, "a01b7", start, end, "1hour", None, None, None, None, None, None,
    );
    let series = series.await.unwrap();
    println!("series {} {}", series.items[0].date, series.bytes_used_total);
    let totals = list_organization_totals(api, None, None, None, None, None, None, None, None, None);
    println!("organizations {}", totals.await.unwrap().items.len());
    let page = list_assignments(api, None, None, Some(2), Some(3), None, None).await.unwrap();
    println!("page {} {}", page.page, page.items[0].simcard);
    let missing = get_organization_usage(
        api, "nobody", start, end, "1day", None, None, None, None, None, None,
    );
    match missing.await {
        Err(Error::ResponseError(error)) => println!("{} {}", error.status.as_u16(), error.content),
        other => panic!("{other:?}"),
    }
}
