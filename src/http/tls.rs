//! TLS of the server. The certificate is reloaded when its files change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::Notify;

use crate::config::Serve;
use crate::pem::{self, PemError};

/// How often the files are read. Modification times are not enough: some ways to replace a file
/// preserve them, and reading a few kilobytes per second is cheap.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long before its end a certificate is warned about, and how often.
const WARN_BEFORE: TimeDelta = TimeDelta::days(30);
const WARN_INTERVAL: Duration = Duration::from_hours(24);

/// Why the configured files cannot be used as the server's certificate.
#[derive(Debug, thiserror::Error)]
enum CertificateError {
    #[error(transparent)]
    Pem(#[from] PemError),
    #[error("{} does not match the certificate in {}", .0.key.display(), .0.certificate.display())]
    KeyMismatch(Files),
    #[error("{} expired on {at}; renew it", file.display())]
    Expired { file: PathBuf, at: DateTime<Utc> },
    #[error("cannot use {} with {}: {error}", files.certificate.display(), files.key.display())]
    Unusable { files: Files, error: rustls::Error },
}

#[derive(Debug, Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// The contents of both files.
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn read(&self) -> Result<Contents, PemError> {
        Ok(Contents {
            certificate: pem::read(&self.certificate)?,
            key: pem::read(&self.key)?,
        })
    }

    fn parse(&self, contents: &Contents) -> Result<CertifiedKey, CertificateError> {
        let certificates = pem::certificates(&self.certificate, &contents.certificate)?;
        let key = pem::key(&self.key, &contents.key)?;
        pem::pair(certificates, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => CertificateError::KeyMismatch(self.clone()),
            error => CertificateError::Unusable {
                files: self.clone(),
                error,
            },
        })
    }
}

/// When the certificate expires that clients see.
fn expires_at(key: &CertifiedKey) -> Option<DateTime<Utc>> {
    pem::expires_at(key.cert.first()?)
}

