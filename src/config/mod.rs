//! The settings: defaults < config.toml < environment < command line, validated before anything
//! starts.
//!
//! The defaults are the project's own `config.toml`, so the documented file cannot drift from them.
//! Its keys also define which environment variables exist, and their types.
//!
//! Each section has a file with its keys and their validation.

mod connection_options;
mod database;
mod database_url;
mod database_url_error;
mod error;
mod feeds;
mod ingest;
mod kafka;
mod layers;
mod listen;
mod log;
mod networks;
mod password_file;
mod serve;
mod storage;
mod web;

use std::path::Path;

use serde::Deserialize;
use toml::Value;

pub use database::{Database, PoolMode};
pub use database_url::{ClientIdentity, DatabaseUrl, PasswordFile, Roots, Tls, Trust};
pub use database_url_error::DatabaseUrlError;
pub use error::ConfigError;
pub use feeds::{FeedNames, Feeds};
pub use ingest::Ingest;
pub use kafka::{GroupProtocol, Kafka, Secret};
use layers::{Layers, Origins};
pub use listen::{listen, listen_addresses};
pub use log::{Log, LogFormat};
pub use networks::{Networks, NotANetwork};
pub use serve::Serve;
pub use storage::Storage;
pub use web::{CorsOrigins, HostNames, RequireToken};

/// The file that is read from the working directory if `--config` is not given.
const DEFAULT_FILE: &str = "config.toml";

/// All settings, one field per section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How to connect to the database.
    pub database: Database,
    /// How the log is written.
    pub log: Log,
    /// How records are stored.
    pub ingest: Ingest,
    /// How to connect to Kafka.
    pub kafka: Kafka,
    /// How the server answers requests.
    pub serve: Serve,
    /// How `migrate` configures storage.
    pub storage: Storage,
    /// How feeds are told apart.
    pub feeds: Feeds,
}

/// Settings from the command line, which take precedence over all others.
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
    /// Loads the settings from `file` (by default `config.toml`, if it exists), the environment and
    /// the command line.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, a key does not exist, or a value is invalid.
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
        let (libpq, environment): (Vec<_>, Vec<_>) = environment
            .into_iter()
            .partition(|(name, _)| connection_options::is_libpq_variable(name));
        layers.add_environment(environment)?;
        let log_format = overrides.log_format.map(|format| format.name().to_owned());
        for (section, key, value, option) in [
            ("database", "url", &overrides.database_url, "--database-url"),
            ("serve", "listen", &overrides.listen, "--listen"),
            ("log", "format", &log_format, "--log-format"),
        ] {
            if let Some(value) = value {
                layers.set(section, key, Value::String(value.clone()), option);
            }
        }
        layers.complete_url(libpq);
        let (values, origins) = layers.into_values();
        let config: Self = serde_path_to_error::deserialize(values).map_err(|error| {
            let problem = without_rust_types(error.inner().message());
            origins.invalid(error.path().to_string(), problem)
        })?;
        config.validate(&origins)?;
        Ok(config)
    }

    /// Checks what the types do not express.
    fn validate(&self, origins: &Origins) -> Result<(), ConfigError> {
        for (section, result) in [
            ("database", self.database.validate()),
            ("ingest", self.ingest.validate()),
            ("kafka", self.kafka.validate()),
            ("serve", self.serve.validate()),
            ("storage", self.storage.validate()),
            ("feeds", self.feeds.validate()),
        ] {
            result.map_err(|invalid| origins.invalid_in(section, invalid))?;
        }
        Ok(())
    }
}

/// serde's message, with `expected u64` in words.
fn without_rust_types(message: &str) -> String {
    ["usize", "u64", "u32"]
        .iter()
        .fold(message.trim_end().to_owned(), |message, name| {
            message.replace(
                &format!("expected {name}"),
                "expected a whole number of 0 or more",
            )
        })
}

#[cfg(test)]
mod tests {
    use toml::Table;

