//! What browsers may do on behalf of web pages: host names, other origins, and security headers.

use actix_web::http::Method;
use actix_web::test::TestRequest;

use crate::support::api::{Api, Response};
use crate::support::program::{load_inventory, simusage};
use crate::support::{TestDatabase, UNREACHABLE, config};

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

/// A preflight request, as browsers send it before one with a token.
fn preflight(path: &str, origin: &'static str, headers: &'static str) -> TestRequest {
    TestRequest::with_uri(path)
        .method(Method::OPTIONS)
        .insert_header(("origin", origin))
        .insert_header(("access-control-request-method", "GET"))
        .insert_header(("access-control-request-headers", headers))
}

#[actix_web::test]
async fn pages_of_listed_origins_can_call_the_api() {
    const PORTAL: &str = "https://portal.example.net";
    const ALLOWED: &str = "access-control-allow-origin";
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let run = simusage(database.url(), &["token", "create", "one"]);
    let bearer = format!("Bearer {}", run.stdout.trim());
    let mut settings = database.config();
    let closed = Api::new(&settings).await;
    let origins = format!("{PORTAL}, http://localhost:3000");
    settings.serve.cors_origins = origins.try_into().unwrap();
    let open = Api::new(&settings).await;

    let answer = open
        .send(preflight(INVENTORY, PORTAL, "authorization,if-none-match"))
        .await;
    assert_eq!((answer.status, answer.header(ALLOWED)), (200, PORTAL));
    let allowed = answer.header("access-control-allow-headers").to_lowercase();
    assert!(allowed.contains("authorization"), "{allowed}");
    assert_eq!(answer.header("access-control-max-age"), "3600");
    assert_eq!(answer.header("access-control-allow-credentials"), "");
    // Error responses can be read, too.
    for (token, path, expected) in [
        (&*bearer, INVENTORY, 200),
        (&*bearer, "/api/v1/inventory?page=0", 422),
        (&*bearer, "/api/v1/nothing", 404),
        ("Bearer other", INVENTORY, 401),
    ] {
        let headers = [("origin", PORTAL), ("authorization", token)];
        let answer = open.get_with(path, &headers).await;
        assert_eq!(
            (answer.status, answer.header(ALLOWED)),
            (expected, PORTAL),
            "{path}"
        );
        let exposed = answer.header("access-control-expose-headers");
        assert!(
            exposed.contains("etag") && exposed.contains("link"),
            "{exposed}"
        );
        let vary: Vec<_> = answer
            .headers
            .get_all("vary")
            .map(|line| line.to_str().unwrap())
            .collect();
        assert!(vary.join(",").to_lowercase().contains("origin"), "{vary:?}");
        if expected == 200 {
            assert!(
                vary.join(",").to_lowercase().contains("authorization"),
                "{vary:?}"
            );
        }
    }
    for (api, origin) in [
        (&open, "https://evil.example"),
        (&open, "http://portal.example.net"),
        (&open, "https://portal.example.net:8443"),
        (&open, "null"),
        (&closed, PORTAL),
    ] {
        let refused = api
            .send(preflight(INVENTORY, origin, "authorization"))
            .await;
        assert!(refused.status >= 400, "{origin}");
        assert_eq!(refused.header(ALLOWED), "", "{origin}");
        let headers = [("origin", origin), ("authorization", &bearer)];
        assert_eq!(
            api.get_with(INVENTORY, &headers).await.header(ALLOWED),
            "",
            "{origin}"
        );
    }
    let refused = open.send(preflight(INVENTORY, PORTAL, "x-other")).await;
    assert_eq!(refused.status, 400);
}

#[actix_web::test]
async fn preflight_requests_are_limited() {
    let mut settings = config(UNREACHABLE);
    settings.serve.cors_origins = "https://a.example".to_owned().try_into().unwrap();
    settings.serve.requests_per_second = 2;
    let api = Api::new(&settings).await;
    let send = || api.send(preflight(INVENTORY, "https://a.example", "authorization"));
    assert_eq!(
        [
            send().await.status,
            send().await.status,
            send().await.status
        ],
        [200, 200, 429]
    );
}

#[actix_web::test]
async fn responses_tell_browsers_what_they_may_not_do() {
    let mut settings = config(UNREACHABLE);
    let api = Api::new(&settings).await;
    for path in ["/", "/docs/", "/docs/swagger-ui-bundle.js", "/openapi.json"] {
        let answer = api.get(path).await;
        let policy = answer.header("content-security-policy");
        assert!(
            answer.status == 200
                && policy.contains("frame-ancestors 'none'")
                && policy.contains("default-src 'none'"),
            "{path}: {policy}"
        );
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
    }
    for path in [
        "/",
        "/docs/",
        "/docs/nothing",
        INVENTORY,
        "/api/v1/inventory?page=0",
        "/livez",
        "/nothing",
    ] {
        let answer = api.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("strict-transport-security"), "", "{path}");
    }
    (settings.serve.tls_certificate, settings.serve.tls_key) = ("a".to_owned(), "b".to_owned());
    for (days, expected) in [(365, "max-age=31536000"), (0, "")] {
        settings.serve.hsts_days = days;
        let api = Api::new(&settings).await;
        for path in ["/", INVENTORY] {
            let answer = api.get(path).await;
            assert_eq!(
                answer.header("strict-transport-security"),
                expected,
                "{path}"
            );
        }
    }
}
