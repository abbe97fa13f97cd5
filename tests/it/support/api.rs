//! The API through the real router, without a socket.

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

/// After how long tokens are read again; a running server does so all the time.
const TOKENS_AGE: Duration = Duration::from_secs(20);

/// What the router answered.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// The body, if it is JSON.
    pub body: Value,
    pub text: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map(|value| value.to_str().unwrap())
            .unwrap_or_default()
    }

    pub fn detail(&self) -> &str {
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["status"], self.status);
        self.body["detail"].as_str().unwrap()
    }
}

type Asking = Pin<Box<dyn Future<Output = Answer>>>;

/// The real router, in this process.
pub struct Api {
    ask: Box<dyn Fn(TestRequest) -> Asking>,
    access: Access,
    pool: Pool,
    refreshed_at: Cell<Instant>,
}

impl Api {
    pub async fn new(config: &Config) -> Self {
        Self::on(config, Pool::new(config, 2)).await
    }

    pub async fn on(config: &Config, pool: Pool) -> Self {
        // Where there is no database there are no tokens.
        let known = pool
            .run(async |client| tokens::load(client).await)
            .await
            .unwrap_or_default();
        let access = Access::new(&config.serve, known);
        let service = Rc::new(
            init_service(app(config, pool.clone(), ServerState::new(access.clone()))).await,
        );
        let ask = move |request: TestRequest| -> Asking {
            let service = Rc::clone(&service);
            Box::pin(async move {
                let response = call_service(&*service, request.to_request()).await;
                let (status, headers) = (response.status().as_u16(), response.headers().clone());
                let text = String::from_utf8_lossy(&read_body(response).await).into_owned();
                Answer {
                    status,
                    headers,
                    body: serde_json::from_str(&text).unwrap_or_default(),
                    text,
                }
            })
        };
        Self {
            ask: Box::new(ask),
            access,
            pool,
            refreshed_at: Cell::new(Instant::now()),
        }
    }

    /// Reads the tokens again.
    pub async fn refresh_tokens(&self) {
        // A database that is away has its own answers.
        let _ = self.access.refresh(&self.pool).await;
        self.refreshed_at.set(Instant::now());
    }

    pub async fn ask(&self, request: TestRequest) -> Answer {
        if self.refreshed_at.get().elapsed() > TOKENS_AGE {
            self.refresh_tokens().await;
        }
        (self.ask)(request).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(TestRequest::get().uri(path)).await
    }

    /// Asks with a token.
    pub async fn get_as(&self, token: &str, path: &str) -> Answer {
        self.ask(
            TestRequest::get()
                .uri(path)
                .insert_header(("authorization", format!("Bearer {token}"))),
        )
        .await
    }

    pub async fn request(&self, method: Method, path: &str) -> Answer {
        self.ask(TestRequest::with_uri(path).method(method)).await
    }

    /// The body of an answer that must be 200.
    pub async fn ok(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    }

    /// The body of an answer that must be 200, without the place in `next` and what the ledger says of when.
    pub async fn page(&self, path: &str) -> Value {
        let mut body = self.ok(path).await;
        if let Some(next) = body["next"].as_str() {
            let (next, _) = next
                .split_once("&cursor=")
                .expect("the next page says where it begins");
            body["next"] = next.into();
        }
        if let Some(body) = body.as_object_mut() {
            body.retain(|name, _| {
                !["complete-through", "last-ingested-at"].contains(&name.as_str())
            });
        }
        body
    }

    /// The answer to a GET with headers.
    pub async fn get_with(&self, path: &str, headers: &[(&'static str, &str)]) -> Answer {
        let request = headers
            .iter()
            .fold(TestRequest::get().uri(path), |request, &header| {
                request.insert_header(header)
            });
        (self.ask)(request).await
    }

    /// The status and detail of a problem.
    pub async fn problem(&self, path: &str) -> (u16, String) {
        let answer = self.get(path).await;
        (answer.status, answer.detail().to_owned())
    }
}
