//! Access control as middleware: size and rate limits for every path, and authentication for
//! `/api`.
//!
//! Authentication uses the tokens in memory ([`super::auth`]), which [`Access::keep_current`]
//! reloads every few seconds, so a request costs no extra round trip to the database.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_web::body::{BodySize, BoxBody, EitherBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::middleware::Next;
use actix_web::{FromRequest, HttpMessage as _, HttpRequest, ResponseError as _, web};
use anyhow::Context as _;
use bytes::Bytes;
use chrono::Utc;

use super::auth::{MAX_TOKEN_AGE, Refusal, Tokens};
use super::hosts;
use super::limits::{ClientKey, Limits};
use super::problem::ApiError;
use super::share::{Share, Shares};
use crate::config::{Config, HostNames, Serve};
use crate::db::tokens::{self, Credentials, CursorKey, KnownToken};
use crate::db::{Pool, StorageError};
use crate::domain::Scope;

/// Created and revoked tokens must take effect within 5 seconds; this leaves time for a slow
/// reload.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// The tokens, the limits and the key of cursors, shared by all workers.
#[derive(Clone)]
pub struct Access {
    tokens: Arc<Tokens>,
    hosts: Arc<HostNames>,
    limits: Arc<Limits>,
    shares: Arc<Shares>,
    cursor_key: Arc<RwLock<CursorKey>>,
}

impl Access {
    /// Uses `credentials` as if they had just been loaded.
    #[must_use]
    pub fn new(serve: &Serve, credentials: Credentials) -> Self {
        Self {
            tokens: Arc::new(Tokens::new(
                credentials.tokens,
                serve.require_token,
                Instant::now(),
            )),
            hosts: Arc::new(serve.hosts.clone()),
            limits: Arc::new(Limits::new(serve)),
            shares: Arc::new(Shares::new(serve)),
            cursor_key: Arc::new(RwLock::new(credentials.cursor_key)),
        }
    }

    /// The key that authenticates cursors.
    pub(super) fn cursor_key(&self) -> CursorKey {
        *self
            .cursor_key
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads the tokens from the database.
    ///
    /// # Errors
    /// Returns an error if the database is unreachable or rejects the query.
    pub async fn open(config: &Config, pool: &Pool) -> anyhow::Result<Self> {
        let credentials = pool
            .run(async |client| tokens::load(client).await)
            .await
            .with_context(|| {
                let role = match &*config.serve.role {
                    "" => String::new(),
                    role => format!(" as {role}"),
                };
                format!("reading the tokens from {}{role}", config.database.url)
            })?;
        Ok(Self::new(&config.serve, credentials))
    }

    /// Whether requests need a token, by `serve.require_token`. With `auto`, they do once one has been
    /// created, even if all are revoked by now.
    #[must_use]
    pub fn requires_token(&self) -> bool {
        self.tokens.are_required()
    }

    /// Whether a token has ever existed.
    pub(super) fn has_tokens(&self) -> bool {
        self.tokens.exist()
    }

    /// Reloads the tokens and the key of cursors.
    ///
    /// # Errors
    /// Returns an error if the database is unreachable or rejects the query. The tokens in memory
    /// then stay in use.
    pub async fn refresh(&self, pool: &Pool) -> Result<(), StorageError> {
        let Credentials { tokens, cursor_key } =
            pool.run(async |client| tokens::load(client).await).await?;
        self.tokens.replace(tokens, Instant::now());
        // After a restore, the database may have another key.
        *self
            .cursor_key
            .write()
            .unwrap_or_else(PoisonError::into_inner) = cursor_key;
        Ok(())
    }

    /// Reloads the tokens and discards idle rate limiters at a fixed interval.
    pub(super) async fn keep_current(&self, pool: &Pool) -> Infallible {
        let mut failing = false;
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            let outcome = self.refresh(pool).await;
            match &outcome {
                Err(error) if !failing => {
                    log::warn!(
                        "cannot reload the tokens: {error}; the loaded ones stay valid for up to {} s",
                        MAX_TOKEN_AGE.as_secs()
                    );
                }
                Ok(()) if failing => log::info!("reloaded the tokens"),
                _ => {}
            }
            failing = outcome.is_err();
            self.limits.discard_idle();
            self.shares.discard_idle();
        }
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Access")
            .field("requires_token", &self.requires_token())
            .finish_non_exhaustive()
    }
}

/// The authenticated client of a request. Every handler under `/api` takes one as a parameter;
/// [`admit`] provides it.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The organizations that the caller may see.
    pub scope: Scope,
    pub share: Arc<Share>,
}

/// The name of the token in a request, even if it is no longer valid; an extension of the request.
#[derive(Debug, Clone)]
pub(super) struct TokenName(pub Arc<str>);

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    /// Fails on a path that [`admit`] does not cover, so that a forgotten handler never responds
    /// unauthenticated.
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let caller = request.extensions().get::<Self>().cloned();
        ready(caller.ok_or_else(|| {
            let text = format!(
                "the handler of {} needs authentication, but authentication does not cover that path",
                request.path()
            );
            StorageError::Other(text.into()).into()
        }))
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unauthorized { error, .. } => error.into(),
            Refusal::Outdated { .. } => {
                StorageError::Unavailable(refusal.to_string().into()).into()
            }
        }
    }
}

