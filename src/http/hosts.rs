//! Which host names requests may be addressed to, against DNS rebinding.
//!
//! A page can make its own name resolve to the address of this server. The browser then lets it
//! read responses, as if they came from its origin, but sends its name as the `Host`. An address cannot
//! be made to resolve to another one, so addresses are always allowed.

use std::net::IpAddr;

use actix_web::http::header::{HOST, HeaderMap};

use crate::config::HostNames;

/// A name that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "The host '{0}' is not allowed. Send the request to an allowed name or an IP address, or add the \
     name to serve.hosts."
)]
pub(super) struct ForeignHost(String);

/// Checks the `Host` of a request. Without names in `serve.hosts`, all are allowed if a token is
/// required, which a page of another origin does not have.
///
/// # Errors
/// Returns the first name that is not allowed.
pub(super) fn check(
    headers: &HeaderMap,
    allowed: &HostNames,
    requires_token: bool,
) -> Result<(), ForeignHost> {
    if allowed.is_empty() && requires_token {
        return Ok(());
    }
    // Browsers always send one.
    for host in headers.get_all(HOST) {
        let name = String::from_utf8_lossy(host.as_bytes()).to_ascii_lowercase();
        let name = without_port(&name);
        if !(is_local(name) || allowed.contains(name)) {
            return Err(ForeignHost(name.chars().take(255).collect()));
        }
    }
    Ok(())
}

/// The name in `name:port`, without the root's dot.
fn without_port(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

/// Whether this is an address, or a name that only resolves to this machine.
fn is_local(name: &str) -> bool {
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.ends_with(".localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    #[test]
    fn names_of_others_are_refused() {
        let check = |hosts: &[&str], allowed: &str, requires_token| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, HeaderValue::from_str(host).unwrap());
            }
            let allowed = HostNames::try_from(allowed.to_owned()).unwrap();
            check(&headers, &allowed, requires_token)
        };
        for host in [
            "localhost",
            "LocalHost:8000",
            "simusage.localhost",
            "127.0.0.1:8000",
            "[::1]:8000",
            "[::1]",
            "192.0.2.7",
            "localhost.:8000",
        ] {
            check(&[host], "", false).unwrap();
            check(&[host], "simusage", true).unwrap();
        }
        for host in [
            "evil.example",
            "evil.example:8000",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example.",
            "xlocalhost",
            "",
            ":8000",
            "a@127.0.0.1",
            "127.1",
        ] {
            assert!(check(&[host], "", false).is_err(), "{host}");
            assert!(check(&[host], "simusage", true).is_err(), "{host}");
            check(&[host], "", true).unwrap();
            check(&[host], "*", false).unwrap();
        }
        check(&[], "", false).unwrap();
        check(&["Simusage:8000"], "simusage", false).unwrap();
        assert!(check(&["localhost", "evil.example"], "", false).is_err());
    }
}
