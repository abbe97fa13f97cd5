//! The settings: defaults < config.toml < environment < command line, validated before anything starts.
//!
//! The defaults are the project's own `config.toml`, so the documented file cannot drift from them. Its keys
//! also say which environment variables there are and of which type, so no key can be out of reach.

mod database_url;

use std::fmt;
use std::path::Path;

use clap::ValueEnum;
use serde::Deserialize;
use toml::{Table, Value};

pub use database_url::{DatabaseUrl, Identity, Roots, Tls, Trust};

/// The file of defaults, documented key by key.
const DEFAULTS: &str = include_str!("../config.toml");

/// The file that is read where `--config` names none.
pub const DEFAULT_FILE: &str = "config.toml";

const PREFIX: &str = "SIMUSAGE_";

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the database is.
    pub database: Database,
    /// How the log is written.
    pub log: Log,
    /// How records come in.
    pub ingest: Ingest,
    /// How to reach Kafka.
    pub kafka: Kafka,
    /// How requests are answered.
    pub serve: Serve,
    /// How `migrate` sets up chunks, columnstore, refresh and retention.
    pub storage: Storage,
}

/// Where the database is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// The server, database, user and password.
    pub url: DatabaseUrl,
    /// How long to wait for a connection.
    pub connect_timeout_ms: u64,
}

/// How the log is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// For people, or for collectors.
    pub format: LogFormat,
}

/// A form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line to read
    Text,
    /// An object of JSON on each line
    Json,
}

impl LogFormat {
    /// Its name, as settings have it.
    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// How records come in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingest {
    /// Records per transaction.
    pub batch_rows: u64,
    /// The longest line that can be a record.
    pub max_record_bytes: usize,
    /// How old a batch becomes where records come slowly.
    pub batch_age_ms: u64,
    /// How long committed records may be missing from the aggregates, at least.
    pub refresh_every_ms: u64,
    /// How many connections copy side by side, and refresh.
    pub connections: usize,
    /// Whether records go straight into the columnstore.
    pub direct_compress: DirectCompress,
    /// How long to wait for a database that went away. 0: not at all.
    pub retry_for_ms: u64,
}

/// Whether COPY writes straight into the columnstore, where the server knows how to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DirectCompress {
    /// As the server's own setting says.
    Auto,
    /// Yes.
    On,
    /// No.
    Off,
}

/// How to reach Kafka. An empty text leaves a setting to librdkafka, whose names these are with `_` for `.`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`.
    pub security_protocol: String,
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub sasl_mechanism: String,
    /// User.
    pub sasl_username: String,
    /// Password.
    pub sasl_password: Secret,
    /// File with the certificates of the authorities to trust.
    pub ssl_ca_location: String,
    /// File with the client's certificate.
    pub ssl_certificate_location: String,
    /// File with the client's private key.
    pub ssl_key_location: String,
    /// Password of that key.
    pub ssl_key_password: Secret,
    /// Silence after which the group gives a member's partitions to others.
    pub session_timeout_ms: u64,
}

impl Kafka {
    /// What is set, by librdkafka's names.
    #[must_use]
    pub fn properties(&self) -> Vec<(&'static str, String)> {
        let texts = [
            ("security.protocol", &self.security_protocol),
            ("sasl.mechanism", &self.sasl_mechanism),
            ("sasl.username", &self.sasl_username),
            ("sasl.password", &self.sasl_password.0),
            ("ssl.ca.location", &self.ssl_ca_location),
            ("ssl.certificate.location", &self.ssl_certificate_location),
            ("ssl.key.location", &self.ssl_key_location),
            ("ssl.key.password", &self.ssl_key_password.0),
        ];
        let set = texts
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(name, text)| (name, text.clone()));
        set.chain([("session.timeout.ms", self.session_timeout_ms.to_string())])
            .collect()
    }
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

