//! The name by which a request is found again, here, at the client and in between.

use std::sync::Arc;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries it, both ways.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The longest name that is taken over from a client.
const LONGEST: usize = 64;

/// A request's name: the client's, where it cannot do harm in a log, or a new one.
#[derive(Debug, Clone)]
pub(super) struct RequestId(Arc<str>);

impl RequestId {
    pub fn of(headers: &HeaderMap) -> Self {
        let sent = headers
            .get(HEADER)
            .and_then(|value| value.to_str().ok())
            .filter(|sent| is_sane(sent));
        Self(sent.map_or_else(|| format!("{:016x}", fastrand::u64(..)).into(), Arc::from))
    }

    pub fn text(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    pub fn to_header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("a sane name is of visible characters")
    }
}

/// Whether a name can stand in a line of a log.
fn is_sane(name: &str) -> bool {
    (1..=LONGEST).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sent: &str) -> Arc<str> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_bytes(sent.as_bytes()).unwrap());
        RequestId::of(&headers).text()
    }

    #[test]
    fn a_sane_name_is_kept_and_another_replaced() {
        for sane in [
            "a",
            "0191b5a4-7c1e-7d0e-8d3c-1f2e3d4c5b6a",
            "Root=1-67891233-abcdef012345678912345678",
        ] {
            assert_eq!(&*of(sane), sane);
        }
        for other in ["", "two words", "käse", "a;b", &"x".repeat(65)] {
            let made = of(other);
            assert!(
                made.len() == 16 && made.bytes().all(|byte| byte.is_ascii_hexdigit()),
                "{other}: {made}"
            );
        }
    }
}
