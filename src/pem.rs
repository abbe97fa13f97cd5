//! Reads certificates and private keys from PEM files, with errors that name the file and what is
//! wrong with it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{Error, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_cert::der::Decode as _;

/// A file from which no certificate or key can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PemError {
    #[error("cannot read {}: {error}", file.display())]
    Unreadable {
        file: PathBuf,
        error: std::io::Error,
    },
    #[error(
        "{} contains no {expected} in PEM format; check that it is the right file",
        file.display()
    )]
    Missing {
        file: PathBuf,
        expected: &'static str,
    },
    #[error(
        "the private key in {} is encrypted; decrypt it: openssl pkey -in {} -out FILE",
        file.display(),
        file.display()
    )]
    EncryptedKey { file: PathBuf },
    #[error("{} is not valid PEM: {problem}; replace the file", file.display())]
    Malformed { file: PathBuf, problem: String },
}

impl From<PemError> for String {
    fn from(error: PemError) -> Self {
        error.to_string()
    }
}

/// The cryptography of all TLS connections. No code depends on a process-wide default.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

pub(crate) fn read(file: &Path) -> Result<Vec<u8>, PemError> {
    read_regular(file).map_err(|error| PemError::Unreadable {
        file: file.into(),
        error,
    })
}

/// Fails for anything but a file: opening a pipe would wait for a writer, and reload nothing until then.
fn read_regular(file: &Path) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(file)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    std::fs::read(file)
}

/// Parses the certificates in `pem`, the content of `file`. Returns at least one.
pub(crate) fn certificates(
    file: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match parsed {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(problem(file, &Error::NoItemsFound, "certificate")),
        Err(error) => Err(problem(file, &error, "certificate")),
    }
}

/// Parses the private key in `pem`, the content of `file`.
pub(crate) fn key(file: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        let is_encrypted = pem.windows(9).any(|window| window == b"ENCRYPTED");
        if is_encrypted && matches!(error, Error::NoItemsFound) {
            PemError::EncryptedKey { file: file.into() }
        } else {
            problem(file, &error, "private key")
        }
    })
}

/// Combines a certificate with its private key.
///
/// # Errors
/// Returns an error if they do not match. It does not name the files.
pub(crate) fn pair(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, rustls::Error> {
    CertifiedKey::from_der(certificates, key, &provider())
}

/// The last instant at which a certificate is valid; `None` if it is not X.509.
pub(crate) fn expires_at(certificate: &CertificateDer<'_>) -> Option<DateTime<Utc>> {
    let parsed = x509_cert::Certificate::from_der(certificate).ok()?;
    let not_after = parsed.tbs_certificate.validity.not_after;
    Some(not_after.to_system_time().into())
}

fn problem(file: &Path, error: &Error, expected: &'static str) -> PemError {
    let file = file.into();
    // The parser's own messages for these two list byte values.
    let problem = match error {
        Error::NoItemsFound => return PemError::Missing { file, expected },
        Error::MissingSectionEnd { .. } => "a section has no end line".to_owned(),
        Error::IllegalSectionStart { .. } => "the first line of a section is malformed".to_owned(),
        other => other.to_string(),
    };
    PemError::Malformed { file, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_file_and_the_problem() {
        let file = Path::new("server.pem");
        for (pem, expected) in [
            (
                "",
                "server.pem contains no certificate in PEM format; check that it is the right file",
            ),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n",
                "server.pem is not valid PEM: a section has no end line; replace the file",
            ),
        ] {
            let error = certificates(file, pem.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        let encrypted =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let error = key(file, encrypted.as_bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the private key in server.pem is encrypted; decrypt it: openssl pkey -in server.pem -out FILE"
        );
    }
}
