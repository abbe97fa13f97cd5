//! Who asks: a bearer token (RFC 6750) stands for a [`Scope`], and a request without one is refused, once there is a
//! token at all.
//!
//! Tokens are looked up in memory; [`super::access`] reads them again every few seconds, so a request costs no round
//! trip. Where the database is away, those known stay good for a while.

use std::future::{Ready, ready};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{FromRequest, HttpMessage as _, HttpRequest, ResponseError as _, web};
use chrono::{DateTime, Utc};
use rustc_hash::FxHashMap;

use super::limits::{Asker, Limits};
use super::problem::ApiError;
use crate::db::StorageError;
use crate::db::tokens::KnownToken;
use crate::domain::Scope;
use crate::token::TokenHash;

/// For how long tokens that cannot be read again are taken as they were: one that was revoked meanwhile is still
/// answered, which must end.
const GOOD_FOR: Duration = Duration::from_mins(1);

/// Who asks, as every handler of `/api` must ask for it.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What the caller may see.
    pub scope: Scope,
    /// Name of the token; `None` where none is needed.
    pub name: Option<Arc<str>>,
}

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        // A path outside of the access has no caller, and so no answer either.
        let no_gate = || {
            StorageError::Other(
                format!("{} is answered without asking who asks", request.path()).into(),
            )
            .into()
        };
        ready(
            request
                .extensions()
                .get::<Self>()
                .cloned()
                .ok_or_else(no_gate),
        )
    }
}

/// Why nobody is known to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is no bearer token.
    #[error("A token is needed, as in `Authorization: Bearer TOKEN`.")]
    Missing,
    /// Nobody has such a token.
    #[error("The token is unknown.")]
    Unknown,
    /// It was valid once.
    #[error("The token has expired.")]
    Expired,
    /// It would be valid still.
    #[error("The token was revoked.")]
    Revoked,
}

impl AuthError {
    /// `WWW-Authenticate`, as RFC 6750 has it: no error where no token was given.
    #[must_use]
    pub fn challenge(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Missing => r#"Bearer realm="simusage""#,
            Self::Unknown => {
                r#"Bearer realm="simusage", error="invalid_token", error_description="The token is unknown.""#
            }
            Self::Expired => {
                r#"Bearer realm="simusage", error="invalid_token", error_description="The token has expired.""#
            }
            Self::Revoked => {
                r#"Bearer realm="simusage", error="invalid_token", error_description="The token was revoked.""#
            }
        })
    }
}

/// The tokens there are, in memory.
#[derive(Debug)]
pub struct Tokens(RwLock<Known>);

#[derive(Debug)]
struct Known {
    /// By the beginning of the hash.
    tokens: FxHashMap<u64, Vec<KnownToken>>,
    /// Whether there is, or ever was, a token. It stays so, whatever becomes of the database's rows.
    needed: bool,
    read_at: Instant,
}

impl Known {
    fn new(tokens: Vec<KnownToken>, read_at: Instant) -> Self {
        let mut known = Self {
            needed: !tokens.is_empty(),
            tokens: FxHashMap::default(),
            read_at,
        };
        for token in tokens {
            known
                .tokens
                .entry(token.hash.beginning())
                .or_default()
                .push(token);
        }
        known
    }

    fn find(&self, text: &str, now: DateTime<Utc>) -> Result<&KnownToken, AuthError> {
        let hash = TokenHash::of(text);
        let candidates = self
            .tokens
            .get(&hash.beginning())
            .map(Vec::as_slice)
            .unwrap_or_default();
        let token = candidates
            .iter()
            .find(|token| token.hash == hash)
            .ok_or(AuthError::Unknown)?;
        if token.revoked {
            Err(AuthError::Revoked)
        } else if token.expires_at.is_some_and(|expires_at| expires_at <= now) {
            Err(AuthError::Expired)
        } else {
            Ok(token)
        }
    }
}

impl Tokens {
    /// Knows these tokens, which were read just then.
    #[must_use]
    pub fn new(tokens: Vec<KnownToken>, read_at: Instant) -> Self {
        Self(RwLock::new(Known::new(tokens, read_at)))
    }

