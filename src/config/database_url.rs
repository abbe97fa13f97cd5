//! The database's URL: how to connect, as psql would with the same URL and environment.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use tokio_postgres::config::{
    ChannelBinding, Host, LoadBalanceHosts, SslMode, SslNegotiation, TargetSessionAttrs,
};

use super::connection_options::{ConnectionOptions, Environment};
use super::database_url_error::DatabaseUrlError;
use super::password_file::{self, Found, SOCKET_DIRECTORIES};

/// The port that PostgreSQL listens on by default.
const DEFAULT_PORT: u16 = 5_432;

const PREFER_STANDBY: &str = "prefer-standby";

/// How to connect. Neither `Display` nor `Debug` prints the password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Unresolved")]
pub struct DatabaseUrl {
    parsed: tokio_postgres::Config,
    prefers_standby: bool,
    tls: Tls,
    password_file: PasswordFile,
}

/// Whether the password comes from libpq's password file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasswordFile {
    /// No: there is no such file or no line for this connection, or the password is set elsewhere.
    Unused,
    /// Yes, from this file.
    Used(PathBuf),
    /// No: it has the password, but others may read the file.
    Exposed(PathBuf),
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

impl DatabaseUrl {
    /// The connection parameters, except for TLS certificates.
    #[must_use]
    pub fn parameters(&self) -> &tokio_postgres::Config {
        &self.parsed
    }

    /// Whether to connect to a server that accepts writes only if no other can be reached:
    /// `target_session_attrs=prefer-standby`, which the parameters do not have.
    #[must_use]
    pub fn prefers_standby(&self) -> bool {
        self.prefers_standby
    }

    /// The TLS certificates.
    #[must_use]
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// Whether the password comes from a password file.
    #[must_use]
    pub fn password_file(&self) -> &PasswordFile {
        &self.password_file
    }
}

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;

    fn from_str(text: &str) -> Result<Self, DatabaseUrlError> {
        Self::resolve(text, &Environment::new())
    }
}

/// The setting: its text, or that with the environment variables that complete it.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "not a text in quotes (e.g. \"postgresql://user@host:5432/database\")"
)]
enum Unresolved {
    Text(String),
    WithEnvironment {
        text: String,
        environment: Environment,
    },
}

impl TryFrom<Unresolved> for DatabaseUrl {
    type Error = DatabaseUrlError;

    fn try_from(unresolved: Unresolved) -> Result<Self, DatabaseUrlError> {
        match unresolved {
            Unresolved::Text(text) => text.parse(),
            Unresolved::WithEnvironment { text, environment } => Self::resolve(&text, &environment),
        }
    }
}

impl DatabaseUrl {
    /// Connects as psql does with this URL or `key=value` string, which may be empty, and these
    /// environment variables.
    fn resolve(text: &str, environment: &Environment) -> Result<Self, DatabaseUrlError> {
        let options = ConnectionOptions::collect(text, environment)?;
        let mut parsed = tokio_postgres::Config::new();
        if let Some(user) = options.get("user").map(str::to_owned).or_else(system_user) {
            parsed.user(user);
        }
        if let Some(database) = options.get("dbname") {
            parsed.dbname(database);
        }
        add_addresses(&mut parsed, &options)?;
        add_session(&mut parsed, &options)?;
        add_timeouts(&mut parsed, &options)?;
        let (mode, tls) = tls(&options)?;
        // Like libpq, do not use TLS over Unix sockets.
        let is_local = parsed.get_hostaddrs().is_empty()
            && parsed
                .get_hosts()
                .iter()
                .all(|host| !matches!(host, Host::Tcp(_)));
        parsed.ssl_mode(if is_local { SslMode::Disable } else { mode });
        let password_file = add_password(&mut parsed, &options);
        Ok(Self {
            parsed,
            prefers_standby: options.get("target_session_attrs") == Some(PREFER_STANDBY),
            tls,
            password_file,
        })
    }
}

/// The name of the user that runs this process.
fn system_user() -> Option<String> {
    whoami::username().ok()
}

