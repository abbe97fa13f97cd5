//! The access log: one line per request, written after the last byte of the response. It contains
//! neither query strings nor headers.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::http::{Method, StatusCode};
use log::Level;
use log::kv::{Key, Source, Value, VisitSource};
use rustc_hash::FxHashMap;

use super::client_address::ClientAddress;
use super::limits::PROBES;

/// The part of a request that is logged.
#[derive(Debug)]
pub(super) struct RequestLine {
    pub method: Method,
    /// Without the query string.
    pub path: String,
    pub client: ClientAddress,
    /// The name of its token, if the token is known.
    pub token: Option<Arc<str>>,
}

/// What was sent in response to a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub status: StatusCode,
    /// The size of the body.
    pub bytes: u64,
    /// Whether the response ended before its last byte.
    pub is_aborted: bool,
    /// Why the request failed, if it did.
    pub failure: Option<&'static str>,
}

/// A line of the access log. Its `Display` is the text, its key-values are the fields of JSON.
struct Line<'a> {
    request: &'a RequestLine,
    sent: Sent,
    ms: f64,
}

/// Lines per second of requests of one address that are refused without being looked at.
const REFUSALS_PER_SECOND: u32 = 10;
/// Addresses whose refused requests are counted.
const MAX_ADDRESSES: usize = 10_000;

/// The refused requests of the current second. They cost the client little, so their lines would let it
/// fill the log; the metrics count all of them.
static REFUSALS: Refusals = Refusals(Mutex::new(None));

struct Refusals(Mutex<Option<RefusalsOfSecond>>);

struct RefusalsOfSecond {
    began: Instant,
    by_address: FxHashMap<Option<IpAddr>, u32>,
    not_logged: u64,
}

impl Refusals {
    fn may_log(&self, request: &RequestLine, status: StatusCode) -> bool {
        if status != StatusCode::TOO_MANY_REQUESTS && status != StatusCode::UNAUTHORIZED {
            return true;
        }
        let (may_log, not_logged) = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let is_over =
                |second: &RefusalsOfSecond| second.began.elapsed() >= Duration::from_secs(1);
            let ended = state.take_if(|second| is_over(second));
            let second = state.get_or_insert_with(|| RefusalsOfSecond {
                began: Instant::now(),
                by_address: FxHashMap::default(),
                not_logged: 0,
            });
            let ClientAddress(address) = request.client;
            let is_known = second.by_address.contains_key(&address);
            let may_log = (is_known || second.by_address.len() < MAX_ADDRESSES) && {
                let count = second.by_address.entry(address).or_default();
                *count += 1;
                *count <= REFUSALS_PER_SECOND
            };
            second.not_logged += u64::from(!may_log);
            (may_log, ended.map_or(0, |second| second.not_logged))
        };
        if not_logged > 0 {
            log::warn!(
                "{not_logged} further requests with status 401 or 429 were not logged; \
                 simusage_http_failures_total counts all of them"
            );
        }
        may_log
    }
}

/// Logs a request, and probes at debug level. `SIMUSAGE_LOG=info,simusage::access=off` turns the access log off.
pub(super) fn write(request: &RequestLine, sent: Sent, elapsed: Duration) {
    let level = if PROBES.contains(&&*request.path) {
        Level::Debug
    } else {
        Level::Info
    };
    let target = "simusage::access";
    if !log::log_enabled!(target: target, level) || !REFUSALS.may_log(request, sent.status) {
        return;
    }
    let ms = (elapsed.as_secs_f64() * 1_000_000.0).round() / 1_000.0;
    let line = Line { request, sent, ms };
    log::logger().log(
        &log::Record::builder()
            .level(level)
            .target(target)
            .args(format_args!("{line}"))
            .key_values(&line)
            .build(),
    );
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { request, sent, ms } = self;
        let RequestLine { method, path, .. } = request;
        let (status, bytes) = (sent.status.as_u16(), sent.bytes);
        write!(formatter, "{method} {path} {status} {ms} ms {bytes} bytes")?;
        if let ClientAddress(Some(client)) = request.client {
            write!(formatter, " from {client}")?;
        }
        if let Some(token) = &request.token {
            write!(formatter, " as {token}")?;
        }
        if let Some(failure) = sent.failure {
            write!(formatter, ", {failure}")?;
        }
        if sent.is_aborted {
            write!(formatter, ", aborted")?;
        }
        Ok(())
    }
}

impl Source for Line<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), log::kv::Error> {
        let Self { request, sent, ms } = self;
        let mut field = |name, value| visitor.visit_pair(Key::from_str(name), value);
        field("method", request.method.as_str().into())?;
        field("path", (&*request.path).into())?;
        field("status", sent.status.as_u16().into())?;
        field("ms", ms.into())?;
        field("bytes", sent.bytes.into())?;
        if let ClientAddress(Some(client)) = &request.client {
            field("client", Value::from_display(client))?;
        }
        if let Some(token) = &request.token {
            field("token", (&**token).into())?;
        }
        if let Some(failure) = sent.failure {
            field("failure", failure.into())?;
        }
        if sent.is_aborted {
            field("aborted", true.into())?;
        }
        Ok(())
    }
}