    /// Knows these tokens from now on, and no others.
    pub fn replace(&self, tokens: Vec<KnownToken>, read_at: Instant) {
        let mut known = Known::new(tokens, read_at);
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.needed |= current.needed;
        *current = known;
    }

    /// Whether there is, or ever was, a token.
    #[must_use]
    pub fn needed(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).needed
    }

    /// Who asks, and whose requests this one is counted with.
    ///
    /// # Errors
    /// Nobody who may, or the tokens have not been read for too long to tell.
    fn identify(
        &self,
        headers: &HeaderMap,
        now: Instant,
        time: DateTime<Utc>,
    ) -> Result<(Caller, Option<Asker>), ApiError> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let age = now.saturating_duration_since(known.read_at);
        if age > GOOD_FOR {
            let text = format!("the tokens were last read {} s ago", age.as_secs());
            return Err(StorageError::Unavailable(text.into()).into());
        }
        if !known.needed {
            return Ok((
                Caller {
                    scope: Scope::everything(),
                    name: None,
                },
                None,
            ));
        }
        let text = bearer(headers).ok_or(AuthError::Missing)?;
        let token = known.find(text, time)?;
        let caller = Caller {
            scope: token.scope.clone(),
            name: Some(token.name.clone()),
        };
        Ok((caller, Some(Asker::Token(token.id))))
    }
}

/// The token of `Authorization: Bearer …`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION);
    let value = values.next()?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    // Two of them could be read as either.
    (values.next().is_none() && scheme.eq_ignore_ascii_case("bearer")).then(|| token.trim())
}