/// Adds hosts, addresses and ports, one port for each host.
fn add_addresses(
    parsed: &mut tokio_postgres::Config,
    options: &ConnectionOptions,
) -> Result<(), DatabaseUrlError> {
    let list = |name| options.get(name).map(|text| text.split(',').collect());
    let addresses: Vec<&str> = list("hostaddr").unwrap_or_default();
    let hosts: Vec<&str> = list("host").unwrap_or_else(|| vec![""; addresses.len().max(1)]);
    let ports: Vec<&str> = list("port").unwrap_or_else(|| vec![""]);
    let count = hosts.len();
    if !addresses.is_empty() && addresses.len() != count {
        return Err(DatabaseUrlError::Count("hostaddr", addresses.len(), count));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(DatabaseUrlError::Count("port", ports.len(), count));
    }
    for address in &addresses {
        let address: IpAddr = address.parse().map_err(|_| {
            let value = (*address).to_owned();
            DatabaseUrlError::Value(options.label("hostaddr"), value, "an IP address")
        })?;
        parsed.hostaddr(address);
    }
    for (index, host) in hosts.iter().enumerate() {
        let port = match *ports.get(index).unwrap_or(&ports[0]) {
            "" => DEFAULT_PORT,
            text => match text.parse() {
                Ok(port @ 1..) => port,
                _ => return Err(DatabaseUrlError::Port(options.label("port"))),
            },
        };
        parsed.port(port);
        match *host {
            "" if addresses.is_empty() => parsed.host(default_host(port)),
            "" => parsed.host(addresses[index]),
            host => parsed.host(host),
        };
    }
    Ok(())
}

/// The directory of the Unix socket if a server listens on it, otherwise localhost.
fn default_host(port: u16) -> &'static str {
    let has_socket = |directory: &&str| {
        std::path::Path::new(directory)
            .join(format!(".s.PGSQL.{port}"))
            .exists()
    };
    let directory = SOCKET_DIRECTORIES
        .into_iter()
        .filter(|_| cfg!(unix))
        .find(has_socket);
    directory.unwrap_or("localhost")
}

/// Adds what concerns the choice of a server, and the session on it.
fn add_session(
    parsed: &mut tokio_postgres::Config,
    options: &ConnectionOptions,
) -> Result<(), DatabaseUrlError> {
    let name = ["application_name", "fallback_application_name"];
    if let Some(name) = name.iter().find_map(|name| options.get(name)) {
        parsed.application_name(name);
    }
    if let Some(text) = options.get("options") {
        parsed.options(text);
    }
    if let Some(choice) = choose(
        options,
        "target_session_attrs",
        &[
            ("any", TargetSessionAttrs::Any),
            (PREFER_STANDBY, TargetSessionAttrs::Any),
            ("read-write", TargetSessionAttrs::ReadWrite),
            ("read-only", TargetSessionAttrs::ReadOnly),
        ],
        "any, read-write, read-only or prefer-standby",
    )? {
        parsed.target_session_attrs(choice);
    }
    if let Some(choice) = choose(
        options,
        "load_balance_hosts",
        &[
            ("disable", LoadBalanceHosts::Disable),
            ("random", LoadBalanceHosts::Random),
        ],
        "disable or random",
    )? {
        parsed.load_balance_hosts(choice);
    }
    if let Some(choice) = choose(
        options,
        "sslnegotiation",
        &[
            ("postgres", SslNegotiation::Postgres),
            ("direct", SslNegotiation::Direct),
        ],
        "postgres or direct",
    )? {
        parsed.ssl_negotiation(choice);
    }
    if let Some(choice) = choose(
        options,
        "channel_binding",
        &[
            ("disable", ChannelBinding::Disable),
            ("prefer", ChannelBinding::Prefer),
            ("require", ChannelBinding::Require),
        ],
        "disable, prefer or require",
    )? {
        parsed.channel_binding(choice);
    }
    Ok(())
}

/// The meaning of an option's value, if it is set.
fn choose<T: Copy>(
    options: &ConnectionOptions,
    name: &'static str,
    choices: &[(&str, T)],
    available: &'static str,
) -> Result<Option<T>, DatabaseUrlError> {
    let Some(text) = options.get(name) else {
        return Ok(None);
    };
    match choices.iter().find(|(choice, _)| *choice == text) {
        Some((_, meaning)) => Ok(Some(*meaning)),
        None => Err(DatabaseUrlError::Value(
            options.label(name),
            text.to_owned(),
            available,
        )),
    }
}

