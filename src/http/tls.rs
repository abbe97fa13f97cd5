//! The server's certificate: read at the start, and again whenever its files change.

use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::Serve;
use crate::pem;

/// How often the files are looked at. They are read, not only their times: some ways to put a file in place keep the
/// time, and a few kilobytes a second cost nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where the certificate and its key stand.
#[derive(Debug, Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// What stood in both files at one moment.
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn read(&self) -> Result<Contents, String> {
        Ok(Contents {
            certificate: pem::read(&self.certificate)?,
            key: pem::read(&self.key)?,
        })
    }

    fn parse(&self, contents: &Contents) -> Result<CertifiedKey, String> {
        let certificates = pem::certificates(&self.certificate, &contents.certificate)?;
        let key = pem::key(&self.key, &contents.key)?;
        pem::pair(certificates, key).map_err(|error| {
            let (certificate, key) = (self.certificate.display(), self.key.display());
            match error {
                rustls::Error::InconsistentKeys(_) => {
                    format!("{key} is not the key of the certificate in {certificate}")
                }
                other => format!("{certificate} and {key} cannot be used: {other}"),
            }
        })
    }
}

/// The certificate that new connections get.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl Current {
    fn get(&self) -> Arc<CertifiedKey> {
        // Nothing can panic while it holds the lock; what is in there is whole in any case.
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

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

/// The TLS side of the server, or nothing where no certificate is set.
///
/// From here on a task looks at the files, and gives new connections what they say.
///
/// # Errors
/// The files cannot be read, or their content is no certificate with its key.
pub(super) fn server_config(serve: &Serve) -> anyhow::Result<Option<ServerConfig>> {
    let Some((certificate, key)) = serve.tls_files() else {
        return Ok(None);
    };
    let files = Files {
        certificate: certificate.into(),
        key: key.into(),
    };
    let contents = files
        .read()
        .map_err(|problem| anyhow!(problem))
        .context("reading the certificate")?;
    let first = files
        .parse(&contents)
        .map_err(|problem| anyhow!(problem))
        .context("reading the certificate")?;
    let current = Arc::new(Current(RwLock::new(Arc::new(first))));
    let config = ServerConfig::builder_with_provider(pem::provider())
        .with_safe_default_protocol_versions()
        .context("preparing TLS")?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
    tokio::spawn(follow(Watch::new(files, contents), current));
    Ok(Some(config))
}

/// Looks at the files for ever.
async fn follow(mut watch: Watch, current: Arc<Current>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let files = watch.files.clone();
        // A file may be on a network that answers late.
        let Ok(seen) = tokio::task::spawn_blocking(move || files.read()).await else {
            return;
        };
        match watch.look(seen) {
            None => {}
            Some(Ok(new)) => {
                current.set(new);
                log::info!(
                    "new connections get the new certificate in {}",
                    watch.files.certificate.display()
                );
            }
            Some(Err(problem)) => log::error!("the certificate stays as it was: {problem}"),
        }
    }
}

/// What was seen in the files so far.
struct Watch {
    files: Files,
    /// What was seen last.
    seen: Result<Contents, String>,
    /// Whether what was seen last is decided on: taken, or refused.
    decided: bool,
}

impl Watch {
    fn new(files: Files, used: Contents) -> Self {
        Self {
            files,
            seen: Ok(used),
            decided: true,
        }
    }

    /// The certificate to use from now on, or why it cannot be; `None` where there is nothing new.
    ///
    /// Two files are never replaced at once, nor is one always written at once, so what is new is left alone until
    /// it was seen twice alike.
    fn look(&mut self, seen: Result<Contents, String>) -> Option<Result<CertifiedKey, String>> {
        if seen != self.seen {
            self.seen = seen;
            self.decided = false;
            return None;
        }
        if self.decided {
            return None;
        }
        self.decided = true;
        Some(match &self.seen {
            Ok(contents) => self.files.parse(contents),
            Err(problem) => Err(problem.clone()),
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

    fn watch(used: Contents) -> Watch {
        Watch::new(
            Files {
                certificate: "server.pem".into(),
                key: "server.key".into(),
            },
            used,
        )
    }

    #[test]
    fn a_pair_is_taken_when_it_was_seen_twice() {
        let (old, new) = (new_pair(), new_pair());
        let mut watch = watch(old);
        assert!(watch.look(Ok(new.clone())).is_none());
        assert!(watch.look(Ok(new.clone())).unwrap().is_ok());
        assert!(watch.look(Ok(new.clone())).is_none());
    }

    #[test]
    fn a_pair_that_is_being_replaced_is_waited_for() {
        let (old, new) = (new_pair(), new_pair());
        let between = Contents {
            certificate: new.certificate.clone(),
            key: old.key.clone(),
        };
        let cut = Contents {
            certificate: new.certificate[..200].to_vec(),
            key: new.key.clone(),
        };
        let mut watch = watch(old);
        for half in [between, cut] {
            assert!(watch.look(Ok(half)).is_none());
        }
        assert!(
            watch
                .look(Err("cannot read server.key".to_owned()))
                .is_none()
        );
        assert!(watch.look(Ok(new.clone())).is_none());
        assert!(watch.look(Ok(new.clone())).unwrap().is_ok());
    }

    #[test]
    fn a_pair_that_does_not_match_is_refused_once() {
        let (old, new) = (new_pair(), new_pair());
        let wrong = Contents {
            certificate: new.certificate,
            key: old.key.clone(),
        };
        let mut watch = watch(old);
        assert!(watch.look(Ok(wrong.clone())).is_none());
        let problem = watch.look(Ok(wrong.clone())).unwrap().unwrap_err();
        assert_eq!(
            problem,
            "server.key is not the key of the certificate in server.pem"
        );
        assert!(watch.look(Ok(wrong.clone())).is_none());
    }
}