/// A warning about a certificate that has expired or is about to.
fn warning(file: &Path, expires_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Option<String> {
    let at = expires_at?;
    let left = at - now;
    let file = file.display();
    if left < TimeDelta::zero() {
        Some(format!(
            "the TLS certificate in {file} expired on {at}, so clients reject it; renew it"
        ))
    } else if left < WARN_BEFORE {
        let days = left.num_days();
        Some(format!(
            "the TLS certificate in {file} expires on {at}, in {days} days; renew it"
        ))
    } else {
        None
    }
}

/// The certificate for new connections.
#[derive(Debug)]
struct CurrentCertificate(RwLock<Arc<CertifiedKey>>);

impl CurrentCertificate {
    fn get(&self) -> Arc<CertifiedKey> {
        // A poisoned lock still contains a complete certificate.
        Arc::clone(
            &self
                .0
                .read()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        )
    }

    fn set(&self, new: CertifiedKey) {
        *self
            .0
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(new);
    }
}

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

/// The TLS configuration, or `None` if no certificate is configured. Starts a task that watches the
/// files, and reads them again at each `reload`, and updates the certificate for new connections.
///
/// # Errors
/// Returns an error if the files cannot be read or do not contain a certificate and its key.
pub(super) fn server_config(
    serve: &Serve,
    reload: Arc<Notify>,
) -> anyhow::Result<Option<ServerConfig>> {
    let Some((certificate, key)) = serve.tls_files() else {
        return Ok(None);
    };
    let files = Files {
        certificate: certificate.into(),
        key: key.into(),
    };
    let context = "cannot load the TLS certificate";
    let contents = files.read().context(context)?;
    let first = files.parse(&contents).context(context)?;
    let current = Arc::new(CurrentCertificate(RwLock::new(Arc::new(first))));
    let config = ServerConfig::builder_with_provider(pem::provider())
        .with_safe_default_protocol_versions()
        .context("cannot configure TLS")?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
    let watcher = FileWatcher::new(files, contents);
    tokio::spawn(watch(watcher, current, reload));
    Ok(Some(config))
}

/// Reloads the certificate when the files change, until the server stops.
async fn watch(mut watcher: FileWatcher, current: Arc<CurrentCertificate>, reload: Arc<Notify>) {
    let mut ticks = tokio::time::interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut warn_at = Instant::now();
    loop {
        if Instant::now() >= warn_at {
            warn_at = Instant::now() + WARN_INTERVAL;
            let expires_at = expires_at(&current.get());
            if let Some(warning) = warning(&watcher.files.certificate, expires_at, Utc::now()) {
                log::warn!("{warning}");
            }
        }
        tokio::select! {
            _ = ticks.tick() => {}
            () = reload.notified() => watcher.decided = false,
        }
        let files = watcher.files.clone();
        // Reading may block for long, for example on a network file system.
        let Ok(contents) = tokio::task::spawn_blocking(move || files.read()).await else {
            return;
        };
        match watcher.observe(contents) {
            None => {}
            Some(Ok(new)) => {
                current.set(new);
                warn_at = Instant::now();
                log::info!(
                    "reloaded the TLS certificate from {}; new connections use it",
                    watcher.files.certificate.display()
                );
            }
            Some(Err(error)) => {
                log::error!("cannot reload the TLS certificate, keeping the current one: {error}");
            }
        }
    }
}

/// Detects when both files have new, complete contents.
struct FileWatcher {
    files: Files,
    last: Result<Contents, PemError>,
    /// Whether `last` has been accepted or rejected.
    decided: bool,
}

impl FileWatcher {
    fn new(files: Files, in_use: Contents) -> Self {
        Self {
            files,
            last: Ok(in_use),
            decided: true,
        }
    }

    /// The certificate to use from now on, or why the new contents cannot be used; `None` if
    /// nothing is new.
    ///
    /// The two files are not replaced atomically, and a file may be read while it is being written.
    /// New contents are therefore used only after two consecutive reads have returned them.
    fn observe(
        &mut self,
        contents: Result<Contents, PemError>,
    ) -> Option<Result<CertifiedKey, CertificateError>> {
        let is_same = match (&contents, &self.last) {
            (Ok(new), Ok(last)) => new == last,
            (Err(new), Err(last)) => new.to_string() == last.to_string(),
            _ => false,
        };
        if !is_same {
            self.last = contents;
            self.decided = false;
            return None;
        }
        if self.decided {
            return None;
        }
        self.decided = true;
        Some(match contents {
            Ok(contents) => self.files.parse(&contents).and_then(|key| {
                match expires_at(&key).filter(|&at| at < Utc::now()) {
                    Some(at) => Err(CertificateError::Expired {
                        file: self.files.certificate.clone(),
                        at,
                    }),
                    None => Ok(key),
                }
            }),
            Err(error) => Err(error.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_pair() -> Contents {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Contents {
            certificate: pair.cert.pem().into_bytes(),
            key: pair.signing_key.serialize_pem().into_bytes(),
        }
    }

    fn watcher(in_use: Contents) -> FileWatcher {
        FileWatcher::new(
            Files {
                certificate: "server.pem".into(),
                key: "server.key".into(),
            },
            in_use,
        )
    }

    #[test]
    fn a_new_pair_is_used_after_two_identical_reads() {
        let (old, new) = (new_pair(), new_pair());
        let mut watcher = watcher(old);
        assert!(watcher.observe(Ok(new.clone())).is_none());
        assert!(watcher.observe(Ok(new.clone())).unwrap().is_ok());
        assert!(watcher.observe(Ok(new.clone())).is_none());
    }

    #[test]
    fn a_half_replaced_pair_is_not_used() {
        let (old, new) = (new_pair(), new_pair());
        let mixed = Contents {
            certificate: new.certificate.clone(),
            key: old.key.clone(),
        };
        let truncated = Contents {
            certificate: new.certificate[..200].to_vec(),
            key: new.key.clone(),
        };
        let mut watcher = watcher(old);
        for partial in [mixed, truncated] {
            assert!(watcher.observe(Ok(partial)).is_none());
        }
        assert!(
            watcher
                .observe(Err(PemError::Unreadable {
                    file: "server.key".into(),
                    error: std::io::ErrorKind::NotFound.into(),
                }))
                .is_none()
        );
        assert!(watcher.observe(Ok(new.clone())).is_none());
        assert!(watcher.observe(Ok(new.clone())).unwrap().is_ok());
    }

    fn pair_until(year: i32) -> Contents {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 2);
        Contents {
            certificate: params.self_signed(&key).unwrap().pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
        }
    }

    #[test]
    fn an_expired_certificate_is_not_used() {
        let mut watcher = watcher(new_pair());
        let expired = pair_until(2001);
        assert!(watcher.observe(Ok(expired.clone())).is_none());
        let error = watcher.observe(Ok(expired)).unwrap().unwrap_err();
        let expected = "server.pem expired on 2001-01-02 00:00:00 UTC; renew it";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_certificate_is_warned_about_30_days_ahead() {
        let at: DateTime<Utc> = "2030-01-31T00:00:00Z".parse().unwrap();
        let file = Path::new("server.pem");
        let warn = |days| warning(file, Some(at), at - TimeDelta::days(days));
        assert_eq!((warn(30), warning(file, None, at)), (None, None));
        let about = "the TLS certificate in server.pem";
        let at = "2030-01-31 00:00:00 UTC";
        let expected = format!("{about} expires on {at}, in 29 days; renew it");
        assert_eq!(warn(29), Some(expected));
        let expected = format!("{about} expired on {at}, so clients reject it; renew it");
        assert_eq!(warn(-1), Some(expected));
    }

    #[test]
    fn a_mismatched_pair_is_reported_once() {
        let (old, new) = (new_pair(), new_pair());
        let wrong = Contents {
            certificate: new.certificate,
            key: old.key.clone(),
        };
        let mut watcher = watcher(old);
        assert!(watcher.observe(Ok(wrong.clone())).is_none());
        let error = watcher.observe(Ok(wrong.clone())).unwrap().unwrap_err();
        assert_eq!(
            error.to_string(),
            "server.key does not match the certificate in server.pem"
        );
        assert!(watcher.observe(Ok(wrong.clone())).is_none());
    }
}
