//! TLS to the database's server, with the meaning that libpq gives to `sslmode` and its certificates.

use std::error::Error;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, InconsistentKeys, RootCertStore,
    SignatureScheme,
};
use tokio_postgres::Socket;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;
use x509_cert::der::Decode as _;

use crate::config::{Identity, Roots, Tls, Trust};
use crate::pem;

/// Makes the TLS side of every connection, of one's own or in a pool.
///
/// Files are read for each connection, as libpq does: a certificate that was replaced needs no restart.
#[derive(Debug, Clone)]
pub(super) struct Connector(Tls);

impl Connector {
    pub fn new(tls: &Tls) -> Self {
        Self(tls.clone())
    }

    fn config(&self) -> Result<ClientConfig, String> {
        let Tls { trust, identity } = &self.0;
        let provider = pem::provider();
        let algorithms = provider.signature_verification_algorithms;
        let verifier = match trust {
            Trust::Unverified => Verifier {
                authorities: None,
                by_name: false,
                algorithms,
            },
            Trust::Authority(roots) => Verifier {
                authorities: Some(load(roots)?),
                by_name: false,
                algorithms,
            },
            Trust::Hostname(roots) => Verifier {
                authorities: Some(load(roots)?),
                by_name: true,
                algorithms,
            },
        };
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        match identity {
            None => Ok(client.with_no_client_auth()),
            Some(identity) => {
                Ok(client
                    .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(show(identity)?))))
            }
        }
    }
}

/// The client's own certificate with its key.
fn show(identity: &Identity) -> Result<CertifiedKey, String> {
    let Identity { certificate, key } = identity;
    let certificates = pem::certificates(certificate, &pem::read(certificate)?)?;
    let private_key = pem::key(key, &pem::read(key)?)?;
    let private_key = pem::provider().key_provider.load_private_key(private_key);
    let private_key =
        private_key.map_err(|error| format!("sslkey {} cannot be used: {error}", key.display()))?;
    let pair = CertifiedKey::new(certificates, private_key);
    match pair.keys_match() {
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(format!(
            "sslkey {} is not the key of sslcert {}",
            key.display(),
            certificate.display()
        )),
        // Certificates of X.509's first version cannot be looked into. What they are worth is the server's to judge.
        _ => Ok(pair),
    }
}

impl MakeTlsConnect<Socket> for Connector {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
    type Error = Box<dyn Error + Send + Sync>;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        let mut rustls = MakeRustlsConnect::new(self.config()?);
        let Ok(connect) = MakeTlsConnect::<Socket>::make_tls_connect(&mut rustls, host);
        Ok(connect)
    }
}

/// Authorities, as they are looked up and as they are compared.
#[derive(Debug)]
struct Authorities {
    store: RootCertStore,
    /// Their certificates; none for those of the system, which are no servers.
    certificates: Vec<CertificateDer<'static>>,
}

fn load(roots: &Roots) -> Result<Arc<Authorities>, String> {
    /// Reading and parsing a hundred and more of them takes milliseconds, so it is done once.
    static SYSTEM: LazyLock<Arc<Authorities>> = LazyLock::new(|| {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(Authorities {
            store,
            certificates: vec![],
        })
    });
    match roots {
        Roots::File(file) => load_file(file).map(Arc::new),
        Roots::System if SYSTEM.store.is_empty() => Err(
            "the system has no certificates of authorities; give the server's as sslrootcert=FILE"
                .to_owned(),
        ),
        Roots::System => Ok(Arc::clone(&SYSTEM)),
    }
}

fn load_file(file: &Path) -> Result<Authorities, String> {
    let certificates = pem::certificates(file, &pem::read(file)?)?;
    let mut store = RootCertStore::empty();
    for certificate in &certificates {
        let added = store.add(certificate.clone());
        added.map_err(|error| format!("sslrootcert {} cannot be used: {error}", file.display()))?;
    }
    Ok(Authorities {
        store,
        certificates,
    })
}

/// Decides whether a server is the right one.
#[derive(Debug)]
struct Verifier {
    /// Whose certificates are good; `None` takes any.
    authorities: Option<Arc<Authorities>>,
    /// Whether the certificate must be for the name that is connected to.
    by_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(authorities) = &self.authorities {
            let parsed = ParsedCertificate::try_from(certificate)?;
            if authorities.certificates.contains(certificate) {
                // A server's own certificate as its authority, as PostgreSQL's manual makes it for a start. It is
                // trusted by name, and would be refused in a chain for being an authority.
                check_dates(certificate, now)?;
            } else {
                let (store, algorithms) = (&authorities.store, self.algorithms.all);
                verify_server_cert_signed_by_trust_anchor(
                    &parsed,
                    store,
                    intermediates,
                    now,
                    algorithms,
                )?;
            }
            if self.by_name {
                verify_server_name(&parsed, name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.authorities.is_none() {
            // Whose key it is says nothing where anybody will do, and old servers have certificates of old forms.
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.authorities.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Checks that a certificate is good at this time.
fn check_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let parsed =
        x509_cert::Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let validity = parsed.tbs_certificate.validity;
    let since_epoch = |time: SystemTime| {
        time.duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs()
    };
    if now.as_secs() < since_epoch(validity.not_before.to_system_time()) {
        return Err(CertificateError::NotValidYet.into());
    }
    if now.as_secs() > since_epoch(validity.not_after.to_system_time()) {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// The failure of TLS itself in an error of tokio-postgres, if that is what it is.
fn failure(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    error
        .source()?
        .downcast_ref::<std::io::Error>()?
        .get_ref()?
        .downcast_ref()
}

/// Whether a connection failed for what its TLS is, which trying again does not change.
pub(super) fn is_refusal(error: &tokio_postgres::Error) -> bool {
    // Everything that may pass is an error of the socket. What is wrong with the files, or a server without TLS, comes
    // as a text.
    failure(error).is_some()
        || error
            .source()
            .is_some_and(|cause| !cause.is::<std::io::Error>())
}

/// What to do about a failure of TLS.
pub(super) fn advice(error: &tokio_postgres::Error) -> Option<&'static str> {
    use rustls::Error::{AlertReceived, InvalidCertificate};
    match failure(error) {
        Some(InvalidCertificate(CertificateError::UnknownIssuer)) => Some(
            "sslrootcert= must name the file of the authority that signed the server's certificate",
        ),
        Some(InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => Some(
            "connect to a name that the certificate has, or ask for its authority only, by sslmode=verify-ca",
        ),
        Some(InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => Some("the server needs a new certificate"),
        Some(other) if other.to_string().contains("UnsupportedCertVersion") => Some(
            "the server's certificate is of X.509's first version; only the third can be verified",
        ),
        Some(AlertReceived(_)) => {
            Some("the server refuses the client's certificate: look at sslcert= and sslkey=")
        }
        Some(_) => None,
        None => {
            let without = error
                .source()
                .is_some_and(|cause| cause.to_string() == "server does not support TLS");
            without.then_some("turn ssl on in the server, or say sslmode=prefer")
        }
    }
}