/// Lets requests through of which it is known who asks, and that do not come too often.
pub(super) async fn admit<B: MessageBody>(
    tokens: web::Data<Tokens>,
    limits: web::Data<Limits>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, actix_web::Error> {
    let identified = tokens.identify(request.headers(), Instant::now(), Utc::now());
    // Without a valid token the address counts, or guessing would be free.
    let asker = identified
        .as_ref()
        .ok()
        .and_then(|(_, asker)| asker.clone());
    let asker = asker.unwrap_or_else(|| Asker::at(request.request()));
    let admitted = limits.count(&asker).map_err(ApiError::from).and(identified);
    match admitted {
        Ok((caller, _)) => {
            request.extensions_mut().insert(caller);
            Ok(next.call(request).await?.map_into_left_body())
        }
        Err(error) => Ok(request
            .into_response(error.error_response())
            .map_into_right_body()),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::App;
    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, call_service, init_service, read_body};

    use super::*;

    const TEXT: &str = "simusage_0000";

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn token(expires_at: Option<DateTime<Utc>>, revoked: bool) -> KnownToken {
        KnownToken {
            id: 7,
            name: "one".into(),
            hash: TokenHash::of(TEXT),
            scope: Scope::of([1, 2]),
            expires_at,
            revoked,
        }
    }

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn identify(tokens: &Tokens, values: &[&str], seconds: u64) -> Result<Caller, ApiError> {
        let read_at = tokens.0.read().unwrap().read_at;
        let now = read_at + Duration::from_secs(seconds);
        tokens
            .identify(&headers(values), now, at("2030-01-01T00:00:00Z"))
            .map(|(caller, _)| caller)
    }

    fn refusal(tokens: &Tokens, values: &[&str]) -> AuthError {
        match identify(tokens, values, 0) {
            Err(ApiError::AuthError(no_caller)) => no_caller,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_token_stands_for_its_scope() {
        let tokens = Tokens::new(
            vec![token(Some(at("2030-01-01T00:00:01Z")), false)],
            Instant::now(),
        );
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let caller = identify(&tokens, &[&format!("{scheme} {TEXT}")], 0).unwrap();
            assert_eq!(
                (caller.scope, caller.name.as_deref()),
                (Scope::of([1, 2]), Some("one"))
            );
        }
    }

    #[test]
    fn what_is_no_valid_token_is_refused_with_its_reason() {
        let valid = format!("Bearer {TEXT}");
        let tokens = Tokens::new(vec![token(None, false)], Instant::now());
        for values in [
            &[] as &[&str],
            &["Basic dXNlcjpwYXNz"],
            &[TEXT],
            &["Bearer"],
            &[&valid, &valid],
        ] {
            assert_eq!(refusal(&tokens, values), AuthError::Missing, "{values:?}");
        }
        for value in [
            "Bearer simusage_0001",
            "Bearer ",
            "Bearer simusage_0000 simusage_0000",
        ] {
            assert_eq!(refusal(&tokens, &[value]), AuthError::Unknown, "{value}");
        }
        let expired = Tokens::new(
            vec![token(Some(at("2030-01-01T00:00:00Z")), false)],
            Instant::now(),
        );
        assert_eq!(refusal(&expired, &[&valid]), AuthError::Expired);
        let revoked = Tokens::new(vec![token(None, true)], Instant::now());
        assert_eq!(refusal(&revoked, &[&valid]), AuthError::Revoked);
    }

    #[test]
    fn the_first_token_makes_tokens_needed_for_good() {
        let tokens = Tokens::new(vec![], Instant::now());
        assert_eq!(
            identify(&tokens, &[], 0).unwrap().scope,
            Scope::everything()
        );
        assert_eq!(
            identify(&tokens, &["Bearer anything"], 0).unwrap().name,
            None
        );
        tokens.replace(vec![token(None, true)], Instant::now());
        assert_eq!(refusal(&tokens, &[]), AuthError::Missing);
        tokens.replace(vec![], Instant::now());
        assert_eq!(refusal(&tokens, &[]), AuthError::Missing);
    }

    #[test]
    fn tokens_that_cannot_be_read_again_are_good_for_a_while() {
        for known in [vec![], vec![token(None, false)]] {
            let tokens = Tokens::new(known, Instant::now());
            let value = format!("Bearer {TEXT}");
            identify(&tokens, &[&value], GOOD_FOR.as_secs()).unwrap();
            let late = identify(&tokens, &[&value], GOOD_FOR.as_secs() + 1).unwrap_err();
            assert_eq!(late.error_response().status(), 503);
        }
    }

    /// What a handler behind the access, and one that was forgotten outside of it, answer with this token.
    async fn answers(text: &str) -> [(u16, String); 2] {
        async fn answer(caller: Caller) -> String {
            format!("{:?} {:?}", caller.name, caller.scope.organizations())
        }
        let serve = crate::config::Config::load(None, [], &crate::config::Overrides::default())
            .unwrap()
            .serve;
        let access = super::super::Access::new(&serve, vec![token(None, false)]);
        let app = App::new()
            .app_data(access.tokens)
            .app_data(access.limits)
            .service(
                web::scope("/api")
                    .wrap(from_fn(admit))
                    .route("", web::get().to(answer)),
            )
            .route("/forgotten", web::get().to(answer));
        let service = init_service(app).await;
        let mut answers = [(0, String::new()), (0, String::new())];
        for (path, answer) in ["/api", "/forgotten"].into_iter().zip(&mut answers) {
            let request = TestRequest::get()
                .uri(path)
                .insert_header((AUTHORIZATION, format!("Bearer {text}")));
            let response = call_service(&service, request.to_request()).await;
            answer.0 = response.status().as_u16();
            answer.1 = String::from_utf8(read_body(response).await.to_vec()).unwrap();
        }
        answers
    }

    #[actix_web::test]
    async fn a_handler_learns_who_asks_or_does_not_answer() {
        let [behind, forgotten] = answers(TEXT).await;
        assert_eq!(behind, (200, r#"Some("one") Some([1, 2])"#.to_owned()));
        assert_eq!(forgotten.0, 500);
        let [behind, forgotten] = answers("another").await;
        assert_eq!((behind.0, forgotten.0), (401, 500));
    }

    #[test]
    fn a_refusal_says_what_rfc_6750_wants() {
        assert_eq!(AuthError::Missing.challenge(), r#"Bearer realm="simusage""#);
        for no_caller in [AuthError::Unknown, AuthError::Expired, AuthError::Revoked] {
            let expected = format!(
                r#"Bearer realm="simusage", error="invalid_token", error_description="{no_caller}""#
            );
            assert_eq!(no_caller.challenge(), expected.as_str());
        }
    }
}
