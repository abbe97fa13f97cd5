//! The options of a connection, from where psql takes them: the URL, a service file, the `PG…`
//! environment variables, and libpq's defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

use super::database_url_error::DatabaseUrlError;

/// The environment variables that libpq reads, and `HOME`.
pub(super) type Environment = BTreeMap<String, String>;

/// An option of libpq.
struct Known {
    name: &'static str,
    /// The environment variable with its default; empty if there is none.
    variable: &'static str,
    effect: Effect,
}

/// What an option does here.
enum Effect {
    /// The same as in libpq.
    Used,
    /// Nothing: it concerns something that this program does not do.
    Ignored,
    /// Nothing with one of these values. Others are refused, with this reason.
    Only(&'static [&'static str], &'static str),
}

const NO_GSSAPI: &str = "GSSAPI is not supported; use a password or a client certificate";
const NO_REVOCATION: &str = "revocation lists are not supported; remove it, or use an authority that revokes by \
                             short lifetimes";
const ANY_METHOD: &str = "restricting the method is not supported; remove it, and use sslmode=verify-full to be \
                          sure of the server";

const fn used(name: &'static str, variable: &'static str) -> Known {
    Known {
        name,
        variable,
        effect: Effect::Used,
    }
}

const fn ignored(name: &'static str, variable: &'static str) -> Known {
    Known {
        name,
        variable,
        effect: Effect::Ignored,
    }
}

const fn only(
    name: &'static str,
    variable: &'static str,
    values: &'static [&'static str],
    reason: &'static str,
) -> Known {
    Known {
        name,
        variable,
        effect: Effect::Only(values, reason),
    }
}

