//! Request IDs, which connect log lines of the client, proxies and this server.

use std::sync::Arc;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

/// Read from the request and set on the response.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The maximum length of an ID from a client.
const MAX_LENGTH: usize = 64;

/// The client's request ID if it is safe to log, otherwise a random one.
#[derive(Debug, Clone)]
pub(super) struct RequestId(Arc<str>);

impl RequestId {
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let sent = headers
            .get(HEADER)
            .and_then(|value| value.to_str().ok())
            .filter(|sent| is_safe(sent));
        Self(sent.map_or_else(|| format!("{:016x}", fastrand::u64(..)).into(), Arc::from))
    }

    pub fn text(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    pub fn to_header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("a safe ID is a valid header value")
    }
}

/// Whether an ID is safe to log.
fn is_safe(id: &str) -> bool {
    (1..=MAX_LENGTH).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_for(sent: &str) -> Arc<str> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_bytes(sent.as_bytes()).unwrap());
        RequestId::from_headers(&headers).text()
    }

    #[test]
    fn a_safe_id_is_kept_and_others_are_replaced() {
        for safe in [
            "a",
            "0191b5a4-7c1e-7d0e-8d3c-1f2e3d4c5b6a",
            "Root=1-67891233-abcdef012345678912345678",
        ] {
            assert_eq!(&*id_for(safe), safe);
        }
        for other in ["", "two words", "käse", "a;b", &"x".repeat(65)] {
            let generated = id_for(other);
            assert!(
                generated.len() == 16 && generated.bytes().all(|byte| byte.is_ascii_hexdigit()),
                "{other}: {generated}"
            );
        }
    }
}