/// How requests are answered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serve {
    /// Address and port.
    pub listen: String,
    /// File with the server's certificate, or nothing for HTTP without TLS.
    pub tls_certificate: String,
    /// File with that certificate's private key.
    pub tls_key: String,
    /// Threads; 0 is one per core.
    pub workers: usize,
    /// Connections to the database, over all workers.
    pub pool_size: usize,
    /// How long a request waits for a connection.
    pub pool_timeout_ms: u64,
    /// How long a statement may take.
    pub statement_timeout_ms: u64,
    /// How long an answer in CSV or NDJSON may take, with all its rows.
    pub stream_timeout_ms: u64,
    /// The most buckets of a time series.
    pub max_buckets: usize,
    /// The most pieces that a time series may be read in.
    pub max_pieces: usize,
    /// Where `/metrics` is: an address, nothing for the API's own, or [`Serve::NO_METRICS`].
    pub metrics_listen: String,
    /// How long it goes on when it is told to stop, and says that it is not ready.
    pub drain_ms: u64,
    /// Megabytes of series kept in memory, over all workers.
    pub series_cache_mb: u64,
    /// How long requests in task may take at the end.
    pub shutdown_timeout_ms: u64,
    /// Role that the pool's sessions take on; empty: none.
    pub role: String,
    /// Requests a second of one token, or of one address without. 0: any number.
    pub requests_per_second: u32,
    /// The longest path with query.
    pub max_url_bytes: usize,
    /// The most that all headers together may have.
    pub max_header_bytes: usize,
    /// The longest body.
    pub max_body_bytes: u64,
    /// Connections of clients at once.
    pub max_connections: usize,
    /// How long a connection may be idle.
    pub keep_alive_ms: u64,
    /// How long the head of a request may take to come in.
    pub request_head_timeout_ms: u64,
}

impl Serve {
    /// The value of `metrics_listen` for no `/metrics` at all.
    pub const NO_METRICS: &str = "off";

    /// The files of the certificate and its key, where they are set.
    #[must_use]
    pub fn tls_files(&self) -> Option<(&str, &str)> {
        (!self.tls_certificate.is_empty()).then_some((&self.tls_certificate, &self.tls_key))
    }
}

/// How `migrate` sets up chunks, columnstore, refresh and retention. 0 is "never" where that makes sense.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    /// Time span of a chunk of usage records.
    pub chunk_interval_hours: u32,
    /// Time span of a chunk of the hourly aggregates.
    pub hourly_chunk_interval_days: u32,
    /// Time span of a chunk of the daily aggregates.
    pub daily_chunk_interval_days: u32,
    /// Age at which usage records move to the columnstore.
    pub columnstore_after_days: u32,
    /// Period of the background refresh.
    pub refresh_every_minutes: u32,
    /// Age at which usage records are dropped.
    pub retention_records_days: u32,
    /// Age at which hourly aggregates are dropped.
    pub retention_hourly_days: u32,
    /// Age at which daily aggregates are dropped.
    pub retention_daily_days: u32,
}

/// A setting that cannot be used, and where it stands.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {file}: {error}")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{file} is not TOML: {error}")]
    NotToml {
        /// The file.
        file: String,
        /// Where and why.
        error: toml::de::Error,
    },
    /// A key nobody knows.
    #[error("{origin}: there is no setting {key}")]
    UnknownKey {
        /// The file or environment variable.
        origin: String,
        /// The key.
        key: String,
    },
    /// A value that does not fit its key.
    #[error("{origin}: {key}: {problem}")]
    Invalid {
        /// The file or environment variable.
        origin: String,
        /// The key.
        key: String,
        /// What is wrong with the value.
        problem: String,
    },
}

/// What the command line says about settings. It wins over all else.
#[derive(Debug, Default, Clone)]
pub struct Overrides {
    /// `--database-url`
    pub database_url: Option<String>,
    /// `--listen`
    pub listen: Option<String>,
    /// `--log-format`
    pub log_format: Option<LogFormat>,
}

impl Config {
    /// Loads the settings from `file` (or `config.toml`, where there is one), the environment's variables and
    /// the command line.
    ///
    /// # Errors
    /// A source that cannot be read, a key that does not exist or a value that does not fit; the error names it.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let mut layers = Layers::defaults();
        let found = file.or_else(|| Some(Path::new(DEFAULT_FILE)).filter(|path| path.exists()));
        if let Some(path) = found {
            layers.add_file(path)?;
        }
        layers.add_environment(environment)?;
        if let Some(url) = &overrides.database_url {
            layers.set(
                "database",
                "url",
                Value::String(url.clone()),
                "--database-url",
            );
        }
        if let Some(listen) = &overrides.listen {
            layers.set("serve", "listen", Value::String(listen.clone()), "--listen");
        }
        if let Some(format) = overrides.log_format {
            layers.set(
                "log",
                "format",
                Value::String(format.name().to_owned()),
                "--log-format",
            );
        }
        layers.finish()
    }
}

/// The settings while they are put together: values, and where each came from.
struct Layers {
    values: Table,
    origins: std::collections::BTreeMap<String, String>,
}

impl Layers {
    fn defaults() -> Self {
        let values = DEFAULTS.parse().expect("the built-in config.toml is TOML");
        Self {
            values,
            origins: std::collections::BTreeMap::new(),
        }
    }