/// Every option of libpq (PostgreSQL 18).
const OPTIONS: &[Known] = &[
    used("host", "PGHOST"),
    used("hostaddr", "PGHOSTADDR"),
    used("port", "PGPORT"),
    used("dbname", "PGDATABASE"),
    used("user", "PGUSER"),
    used("password", "PGPASSWORD"),
    used("passfile", "PGPASSFILE"),
    used("service", "PGSERVICE"),
    used("servicefile", "PGSERVICEFILE"),
    used("options", "PGOPTIONS"),
    used("application_name", "PGAPPNAME"),
    used("fallback_application_name", ""),
    used("connect_timeout", "PGCONNECT_TIMEOUT"),
    used("tcp_user_timeout", ""),
    used("keepalives", ""),
    used("keepalives_idle", ""),
    used("keepalives_interval", ""),
    used("keepalives_count", ""),
    used("keepalives_retries", ""),
    used("target_session_attrs", "PGTARGETSESSIONATTRS"),
    used("load_balance_hosts", "PGLOADBALANCEHOSTS"),
    used("channel_binding", "PGCHANNELBINDING"),
    used("sslmode", "PGSSLMODE"),
    used("sslnegotiation", "PGSSLNEGOTIATION"),
    used("sslrootcert", "PGSSLROOTCERT"),
    used("sslcert", "PGSSLCERT"),
    used("sslkey", "PGSSLKEY"),
    ignored("sslcompression", "PGSSLCOMPRESSION"),
    ignored("sslkeylogfile", ""),
    ignored("krbsrvname", "PGKRBSRVNAME"),
    ignored("gsslib", "PGGSSLIB"),
    ignored("min_protocol_version", "PGMINPROTOCOLVERSION"),
    ignored("max_protocol_version", "PGMAXPROTOCOLVERSION"),
    only(
        "client_encoding",
        "PGCLIENTENCODING",
        &["auto", "utf8", "utf-8", "unicode"],
        "simusage always uses UTF8; remove it",
    ),
    only(
        "gssencmode",
        "PGGSSENCMODE",
        &["disable", "prefer"],
        NO_GSSAPI,
    ),
    only("gssdelegation", "PGGSSDELEGATION", &["0"], NO_GSSAPI),
    only(
        "sslcertmode",
        "PGSSLCERTMODE",
        &["allow"],
        "remove it; a client certificate is sent if sslcert and sslkey are set and the server requests it",
    ),
    only("sslcrl", "PGSSLCRL", &[], NO_REVOCATION),
    only("sslcrldir", "PGSSLCRLDIR", &[], NO_REVOCATION),
    only(
        "sslpassword",
        "",
        &[],
        "encrypted keys are not supported; decrypt the key with `openssl pkey -in KEY -out FILE`, and remove it",
    ),
    only(
        "sslsni",
        "PGSSLSNI",
        &["1"],
        "the host name is always sent in TLS; remove it",
    ),
    only(
        "ssl_min_protocol_version",
        "PGSSLMINPROTOCOLVERSION",
        &["TLSv1", "TLSv1.1", "TLSv1.2"],
        "TLS 1.2 and 1.3 are used; remove it, and restrict the version on the server (ssl_min_protocol_version)",
    ),
    only(
        "ssl_max_protocol_version",
        "PGSSLMAXPROTOCOLVERSION",
        &["TLSv1.3"],
        "TLS 1.2 and 1.3 are used; remove it, and restrict the version on the server (ssl_max_protocol_version)",
    ),
    only("require_auth", "PGREQUIREAUTH", &[], ANY_METHOD),
    only(
        "requirepeer",
        "PGREQUIREPEER",
        &[],
        "checking the server's user is not supported; remove it, and restrict who can write to the socket's directory",
    ),
    only(
        "replication",
        "",
        &["false", "off", "no", "0"],
        "simusage needs a connection for queries; remove it",
    ),
    only("scram_client_key", "", &[], "use a password instead"),
    only("scram_server_key", "", &[], "use a password instead"),
    only(
        "oauth_issuer",
        "",
        &[],
        "OAuth is not supported; use a password or a client certificate",
    ),
    only(
        "oauth_client_id",
        "",
        &[],
        "OAuth is not supported; use a password or a client certificate",
    ),
    only(
        "oauth_client_secret",
        "",
        &[],
        "OAuth is not supported; use a password or a client certificate",
    ),
    only(
        "oauth_scope",
        "",
        &[],
        "OAuth is not supported; use a password or a client certificate",
    ),
];

/// Whether libpq reads this environment variable, also for the location of its files.
pub(super) fn is_libpq_variable(name: &str) -> bool {
    ["HOME", "PGSYSCONFDIR"].contains(&name) || OPTIONS.iter().any(|option| option.variable == name)
}

/// A value, and where it came from.
#[derive(Clone)]
struct Value {
    text: String,
    /// The environment variable or file; `None` for the URL.
    origin: Option<String>,
}

/// The values of options, of the URL before those of a service, and these before the environment's.
#[derive(Clone, Default)]
pub(super) struct ConnectionOptions {
    values: BTreeMap<&'static str, Value>,
    /// libpq's directory of a user's files, `~/.postgresql`.
    pub user_directory: Option<PathBuf>,
    /// The home directory, which contains `.pgpass` and `.pg_service.conf`.
    home: Option<PathBuf>,
}

impl ConnectionOptions {
    /// Collects the options of a connection. `text` is a URL, a `key=value` string, or empty.
    ///
    /// # Errors
    /// Returns an error if `text` is neither, a service does not exist, or an option is unknown or
    /// not supported.
    pub fn collect(text: &str, environment: &Environment) -> Result<Self, DatabaseUrlError> {
        let home = environment
            .get("HOME")
            .filter(|path| !path.is_empty())
            .map(PathBuf::from);
        let mut options = Self {
            values: BTreeMap::new(),
            user_directory: home.as_ref().map(|home| home.join(".postgresql")),
            home,
        };
        for (name, value) in parse(text)? {
            options
                .set(&name, value, None)
                .map_err(|error| match error {
                    DatabaseUrlError::Unknown(_) if may_have_password(text) => {
                        DatabaseUrlError::Parameter
                    }
                    other => other,
                })?;
        }
        options.add_service(environment)?;
        for option in OPTIONS.iter().filter(|option| !option.variable.is_empty()) {
            if let Some(value) = environment.get(option.variable) {
                options.set(option.name, value.clone(), Some(option.variable.to_owned()))?;
            }
        }
        Ok(options)
    }

