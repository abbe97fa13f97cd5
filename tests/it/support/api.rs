//! Calls the API through the real router, without a socket.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::http::Method;
use actix_web::http::header::HeaderMap;
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use serde_json::Value;
use simusage::config::Config;
use simusage::db::{Pool, tokens};
use simusage::http::{Access, ServerState, app};

/// The age at which tokens are reloaded. A running server reloads them in the background.
const TOKENS_AGE: Duration = Duration::from_secs(20);

/// A response of the router.
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    /// The body if it is JSON, otherwise null.
    pub body: Value,
    pub text: String,
}

impl Response {
    /// The value of a header, or the empty string.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map(|value| value.to_str().unwrap())
            .unwrap_or_default()
    }

    /// The detail of a problem (RFC 9457).
    pub fn detail(&self) -> &str {
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["status"], self.status);
        self.body["detail"].as_str().unwrap()
    }
}

type ResponseFuture = Pin<Box<dyn Future<Output = Response>>>;

/// The router of the program, in this process.
pub struct Api {
    call: Box<dyn Fn(TestRequest) -> ResponseFuture>,
    access: Access,
    pool: Pool,
    refreshed_at: Cell<Instant>,
}

impl Api {
    pub async fn new(config: &Config) -> Self {
        Self::with_pool(config, Pool::new(config, 2)).await
    }

    /// Serves from an existing connection pool.
    pub async fn with_pool(config: &Config, pool: Pool) -> Self {
        // Without a database there are no tokens.
        let credentials = pool
            .run(async |client| tokens::load(client).await)
            .await
            .unwrap_or_default();
        let access = Access::new(&config.serve, credentials);
        let service = Rc::new(
            init_service(app(
                config,
                pool.clone(),
                ServerState::new(config, access.clone()),
            ))
            .await,
        );
        let call = move |request: TestRequest| -> ResponseFuture {
            let service = Rc::clone(&service);
            Box::pin(async move {
                let response = call_service(&*service, request.to_request()).await;
                let (status, headers) = (response.status().as_u16(), response.headers().clone());
                let text = String::from_utf8_lossy(&read_body(response).await).into_owned();
                Response {
                    status,
                    headers,
                    body: serde_json::from_str(&text).unwrap_or_default(),
                    text,
                }
            })
        };
        Self {
            call: Box::new(call),
            access,
            pool,
            refreshed_at: Cell::new(Instant::now()),
        }
    }

    /// Reloads the tokens.
    pub async fn refresh_tokens(&self) {
        // If the database is unavailable, the request itself fails.
        let _ = self.access.refresh(&self.pool).await;
        self.refreshed_at.set(Instant::now());
    }

    pub async fn send(&self, request: TestRequest) -> Response {
        if self.refreshed_at.get().elapsed() > TOKENS_AGE {
            self.refresh_tokens().await;
        }
        (self.call)(request).await
    }

    pub async fn get(&self, path: &str) -> Response {
        self.send(TestRequest::get().uri(path)).await
    }

    /// Sends a GET request with a token.
    pub async fn get_as(&self, token: &str, path: &str) -> Response {
        self.send(
            TestRequest::get()
                .uri(path)
                .insert_header(("authorization", format!("Bearer {token}"))),
        )
        .await
    }

    pub async fn request(&self, method: Method, path: &str) -> Response {
        self.send(TestRequest::with_uri(path).method(method)).await
    }

    /// The body of a response whose status must be 200.
    pub async fn ok(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    }

    /// Like [`Self::ok`], without the fields that differ between runs: the cursor in `next`, and
    /// the times of ingests.
    pub async fn page(&self, path: &str) -> Value {
        let mut body = self.ok(path).await;
        if let Some(next) = body["next"].as_str() {
            let (next, _) = next
                .split_once("&cursor=")
                .expect("the next link has a cursor");
            body["next"] = next.into();
        }
        if let Some(body) = body.as_object_mut() {
            body.retain(|name, _| {
                !["complete-through", "last-ingested-at"].contains(&name.as_str())
            });
        }
        body
    }

    /// Sends a GET request with headers, without reloading the tokens.
    pub async fn get_with(&self, path: &str, headers: &[(&'static str, &str)]) -> Response {
        let request = headers
            .iter()
            .fold(TestRequest::get().uri(path), |request, &header| {
                request.insert_header(header)
            });
        (self.call)(request).await
    }

    /// The status and detail of a problem response.
    pub async fn problem(&self, path: &str) -> (u16, String) {
        let answer = self.get(path).await;
        (answer.status, answer.detail().to_owned())
    }
}
