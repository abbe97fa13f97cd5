//! Certificates and private keys out of PEM, with errors that say what a file has instead.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{Error, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// The cryptography of every TLS session, in and out. Nothing depends on a default of the whole process.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Reads a file.
///
/// # Errors
/// Names the file.
pub(crate) fn read(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
}

/// The certificates in PEM that stood in `file`: at least one.
///
/// # Errors
/// Names the file.
pub(crate) fn certificates(
    file: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(problem(file, &Error::NoItemsFound, "certificate")),
        Err(error) => Err(problem(file, &error, "certificate")),
    }
}

/// The private key in PEM that stood in `file`.
///
/// # Errors
/// Names the file.
pub(crate) fn key(file: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        let encrypted = pem.windows(9).any(|window| window == b"ENCRYPTED");
        problem(
            file,
            &error,
            if encrypted {
                "private key without a password"
            } else {
                "private key"
            },
        )
    })
}

/// Puts a certificate and its key together, where they belong together.
///
/// # Errors
/// Says what is wrong with the pair; the files are the caller's to name.
pub(crate) fn pair(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, rustls::Error> {
    CertifiedKey::from_der(certificates, key, &provider())
}

fn problem(file: &Path, error: &Error, wanted: &str) -> String {
    let file = file.display();
    match error {
        Error::NoItemsFound => format!("{file} holds no {wanted} in PEM"),
        // The parser shows these two as lists of byte values.
        Error::MissingSectionEnd { .. } => format!("{file} ends within a section of PEM"),
        Error::IllegalSectionStart { .. } => {
            format!("{file} has a malformed line where a section of PEM begins")
        }
        other => format!("{file} is no PEM: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_the_file_has_instead() {
        let file = Path::new("server.pem");
        for (pem, expected) in [
            ("", "server.pem holds no certificate in PEM"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n",
                "server.pem ends within a section of PEM",
            ),
        ] {
            assert_eq!(certificates(file, pem.as_bytes()).unwrap_err(), expected);
        }
        let encrypted =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let problem = key(file, encrypted.as_bytes()).unwrap_err();
        assert_eq!(
            problem,
            "server.pem holds no private key without a password in PEM"
        );
    }
}
