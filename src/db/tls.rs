//! TLS to the database server. `sslmode` and the certificate parameters work as in libpq.

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

use crate::config::{ClientIdentity, Roots, Tls, Trust};
use crate::pem;

type BoxError = Box<dyn Error + Send + Sync>;

/// Sets up TLS for connections inside and outside the pool.
///
/// Like libpq, it reads the files for each connection, so a replaced certificate needs no restart.
#[derive(Debug, Clone)]
pub(super) struct Connector(Tls);

impl Connector {
    pub fn new(tls: &Tls) -> Self {
        Self(tls.clone())
    }

    fn config(&self) -> Result<ClientConfig, BoxError> {
        let Tls { trust, identity } = &self.0;
        let provider = pem::provider();
        let algorithms = provider.signature_verification_algorithms;
        let verifier = match trust {
            Trust::Unverified => Verifier {
                authorities: None,
                checks_name: false,
                algorithms,
            },
            Trust::Authority(roots) => Verifier {
                authorities: Some(load(roots)?),
                checks_name: false,
                algorithms,
            },
            Trust::Hostname(roots) => Verifier {
                authorities: Some(load(roots)?),
                checks_name: true,
                algorithms,
            },
        };
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        match identity {
            None => Ok(client.with_no_client_auth()),
            Some(identity) => Ok(client.with_client_cert_resolver(Arc::new(
                SingleCertAndKey::from(load_identity(identity)?),
            ))),
        }
    }
}

/// Reads the client's certificate and its key.
fn load_identity(identity: &ClientIdentity) -> Result<CertifiedKey, BoxError> {
    let ClientIdentity { certificate, key } = identity;
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
        )
        .into()),
        // X.509 version 1 certificates cannot be parsed here. The server decides whether to accept
        // them.
        _ => Ok(pair),
    }
}

impl MakeTlsConnect<Socket> for Connector {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
    type Error = BoxError;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        let mut rustls = MakeRustlsConnect::new(self.config()?);
        let Ok(connect) = MakeTlsConnect::<Socket>::make_tls_connect(&mut rustls, host);
        Ok(connect)
    }
}

/// Trusted certificate authorities.
#[derive(Debug)]
struct Authorities {
    store: RootCertStore,
    /// Their certificates, which a server may present as its own; empty for the system's
    /// authorities.
    certificates: Vec<CertificateDer<'static>>,
}

fn load(roots: &Roots) -> Result<Arc<Authorities>, BoxError> {
    /// Loaded once: parsing more than a hundred certificates takes milliseconds.
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
            "the system has no trusted certificates; set sslrootcert to a file with the certificate of the \
             server's authority"
                .into(),
        ),
        Roots::System => Ok(Arc::clone(&SYSTEM)),
    }
}

fn load_file(file: &Path) -> Result<Authorities, BoxError> {
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

/// Verifies the server's certificate.
#[derive(Debug)]
struct Verifier {
    /// The trusted authorities; `None` accepts any certificate.
    authorities: Option<Arc<Authorities>>,
    /// Whether the certificate must be valid for the host name of the connection.
    checks_name: bool,
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
                // A self-signed certificate, as PostgreSQL's manual creates one. Verification of a
                // chain would reject it, because it is an authority.
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
            if self.checks_name {
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
            // Any certificate is accepted, and those of old servers may be in a format that cannot
            // be parsed.
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

/// Checks that a certificate is neither expired nor not yet valid.
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

/// The TLS error inside an error of tokio-postgres, if there is one.
fn tls_error(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    error
        .source()?
        .downcast_ref::<std::io::Error>()?
        .get_ref()?
        .downcast_ref()
}

/// Whether a connection failed because of TLS, so that a retry would fail, too.
pub(super) fn is_tls_failure(error: &tokio_postgres::Error) -> bool {
    // Transient errors are those of the socket. Invalid files, or a server without TLS, cause
    // errors of other types.
    tls_error(error).is_some()
        || error
            .source()
            .is_some_and(|cause| !cause.is::<std::io::Error>())
}

/// What to do about a TLS error.
pub(super) fn advice(error: &tokio_postgres::Error) -> Option<&'static str> {
    use rustls::Error::{AlertReceived, InvalidCertificate};
    match tls_error(error) {
        Some(InvalidCertificate(CertificateError::UnknownIssuer)) => Some(
            "set sslrootcert to the certificate of the authority that signed the server's certificate",
        ),
        Some(InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => Some(
            "connect to a host name in the certificate, or use sslmode=verify-ca to check only its authority",
        ),
        Some(InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => Some("renew the server's certificate"),
        Some(other) if other.to_string().contains("UnsupportedCertVersion") => Some(
            "the server's certificate is X.509 version 1; replace it with a version 3 certificate",
        ),
        Some(AlertReceived(_)) => {
            Some("the server rejected the client's certificate; check sslcert and sslkey")
        }
        Some(_) => None,
        None => {
            let lacks_tls = error
                .source()
                .is_some_and(|cause| cause.to_string() == "server does not support TLS");
            lacks_tls.then_some("enable ssl on the server, or use sslmode=prefer")
        }
    }
}
