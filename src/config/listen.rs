//! Addresses to listen on: an IP address or a host name with a port, or `:port` for all addresses.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs as _};

/// Whether the text is a host and a port, as `127.0.0.1:8000`, `[::1]:8000`, `localhost:8000` or
/// `:8000`. Does not resolve the host.
pub(super) fn is_address(text: &str) -> bool {
    if text.parse::<SocketAddr>().is_ok() {
        return true;
    }
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let is_name = host
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || ['-', '.', '_'].contains(&letter));
        is_name && port.parse::<u16>().is_ok()
    })
}

/// The addresses of a host and port. For `:8000`, one that stands for all.
///
/// # Errors
/// Returns an error if the host cannot be resolved.
pub fn listen_addresses(text: &str) -> io::Result<Vec<SocketAddr>> {
    match text.strip_prefix(':').map(str::parse) {
        Some(Ok(port)) => Ok(vec![all_addresses(port)]),
        _ => Ok(text.to_socket_addrs()?.collect()),
    }
}

/// IPv6's unspecified address includes IPv4, but exists only where the system has IPv6.
fn all_addresses(port: u16) -> SocketAddr {
    if TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok() {
        (Ipv6Addr::UNSPECIFIED, port).into()
    } else {
        (Ipv4Addr::UNSPECIFIED, port).into()
    }
}

/// Listens on every address of a host and port that this machine has, with the same port.
///
/// # Errors
/// Returns an error if the host cannot be resolved, the port is in use on one of the addresses, or
/// the machine has none of them.
pub fn listen(text: &str) -> io::Result<Vec<TcpListener>> {
    let mut listeners: Vec<TcpListener> = vec![];
    let mut missing = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for mut address in listen_addresses(text)? {
        if let Some(first) = listeners.first().filter(|_| address.port() == 0) {
            address.set_port(first.local_addr()?.port());
        }
        match TcpListener::bind(address) {
            Ok(listener) => listeners.push(listener),
            // `localhost` is often ::1, too, on machines without IPv6.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(error) => missing = error,
        }
    }
    if listeners.is_empty() {
        return Err(missing);
    }
    Ok(listeners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ports_are_addresses() {
        for text in [
            "127.0.0.1:8000",
            "[::1]:8000",
            "localhost:8000",
            ":8000",
            "api.example.net:0",
        ] {
            assert!(is_address(text), "{text}");
        }
        for text in [
            "localhost",
            "8000",
            "::1:8000",
            "localhost:http",
            ":70000",
            "a b:1",
            "",
        ] {
            assert!(!is_address(text), "{text}");
        }
    }

    #[test]
    fn localhost_is_loopback_and_no_host_is_every_address() {
        let addresses = listen_addresses("localhost:7").unwrap();
        assert!(addresses.iter().all(|address| address.ip().is_loopback()));
        let addresses = listen_addresses(":7").unwrap();
        assert!(addresses[0].ip().is_unspecified() && addresses[0].port() == 7);
    }

    #[test]
    fn all_addresses_of_a_host_have_the_same_port() {
        let listeners = listen("localhost:0").unwrap();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        assert!(
            listeners
                .iter()
                .all(|listener| port(listener) == port(&listeners[0]))
        );
        let taken = format!("localhost:{}", port(&listeners[0]));
        assert_eq!(listen(&taken).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
