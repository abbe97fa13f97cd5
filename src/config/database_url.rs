//! The database's URL: libpq's, with the parameters of TLS that tokio-postgres leaves out.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use tokio_postgres::config::{Host, SslMode};

/// A connection string. It never prints its password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct DatabaseUrl {
    parsed: tokio_postgres::Config,
    tls: Tls,
}

/// What makes a TLS session with the database's server good. Whether there is one at all is the `sslmode` of
/// [`DatabaseUrl::parameters`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Whom to believe that the server is the right one.
    pub trust: Trust,
    /// The client's own certificate.
    pub identity: Option<Identity>,
}

/// Whom to believe that a server is the right one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Anybody: nobody can listen, but who is at the other end is not known.
    Anybody,
    /// A server with a certificate of these authorities, under any name.
    Authority(Roots),
    /// A server with a certificate of these authorities for the name that is connected to.
    Name(Roots),
}

/// Authorities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// Those in a file.
    File(PathBuf),
    /// Those that the operating system trusts.
    System,
}

/// The client's own certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its file, `sslcert`.
    pub certificate: PathBuf,
    /// The file of its private key, `sslkey`.
    pub key: PathBuf,
}

impl DatabaseUrl {
    /// The parsed connection parameters.
    #[must_use]
    pub fn parameters(&self) -> &tokio_postgres::Config {
        &self.parsed
    }

    /// What makes a TLS session good.
    #[must_use]
    pub fn tls(&self) -> &Tls {
        &self.tls
    }
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, asked) = Asked::take_out(text);
        // The parser's own error is kept, because it names the part at fault and never repeats the password.
        let mut parsed = rest.parse::<tokio_postgres::Config>().map_err(|error| {
            format!(
                "not a PostgreSQL URL: {}",
                std::error::Error::source(&error)
                    .map_or_else(|| error.to_string(), ToString::to_string)
            )
        })?;
        if parsed.get_hosts().is_empty() {
            return Err(
                "not a PostgreSQL URL: no host (ex: postgresql://user@host:5432/database)"
                    .to_owned(),
            );
        }
        let (mode, tls) = asked.judge(parsed.get_ssl_mode())?;
        // Nobody is between the two ends of a socket in the file system, so libpq leaves TLS out there.
        let stays_here = parsed
            .get_hosts()
            .iter()
            .all(|host| !matches!(host, Host::Tcp(_)));
        parsed.ssl_mode(if stays_here { SslMode::Disable } else { mode });
        Ok(Self { parsed, tls })
    }
}

impl TryFrom<String> for DatabaseUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// The parameters of TLS as they stand in the URL.
#[derive(Default)]
struct Asked {
    mode: Option<String>,
    root: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl Asked {
    /// Takes the parameters out of a URL, and gives the rest. Other forms of connection strings are left alone.
    fn take_out(text: &str) -> (String, Self) {
        let mut asked = Self::default();
        let is_url = ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| text.starts_with(scheme));
        // A password may have a question mark, so the one that counts comes behind it.
        let behind_password = text.find('@').unwrap_or_default();
        let Some(mark) = text[behind_password..].find('?').filter(|_| is_url) else {
            return (text.to_owned(), asked);
        };
        let (front, query) = text.split_at(behind_password + mark);
        let others: Vec<&str> = query[1..]
            .split('&')
            .filter(|parameter| !asked.take(parameter))
            .collect();
        let separator = if others.is_empty() { "" } else { "?" };
        (format!("{front}{separator}{}", others.join("&")), asked)
    }

    /// Takes a parameter, if it is one of these.
    fn take(&mut self, parameter: &str) -> bool {
        let Some((name, value)) = parameter.split_once('=') else {
            return false;
        };
        let place = match name {
            "sslmode" => &mut self.mode,
            "sslrootcert" => &mut self.root,
            "sslcert" => &mut self.certificate,
            "sslkey" => &mut self.key,
            _ => return false,
        };
        *place = Some(percent_decode_str(value).decode_utf8_lossy().into_owned());
        true
    }

    /// What was asked for, as libpq understands it; `default` is the mode where none is in the URL.
    fn judge(self, default: SslMode) -> Result<(SslMode, Tls), String> {
        let roots = self.root.map(|root| {
            if root == "system" {
                Roots::System
            } else {
                Roots::File(root.into())
            }
        });
        let unverified = || roots.clone().map_or(Trust::Anybody, Trust::Authority);
        let (mode, trust) = match self.mode.as_deref() {
            None if roots == Some(Roots::System) => (SslMode::Require, Trust::Name(Roots::System)),
            None => (default, unverified()),
            Some("disable") => (SslMode::Disable, Trust::Anybody),
            Some("prefer") => (SslMode::Prefer, unverified()),
            Some("require") => (SslMode::Require, unverified()),
            Some("verify-ca") => {
                let roots = roots
                    .ok_or("sslmode=verify-ca needs sslrootcert=FILE, the authority to trust")?;
                (SslMode::Require, Trust::Authority(roots))
            }
            Some("verify-full") => (
                SslMode::Require,
                Trust::Name(roots.unwrap_or(Roots::System)),
            ),
            Some(other) => {
                let modes = "disable, prefer, require, verify-ca or verify-full";
                return Err(format!("sslmode cannot be '{other}', only {modes}"));
            }
        };
        if trust == Trust::Authority(Roots::System) {
            return Err("sslrootcert=system goes with sslmode=verify-full only: without the name, anybody who has \
                        a certificate of a public authority would do"
                .to_owned());
        }
        let identity = match (self.certificate, self.key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(Identity {
                certificate: certificate.into(),
                key: key.into(),
            }),
            (Some(_), None) => return Err("sslcert needs sslkey beside it".to_owned()),
            (None, Some(_)) => return Err("sslkey needs sslcert beside it".to_owned()),
        };
        Ok((mode, Tls { trust, identity }))
    }
}