    use super::layers::{DEFAULTS, PREFIX};
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
    fn later_sources_take_precedence() {
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
    fn every_key_has_an_environment_variable() {
        let defaults: Table = DEFAULTS.parse().unwrap();
        for (section, keys) in &defaults {
            for (key, value) in keys.as_table().unwrap() {
                let name = format!("{PREFIX}{section}_{key}").to_uppercase();
                let changed = match value {
                    Value::Integer(number) => (number + 5).to_string(),
                    _ if key == "url" => "postgresql://other@elsewhere/db".to_owned(),
                    _ if key == "format" => "json".to_owned(),
                    _ if key == "require_token" => "true".to_owned(),
                    _ if key == "hosts" => "simusage".to_owned(),
                    _ if key == "cors_origins" => "https://a".to_owned(),
                    _ if key == "trusted_proxies" => "10.0.0.0/8".to_owned(),
                    _ if key == "pool_mode" => "session".to_owned(),
                    _ if key == "group_protocol" => "consumer".to_owned(),
                    _ => "127.0.0.1:9".to_owned(),
                };
                // The certificate and its key must be set together.
                let tls_files = ["SIMUSAGE_SERVE_TLS_CERTIFICATE", "SIMUSAGE_SERVE_TLS_KEY"];
                let other_tls_file = tls_files
                    .into_iter()
                    .filter(|_| key.starts_with("tls_"))
                    .map(|name| (name, "other.pem"));
                let environment: Vec<_> = other_tls_file
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
    fn errors_name_the_key_its_value_and_its_origin() {
        assert!(problem(Some("[kafka]\npassword = 'x'\n"), &[]).ends_with(
            "settings.toml: there is no setting kafka.password; [kafka] has group_protocol, \
                 sasl_mechanism, sasl_password, sasl_username, security_protocol, session_timeout_ms, \
                 ssl_ca_location, ssl_certificate_location, ssl_key_location, ssl_key_password"
        ));
        assert!(problem(Some("[server]\n"), &[]).ends_with(
            "there is no setting [server]; the sections are [database], [feeds], [ingest], [kafka], \
             [log], [serve], [storage]"
        ));
        assert!(
            problem(Some("pool_size = 3\n"), &[])
                .contains("there is no setting pool_size; the sections are [database], ")
        );
        assert!(
            problem(Some("[serve]\npool_size = 'x'\n"), &[])
                .contains("settings.toml: serve.pool_size: ")
        );
        assert_eq!(
            problem(None, &[("SIMUSAGE_SERVE_POOL_SIZE", "x")]),
            "SIMUSAGE_SERVE_POOL_SIZE: serve.pool_size: 'x' is not a whole number (default: 16)"
        );
        assert_eq!(
            problem(None, &[("SIMUSAGE_SERVE_POOL_SIZE", "-1")]),
            "SIMUSAGE_SERVE_POOL_SIZE: serve.pool_size: invalid value: integer `-1`, expected a \
             whole number of 0 or more"
        );
        assert_eq!(
            problem(None, &[("SIMUSAGE_SERVE_POOL_SIZE", "0")]),
            "SIMUSAGE_SERVE_POOL_SIZE: serve.pool_size: 0 is out of range; use 1 to 10000"
        );
        // What the server or PostgreSQL would refuse later, or panic about.
        for key in [
            "workers",
            "pool_size",
            "max_queries_per_token",
            "max_streams",
            "max_streams_per_token",
            "max_connections",
            "pool_timeout_ms",
            "statement_timeout_ms",
            "stream_timeout_ms",
            "keep_alive_ms",
            "request_head_timeout_ms",
            "drain_ms",
            "shutdown_timeout_ms",
        ] {
            let variable = format!("SIMUSAGE_SERVE_{}", key.to_uppercase());
            let found = problem(None, &[(&variable, "9223372036854775807")]);
            assert!(found.contains("is out of range"), "{found}");
        }
        assert_eq!(
            problem(None, &[("SIMUSAGE_SERVE_MAX_URL_BYTES", "70000")]),
            "SIMUSAGE_SERVE_MAX_URL_BYTES: serve.max_url_bytes: 70000 is out of range; use 256 to 65536"
        );
        assert_eq!(
            problem(None, &[("SIMUSAGE_LOG_FORMT", "x")]),
            "SIMUSAGE_LOG_FORMT: there is no setting log.formt; [log] has format"
        );
        assert_eq!(
            problem(None, &[("SIMUSAGE_SERVE_TLS_KEY", "server.key")]),
            "SIMUSAGE_SERVE_TLS_KEY: serve.tls_key: serve.tls_certificate must also be set"
        );
        assert!(
            problem(None, &[("DATABASE_URL", "nonsense")])
                .starts_with("DATABASE_URL: database.url: not a PostgreSQL URL")
        );
    }

    #[test]
    fn psqls_environment_is_used_where_the_url_says_nothing() {
        let environment = [("PGHOST", "db.example.net"), ("PGUSER", "me")];
        let config = load(None, &environment, &Overrides::default()).unwrap();
        assert_eq!(config.database.url.to_string(), "me@db.example.net:5432/me");
        let file = Some("[database]\nurl = 'postgresql://you@/things'\n");
        let config = load(file, &environment, &Overrides::default()).unwrap();
        assert_eq!(
            config.database.url.to_string(),
            "you@db.example.net:5432/things"
        );
        assert_eq!(
            problem(None, &[("PGSSLMODE", "on")]),
            "default: database.url: PGSSLMODE cannot be 'on'; use disable, prefer, require, verify-ca or verify-full"
        );
        assert!(
            problem(Some("[database]\nurl = 3\n"), &[]).ends_with(
                "settings.toml: database.url: the value is not text; write it in quotes"
            )
        );
    }

    #[test]
    fn simusage_database_url_takes_precedence_over_database_url() {
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
    fn unrelated_variables_are_ignored() {
        load(
            None,
            &[("SIMUSAGE_TEST_DATABASE_URL", "x"), ("SIMUSAGE", "x")],
            &Overrides::default(),
        )
        .unwrap();
    }
}
