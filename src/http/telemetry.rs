//! The metrics of `serve`, shared by all workers, for Prometheus.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeMetric, prometheus_text,
};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::metrics_server::TEXT_FORMAT;
use super::process;
use crate::db::Pool;

/// The upper bounds of the histogram's buckets, in seconds: from a cached response to the statement
/// timeout.
const DURATION_BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// The labels of the request durations.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    /// The pattern of the path. Paths contain identifiers, and each would create a time series.
    route: String,
    /// The class of the status, such as `2xx`.
    status: &'static str,
}

/// Where the data of a response about usage came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum DataSource {
    /// A query for this request.
    Database,
    /// The cache of answers, revalidated against the database.
    Cache,
    /// The client's copy, revalidated against the database: a 304 response.
    Client,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    reason: &'static str,
}

/// The metrics of a server.
pub(super) struct Telemetry {
    registry: Registry,
    durations: Family<RequestLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    bytes: Counter,
    aborted: Counter,
    failures: Family<FailureLabels, Counter>,
    refused_connections: Counter,
    rows: Counter,
    usage_responses: Family<SourceLabels, Counter>,
    pools: Pools,
}

impl Default for Telemetry {
    fn default() -> Self {
        let mut registry = Registry::default();
        let constructor: fn() -> Histogram = || Histogram::new(DURATION_BUCKETS);
        let durations = Family::new_with_constructor(constructor);
        let (in_flight, bytes, rows) = (Gauge::default(), Counter::default(), Counter::default());
        let usage_responses = Family::<SourceLabels, Counter>::default();
        let pools = Pools::default();
        registry.register_with_unit(
            "simusage_http_request_duration",
            "Time from receiving a request to sending the last byte of the response",
            Unit::Seconds,
            durations.clone(),
        );
        registry.register(
            "simusage_http_requests_in_flight",
            "Requests being processed",
            in_flight.clone(),
        );
        registry.register_with_unit(
            "simusage_http_response_body",
            "Size of the response bodies sent",
            Unit::Bytes,
            bytes.clone(),
        );
        let aborted = Counter::default();
        registry.register(
            "simusage_http_aborted_responses",
            "Responses that ended before their last byte: the client disconnected or read too slowly",
            aborted.clone(),
        );
        let failures = Family::<FailureLabels, Counter>::default();
        registry.register(
            "simusage_http_failures",
            "Responses of 4xx and 5xx, by reason",
            failures.clone(),
        );
        let refused_connections = Counter::default();
        registry.register(
            "simusage_http_refused_connections",
            "Connections closed because their address had too many (serve.max_connections_per_address)",
            refused_connections.clone(),
        );
        registry.register(
            "simusage_http_response_rows",
            "Rows sent in responses: buckets, totals and assignments",
            rows.clone(),
        );
        registry.register(
            "simusage_http_usage_responses",
            "Responses about usage, by the source of their data",
            usage_responses.clone(),
        );
        registry.register_collector(Box::new(pools.clone()));
        registry.register_collector(Box::new(Process));
        Self {
            registry,
            durations,
            in_flight,
            bytes,
            aborted,
            failures,
            refused_connections,
            rows,
            usage_responses,
            pools,
        }
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Adds a worker's pool to the pool metrics.
    pub(super) fn add_pool(&self, pool: Pool) {
        self.pools.lock().push(pool);
    }

    /// Records the start of a request.
    pub(super) fn begin(&self) {
        self.in_flight.inc();
    }

    /// Records the end of a request, after its response has been sent.
    pub(super) fn end(&self, route: String, status: StatusCode, seconds: f64, bytes: u64) {
        self.in_flight.dec();
        self.bytes.inc_by(bytes);
        self.durations
            .get_or_create(&RequestLabels {
                route,
                status: class(status),
            })
            .observe(seconds);
    }

    /// Counts a response that was not sent to its end.
    pub(super) fn count_aborted(&self) {
        self.aborted.inc();
    }

    /// Counts a response of 4xx or 5xx.
    pub(super) fn count_failure(&self, reason: &'static str) {
        self.failures.get_or_create(&FailureLabels { reason }).inc();
    }

    /// Counts a connection that was closed because its address had too many.
    pub(super) fn count_refused_connection(&self) {
        self.refused_connections.inc();
    }

    /// Counts a response about usage and its rows. Streamed rows are added with [`Self::add_rows`].
    pub(super) fn count_response(&self, source: DataSource, rows: usize) {
        let source = match source {
            DataSource::Database => "database",
            DataSource::Cache => "cache",
            DataSource::Client => "client",
        };
        self.usage_responses
            .get_or_create(&SourceLabels { source })
            .inc();
        self.add_rows(rows);
    }

    /// Counts rows of a response.
    pub(super) fn add_rows(&self, rows: usize) {
        self.rows.inc_by(rows as u64);
    }

    /// All metrics in Prometheus's text format.
    ///
    /// # Panics
    /// Never; encoding into a string cannot fail.
    #[must_use]
    pub fn to_prometheus(&self) -> String {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry)
            .expect("encoding into a string cannot fail");
        text
    }
}

/// `GET /metrics`
pub(super) async fn metrics(telemetry: web::Data<Telemetry>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(TEXT_FORMAT)
        .body(telemetry.to_prometheus())
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        ..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500.. => "5xx",
    }
}

/// The pools of all workers.
#[derive(Debug, Default, Clone)]
struct Pools(Arc<Mutex<Vec<Pool>>>);

impl Pools {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Pool>> {
        // A panic cannot leave the list half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Pools {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let all: Vec<_> = self.lock().iter().map(Pool::status).collect();
        let sum = |part: fn(&crate::db::PoolStatus) -> usize| all.iter().map(part).sum();
        gauge(
            &mut encoder,
            "simusage_pool_connections_max",
            "Maximum number of database connections",
            sum(|pool| pool.max),
        )?;
        gauge(
            &mut encoder,
            "simusage_pool_connections",
            "Open database connections",
            sum(|pool| pool.open),
        )?;
        gauge(
            &mut encoder,
            "simusage_pool_connections_idle",
            "Idle database connections",
            sum(|pool| pool.idle),
        )?;
        gauge(
            &mut encoder,
            "simusage_pool_waiting_requests",
            "Requests waiting for a database connection",
            sum(|pool| pool.waiting),
        )
    }
}

/// The standard `process_*` metrics. Empty where `/proc` does not exist.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(bytes) = process::resident_bytes() {
            gauge(
                &mut encoder,
                "process_resident_memory_bytes",
                "Resident memory size",
                bytes,
            )?;
        }
        if let Some(seconds) = process::cpu_seconds() {
            let counter = ConstCounter::new(seconds);
            let help = "User and system CPU time";
            let kind = counter.metric_type();
            counter.encode(encoder.encode_descriptor(
                "process_cpu_seconds",
                help,
                None,
                kind,
            )?)?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: usize) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}