    /// The value of an option. An empty one is the same as none, as in libpq.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values
            .get(name)
            .map(|value| value.text.as_str())
            .filter(|text| !text.is_empty())
    }

    /// The option, or the environment variable or file that set it, for error messages.
    pub fn label(&self, name: &'static str) -> String {
        match self.values.get(name).and_then(|value| value.origin.clone()) {
            Some(origin) => origin,
            None => name.to_owned(),
        }
    }

    /// The password file, `passfile` or `~/.pgpass`.
    pub fn password_file(&self) -> Option<PathBuf> {
        self.get("passfile")
            .map(PathBuf::from)
            .or_else(|| Some(self.home.as_ref()?.join(".pgpass")))
    }

    /// Sets an option unless it is set.
    fn set(
        &mut self,
        name: &str,
        text: String,
        origin: Option<String>,
    ) -> Result<(), DatabaseUrlError> {
        // JDBC's way to write sslmode=require.
        let (name, text) = match (name, text.as_str()) {
            ("ssl", "true") => ("sslmode", "require".to_owned()),
            _ => (name, text),
        };
        let label = origin.clone().unwrap_or_else(|| name.to_owned());
        let Some(option) = OPTIONS.iter().find(|option| option.name == name) else {
            return Err(DatabaseUrlError::Unknown(label));
        };
        match option.effect {
            Effect::Ignored => return Ok(()),
            Effect::Only(values, reason) => {
                let is_accepted =
                    text.is_empty() || values.iter().any(|value| value.eq_ignore_ascii_case(&text));
                if !is_accepted {
                    return Err(DatabaseUrlError::Unsupported(label, reason));
                }
            }
            Effect::Used => {
                let value = Value { text, origin };
                self.values.entry(option.name).or_insert(value);
            }
        }
        Ok(())
    }

    /// Adds the options of the service, if one is named.
    fn add_service(&mut self, environment: &Environment) -> Result<(), DatabaseUrlError> {
        let variable = |name: &str| environment.get(name).filter(|text| !text.is_empty());
        let Some(service) = self
            .get("service")
            .or_else(|| variable("PGSERVICE").map(String::as_str))
            .map(str::to_owned)
        else {
            return Ok(());
        };
        let named = self
            .get("servicefile")
            .or_else(|| variable("PGSERVICEFILE").map(String::as_str));
        let own = named
            .map(PathBuf::from)
            .or_else(|| Some(self.home.as_ref()?.join(".pg_service.conf")));
        let system = match variable("PGSYSCONFDIR") {
            Some(directory) => vec![Path::new(directory).join("pg_service.conf")],
            // Where PostgreSQL's and Debian's own packages have it.
            None => ["/etc/sysconfig/pgsql", "/etc/postgresql-common", "/etc"]
                .map(|directory| Path::new(directory).join("pg_service.conf"))
                .to_vec(),
        };
        let files: Vec<PathBuf> = own.into_iter().chain(system).collect();
        for file in &files {
            let Ok(text) = std::fs::read_to_string(file) else {
                continue;
            };
            if let Some(lines) = service_lines(&text, &service) {
                return self.add_service_lines(&lines, file);
            }
        }
        let files = files.iter().map(|file| file.display().to_string());
        Err(DatabaseUrlError::NoService(
            service,
            files.collect::<Vec<_>>().join(", "),
        ))
    }

    fn add_service_lines(
        &mut self,
        lines: &[(usize, &str)],
        file: &Path,
    ) -> Result<(), DatabaseUrlError> {
        for (number, line) in lines {
            let place = format!("{}:{number}", file.display());
            let Some((name, value)) = line.split_once('=') else {
                return Err(DatabaseUrlError::ServiceLine(place));
            };
            let (name, value) = (name.trim(), value.trim());
            self.set(name, value.to_owned(), Some(format!("{place}: {name}")))?;
        }
        Ok(())
    }
}

