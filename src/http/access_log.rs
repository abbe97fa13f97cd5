//! One line for each request, when the last byte of its answer is gone: never its query string, nor its headers.

use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use log::Level;

/// Paths that machines ask for every few seconds. Their lines would bury the others.
const PROBES: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// What was asked, as far as it may be written down.
#[derive(Debug)]
pub(super) struct Asked {
    pub method: Method,
    /// The path without the query string.
    pub path: String,
}

/// Writes the line. The filter `simusage::access=off` in `SIMUSAGE_LOG` leaves them out.
pub(super) fn write(asked: &Asked, status: StatusCode, took: Duration, bytes: u64) {
    let level = if PROBES.contains(&&*asked.path) {
        Level::Debug
    } else {
        Level::Info
    };
    let (method, path, status) = (asked.method.as_str(), &*asked.path, status.as_u16());
    let ms = took.as_secs_f64() * 1_000.0;
    let ms = (ms * 1_000.0).round() / 1_000.0;
    log::log!(
        target: "simusage::access", level, method, path, status, ms, bytes;
        "{method} {path} {status} {ms} ms {bytes} bytes"
    );
}