/// Adds timeouts and keepalives.
fn add_timeouts(
    parsed: &mut tokio_postgres::Config,
    options: &ConnectionOptions,
) -> Result<(), DatabaseUrlError> {
    let number =
        |name: &'static str, available: &'static str| match options.get(name) {
            None => Ok(None),
            Some(text) => text.trim().parse::<i64>().map(Some).map_err(|_| {
                DatabaseUrlError::Value(options.label(name), text.to_owned(), available)
            }),
        };
    // In libpq, 0 and less are the default.
    let positive = |number: Option<i64>| {
        number
            .and_then(|number| u64::try_from(number).ok())
            .filter(|number| *number > 0)
    };
    let seconds = |name| number(name, "a number of seconds").map(positive);
    if let Some(timeout) = seconds("connect_timeout")? {
        parsed.connect_timeout(Duration::from_secs(timeout));
    }
    if let Some(timeout) = number("tcp_user_timeout", "a number of milliseconds").map(positive)? {
        parsed.tcp_user_timeout(Duration::from_millis(timeout));
    }
    if let Some(keepalives) = number("keepalives", "0 or 1")? {
        parsed.keepalives(keepalives != 0);
    }
    if let Some(idle) = seconds("keepalives_idle")? {
        parsed.keepalives_idle(Duration::from_secs(idle));
    }
    if let Some(interval) = seconds("keepalives_interval")? {
        parsed.keepalives_interval(Duration::from_secs(interval));
    }
    // The second is the name in tokio-postgres.
    for name in ["keepalives_count", "keepalives_retries"] {
        if let Some(count) = number(name, "a number of packets").map(positive)? {
            parsed.keepalives_retries(u32::try_from(count).unwrap_or(u32::MAX));
        }
    }
    Ok(())
}

/// Adds the password of the options or, without one, of the password file.
fn add_password(parsed: &mut tokio_postgres::Config, options: &ConnectionOptions) -> PasswordFile {
    if let Some(password) = options.get("password") {
        parsed.password(password);
        return PasswordFile::Unused;
    }
    let (Some(file), Some(user)) = (options.password_file(), parsed.get_user()) else {
        return PasswordFile::Unused;
    };
    let database = parsed.get_dbname().unwrap_or(user).to_owned();
    let user = user.to_owned();
    // There is one password for all hosts.
    let addresses: Vec<(String, u16)> = parsed
        .get_hosts()
        .iter()
        .map(host_name)
        .zip(parsed.get_ports().iter().copied())
        .collect();
    for (host, port) in addresses {
        match password_file::look_up(&file, &host, port, &database, &user) {
            Found::Password(password) => {
                parsed.password(password);
                return PasswordFile::Used(file);
            }
            Found::Exposed => return PasswordFile::Exposed(file),
            Found::Nothing => {}
        }
    }
    PasswordFile::Unused
}

fn host_name(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    }
}