/// Prints the names of the options that are set.
impl fmt::Debug for ConnectionOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.values.keys()).finish()
    }
}

/// The lines of a service's section, with their numbers; `None` if the file has no such section.
fn service_lines<'a>(text: &'a str, service: &str) -> Option<Vec<(usize, &'a str)>> {
    let lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let header = format!("[{service}]");
    let mut section = lines.skip_while(|(_, line)| *line != header);
    section.next()?;
    Some(
        section
            .take_while(|(_, line)| !line.starts_with('['))
            .collect(),
    )
}

/// Whether a part of the text that looks like a name may be a part of a password.
fn may_have_password(text: &str) -> bool {
    text.contains(':') && text.contains('@') || text.contains("pass")
}

/// Parses a URL or a `key=value` string into options, in their order.
fn parse(text: &str) -> Result<Vec<(String, String)>, DatabaseUrlError> {
    let text = text.trim();
    if let Some((scheme, rest)) = text.split_once("://") {
        match scheme {
            "postgres" | "postgresql" => return parse_url(rest),
            // A value of key=value may contain ://.
            _ if scheme.contains('=') => {}
            _ => return Err(DatabaseUrlError::Scheme(scheme.to_owned())),
        }
    }
    parse_pairs(text)
}

fn decode(text: &str) -> Result<String, DatabaseUrlError> {
    percent_decode_str(text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| DatabaseUrlError::Syntax("a %… in it is not UTF-8".to_owned()))
}

/// Parses what follows the `://` of a URL, as libpq does.
fn parse_url(text: &str) -> Result<Vec<(String, String)>, DatabaseUrlError> {
    let mut options = vec![];
    // The password may contain question marks.
    let (user, rest) = match text.find(['@', '/']) {
        Some(at) if text.as_bytes()[at] == b'@' => (Some(&text[..at]), &text[at + 1..]),
        _ => (None, text),
    };
    if let Some(user) = user {
        let (name, password) = match user.split_once(':') {
            Some((name, password)) => (name, Some(password)),
            None => (user, None),
        };
        options.push(("user".to_owned(), decode(name)?));
        if let Some(password) = password {
            options.push(("password".to_owned(), decode(password)?));
        }
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if path.contains('@') {
        return Err(DatabaseUrlError::UnescapedAt);
    }
    let (addresses, database) = path.split_once('/').unwrap_or((path, ""));
    let (hosts, ports) = addresses
        .split(',')
        .map(split_port)
        .collect::<Result<(Vec<_>, Vec<_>), _>>()?;
    if hosts.iter().any(|host| !host.is_empty()) {
        options.push(("host".to_owned(), hosts.join(",")));
    }
    if ports.iter().any(|port| !port.is_empty()) {
        options.push(("port".to_owned(), ports.join(",")));
    }
    if !database.is_empty() {
        options.push(("dbname".to_owned(), decode(database)?));
    }
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let Some((name, value)) = parameter.split_once('=') else {
            return Err(if may_have_password(text) {
                DatabaseUrlError::Parameter
            } else {
                DatabaseUrlError::Syntax(format!("the parameter {parameter} has no value"))
            });
        };
        options.push((decode(name)?, decode(value)?));
    }
    // A later value of the same option wins: host=… overrides the URL's host.
    options.reverse();
    Ok(options)
}