    fn known(&self, section: &str, key: &str) -> Option<&Value> {
        self.values.get(section)?.as_table()?.get(key)
    }

    fn set(&mut self, section: &str, key: &str, value: Value, origin: &str) {
        if let Some(Value::Table(table)) = self.values.get_mut(section) {
            table.insert(key.to_owned(), value);
            self.origins
                .insert(format!("{section}.{key}"), origin.to_owned());
        }
    }

    fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
            file: file.clone(),
            error,
        })?;
        let table: Table = text.parse().map_err(|error| ConfigError::NotToml {
            file: file.clone(),
            error,
        })?;
        for (section, keys) in table {
            let unknown = |key: &str| ConfigError::UnknownKey {
                origin: file.clone(),
                key: key.to_owned(),
            };
            let Value::Table(keys) = keys else {
                return Err(unknown(&section));
            };
            if !self.values.contains_key(&section) {
                return Err(unknown(&format!("[{section}]")));
            }
            for (key, value) in keys {
                if self.known(&section, &key).is_none() {
                    return Err(unknown(&format!("{section}.{key}")));
                }
                self.set(&section, &key, value, &file);
            }
        }
        Ok(())
    }

    fn add_environment(
        &mut self,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        let mut environment: Vec<_> = environment.into_iter().collect();
        // DATABASE_URL sorts before SIMUSAGE_DATABASE_URL, which is more specific and so wins.
        environment.sort();
        for (name, text) in environment {
            if name == "DATABASE_URL" {
                self.set("database", "url", Value::String(text), &name);
                continue;
            }
            let Some(path) = name.strip_prefix(PREFIX).map(str::to_lowercase) else {
                continue;
            };
            // Variables of other purposes may share the prefix; only those of a section can be misspelt keys.
            let Some((section, key)) = path
                .split_once('_')
                .filter(|(section, _)| self.values.contains_key(*section))
            else {
                continue;
            };
            let Some(default) = self.known(section, key) else {
                return Err(ConfigError::UnknownKey {
                    origin: name.clone(),
                    key: format!("{section}.{key}"),
                });
            };
            let value = match default {
                Value::Integer(_) => {
                    text.replace('_', "")
                        .parse()
                        .map(Value::Integer)
                        .map_err(|_| ConfigError::Invalid {
                            origin: name.clone(),
                            key: format!("{section}.{key}"),
                            problem: format!("'{text}' is not a whole number"),
                        })?
                }
                _ => Value::String(text),
            };
            self.set(section, key, value, &name);
        }
        Ok(())
    }

    fn finish(self) -> Result<Config, ConfigError> {
        let invalid = |key: String, problem: String| {
            let origin = self
                .origins
                .get(&key)
                .cloned()
                .unwrap_or_else(|| "default".to_owned());
            ConfigError::Invalid {
                origin,
                key,
                problem,
            }
        };
        let config: Config = serde_path_to_error::deserialize(self.values).map_err(|error| {
            invalid(
                error.path().to_string(),
                error.inner().message().trim_end().to_owned(),
            )
        })?;
        config
            .validate()
            .map_err(|(key, problem)| invalid(key.to_owned(), problem))?;
        Ok(config)
    }
}

