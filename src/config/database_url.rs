//! The database's URL: libpq's syntax, with the TLS parameters that tokio-postgres does not parse.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use tokio_postgres::config::{Host, SslMode};

/// A connection string. Neither `Display` nor `Debug` prints the password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct DatabaseUrl {
    parsed: tokio_postgres::Config,
    tls: Tls,
}

/// How to verify the server in a TLS session, and how to identify to it. Whether TLS is used at all
/// is the `sslmode` of [`DatabaseUrl::parameters`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// How to verify the server's certificate.
    pub trust: Trust,
    /// The client certificate, if any.
    pub identity: Option<ClientIdentity>,
}

/// How to verify the server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Accept any certificate: the session is encrypted, the server is not authenticated.
    Unverified,
    /// Accept a certificate issued by one of these authorities, for any host name.
    Authority(Roots),
    /// Accept a certificate issued by one of these authorities for the host name in the URL.
    Hostname(Roots),
}

/// The certificate authorities to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// Those in a PEM file.
    File(PathBuf),
    /// Those trusted by the operating system.
    System,
}

/// A client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// File of the certificate, `sslcert`.
    pub certificate: PathBuf,
    /// File of its private key, `sslkey`.
    pub key: PathBuf,
}

/// Why a connection string cannot be used. No variant contains the password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// The parser's error, which names the parameter at fault.
    #[error("not a PostgreSQL URL: {0} (e.g. postgresql://user@host:5432/database)")]
    Syntax(String),
    /// A user name or password has a special character that is not encoded. The parser would take
    /// the rest of the password for the host.
    #[error(
        "not a PostgreSQL URL: it has more than one @; percent-encode special characters in the \
         user name and password (@ is %40)"
    )]
    UnescapedAt,
    /// Like [`Self::Syntax`], but the parser's error may quote a part of the password.
    #[error(
        "not a PostgreSQL URL: a parameter is unknown or has no value; percent-encode special \
         characters in the user name and password (& is %26, ? is %3F), and quote values in a \
         key=value string (password='…')"
    )]
    Parameter,
    /// There is no host to connect to.
    #[error("not a PostgreSQL URL: no host (e.g. postgresql://user@host:5432/database)")]
    NoHost,
    /// An `sslmode` that is not supported.
    #[error("sslmode cannot be '{0}'; use disable, prefer, require, verify-ca or verify-full")]
    SslMode(String),
    /// `sslmode=verify-ca` without `sslrootcert`.
    #[error("sslmode=verify-ca needs sslrootcert=FILE, the CA certificates to trust")]
    NoRoots,
    /// `sslrootcert=system` with a mode that does not verify the host name.
    #[error(
        "sslrootcert=system needs sslmode=verify-full: without verifying the host name, any certificate from a \
         public authority would be accepted"
    )]
    SystemRootsWithoutHostname,
    /// Only one of `sslcert` and `sslkey`.
    #[error("{0} is set but {1} is not; set both")]
    Incomplete(&'static str, &'static str),
}

impl DatabaseUrl {
    /// The connection parameters, except for TLS certificates.
    #[must_use]
    pub fn parameters(&self) -> &tokio_postgres::Config {
        &self.parsed
    }

    /// The TLS certificates.
    #[must_use]
    pub fn tls(&self) -> &Tls {
        &self.tls
    }
}

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;

    fn from_str(text: &str) -> Result<Self, DatabaseUrlError> {
        let (rest, parameters) = TlsParameters::split_off(text);
        if let Some((_, url)) = rest.split_once("://") {
            let after_user = url.find('@').map_or("", |at| &url[at + 1..]);
            let host = after_user.split('?').next().unwrap_or_default();
            if host.contains('@') {
                return Err(DatabaseUrlError::UnescapedAt);
            }
        }
        let mut parsed = rest.parse::<tokio_postgres::Config>().map_err(|error| {
            // The source is the parser's own message.
            let source = std::error::Error::source(&error);
            let problem = source.map_or_else(|| error.to_string(), ToString::to_string);
            let quotes_text = problem.contains("unknown option") || problem.contains("but got");
            if quotes_text && (text.contains(':') && text.contains('@') || text.contains("pass")) {
                DatabaseUrlError::Parameter
            } else {
                DatabaseUrlError::Syntax(problem)
            }
        })?;
        if parsed.get_hosts().is_empty() {
            return Err(DatabaseUrlError::NoHost);
        }
        let (mode, tls) = parameters.interpret(parsed.get_ssl_mode())?;
        // Like libpq, do not use TLS over Unix sockets.
        let is_local = parsed
            .get_hosts()
            .iter()
            .all(|host| !matches!(host, Host::Tcp(_)));
        parsed.ssl_mode(if is_local { SslMode::Disable } else { mode });
        Ok(Self { parsed, tls })
    }
}

impl TryFrom<String> for DatabaseUrl {
    type Error = DatabaseUrlError;

    fn try_from(text: String) -> Result<Self, DatabaseUrlError> {
        text.parse()
    }
}

/// The TLS parameters of a URL, decoded.
#[derive(Default)]
struct TlsParameters {
    mode: Option<String>,
    root: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl TlsParameters {
    /// Separates the TLS parameters from the rest of a URL. Does not look into `key=value`
    /// connection strings.
    fn split_off(text: &str) -> (String, Self) {
        let mut parameters = Self::default();
        let is_url = ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| text.starts_with(scheme));
        // The password may contain question marks.
        let after_password = text.find('@').unwrap_or_default();
        let Some(mark) = text[after_password..].find('?').filter(|_| is_url) else {
            return (text.to_owned(), parameters);
        };
        let (base, query) = text.split_at(after_password + mark);
        let others: Vec<&str> = query[1..]
            .split('&')
            .filter(|parameter| !parameters.take(parameter))
            .collect();
        let separator = if others.is_empty() { "" } else { "?" };
        (format!("{base}{separator}{}", others.join("&")), parameters)
    }