/// Splits `host:port`, of which either may be missing. The host may be an IPv6 address in brackets.
fn split_port(address: &str) -> Result<(String, String), DatabaseUrlError> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(|| {
                DatabaseUrlError::Syntax("the address has a [ without a ]".to_owned())
            })?;
            (host, port.strip_prefix(':').unwrap_or(port))
        }
        None => address.split_once(':').unwrap_or((address, "")),
    };
    Ok((decode(host)?, decode(port)?))
}

/// Parses `key=value` pairs with libpq's quotes and backslashes.
fn parse_pairs(text: &str) -> Result<Vec<(String, String)>, DatabaseUrlError> {
    let mut options = vec![];
    let mut rest = text;
    while !rest.is_empty() {
        let Some((name, after)) = rest.split_once('=') else {
            return Err(DatabaseUrlError::Syntax("it has no host".to_owned()));
        };
        let name = name.trim_end();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(DatabaseUrlError::Syntax(
                "it is neither a URL nor key=value pairs".to_owned(),
            ));
        }
        let (value, after) = parse_value(after.trim_start())?;
        options.push((name.to_owned(), value));
        rest = after.trim_start();
    }
    options.reverse();
    Ok(options)
}

/// Parses a value, and returns it with the text after it.
fn parse_value(text: &str) -> Result<(String, &str), DatabaseUrlError> {
    let is_quoted = text.starts_with('\'');
    let mut letters = text.char_indices().skip(usize::from(is_quoted));
    let mut value = String::new();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
            '\'' if is_quoted => return Ok((value, &text[at + 1..])),
            _ if !is_quoted && letter.is_whitespace() => return Ok((value, &text[at..])),
            _ => value.push(letter),
        }
    }
    if is_quoted {
        return Err(DatabaseUrlError::Syntax(
            "a value has a ' without a second one".to_owned(),
        ));
    }
    Ok((value, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(text: &str, environment: &[(&str, &str)]) -> ConnectionOptions {
        try_collect(text, environment).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn try_collect(
        text: &str,
        environment: &[(&str, &str)],
    ) -> Result<ConnectionOptions, DatabaseUrlError> {
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        ConnectionOptions::collect(text, &environment)
    }

    fn problem(text: &str, environment: &[(&str, &str)]) -> String {
        try_collect(text, environment).unwrap_err().to_string()
    }

    #[test]
    fn urls_and_pairs_are_parsed_as_libpq_does() {
        for (text, expected) in [
            (
                "postgresql://me:a%40b@one:1,two/d%20b?application_name=x%26y",
                &[
                    ("user", "me"),
                    ("password", "a@b"),
                    ("host", "one,two"),
                    ("port", "1,"),
                    ("dbname", "d b"),
                    ("application_name", "x&y"),
                ][..],
            ),
            ("postgres://[::1]:7/", &[("host", "::1"), ("port", "7")]),
            (
                "postgresql:///db?host=/run&user=a@b",
                &[("host", "/run"), ("dbname", "db"), ("user", "a@b")],
            ),
            (
                "postgresql://%2Frun/db",
                &[("host", "/run"), ("dbname", "db")],
            ),
            ("postgresql://a/db?host=b", &[("host", "b")]),
            (
                r"host = h password='it\'s = x' dbname=a\ b user=",
                &[("host", "h"), ("password", "it's = x"), ("dbname", "a b")],
            ),
            ("postgresql://h?ssl=true", &[("sslmode", "require")]),
            ("", &[]),
        ] {
            let options = collect(text, &[]);
            for (name, value) in expected {
                assert_eq!(options.get(name), Some(*value), "{text}: {name}");
            }
            assert_eq!(options.get("options"), None);
        }
    }

    #[test]
    fn the_environment_fills_what_the_url_lacks() {
        let environment = [
            ("PGHOST", "e"),
            ("PGUSER", "eu"),
            ("PGSSLMODE", "require"),
            ("PGPORT", ""),
        ];
        let options = collect("postgresql://h/d", &environment);
        assert_eq!(options.get("host"), Some("h"));
        assert_eq!(options.get("user"), Some("eu"));
        assert_eq!(options.get("port"), None);
        assert_eq!(options.label("sslmode"), "PGSSLMODE");
        assert_eq!(options.label("host"), "host");
    }

    #[test]
    fn a_service_comes_before_the_environment_and_after_the_url() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("services");
        std::fs::write(
            &file,
            "# services\n[other]\nhost=no\n\n[prod]\nhost=db.example.net\nport=6\nuser = billing\n[last]\nnonsense\n[old]\nfriend=x\n",
        )
        .unwrap();
        let path = file.to_str().unwrap();
        let environment = [
            ("PGSERVICEFILE", path),
            ("PGUSER", "x"),
            ("PGDATABASE", "d"),
            ("PGSERVICE", "prod"),
        ];
        let options = collect("postgresql://:7", &environment);
        assert_eq!(options.get("host"), Some("db.example.net"));
        assert_eq!(
            (options.get("port"), options.get("user")),
            (Some("7"), Some("billing"))
        );
        assert_eq!(options.get("dbname"), Some("d"));
        assert!(collect("service=other", &environment).get("host") == Some("no"));
        std::fs::rename(&file, folder.path().join(".pg_service.conf")).unwrap();
        let home = [("HOME", folder.path().to_str().unwrap())];
        assert_eq!(collect("service=prod", &home).get("user"), Some("billing"));
        let missing = problem("service=staging", &home);
        assert!(
            missing.starts_with("there is no service staging in ")
                && missing.contains("/.pg_service.conf, "),
            "{missing}"
        );
        assert!(problem("service=last", &home).ends_with(".pg_service.conf:10: not key=value"));
        assert!(
            problem("service=old", &home)
                .contains(".pg_service.conf:12: friend: there is no such option"),
        );
    }

    #[test]
    fn unsupported_options_say_what_to_do() {
        for accepted in [
            "gssencmode=disable",
            "gssencmode=prefer",
            "sslcompression=1",
            "client_encoding=UTF8",
            "krbsrvname=postgres",
            "sslsni=1",
            "ssl_min_protocol_version=TLSv1.2",
            "require_auth=",
            "keepalives_count=3",
        ] {
            collect(accepted, &[]);
        }
        for (text, expected) in [
            (
                "gssencmode=require",
                "gssencmode: GSSAPI is not supported; use a password",
            ),
            (
                "sslcrl=a.crl",
                "sslcrl: revocation lists are not supported; remove it",
            ),
            (
                "require_auth=scram-sha-256",
                "require_auth: restricting the method is not",
            ),
            (
                "client_encoding=latin1",
                "client_encoding: simusage always uses UTF8; remove it",
            ),
            (
                "pool_timeout=1",
                "pool_timeout: there is no such option in libpq",
            ),
        ] {
            let problem = problem(text, &[]);
            assert!(problem.starts_with(expected), "{problem}");
        }
        assert!(problem("", &[("PGREQUIREPEER", "x")]).starts_with("PGREQUIREPEER: checking"));
    }

    #[test]
    fn other_schemes_are_named() {
        for (scheme, advice) in [
            (
                "postgresql+asyncpg",
                "use postgresql:// instead of postgresql+asyncpg://",
            ),
            (
                "postgres+psycopg2",
                "use postgresql:// instead of postgres+psycopg2://",
            ),
            (
                "jdbc:postgresql",
                "use postgresql:// instead of jdbc:postgresql://",
            ),
            ("timescaledb", "use postgresql:// instead of timescaledb://"),
            ("mysql", "use postgresql:// instead of mysql://"),
        ] {
            let problem = problem(&format!("{scheme}://u:secret@h/d"), &[]);
            assert!(
                problem.contains(advice) && !problem.contains("secret"),
                "{problem}"
            );
        }
        assert!(problem("nonsense", &[]).starts_with("not a PostgreSQL URL"));
    }
}