impl Config {
    /// Checks what the types cannot say. The error is (key, problem).
    #[expect(clippy::too_many_lines, reason = "a flat list of independent checks")]
    fn validate(&self) -> Result<(), (&'static str, String)> {
        let Self {
            database,
            log: _,
            ingest,
            kafka,
            serve,
            storage,
        } = self;
        for (key, value) in [
            ("database.connect_timeout_ms", database.connect_timeout_ms),
            ("ingest.batch_rows", ingest.batch_rows),
            ("ingest.batch_age_ms", ingest.batch_age_ms),
            ("ingest.refresh_every_ms", ingest.refresh_every_ms),
            ("ingest.connections", ingest.connections as u64),
            ("serve.pool_size", serve.pool_size as u64),
            ("serve.pool_timeout_ms", serve.pool_timeout_ms),
            ("serve.statement_timeout_ms", serve.statement_timeout_ms),
            ("serve.max_connections", serve.max_connections as u64),
            ("serve.keep_alive_ms", serve.keep_alive_ms),
            (
                "serve.request_head_timeout_ms",
                serve.request_head_timeout_ms,
            ),
            (
                "storage.chunk_interval_hours",
                storage.chunk_interval_hours.into(),
            ),
            (
                "storage.hourly_chunk_interval_days",
                storage.hourly_chunk_interval_days.into(),
            ),
            (
                "storage.daily_chunk_interval_days",
                storage.daily_chunk_interval_days.into(),
            ),
        ] {
            if value == 0 {
                return Err((key, "must be at least 1".to_owned()));
            }
        }
        if !(1..=3_600_000).contains(&kafka.session_timeout_ms) {
            return Err((
                "kafka.session_timeout_ms",
                "must be from 1 to 3600000".to_owned(),
            ));
        }
        if !(1_024..=16_777_216).contains(&ingest.max_record_bytes) {
            return Err((
                "ingest.max_record_bytes",
                "must be from 1024 to 16777216".to_owned(),
            ));
        }
        if serve.statement_timeout_ms > i32::MAX as u64 {
            return Err((
                "serve.statement_timeout_ms",
                format!("must be at most {}", i32::MAX),
            ));
        }
        for (key, bytes) in [
            ("serve.max_url_bytes", serve.max_url_bytes),
            ("serve.max_header_bytes", serve.max_header_bytes),
        ] {
            // The server reads no more than 128 KiB of a request's head.
            if !(256..=65_536).contains(&bytes) {
                return Err((key, "must be from 256 to 65536".to_owned()));
            }
        }
        // It is passed on in an option of the connection, in which blanks and backslashes mean something.
        if serve.role.contains(|letter: char| {
            letter.is_whitespace() || letter.is_control() || letter == '\\'
        }) {
            return Err((
                "serve.role",
                format!(
                    "'{}' is not the name of a role (ex: simusage_reader)",
                    serve.role
                ),
            ));
        }
        if serve.listen.parse::<std::net::SocketAddr>().is_err() {
            return Err((
                "serve.listen",
                format!(
                    "'{}' is not an address and port (ex: 127.0.0.1:8000)",
                    serve.listen
                ),
            ));
        }
        let metrics = &serve.metrics_listen;
        let is_address = metrics.parse::<std::net::SocketAddr>().is_ok();
        if !(metrics.is_empty() || metrics == Serve::NO_METRICS || is_address) {
            let problem = format!(
                "'{metrics}' is neither empty, nor off, nor an address and port (ex: 127.0.0.1:9100)"
            );
            return Err(("serve.metrics_listen", problem));
        }
        let (certificate, tls_key) = (&serve.tls_certificate, &serve.tls_key);
        for (key, value, other, beside) in [
            (
                "serve.tls_certificate",
                certificate,
                "serve.tls_key",
                tls_key,
            ),
            (
                "serve.tls_key",
                tls_key,
                "serve.tls_certificate",
                certificate,
            ),
        ] {
            if !value.is_empty() && beside.is_empty() {
                return Err((key, format!("needs {other} beside it")));
            }
        }
        for (key, days) in [
            (
                "storage.retention_records_days",
                storage.retention_records_days,
            ),
            (
                "storage.retention_hourly_days",
                storage.retention_hourly_days,
            ),
            ("storage.retention_daily_days", storage.retention_daily_days),
        ] {
            // A refresh stays one day inside retention, and must still cover a whole daily bucket.
            if (1..3).contains(&days) {
                return Err((key, "must be 0 (keep for ever) or at least 3".to_owned()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(
        file: Option<&str>,
        environment: &[(&str, &str)],
        overrides: &Overrides,
    ) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.toml");
        std::fs::write(&path, file.unwrap_or("")).unwrap();
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(Some(&path), environment, overrides)
    }

    fn problem(file: Option<&str>, environment: &[(&str, &str)]) -> String {
        load(file, environment, &Overrides::default())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn later_layers_win() {
        let file = Some("[serve]\nlisten = '127.0.0.1:1'\npool_size = 3\n");
        let environment = [
            ("SIMUSAGE_SERVE_LISTEN", "127.0.0.1:2"),
            ("SIMUSAGE_SERVE_WORKERS", "7"),
        ];
        let flags = Overrides {
            listen: Some("127.0.0.1:3".to_owned()),
            ..Overrides::default()
        };
        assert_eq!(
            load(file, &[], &Overrides::default()).unwrap().serve.listen,
            "127.0.0.1:1"
        );
        assert_eq!(
            load(file, &environment, &Overrides::default())
                .unwrap()
                .serve
                .listen,
            "127.0.0.1:2"
        );
        let config = load(file, &environment, &flags).unwrap();
        assert_eq!(
            (
                config.serve.listen.as_str(),
                config.serve.pool_size,
                config.serve.workers
            ),
            ("127.0.0.1:3", 3, 7)
        );
    }

    #[test]
    fn every_key_is_reachable_by_environment() {
        let defaults: Table = DEFAULTS.parse().unwrap();
        for (section, keys) in &defaults {
            for (key, value) in keys.as_table().unwrap() {
                let name = format!("{PREFIX}{section}_{key}").to_uppercase();
                let changed = match value {
                    Value::Integer(number) => (number + 5).to_string(),
                    _ if key == "url" => "postgresql://other@elsewhere/db".to_owned(),
                    _ if key == "format" => "json".to_owned(),
                    _ if key == "direct_compress" => "on".to_owned(),
                    _ => "127.0.0.1:9".to_owned(),
                };
                // A certificate goes with a key.
                let beside = ["SIMUSAGE_SERVE_TLS_CERTIFICATE", "SIMUSAGE_SERVE_TLS_KEY"];
                let beside = beside
                    .into_iter()
                    .filter(|_| key.starts_with("tls_"))
                    .map(|name| (name, "beside"));
                let environment: Vec<_> = beside
                    .filter(|pair| pair.0 != name)
                    .chain([(&*name, &*changed)])
                    .collect();
                let config = load(None, &environment, &Overrides::default()).unwrap();
                assert_ne!(
                    config,
                    load(None, &[], &Overrides::default()).unwrap(),
                    "{name} changes nothing"
                );
            }
        }
    }

    #[test]
    fn errors_name_the_key_and_its_origin() {
        assert!(
            problem(Some("[serve]\npool = 3\n"), &[])
                .ends_with("settings.toml: there is no setting serve.pool")
        );
        assert!(problem(Some("[server]\n"), &[]).ends_with("there is no setting [server]"));
        assert!(
            problem(Some("[serve]\npool_size = 'x'\n"), &[])
                .contains("settings.toml: serve.pool_size: ")
        );
        assert_eq!(
            problem(None, &[("SIMUSAGE_SERVE_POOL_SIZE", "x")]),
            "SIMUSAGE_SERVE_POOL_SIZE: serve.pool_size: 'x' is not a whole number"
        );
        assert_eq!(
            problem(None, &[("SIMUSAGE_SERVE_POOL_SIZE", "0")]),
            "SIMUSAGE_SERVE_POOL_SIZE: serve.pool_size: must be at least 1"
        );
        assert_eq!(
            problem(None, &[("SIMUSAGE_SERVE_ROLE", "a -c b=c")]),
            "SIMUSAGE_SERVE_ROLE: serve.role: 'a -c b=c' is not the name of a role (ex: simusage_reader)"
        );
        assert_eq!(
            problem(None, &[("SIMUSAGE_SERVE_MAX_URL_BYTES", "70000")]),
            "SIMUSAGE_SERVE_MAX_URL_BYTES: serve.max_url_bytes: must be from 256 to 65536"
        );
        assert_eq!(
            problem(None, &[("SIMUSAGE_SERVE_LISTN", "x")]),
            "SIMUSAGE_SERVE_LISTN: there is no setting serve.listn"
        );
        assert_eq!(
            problem(None, &[("SIMUSAGE_SERVE_TLS_KEY", "server.key")]),
            "SIMUSAGE_SERVE_TLS_KEY: serve.tls_key: needs serve.tls_certificate beside it"
        );
        assert!(
            problem(None, &[("DATABASE_URL", "nonsense")])
                .starts_with("DATABASE_URL: database.url: not a PostgreSQL URL")
        );
    }

    #[test]
    fn the_specific_variable_wins_over_database_url() {
        let environment = [
            ("SIMUSAGE_DATABASE_URL", "postgresql://u@specific/d"),
            ("DATABASE_URL", "postgresql://u@general/d"),
        ];
        let config = load(None, &environment, &Overrides::default()).unwrap();
        assert_eq!(config.database.url.to_string(), "u@specific:5432/d");
    }

    #[test]
    fn a_password_is_never_printed() {
        let environment = [("DATABASE_URL", "postgresql://user:secret@host:1/db")];
        let config = load(None, &environment, &Overrides::default()).unwrap();
        assert!(!format!("{config:?} {}", config.database.url).contains("secret"));
        for broken in [
            "postgresql://user:secret@host:port/db",
            "postgresql://user:secret@host/db?nonsense=1",
        ] {
            let message = problem(None, &[("DATABASE_URL", broken)]);
            assert!(!message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn variables_of_other_purposes_are_left_alone() {
        load(
            None,
            &[("SIMUSAGE_TEST_DATABASE_URL", "x"), ("SIMUSAGE", "x")],
            &Overrides::default(),
        )
        .unwrap();
    }
}
