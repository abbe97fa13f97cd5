//! What browsers may do on behalf of web pages: host names, other origins, and security headers.

use actix_web::test::TestRequest;

use crate::support::TestDatabase;
use crate::support::api::{Api, Response};
use crate::support::program::{load_inventory, simusage};

const INVENTORY: &str = "/api/v1/inventory";

async fn get_host(api: &Api, path: &str, host: &str) -> Response {
    let request = TestRequest::get().uri(path);
    api.send(request.insert_header(("host", host))).await
}

#[actix_web::test]
async fn a_page_cannot_read_anonymous_data_by_dns_rebinding() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let mut settings = database.config();
    let api = Api::new(&settings).await;
    for path in [
        INVENTORY,
        "/",
        "/docs/",
        "/openapi.json",
        "/metrics",
        "/nothing",
    ] {
        let answer = get_host(&api, path, "evil.example:8000").await;
        let expected = "The host 'evil.example' is not allowed. Send the request to an allowed name or an \
                        IP address, or add the name to serve.hosts.";
        assert_eq!((answer.status, answer.detail()), (421, expected), "{path}");
    }
    // Load balancers may use any name for probes.
    assert_eq!(get_host(&api, "/livez", "evil.example").await.status, 200);
    for host in [
        "localhost:8000",
        "127.0.0.1:8000",
        "[::1]:8000",
        "192.0.2.7",
    ] {
        assert_eq!(get_host(&api, INVENTORY, host).await.status, 200, "{host}");
    }
    settings.serve.hosts = "usage.example.net".to_owned().try_into().unwrap();
    let named = Api::new(&settings).await;
    for (host, expected) in [
        ("usage.example.net", 200),
        ("Usage.Example.Net.:443", 200),
        ("evil.example", 421),
    ] {
        assert_eq!(
            get_host(&named, INVENTORY, host).await.status,
            expected,
            "{host}"
        );
    }
    // A page of another origin has no token, so any name is allowed once one is required.
    let run = simusage(database.url(), &["token", "create", "one"]);
    assert_eq!(run.status, 0, "{run:?}");
    for (api, expected) in [(api, 401), (named, 421)] {
        api.refresh_tokens().await;
        assert_eq!(
            get_host(&api, INVENTORY, "evil.example").await.status,
            expected
        );
    }
}
