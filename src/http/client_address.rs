//! The address of a client, behind trusted proxies if there are any.

use std::net::{IpAddr, SocketAddr};

use actix_web::http::header::{HeaderMap, X_FORWARDED_FOR};
use actix_web::{HttpMessage as _, HttpRequest};

use crate::config::Networks;

/// The address that limits and the log use; `None` if the connection has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientAddress(pub Option<IpAddr>);

impl ClientAddress {
    /// Determines the address: that of the connection or, if that is a trusted proxy, the last one
    /// in `X-Forwarded-For` that is not. What stands before it may be made up by the client.
    #[must_use]
    pub fn determine(
        peer: Option<SocketAddr>,
        headers: &HeaderMap,
        trusted_proxies: &Networks,
    ) -> Self {
        let peer = peer.map(|peer| peer.ip().to_canonical());
        let Some(mut address) = peer.filter(|&peer| trusted_proxies.contains(peer)) else {
            return Self(peer);
        };
        let lines: Vec<&str> = headers
            .get_all(X_FORWARDED_FOR)
            .map(|line| line.to_str().unwrap_or_default())
            .collect();
        for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
            // What comes before a proxy that is not trusted, or of which the address is unknown, is
            // not used.
            let Some(hop) = parse(hop.trim()) else { break };
            address = hop;
            if !trusted_proxies.contains(address) {
                break;
            }
        }
        Self(Some(address))
    }

    /// The address of the client of a request.
    #[must_use]
    pub fn of(request: &HttpRequest) -> Self {
        let determined = request.extensions().get::<Self>().copied();
        determined.unwrap_or_else(|| Self(request.peer_addr().map(|peer| peer.ip())))
    }
}

/// An address, which some proxies write with a port.
fn parse(text: &str) -> Option<IpAddr> {
    let address = text.parse().ok().or_else(|| {
        let with_port = text.parse::<SocketAddr>().ok();
        with_port.map(|address| address.ip())
    });
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn determine(peer: &str, forwarded: &[&str], trusted: &str) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
        }
        let trusted = Networks::try_from(trusted.to_owned()).unwrap();
        let ClientAddress(address) =
            ClientAddress::determine(Some(peer.parse().unwrap()), &headers, &trusted);
        address.unwrap().to_string()
    }

    #[test]
    fn only_trusted_proxies_name_the_client() {
        for (peer, forwarded, trusted, expected) in [
            ("192.0.2.1:1", &["198.51.100.9"] as &[&str], "", "192.0.2.1"),
            ("192.0.2.1:1", &["198.51.100.9"], "192.0.2.2", "192.0.2.1"),
            (
                "192.0.2.1:1",
                &["198.51.100.9"],
                "192.0.2.1",
                "198.51.100.9",
            ),
            (
                "[::ffff:192.0.2.1]:1",
                &["::ffff:198.51.100.9"],
                "192.0.2.1",
                "198.51.100.9",
            ),
            // The client made up the first address.
            (
                "192.0.2.1:1",
                &["203.0.113.5, 198.51.100.9"],
                "192.0.2.1",
                "198.51.100.9",
            ),
            (
                "192.0.2.1:1",
                &["203.0.113.5", "198.51.100.9"],
                "192.0.2.1",
                "198.51.100.9",
            ),
            // Two proxies.
            (
                "192.0.2.1:1",
                &["203.0.113.5, 198.51.100.9, 10.0.0.2"],
                "192.0.2.1,10.0.0.0/8",
                "198.51.100.9",
            ),
            (
                "192.0.2.1:1",
                &["198.51.100.9:4711"],
                "192.0.2.1",
                "198.51.100.9",
            ),
            (
                "192.0.2.1:1",
                &["[2001:db8::7]:4711"],
                "192.0.2.1",
                "2001:db8::7",
            ),
            (
                "192.0.2.1:1",
                &["198.51.100.9, unknown"],
                "192.0.2.1",
                "192.0.2.1",
            ),
            ("192.0.2.1:1", &[], "192.0.2.1", "192.0.2.1"),
            (
                "192.0.2.1:1",
                &["10.0.0.3, 10.0.0.2"],
                "192.0.2.1,10.0.0.0/8",
                "10.0.0.3",
            ),
        ] {
            assert_eq!(
                determine(peer, forwarded, trusted),
                expected,
                "{forwarded:?} {trusted}"
            );
        }
    }
}