/// Prints `user@host:port/database`: what one needs to find the server, and no secret.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.parsed.get_user().unwrap_or("?");
        write!(formatter, "{user}@")?;
        for (index, host) in self.parsed.get_hosts().iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            // One port may stand for all hosts.
            let ports = self.parsed.get_ports();
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => write!(formatter, "{separator}{name}:{port}")?,
                Host::Unix(path) => write!(formatter, "{separator}{}:{port}", path.display())?,
            }
        }
        write!(formatter, "/{}", self.parsed.get_dbname().unwrap_or(user))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(parameters: &str) -> Result<DatabaseUrl, String> {
        format!("postgresql://user:pass?word@host/db{parameters}").parse()
    }

    fn file(name: &str) -> Roots {
        Roots::File(name.into())
    }

    #[test]
    fn every_sslmode_means_what_libpq_says() {
        for (parameters, mode, trust) in [
            ("", SslMode::Prefer, Trust::Anybody),
            (
                "?sslmode=disable&sslrootcert=a",
                SslMode::Disable,
                Trust::Anybody,
            ),
            ("?sslmode=prefer", SslMode::Prefer, Trust::Anybody),
            ("?sslmode=require", SslMode::Require, Trust::Anybody),
            (
                "?sslmode=require&sslrootcert=a%20b.pem",
                SslMode::Require,
                Trust::Authority(file("a b.pem")),
            ),
            (
                "?sslrootcert=a&sslmode=verify-ca",
                SslMode::Require,
                Trust::Authority(file("a")),
            ),
            (
                "?sslmode=verify-full&sslrootcert=a",
                SslMode::Require,
                Trust::Name(file("a")),
            ),
            (
                "?sslmode=verify-full",
                SslMode::Require,
                Trust::Name(Roots::System),
            ),
            (
                "?sslrootcert=system",
                SslMode::Require,
                Trust::Name(Roots::System),
            ),
        ] {
            let url = parse(parameters).unwrap();
            assert_eq!(
                (url.parameters().get_ssl_mode(), &url.tls().trust),
                (mode, &trust),
                "{parameters}"
            );
        }
    }

    #[test]
    fn the_other_parameters_are_left_as_they_are() {
        let url =
            parse("?application_name=me&sslmode=require&sslcert=c&sslkey=k&connect_timeout=3")
                .unwrap();
        assert_eq!(url.parameters().get_application_name(), Some("me"));
        assert_eq!(url.parameters().get_connect_timeout().unwrap().as_secs(), 3);
        assert_eq!(url.parameters().get_password(), Some(&b"pass?word"[..]));
        assert_eq!(url.parameters().get_dbname(), Some("db"));
        assert_eq!(
            url.tls().identity,
            Some(Identity {
                certificate: "c".into(),
                key: "k".into()
            })
        );
    }

    #[test]
    fn what_would_be_less_than_it_seems_is_refused() {
        for (parameters, problem) in [
            (
                "?sslmode=allow",
                "sslmode cannot be 'allow', only disable, prefer, require, verify-ca or verify-full",
            ),
            (
                "?sslmode=verify-ca",
                "sslmode=verify-ca needs sslrootcert=FILE, the authority to trust",
            ),
            ("?sslcert=c", "sslcert needs sslkey beside it"),
            ("?sslkey=k", "sslkey needs sslcert beside it"),
        ] {
            assert_eq!(parse(parameters).unwrap_err(), problem);
        }
        for mode in ["prefer", "require", "verify-ca"] {
            let problem = parse(&format!("?sslmode={mode}&sslrootcert=system")).unwrap_err();
            assert!(
                problem.starts_with("sslrootcert=system goes with sslmode=verify-full only"),
                "{problem}"
            );
        }
    }

    #[test]
    fn a_socket_in_the_file_system_needs_no_tls() {
        let url: DatabaseUrl = "postgresql://user@%2Fvar%2Frun/db?sslmode=require"
            .parse()
            .unwrap();
        assert_eq!(url.parameters().get_ssl_mode(), SslMode::Disable);
    }
}
