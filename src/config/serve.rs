//! `[serve]`

use serde::Deserialize;

use super::error::{InvalidValue, check_range};
use super::listen::is_address;
use super::networks::Networks;
use super::web::{CorsOrigins, HostNames, RequireToken};

/// How the server answers requests.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serve {
    /// Address or host name, and port to listen on; `:port` is every address.
    pub listen: String,
    /// PEM file with the server's certificate chain. Empty: plain HTTP.
    pub tls_certificate: String,
    /// PEM file with the certificate's private key.
    pub tls_key: String,
    /// Worker threads. 0: one per core.
    pub workers: usize,
    /// Database connections, divided among the workers.
    pub pool_size: usize,
    /// How long a request waits for a database connection.
    pub pool_timeout_ms: u64,
    /// How long a statement may run.
    pub statement_timeout_ms: u64,
    /// How long a CSV or NDJSON response may take from its first row to its last.
    pub stream_timeout_ms: u64,
    /// Queries that a token, or an address without one, may run at the same time.
    pub max_queries_per_token: usize,
    /// Further requests of the same client that may wait for these queries.
    pub max_waiting_per_token: usize,
    /// CSV and NDJSON responses sent at the same time, divided among the workers.
    pub max_streams: usize,
    /// How many of them go to the same token, or to the same address without one.
    pub max_streams_per_token: usize,
    /// Maximum buckets of a time series.
    pub max_buckets: usize,
    /// Address of `/metrics`. Empty: the API's own; [`Serve::NO_METRICS`]: none.
    pub metrics_listen: String,
    /// How long the server continues to accept requests after a signal, with `/readyz` at 503.
    pub drain_ms: u64,
    /// Size of the cache of answers in megabytes, shared by all workers.
    pub cache_mb: u64,
    /// How long requests in flight may take during shutdown.
    pub shutdown_timeout_ms: u64,
    /// Role that database sessions switch to. Empty: none.
    pub role: String,
    /// Whether requests to the API need a token.
    pub require_token: RequireToken,
    /// Host names that requests may be addressed to, besides `localhost` and addresses.
    pub hosts: HostNames,
    /// Origins whose pages may call the API.
    pub cors_origins: CorsOrigins,
    /// How long browsers may use only HTTPS for this host, if `serve` itself does. 0: not told.
    pub hsts_days: u64,
    /// Proxies whose `X-Forwarded-For` names the client.
    pub trusted_proxies: Networks,
    /// Requests per second that a token, or an address without one, may send. 0: no limit.
    pub requests_per_second: u32,
    /// Maximum length of path and query string.
    pub max_url_bytes: usize,
    /// Maximum size of all headers together.
    pub max_header_bytes: usize,
    /// Maximum size of a request body.
    pub max_body_bytes: u64,
    /// Maximum number of open client connections.
    pub max_connections: usize,
    /// How many of them may come from the same address. 0: no limit.
    pub max_connections_per_address: usize,
    /// How long a client connection may be idle.
    pub keep_alive_ms: u64,
    /// How long a client may take to send the head of a request.
    pub request_head_timeout_ms: u64,
}

impl Serve {
    /// The value of `metrics_listen` that disables `/metrics`.
    pub const NO_METRICS: &str = "off";

    /// The files of the certificate and its key, if HTTPS is configured.
    #[must_use]
    pub fn tls_files(&self) -> Option<(&str, &str)> {
        (!self.tls_certificate.is_empty()).then_some((&self.tls_certificate, &self.tls_key))
    }

    pub(super) fn validate(&self) -> Result<(), InvalidValue> {
        // The HTTP server accepts no more.
        check_range("workers", self.workers as u64, 0..=512)?;
        check_range("pool_size", self.pool_size as u64, 1..=10_000)?;
        for (key, count) in [
            ("max_queries_per_token", self.max_queries_per_token),
            ("max_streams", self.max_streams),
            ("max_streams_per_token", self.max_streams_per_token),
            ("max_connections", self.max_connections),
        ] {
            check_range(key, count as u64, 1..=1_000_000)?;
        }
        // PostgreSQL's statement_timeout is an int.
        let longest = u64::from(i32::MAX.unsigned_abs());
        for (key, timeout_ms) in [
            ("pool_timeout_ms", self.pool_timeout_ms),
            ("statement_timeout_ms", self.statement_timeout_ms),
            ("stream_timeout_ms", self.stream_timeout_ms),
            ("keep_alive_ms", self.keep_alive_ms),
            ("request_head_timeout_ms", self.request_head_timeout_ms),
        ] {
            check_range(key, timeout_ms, 1..=longest)?;
        }
        for (key, timeout_ms) in [
            ("drain_ms", self.drain_ms),
            ("shutdown_timeout_ms", self.shutdown_timeout_ms),
        ] {
            check_range(key, timeout_ms, 0..=longest)?;
        }
        // The HTTP server reads at most 128 KiB of a request's head.
        let head = 256..=65_536;
        check_range("max_url_bytes", self.max_url_bytes as u64, head.clone())?;
        check_range("max_header_bytes", self.max_header_bytes as u64, head)?;
        self.validate_addresses()?;
        self.validate_tls_files()
    }

    fn validate_addresses(&self) -> Result<(), InvalidValue> {
        let listen = &self.listen;
        if !is_address(listen) {
            let problem = format!(
                "'{listen}' is not an address and port (e.g. 127.0.0.1:8000, localhost:8000, or :8000 for all)"
            );
            return Err(InvalidValue::new("listen", problem));
        }
        let metrics = &self.metrics_listen;
        if metrics.is_empty() || metrics == Self::NO_METRICS || is_address(metrics) {
            return Ok(());
        }
        let problem = format!(
            "'{metrics}' is neither an address and port (e.g. 127.0.0.1:9100) nor 'off'; correct it or leave it empty"
        );
        Err(InvalidValue::new("metrics_listen", problem))
    }

    fn validate_tls_files(&self) -> Result<(), InvalidValue> {
        let missing = match (self.tls_certificate.is_empty(), self.tls_key.is_empty()) {
            (false, true) => ("tls_certificate", "serve.tls_key"),
            (true, false) => ("tls_key", "serve.tls_certificate"),
            _ => return Ok(()),
        };
        let problem = format!("{} must also be set", missing.1);
        Err(InvalidValue::new(missing.0, problem))
    }
}
