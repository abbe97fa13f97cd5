//! The client of the probes, for health checks of containers.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use crate::config::{Serve, listen_addresses};
use crate::pem;

/// How long connecting, and each read and write, may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The most that is read of a response.
const MAX_RESPONSE_BYTES: u64 = 16_384;

/// Requests a probe of the server that these settings start on this machine. Where
/// `serve.metrics_listen` is set, the probe is there; elsewhere it uses TLS if the server does.
///
/// # Errors
/// Returns an error if the server cannot be reached, or does not respond with 200.
pub fn probe(serve: &Serve, path: &str) -> anyhow::Result<()> {
    let metrics = &serve.metrics_listen;
    let is_separate = !metrics.is_empty() && metrics != Serve::NO_METRICS;
    let listen = if is_separate { metrics } else { &serve.listen };
    let (address, stream) = connect(listen)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let response = if serve.tls_files().is_some() && !is_separate {
        let name = ServerName::from(address.ip());
        let connection = ClientConnection::new(Arc::new(tls_client()?), name)?;
        request(StreamOwned::new(connection, stream), address, path)
    } else {
        request(stream, address, path)
    };
    let response = response.with_context(|| format!("requesting {path} from {address}"))?;
    let line = response.lines().next().unwrap_or_default();
    if line.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    let body = response.split("\r\n\r\n").nth(1).unwrap_or_default();
    bail!("{path} at {address} responded with '{line}' {body}")
}

/// Connects to the first address of a host and port that something listens on.
fn connect(listen: &str) -> anyhow::Result<(SocketAddr, TcpStream)> {
    let addresses = listen_addresses(listen).with_context(|| format!("resolving {listen}"))?;
    let mut failed = anyhow!("{listen} has no address");
    for address in addresses.into_iter().map(to_connect) {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => return Ok((address, stream)),
            Err(error) => {
                let problem = format!("cannot connect to {address}; check that serve is running");
                failed = anyhow::Error::from(error).context(problem);
            }
        }
    }
    Err(failed)
}

/// The address to connect to for one to listen on.
fn to_connect(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn request(
    mut stream: impl Read + Write,
    address: SocketAddr,
    path: &str,
) -> std::io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut response = vec![];
    let read = stream.take(MAX_RESPONSE_BYTES).read_to_end(&mut response);
    // A server may close without the end of TLS, after a complete response.
    if response.is_empty() {
        read?;
    }
    Ok(String::from_utf8_lossy(&response).into_owned())
}

fn tls_client() -> anyhow::Result<ClientConfig> {
    Ok(ClientConfig::builder_with_provider(pem::provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth())
}

/// Accepts any certificate. A probe sends no secret and connects to its own machine, and an expired
/// certificate is no reason to restart a server.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        pem::provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_finds_the_server_by_name() {
        let listeners = crate::config::listen("localhost:0").unwrap();
        let port = listeners[0].local_addr().unwrap().port();
        let listen = format!("localhost:{port}");
        let (address, _) = connect(&listen).unwrap();
        assert_eq!(address.port(), port);
        drop(listeners);
        let error = connect(&listen).unwrap_err();
        assert!(error.to_string().contains("check that serve is running"));
    }

    #[test]
    fn a_probe_connects_to_this_machine() {
        for (listen, expected) in [
            ("0.0.0.0:8000", "127.0.0.1:8000"),
            ("[::]:8000", "[::1]:8000"),
            ("192.0.2.7:8000", "192.0.2.7:8000"),
        ] {
            assert_eq!(to_connect(listen.parse().unwrap()).to_string(), expected);
        }
    }
}