/// Passes on requests that are authenticated and within the rate limit, with their [`Caller`].
pub(super) async fn admit<B: MessageBody>(
    access: web::Data<Access>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, actix_web::Error> {
    let authenticated = access
        .tokens
        .authenticate(request.headers(), Instant::now(), Utc::now());
    if let Ok(Some(KnownToken { name, .. }))
    | Err(Refusal::Unauthorized {
        name: Some(name), ..
    }) = &authenticated
    {
        request.extensions_mut().insert(TokenName(name.clone()));
    }
    // Without a valid token the address is limited; otherwise guessing tokens would be unlimited.
    let key = match &authenticated {
        Ok(Some(token)) => ClientKey::Token(token.id),
        Ok(None) | Err(_) => ClientKey::address_of(request.request()),
    };
    let admitted = match access.limits.count(&key) {
        Ok(()) => authenticated.map_err(ApiError::from),
        Err(limit) => Err(limit.into()),
    };
    match admitted {
        Ok(token) => {
            let caller = Caller {
                scope: token.map_or_else(Scope::everything, |token| token.scope),
                share: access.shares.of(key),
            };
            request.extensions_mut().insert(caller);
            Ok(next.call(request).await?.map_into_left_body())
        }
        Err(error) => Ok(request
            .into_response(error.error_response())
            .map_into_right_body()),
    }
}

/// Passes on requests that are addressed to an allowed host, within the size limits and, outside of
/// `/api`, within the rate limit of their address. [`admit`] counts the others.
pub(super) async fn check_limits<B: MessageBody>(
    access: web::Data<Access>,
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, actix_web::Error> {
    let limits = &access.limits;
    let check = || -> Result<(), ApiError> {
        limits.check_size(request.request())?;
        // A preflight request does not reach `admit`.
        if !request.path().starts_with("/api/") || request.method() == Method::OPTIONS {
            limits.count(&ClientKey::address_of(request.request()))?;
        }
        // Orchestrators and load balancers may use any name for probes.
        if !["/livez", "/readyz"].contains(&request.path()) {
            hosts::check(request.headers(), &access.hosts, access.requires_token())?;
        }
        Ok(())
    };
    match check() {
        Ok(()) => Ok(next.call(request).await?.map_into_left_body()),
        Err(error) => {
            let unread = request.take_payload();
            let refusal = error.error_response();
            let refusal = refusal.map_body(|_, body| {
                BoxBody::new(RefusalBody {
                    body,
                    _unread: unread,
                })
            });
            Ok(request.into_response(refusal).map_into_right_body())
        }
    }
}

/// A response body that owns the unread request body until it is sent. If the payload were dropped
/// earlier, actix would keep the connection open until the client has sent all of it; with the
/// payload still alive, actix closes the connection after the response.
struct RefusalBody {
    body: BoxBody,
    _unread: Payload,
}

impl MessageBody for RefusalBody {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

#[cfg(test)]
mod tests {
    use actix_web::App;
    use actix_web::http::header::AUTHORIZATION;
    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, call_service, init_service, read_body};

    use super::*;
    use crate::token::TokenHash;

    const TEXT: &str = "simusage_0000";

    /// Status and body of a handler behind [`admit`], and of one outside it, for a request with
    /// this token.
    async fn responses(text: &str) -> [(u16, String); 2] {
        async fn handler(caller: Caller) -> String {
            format!("{:?}", caller.scope.organizations())
        }
        let serve = crate::config::Config::load(None, [], &crate::config::Overrides::default())
            .unwrap()
            .serve;
        let token = KnownToken {
            id: 7,
            name: "one".into(),
            hash: TokenHash::of(TEXT),
            scope: Scope::of([1, 2]),
            expires_at: None,
            revoked: false,
        };
        let credentials = Credentials {
            tokens: vec![token],
            ..Credentials::default()
        };
        let app = App::new()
            .app_data(web::Data::new(Access::new(&serve, credentials)))
            .service(
                web::scope("/api")
                    .wrap(from_fn(admit))
                    .route("", web::get().to(handler)),
            )
            .route("/forgotten", web::get().to(handler));
        let service = init_service(app).await;
        let mut responses = [(0, String::new()), (0, String::new())];
        for (path, (status, body)) in ["/api", "/forgotten"].into_iter().zip(&mut responses) {
            let request = TestRequest::get()
                .uri(path)
                .insert_header((AUTHORIZATION, format!("Bearer {text}")));
            let response = call_service(&service, request.to_request()).await;
            *status = response.status().as_u16();
            *body = String::from_utf8(read_body(response).await.to_vec()).unwrap();
        }
        responses
    }

    #[actix_web::test]
    async fn a_handler_gets_the_caller_or_does_not_run() {
        let [covered, forgotten] = responses(TEXT).await;
        assert_eq!(covered, (200, "Some([1, 2])".to_owned()));
        assert_eq!(forgotten.0, 500);
        let [covered, forgotten] = responses("another").await;
        assert_eq!((covered.0, forgotten.0), (401, 500));
    }

    #[test]
    fn outdated_tokens_make_the_service_unavailable() {
        let refusal = Refusal::Outdated { age_s: 61 };
        assert_eq!(ApiError::from(refusal).error_response().status(), 503);
    }
}
