//! Authentication with bearer tokens (RFC 6750). By default, requests need none as long as none exists.
//!
//! Tokens are looked up in memory. If the database becomes unavailable, the loaded tokens stay
//! valid for [`MAX_TOKEN_AGE`].

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use chrono::{DateTime, Utc};
use rustc_hash::FxHashMap;

use crate::config::RequireToken;
use crate::db::tokens::KnownToken;
use crate::token::TokenHash;

/// How long loaded tokens are used without a successful reload. It bounds how long a token that was
/// revoked in the meantime is still accepted.
pub(super) const MAX_TOKEN_AGE: Duration = Duration::from_mins(1);

/// What is wrong with the credentials of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum AuthError {
    #[error("A token is required: send the header `Authorization: Bearer TOKEN`.")]
    Missing,
    #[error("The token is unknown.")]
    Unknown,
    #[error("The token has expired.")]
    Expired,
    #[error("The token was revoked.")]
    Revoked,
}

impl AuthError {
    /// The label of metrics and log lines.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::Unknown => "token_unknown",
            Self::Expired => "token_expired",
            Self::Revoked => "token_revoked",
        }
    }

    /// The value of `WWW-Authenticate`. RFC 6750 omits the error if the request had no token.
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

/// Why a request was not authenticated.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The client's mistake.
    #[error("{error}")]
    Unauthorized {
        /// What is wrong.
        error: AuthError,
        /// The name of the token, if it is known.
        name: Option<Arc<str>>,
    },
    /// The tokens have not been reloaded for longer than [`MAX_TOKEN_AGE`].
    #[error("the tokens were last read {age_s} s ago")]
    Outdated { age_s: u64 },
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        Self::Unauthorized { error, name: None }
    }
}

/// All tokens, in memory.
#[derive(Debug)]
pub(super) struct Tokens {
    requirement: RequireToken,
    loaded: RwLock<LoadedTokens>,
}

#[derive(Debug)]
struct LoadedTokens {
    /// By the first bytes of the hash.
    by_prefix: FxHashMap<u64, Vec<KnownToken>>,
    /// Whether a token has ever existed. Deleting all rows from the database does not reset it.
    exist: bool,
    loaded_at: Instant,
}

impl LoadedTokens {
    fn new(tokens: Vec<KnownToken>, loaded_at: Instant) -> Self {
        let exist = !tokens.is_empty();
        let mut by_prefix = FxHashMap::<u64, Vec<KnownToken>>::default();
        for token in tokens {
            by_prefix
                .entry(token.hash.beginning())
                .or_default()
                .push(token);
        }
        Self {
            by_prefix,
            exist,
            loaded_at,
        }
    }

    fn find(&self, text: &str, now: DateTime<Utc>) -> Result<&KnownToken, Refusal> {
        let hash = TokenHash::of(text);
        let candidates = self
            .by_prefix
            .get(&hash.beginning())
            .map(Vec::as_slice)
            .unwrap_or_default();
        let token = candidates
            .iter()
            .find(|token| token.hash == hash)
            .ok_or(AuthError::Unknown)?;
        let error = if token.revoked {
            AuthError::Revoked
        } else if token.expires_at.is_some_and(|expires_at| expires_at <= now) {
            AuthError::Expired
        } else {
            return Ok(token);
        };
        let name = Some(Arc::clone(&token.name));
        Err(Refusal::Unauthorized { error, name })
    }
}

impl Tokens {
    #[must_use]
    pub fn new(tokens: Vec<KnownToken>, requirement: RequireToken, loaded_at: Instant) -> Self {
        let loaded = RwLock::new(LoadedTokens::new(tokens, loaded_at));
        Self {
            requirement,
            loaded,
        }
    }

    /// Replaces all tokens.
    pub fn replace(&self, tokens: Vec<KnownToken>, loaded_at: Instant) {
        let mut loaded = LoadedTokens::new(tokens, loaded_at);
        let mut current = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        loaded.exist |= current.exist;
        *current = loaded;
    }

    /// Whether requests need a token. With [`RequireToken::Auto`], they do from the first token on,
    /// even if it is revoked or deleted later.
    #[must_use]
    pub fn are_required(&self) -> bool {
        match self.requirement {
            RequireToken::True => true,
            RequireToken::False => false,
            RequireToken::Auto => self.read().exist,
        }
    }

    /// Whether a token has ever existed.
    #[must_use]
    pub fn exist(&self) -> bool {
        self.read().exist
    }

    fn read(&self) -> RwLockReadGuard<'_, LoadedTokens> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The valid token of a request, or `None` if it needs none and has none. While no tokens exist
    /// and none is required, any is ignored.
    ///
    /// `now` is compared with the time of the last reload, `time` with the token's expiry.
    ///
    /// # Errors
    /// Returns a [`Refusal`] if the token is missing or invalid, or if the loaded tokens are too
    /// old.
    pub fn authenticate(
        &self,
        headers: &HeaderMap,
        now: Instant,
        time: DateTime<Utc>,
    ) -> Result<Option<KnownToken>, Refusal> {
        let loaded = self.read();
        let age = now.saturating_duration_since(loaded.loaded_at);
        if age > MAX_TOKEN_AGE {
            return Err(Refusal::Outdated {
                age_s: age.as_secs(),
            });
        }
        if !loaded.exist && self.requirement != RequireToken::True {
            return Ok(None);
        }
        let text = match bearer_token(headers) {
            Some(text) => text,
            None if self.requirement == RequireToken::False => return Ok(None),
            None => return Err(AuthError::Missing.into()),
        };
        Ok(Some(loaded.find(text, time)?.clone()))
    }
}

