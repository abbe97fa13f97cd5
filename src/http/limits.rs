//! Size and rate limits of requests. They apply before any query, and each error names its setting.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZero;

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::client_address::ClientAddress;
use crate::config::Serve;

/// The limit that a request exceeded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Limit {
    #[error("The path and query of the URL exceed {0} bytes (serve.max_url_bytes).")]
    Url(usize),
    #[error("The headers exceed {0} bytes (serve.max_header_bytes).")]
    Headers(usize),
    #[error("The body exceeds {0} bytes (serve.max_body_bytes).")]
    Body(u64),
    /// A body with `Transfer-Encoding`, whose length is not known in advance.
    #[error("A body needs a Content-Length of at most {0} bytes (serve.max_body_bytes).")]
    NoLength(u64),
    #[error(
        "The request rate exceeds {requests_per_second} per second \
         (serve.requests_per_second). Try again in {retry_after_s} s."
    )]
    Rate {
        requests_per_second: u32,
        retry_after_s: u64,
    },
    #[error(
        "{0} requests from this client are already waiting for its other queries to finish \
         (serve.max_waiting_per_token). Send fewer requests at the same time."
    )]
    Waiting(usize),
    #[error(
        "The request waited too long for other queries from this client; at most {0} run at the same time (serve.max_queries_per_token). Send \
         fewer requests at the same time."
    )]
    Queries(usize),
    #[error(
        "This client is already receiving {0} CSV or NDJSON responses \
         (serve.max_streams_per_token). Read them to the end first."
    )]
    Streams(usize),
}

impl Limit {
    /// The value of `Retry-After` in seconds, if a later request may succeed.
    #[must_use]
    pub fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::Rate { retry_after_s, .. } => Some(*retry_after_s),
            Self::Waiting(_) | Self::Queries(_) | Self::Streams(_) => Some(1),
            _ => None,
        }
    }

    /// The label of metrics and log lines.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Url(_) => "url_size",
            Self::Headers(_) => "header_size",
            Self::Body(_) | Self::NoLength(_) => "body_size",
            Self::Rate { .. } => "rate",
            Self::Waiting(_) => "waiting",
            Self::Queries(_) => "queries",
            Self::Streams(_) => "streams",
        }
    }

    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Url(_) => StatusCode::URI_TOO_LONG,
            Self::Headers(_) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Body(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoLength(_) => StatusCode::LENGTH_REQUIRED,
            Self::Rate { .. } | Self::Waiting(_) | Self::Queries(_) | Self::Streams(_) => {
                StatusCode::TOO_MANY_REQUESTS
            }
        }
    }
}

/// A client that limits apply to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum ClientKey {
    /// A valid token, by its ID.
    Token(i32),
    /// The client's network, for requests without a valid token.
    Address(Option<IpAddr>),
    /// The client's network, for probes and metrics. Monitoring that shares an address with other
    /// clients, for example that of a proxy, is not refused because of them.
    Monitoring(Option<IpAddr>),
}

/// The paths that monitoring requests every few seconds.
pub(super) const PROBES: [&str; 3] = ["/livez", "/readyz", "/metrics"];

impl ClientKey {
    /// The client of a request without a valid token.
    #[must_use]
    pub fn address_of(request: &HttpRequest) -> Self {
        let ClientAddress(address) = ClientAddress::of(request);
        let network = address.map(network);
        if PROBES.contains(&request.path()) {
            Self::Monitoring(network)
        } else {
            Self::Address(network)
        }
    }
}

/// The addresses that one client can choose from: a /64 network with IPv6, a single address with
/// IPv4.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// The configured limits and the state of the rate limiters.
#[derive(Debug)]
pub(super) struct Limits {
    max_url_bytes: usize,
    max_header_bytes: usize,
    max_body_bytes: u64,
    /// `None` if the rate is unlimited.
    rate: Option<Rate>,
}

#[derive(Debug)]
struct Rate {
    requests_per_second: NonZero<u32>,
    limiter: DefaultKeyedRateLimiter<ClientKey>,
}

impl Limits {
    #[must_use]
    pub fn new(serve: &Serve) -> Self {
        let rate = |requests_per_second| Rate {
            requests_per_second,
            limiter: RateLimiter::keyed(Quota::per_second(requests_per_second)),
        };
        Self {
            max_url_bytes: serve.max_url_bytes,
            max_header_bytes: serve.max_header_bytes,
            max_body_bytes: serve.max_body_bytes,
            rate: NonZero::new(serve.requests_per_second).map(rate),
        }
    }

    /// Counts a request against the rate limit.
    ///
    /// # Errors
    /// Returns [`Limit::Rate`] if the key has used up its rate.
    pub fn count(&self, key: &ClientKey) -> Result<(), Limit> {
        let Some(Rate {
            requests_per_second,
            limiter,
        }) = &self.rate
        else {
            return Ok(());
        };
        limiter.check_key(key).map_err(|not_until| {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            let retry_after_s = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            Limit::Rate {
                requests_per_second: requests_per_second.get(),
                retry_after_s: retry_after_s.max(1),
            }
        })
    }

    /// Discards the keys whose full rate is available again.
    pub fn discard_idle(&self) {
        if let Some(Rate { limiter, .. }) = &self.rate {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }

    /// Checks the request's head against the size limits.
    ///
    /// # Errors
    /// Returns the first limit that the request exceeds.
    pub fn check_size(&self, request: &HttpRequest) -> Result<(), Limit> {
        let url_bytes = request
            .uri()
            .path_and_query()
            .map_or(0, |text| text.as_str().len());
        if url_bytes > self.max_url_bytes {
            return Err(Limit::Url(self.max_url_bytes));
        }
        // Each header line also has a colon, a space and CRLF.
        let headers = request.headers();
        let header_bytes: usize = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 4)
            .sum();
        if header_bytes > self.max_header_bytes {
            return Err(Limit::Headers(self.max_header_bytes));
        }
        if headers.contains_key(TRANSFER_ENCODING) {
            return Err(Limit::NoLength(self.max_body_bytes));
        }
        let body_bytes = headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if body_bytes.is_some_and(|bytes| bytes > self.max_body_bytes) {
            return Err(Limit::Body(self.max_body_bytes));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_client_share_a_network() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
    }
}
