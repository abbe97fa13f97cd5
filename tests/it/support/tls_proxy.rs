//! A TLS proxy in front of a database without TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::certificates::{Authority, Pair};

/// PostgreSQL's `SSLRequest`: the message length, and a code in place of the protocol version.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// A proxy that stops with the test's runtime.
pub struct TlsProxy {
    port: u16,
    front: String,
    path: String,
    encrypted: Arc<AtomicUsize>,
}

impl TlsProxy {
    /// Starts a proxy for the database at `url`. Without a certificate it refuses TLS.
    pub async fn start(url: &str, certificate: Option<&Pair>) -> Self {
        Self::start_with(url, certificate.map(|pair| acceptor(pair, None))).await
    }

    /// Starts a proxy that requires client certificates issued by `clients`.
    pub async fn for_clients_of(url: &str, certificate: &Pair, clients: &Authority) -> Self {
        Self::start_with(url, Some(acceptor(certificate, Some(clients)))).await
    }

    async fn start_with(url: &str, acceptor: Option<TlsAcceptor>) -> Self {
        let (front, rest) = url.split_once('@').expect("the URL names a user");
        let (server, path) = rest.split_once('/').expect("the URL names a database");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let encrypted = Arc::<AtomicUsize>::default();
        let (server, counter) = (server.to_owned(), Arc::clone(&encrypted));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, server, counter) =
                    (acceptor.clone(), server.clone(), Arc::clone(&counter));
                // The client sees errors as a broken connection.
                tokio::spawn(async move { serve(client, acceptor, &server, &counter).await });
            }
        });
        Self {
            port,
            front: front.to_owned(),
            path: path.to_owned(),
            encrypted,
        }
    }

    /// The URL of the database through the proxy, with a host name and further parameters.
    pub fn url(&self, host: &str, parameters: &str) -> String {
        let separator = if self.path.contains('?') { '&' } else { '?' };
        format!(
            "{}@{host}:{}/{}{separator}{parameters}",
            self.front, self.port, self.path
        )
    }

    /// The number of connections with TLS so far.
    pub fn encrypted(&self) -> usize {
        self.encrypted.load(Ordering::SeqCst)
    }
}

fn acceptor(pair: &Pair, clients: Option<&Authority>) -> TlsAcceptor {
    let provider = Arc::new(ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(authority) => config.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(Arc::new(authority.roots()), provider)
                .build()
                .unwrap(),
        ),
    };
    TlsAcceptor::from(Arc::new(
        config
            .with_single_cert(vec![pair.der()], pair.key_der())
            .unwrap(),
    ))
}

async fn serve(
    mut client: TcpStream,
    acceptor: Option<TlsAcceptor>,
    server: &str,
    encrypted: &AtomicUsize,
) -> std::io::Result<()> {
    let mut first = [0; 8];
    client.read_exact(&mut first).await?;
    if first != SSL_REQUEST {
        return forward(client, server, &first).await;
    }
    let Some(acceptor) = acceptor else {
        client.write_all(b"N").await?;
        return forward(client, server, &[]).await;
    };
    client.write_all(b"S").await?;
    let client = acceptor.accept(client).await?;
    encrypted.fetch_add(1, Ordering::SeqCst);
    forward(client, server, &[]).await
}

async fn forward(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    server: &str,
    first: &[u8],
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    server.write_all(first).await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}
