//! The access log: one line per request, written after the last byte of the response. It contains
//! neither query strings nor headers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use log::Level;
use log::kv::{Key, Source, Value, VisitSource};

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

/// Logs a request, and probes at debug level. `SIMUSAGE_LOG=info,simusage::access=off` turns the access log off.
pub(super) fn write(request: &RequestLine, sent: Sent, elapsed: Duration) {
    let level = if PROBES.contains(&&*request.path) {
        Level::Debug
    } else {
        Level::Info
    };
    let target = "simusage::access";
    if !log::log_enabled!(target: target, level) {
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
