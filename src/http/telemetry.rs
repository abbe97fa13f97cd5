//! What all workers count together, for Prometheus.

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

use super::metrics::TEXT_FORMAT;
use super::process;
use crate::db::Pool;

/// The upper ends of the histogram's buckets, in seconds: from an answer out of memory to a statement's limit.
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Which requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    /// The pattern of the path. The path itself has identifiers, and each would be a series of its own.
    route: String,
    /// The class of the status, as in `2xx`.
    status: &'static str,
}

/// Where an answer about usage came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// It was read.
    Database,
    /// It had been read before, and the database said that it still holds.
    Memory,
    /// The client had it, and the database said that it still holds.
    Client,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Origin {
    source: &'static str,
}

/// The counters of a server.
pub struct Telemetry {
    registry: Registry,
    durations: Family<Kind, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    bytes: Counter,
    rows: Counter,
    answers: Family<Origin, Counter>,
    pools: Pools,
}

impl Default for Telemetry {
    fn default() -> Self {
        let mut registry = Registry::default();
        let constructor: fn() -> Histogram = || Histogram::new(SECONDS);
        let durations = Family::new_with_constructor(constructor);
        let (in_flight, bytes, pools) = (Gauge::default(), Counter::default(), Pools::default());
        let help = "Time from a request to the last byte of its answer";
        registry.register_with_unit(
            "simusage_http_request_duration",
            help,
            Unit::Seconds,
            durations.clone(),
        );
        registry.register(
            "simusage_http_requests_in_flight",
            "Requests that are being answered",
            in_flight.clone(),
        );
        let help = "Bytes of answers, without their heads";
        registry.register_with_unit(
            "simusage_http_response_body",
            help,
            Unit::Bytes,
            bytes.clone(),
        );
        let (rows, answers) = (Counter::default(), Family::<Origin, Counter>::default());
        registry.register(
            "simusage_http_rows",
            "Rows of answers: buckets, totals, assignments",
            rows.clone(),
        );
        registry.register(
            "simusage_http_answers",
            "Answers about usage, by where they came from",
            answers.clone(),
        );
        registry.register_collector(Box::new(pools.clone()));
        registry.register_collector(Box::new(Process));
        Self {
            registry,
            durations,
            in_flight,
            bytes,
            rows,
            answers,
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
    /// Has a worker's pool counted with the others.
    pub(super) fn add_pool(&self, pool: Pool) {
        self.pools.lock().push(pool);
    }

    /// A request has come.
    pub(super) fn begin(&self) {
        self.in_flight.inc();
    }

    /// A request is over.
    pub(super) fn end(&self, route: String, status: StatusCode, seconds: f64, bytes: u64) {
        self.in_flight.dec();
        self.bytes.inc_by(bytes);
        self.durations
            .get_or_create(&Kind {
                route,
                status: class(status),
            })
            .observe(seconds);
    }

    /// An answer about usage was found, with so many rows; a stream adds its own.
    pub(super) fn found(&self, source: Source, rows: usize) {
        let source = match source {
            Source::Database => "database",
            Source::Memory => "memory",
            Source::Client => "client",
        };
        self.answers.get_or_create(&Origin { source }).inc();
        self.add_rows(rows);
    }

    /// Rows of an answer are on their way.
    pub(super) fn add_rows(&self, rows: usize) {
        self.rows.inc_by(rows as u64);
    }

    /// All of it in Prometheus's text format.
    ///
    /// # Panics
    /// Never: a String takes any text.
    #[must_use]
    pub fn to_prometheus(&self) -> String {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry).expect("a String takes any text");
        text
    }
}

/// `GET /metrics`
pub(super) async fn answer(telemetry: web::Data<Telemetry>) -> HttpResponse {
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
        // A list that somebody panicked over is still a list of pools.
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
            "Connections that there may be",
            sum(|pool| pool.max),
        )?;
        gauge(
            &mut encoder,
            "simusage_pool_connections",
            "Connections that are open",
            sum(|pool| pool.open),
        )?;
        gauge(
            &mut encoder,
            "simusage_pool_connections_idle",
            "Open connections that nobody uses",
            sum(|pool| pool.idle),
        )?;
        gauge(
            &mut encoder,
            "simusage_pool_waiting",
            "Requests that wait for a connection",
            sum(|pool| pool.waiting),
        )
    }
}

/// What the operating system says about the process. Nothing where it does not say it as Linux does.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(bytes) = process::resident_bytes() {
            gauge(
                &mut encoder,
                "process_resident_memory_bytes",
                "Memory that the process has",
                bytes,
            )?;
        }
        if let Some(seconds) = process::cpu_seconds() {
            let counter = ConstCounter::new(seconds);
            let help = "Time that processors worked for the process";
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