/// The token of `Authorization: Bearer …`. A request with two such headers is ambiguous and has
/// none.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION);
    let value = values.next()?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (values.next().is_none() && scheme.eq_ignore_ascii_case("bearer")).then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Scope;

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

    /// Authenticates `age_s` seconds after the tokens were loaded.
    fn authenticate(
        tokens: &Tokens,
        values: &[&str],
        age_s: u64,
    ) -> Result<Option<KnownToken>, Refusal> {
        let loaded_at = tokens.read().loaded_at;
        let now = loaded_at + Duration::from_secs(age_s);
        tokens.authenticate(&headers(values), now, at("2030-01-01T00:00:00Z"))
    }

    fn auth_error(tokens: &Tokens, values: &[&str]) -> AuthError {
        match authenticate(tokens, values, 0) {
            Err(Refusal::Unauthorized { error, .. }) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_valid_token_is_found_whatever_the_case_of_the_scheme() {
        let tokens = Tokens::new(
            vec![token(Some(at("2030-01-01T00:00:01Z")), false)],
            RequireToken::Auto,
            Instant::now(),
        );
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let found = authenticate(&tokens, &[&format!("{scheme} {TEXT}")], 0)
                .unwrap()
                .unwrap();
            assert_eq!(
                (found.id, found.scope, &*found.name),
                (7, Scope::of([1, 2]), "one")
            );
        }
    }

    #[test]
    fn an_invalid_token_is_refused_with_the_reason() {
        let valid = format!("Bearer {TEXT}");
        let tokens = Tokens::new(vec![token(None, false)], RequireToken::Auto, Instant::now());
        for values in [
            &[] as &[&str],
            &["Basic dXNlcjpwYXNz"],
            &[TEXT],
            &["Bearer"],
            &[&valid, &valid],
        ] {
            assert_eq!(
                auth_error(&tokens, values),
                AuthError::Missing,
                "{values:?}"
            );
        }
        for value in [
            "Bearer simusage_0001",
            "Bearer ",
            "Bearer simusage_0000 simusage_0000",
        ] {
            assert_eq!(auth_error(&tokens, &[value]), AuthError::Unknown, "{value}");
        }
        let expired = Tokens::new(
            vec![token(Some(at("2030-01-01T00:00:00Z")), false)],
            RequireToken::Auto,
            Instant::now(),
        );
        assert_eq!(auth_error(&expired, &[&valid]), AuthError::Expired);
        let revoked = Tokens::new(vec![token(None, true)], RequireToken::Auto, Instant::now());
        assert_eq!(auth_error(&revoked, &[&valid]), AuthError::Revoked);
    }

    #[test]
    fn tokens_stay_required_once_the_first_exists() {
        let tokens = Tokens::new(vec![], RequireToken::Auto, Instant::now());
        assert!(authenticate(&tokens, &[], 0).unwrap().is_none());
        assert!(
            authenticate(&tokens, &["Bearer anything"], 0)
                .unwrap()
                .is_none()
        );
        tokens.replace(vec![token(None, true)], Instant::now());
        assert_eq!(auth_error(&tokens, &[]), AuthError::Missing);
        tokens.replace(vec![], Instant::now());
        assert_eq!(auth_error(&tokens, &[]), AuthError::Missing);
    }

    #[test]
    fn a_setting_requires_a_token_always_or_never() {
        let new = |tokens, requirement| Tokens::new(tokens, requirement, Instant::now());
        let valid = format!("Bearer {TEXT}");
        let none = new(vec![], RequireToken::True);
        assert!(none.are_required());
        assert_eq!(auth_error(&none, &[]), AuthError::Missing);
        assert_eq!(auth_error(&none, &[&valid]), AuthError::Unknown);
        let one = new(vec![token(None, false)], RequireToken::False);
        assert!(!one.are_required());
        for values in [&[] as &[&str], &["Basic dXNlcjpwYXNz"]] {
            assert!(authenticate(&one, values, 0).unwrap().is_none());
        }
        // A token limits the request to what it may see, as with the other settings.
        let found = authenticate(&one, &[&valid], 0).unwrap().unwrap();
        assert_eq!(found.scope, Scope::of([1, 2]));
        assert_eq!(auth_error(&one, &["Bearer other"]), AuthError::Unknown);
    }

    #[test]
    fn loaded_tokens_are_accepted_until_they_are_too_old() {
        for loaded in [vec![], vec![token(None, false)]] {
            let tokens = Tokens::new(loaded, RequireToken::Auto, Instant::now());
            let value = format!("Bearer {TEXT}");
            let max = MAX_TOKEN_AGE.as_secs();
            authenticate(&tokens, &[&value], max).unwrap();
            let late = authenticate(&tokens, &[&value], max + 1).unwrap_err();
            assert!(matches!(late, Refusal::Outdated { .. }), "{late:?}");
        }
    }

    #[test]
    fn the_challenge_conforms_to_rfc_6750() {
        assert_eq!(AuthError::Missing.challenge(), r#"Bearer realm="simusage""#);
        for error in [AuthError::Unknown, AuthError::Expired, AuthError::Revoked] {
            let expected = format!(
                r#"Bearer realm="simusage", error="invalid_token", error_description="{error}""#
            );
            assert_eq!(error.challenge(), expected.as_str());
        }
    }
}
