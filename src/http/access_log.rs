//! The access log: one line per request, written after the last byte of the response. It contains
//! neither query strings nor headers.

use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use log::Level;

use super::limits::PROBES;

/// The part of a request line that is logged.
#[derive(Debug)]
pub(super) struct RequestLine {
    pub method: Method,
    /// Without the query string.
    pub path: String,
}

/// What was sent in response to a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub status: StatusCode,
    /// The size of the body.
    pub bytes: u64,
    /// Whether the response ended before its last byte.
    pub is_aborted: bool,
}

/// Logs a request, and probes at debug level. `SIMUSAGE_LOG=info,simusage::access=off` turns the access log off.
pub(super) fn write(line: &RequestLine, sent: Sent, elapsed: Duration) {
    let Sent {
        status,
        bytes,
        is_aborted,
    } = sent;
    let level = if PROBES.contains(&&*line.path) {
        Level::Debug
    } else {
        Level::Info
    };
    let (method, path, status) = (line.method.as_str(), &*line.path, status.as_u16());
    let ms = elapsed.as_secs_f64() * 1_000.0;
    let ms = (ms * 1_000.0).round() / 1_000.0;
    if is_aborted {
        log::log!(
            target: "simusage::access", level, method, path, status, ms, bytes, aborted = true;
            "{method} {path} {status} {ms} ms {bytes} bytes, aborted"
        );
        return;
    }
    log::log!(
        target: "simusage::access", level, method, path, status, ms, bytes;
        "{method} {path} {status} {ms} ms {bytes} bytes"
    );
}
