//! How large a request may be and how many may come: refused before anything is asked of the database, each with the
//! setting that says so.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZero;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, EitherBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use actix_web::middleware::Next;
use actix_web::{HttpMessage as _, HttpRequest, ResponseError as _, web};
use bytes::Bytes;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::problem::ApiError;
use crate::config::Serve;

/// A limit that a request exceeds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// Path with query.
    #[error("The path with its query is longer than {0} bytes (serve.max_url_bytes).")]
    Url(usize),
    /// Headers.
    #[error("The headers have more than {0} bytes (serve.max_header_bytes).")]
    Headers(usize),
    /// Body.
    #[error("The body is longer than {0} bytes (serve.max_body_bytes).")]
    Body(u64),
    /// A body that does not say how long it is.
    #[error("A body must say its length, at most {0} bytes (serve.max_body_bytes).")]
    NoLength(u64),
    /// Requests in a time.
    #[error(
        "More than {requests_per_second} requests a second (serve.requests_per_second). Try again in {retry_after_s} s."
    )]
    Rate {
        /// How many there may be.
        requests_per_second: u32,
        /// When there may be the next.
        retry_after_s: u64,
    },
}

impl Limit {
    /// How the refusal is called.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Url(_) => StatusCode::URI_TOO_LONG,
            Self::Headers(_) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Body(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoLength(_) => StatusCode::LENGTH_REQUIRED,
            Self::Rate { .. } => StatusCode::TOO_MANY_REQUESTS,
        }
    }
}

/// Whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Asker {
    /// A token, by its number.
    Token(i32),
    /// An address, where there is no token or none that is valid.
    Address(Option<IpAddr>),
}

impl Asker {
    /// Whoever asks from there.
    #[must_use]
    pub fn at(request: &HttpRequest) -> Self {
        Self::Address(request.peer_addr().map(|address| network(address.ip())))
    }
}

/// What one client can pick its addresses from: with IPv6 that is a /64, with IPv4 the address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// The limits in force, and how much of them is used up.
#[derive(Debug)]
pub struct Limits {
    max_url_bytes: usize,
    max_header_bytes: usize,
    max_body_bytes: u64,
    rate: Option<Rate>,
}

#[derive(Debug)]
struct Rate {
    requests_per_second: NonZero<u32>,
    limiter: DefaultKeyedRateLimiter<Asker>,
}

impl Limits {
    /// The limits of the settings.
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

    /// Counts a request.
    ///
    /// # Errors
    /// There were too many of this asker just now.
    pub fn count(&self, asker: &Asker) -> Result<(), Limit> {
        let Some(Rate {
            requests_per_second,
            limiter,
        }) = &self.rate
        else {
            return Ok(());
        };
        limiter.check_key(asker).map_err(|not_until| {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            let retry_after_s = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            Limit::Rate {
                requests_per_second: requests_per_second.get(),
                retry_after_s: retry_after_s.max(1),
            }
        })
    }

    /// Forgets askers that could ask as much as if they never had.
    pub fn forget_idle(&self) {
        if let Some(Rate { limiter, .. }) = &self.rate {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }

    /// Holds the head of a request against the limits of size.
    fn check(&self, request: &HttpRequest) -> Result<(), Limit> {
        let url_bytes = request
            .uri()
            .path_and_query()
            .map_or(0, |text| text.as_str().len());
        if url_bytes > self.max_url_bytes {
            return Err(Limit::Url(self.max_url_bytes));
        }
        // A header also has a colon, a blank and an end of line.
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

/// Lets requests through that are no larger than they may be.
pub(super) async fn check_sizes<B: MessageBody>(
    limits: web::Data<Limits>,
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, actix_web::Error> {
    match limits.check(request.request()) {
        Ok(()) => Ok(next.call(request).await?.map_into_left_body()),
        Err(limit) => {
            let unread = request.take_payload();
            let refusal = ApiError::from(limit).error_response();
            let refusal = refusal.map_body(|_, body| {
                BoxBody::new(Last {
                    body,
                    _unread: unread,
                })
            });
            Ok(request.into_response(refusal).map_into_right_body())
        }
    }
}

/// The last answer on a connection. The server would wait for the end of a body that nobody reads, however long it
/// takes; where somebody still could read it when the answer is sent, it closes the connection instead.
struct Last {
    body: BoxBody,
    _unread: Payload,
}

impl MessageBody for Last {
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
    use super::*;

    #[test]
    fn addresses_that_one_client_can_pick_count_together() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
    }
}