    /// Keeps a `name=value` and returns true if it is a TLS parameter.
    fn take(&mut self, parameter: &str) -> bool {
        let Some((name, value)) = parameter.split_once('=') else {
            return false;
        };
        let field = match name {
            "sslmode" => &mut self.mode,
            "sslrootcert" => &mut self.root,
            "sslcert" => &mut self.certificate,
            "sslkey" => &mut self.key,
            _ => return false,
        };
        *field = Some(percent_decode_str(value).decode_utf8_lossy().into_owned());
        true
    }

    /// Interprets the parameters as libpq does. `default` is the mode if the URL has none.
    fn interpret(self, default: SslMode) -> Result<(SslMode, Tls), DatabaseUrlError> {
        let roots = self.root.map(|root| {
            if root == "system" {
                Roots::System
            } else {
                Roots::File(root.into())
            }
        });
        let any_host = || roots.clone().map_or(Trust::Unverified, Trust::Authority);
        let (mode, trust) = match self.mode.as_deref() {
            None if roots == Some(Roots::System) => {
                (SslMode::Require, Trust::Hostname(Roots::System))
            }
            None => (default, any_host()),
            Some("disable") => (SslMode::Disable, Trust::Unverified),
            Some("prefer") => (SslMode::Prefer, any_host()),
            Some("require") => (SslMode::Require, any_host()),
            Some("verify-ca") => {
                let roots = roots.ok_or(DatabaseUrlError::NoRoots)?;
                (SslMode::Require, Trust::Authority(roots))
            }
            Some("verify-full") => (
                SslMode::Require,
                Trust::Hostname(roots.unwrap_or(Roots::System)),
            ),
            Some(other) => return Err(DatabaseUrlError::SslMode(other.to_owned())),
        };
        if trust == Trust::Authority(Roots::System) {
            return Err(DatabaseUrlError::SystemRootsWithoutHostname);
        }
        let identity = match (self.certificate, self.key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(ClientIdentity {
                certificate: certificate.into(),
                key: key.into(),
            }),
            (Some(_), None) => return Err(DatabaseUrlError::Incomplete("sslcert", "sslkey")),
            (None, Some(_)) => return Err(DatabaseUrlError::Incomplete("sslkey", "sslcert")),
        };
        Ok((mode, Tls { trust, identity }))
    }
}

/// Prints `user@host:port/database`, without the password.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.parsed.get_user().unwrap_or("?");
        write!(formatter, "{user}@")?;
        for (index, host) in self.parsed.get_hosts().iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            // A single port applies to all hosts.
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

    fn parse(parameters: &str) -> Result<DatabaseUrl, DatabaseUrlError> {
        format!("postgresql://user:pass?word@host/db{parameters}").parse()
    }

    fn file(name: &str) -> Roots {
        Roots::File(name.into())
    }

    #[test]
    fn every_sslmode_has_libpqs_meaning() {
        for (parameters, mode, trust) in [
            ("", SslMode::Prefer, Trust::Unverified),
            (
                "?sslmode=disable&sslrootcert=a",
                SslMode::Disable,
                Trust::Unverified,
            ),
            ("?sslmode=prefer", SslMode::Prefer, Trust::Unverified),
            ("?sslmode=require", SslMode::Require, Trust::Unverified),
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
                Trust::Hostname(file("a")),
            ),
            (
                "?sslmode=verify-full",
                SslMode::Require,
                Trust::Hostname(Roots::System),
            ),
            (
                "?sslrootcert=system",
                SslMode::Require,
                Trust::Hostname(Roots::System),
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
    fn other_parameters_are_unchanged() {
        let url =
            parse("?application_name=me&sslmode=require&sslcert=c&sslkey=k&connect_timeout=3")
                .unwrap();
        assert_eq!(url.parameters().get_application_name(), Some("me"));
        assert_eq!(url.parameters().get_connect_timeout().unwrap().as_secs(), 3);
        assert_eq!(url.parameters().get_password(), Some(&b"pass?word"[..]));
        assert_eq!(url.parameters().get_dbname(), Some("db"));
        assert_eq!(
            url.tls().identity,
            Some(ClientIdentity {
                certificate: "c".into(),
                key: "k".into()
            })
        );
    }

    #[test]
    fn insecure_and_incomplete_parameters_are_refused() {
        for (parameters, problem) in [
            (
                "?sslmode=allow",
                "sslmode cannot be 'allow'; use disable, prefer, require, verify-ca or verify-full",
            ),
            (
                "?sslmode=verify-ca",
                "sslmode=verify-ca needs sslrootcert=FILE, the CA certificates to trust",
            ),
            ("?sslcert=c", "sslcert is set but sslkey is not; set both"),
            ("?sslkey=k", "sslkey is set but sslcert is not; set both"),
        ] {
            assert_eq!(parse(parameters).unwrap_err().to_string(), problem);
        }
        for mode in ["prefer", "require", "verify-ca"] {
            let error = parse(&format!("?sslmode={mode}&sslrootcert=system")).unwrap_err();
            assert_eq!(error, DatabaseUrlError::SystemRootsWithoutHostname);
        }
    }

    #[test]
    fn a_unix_socket_needs_no_tls() {
        let url: DatabaseUrl = "postgresql://user@%2Fvar%2Frun/db?sslmode=require"
            .parse()
            .unwrap();
        assert_eq!(url.parameters().get_ssl_mode(), SslMode::Disable);
    }
}