/// Interprets the options for TLS as libpq does.
fn tls(options: &ConnectionOptions) -> Result<(SslMode, Tls), DatabaseUrlError> {
    // libpq's default files, if they exist.
    let user_file = |name: &str| {
        let path = options.user_directory.as_ref()?.join(name);
        path.exists().then_some(path)
    };
    let roots = match options.get("sslrootcert") {
        Some("system") => Some(Roots::System),
        Some(file) => Some(Roots::File(file.into())),
        None => user_file("root.crt").map(Roots::File),
    };
    let any_host = || roots.clone().map_or(Trust::Unverified, Trust::Authority);
    let (mode, trust) = match options.get("sslmode") {
        None if roots == Some(Roots::System) => (SslMode::Require, Trust::Hostname(Roots::System)),
        None | Some("prefer") => (SslMode::Prefer, any_host()),
        Some("disable") => (SslMode::Disable, Trust::Unverified),
        Some("require") => (SslMode::Require, any_host()),
        Some("verify-ca") => {
            let roots = roots.ok_or(DatabaseUrlError::NoRoots)?;
            (SslMode::Require, Trust::Authority(roots))
        }
        Some("verify-full") => (
            SslMode::Require,
            Trust::Hostname(roots.unwrap_or(Roots::System)),
        ),
        Some(other) => {
            return Err(DatabaseUrlError::Value(
                options.label("sslmode"),
                other.to_owned(),
                "disable, prefer, require, verify-ca or verify-full",
            ));
        }
    };
    if trust == Trust::Authority(Roots::System) {
        return Err(DatabaseUrlError::SystemRootsWithoutHostname);
    }
    let certificate = options.get("sslcert").map(PathBuf::from);
    let key = options.get("sslkey").map(PathBuf::from);
    let identity = match (certificate, key) {
        (None, None) => user_file("postgresql.crt").zip(user_file("postgresql.key")),
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (Some(_), None) => return Err(DatabaseUrlError::Incomplete("sslcert", "sslkey")),
        (None, Some(_)) => return Err(DatabaseUrlError::Incomplete("sslkey", "sslcert")),
    };
    let identity = identity.map(|(certificate, key)| ClientIdentity { certificate, key });
    Ok((mode, Tls { trust, identity }))
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
            let port = ports
                .get(index)
                .or(ports.first())
                .copied()
                .unwrap_or(DEFAULT_PORT);
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
    fn psqls_environment_completes_the_url() {
        let resolve = |text: &str, variables: &[(&str, &str)]| {
            let environment = variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            DatabaseUrl::resolve(text, &environment).map(|url| url.to_string())
        };
        let server = [
            ("PGHOST", "db.example.net"),
            ("PGPORT", "6"),
            ("PGUSER", "me"),
            ("PGDATABASE", "things"),
        ];
        assert_eq!(resolve("", &server).unwrap(), "me@db.example.net:6/things");
        let url = "postgresql://you@one,two:7/";
        let hosts = "you@one:5432,two:7/things";
        assert_eq!(resolve(url, &server).unwrap(), hosts);
        assert_eq!(
            resolve("host=h user=u", &[]).unwrap(),
            "u@h:5432/u",
            "the database has the user's name"
        );
        assert_eq!(
            resolve("hostaddr=192.0.2.1 user=u", &[]).unwrap(),
            "u@192.0.2.1:5432/u"
        );
        for (text, variables, expected) in [
            (
                "",
                [("PGPORT", "x")],
                "PGPORT is not a number from 1 to 65535",
            ),
            (
                "postgresql://u:secret/word@h/d",
                [("PGPORT", "")],
                "not a PostgreSQL URL: there is an @ after the host; percent-encode special characters",
            ),
            (
                "host=a,b port=1,2,3",
                [("PGPORT", "")],
                "port has 3 values for 2 hosts",
            ),
            (
                "",
                [("PGTARGETSESSIONATTRS", "standby")],
                "PGTARGETSESSIONATTRS cannot be 'standby'; use any, read-write, read-only or prefer-standby",
            ),
            (
                "",
                [("PGCONNECT_TIMEOUT", "soon")],
                "PGCONNECT_TIMEOUT cannot be 'soon'; use a number of seconds",
            ),
        ] {
            let problem = resolve(text, &variables).unwrap_err().to_string();
            assert!(problem.starts_with(expected), "{problem}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_password_comes_from_the_file_unless_it_is_set() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(".pgpass");
        std::fs::write(&file, "second:*:d:u:from the file\n").unwrap();
        let permit = |mode| {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        permit(0o600);
        let home = folder.path().to_str().unwrap().to_owned();
        let environment = Environment::from([("HOME".to_owned(), home)]);
        let password = |url: &str| {
            let url = DatabaseUrl::resolve(url, &environment).unwrap();
            let password = url.parameters().get_password().map(<[u8]>::to_vec);
            (password, url.password_file().clone())
        };
        let url = "postgresql://u@first,second/d";
        let from_file = Some(b"from the file".to_vec());
        assert_eq!(
            password(url),
            (from_file.clone(), PasswordFile::Used(file.clone()))
        );
        assert_eq!(
            password("postgresql://u:own@second/d"),
            (Some(b"own".to_vec()), PasswordFile::Unused)
        );
        assert_eq!(
            password("postgresql://u@third/d"),
            (None, PasswordFile::Unused)
        );
        permit(0o640);
        assert_eq!(password(url), (None, PasswordFile::Exposed(file.clone())));
        permit(0o600);
        let elsewhere = format!("host=second dbname=d user=u passfile={}", file.display());
        let url: DatabaseUrl = elsewhere.parse().unwrap();
        assert_eq!(url.parameters().get_password(), from_file.as_deref());
    }

    #[test]
    fn libpqs_default_certificates_are_used() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join(".postgresql");
        std::fs::create_dir(&directory).unwrap();
        for name in ["root.crt", "postgresql.crt", "postgresql.key"] {
            std::fs::write(directory.join(name), "").unwrap();
        }
        let home = folder.path().to_str().unwrap().to_owned();
        let environment = Environment::from([("HOME".to_owned(), home)]);
        let url = "postgresql://u@h/d?sslmode=verify-ca";
        let url = DatabaseUrl::resolve(url, &environment).unwrap();
        let root = Roots::File(directory.join("root.crt"));
        assert_eq!(url.tls().trust, Trust::Authority(root));
        let identity = url.tls().identity.as_ref().unwrap();
        assert_eq!(identity.key, directory.join("postgresql.key"));
    }

    #[test]
    fn a_unix_socket_needs_no_tls() {
        let url: DatabaseUrl = "postgresql://user@%2Fvar%2Frun/db?sslmode=require"
            .parse()
            .unwrap();
        assert_eq!(url.parameters().get_ssl_mode(), SslMode::Disable);
    }
}
