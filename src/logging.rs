//! The log on standard error, as text or JSON. Lines logged while a request is handled carry its
//! ID.

use std::io::{self, Write as _};
use std::sync::Arc;

use env_logger::fmt::Formatter;
use log::Record;
use log::kv::{Error, Key, Value, VisitSource};
use serde::ser::{SerializeMap as _, Serializer as _};

use crate::config::LogFormat;
use crate::printable::{printable, without_secrets};

/// The filter if `SIMUSAGE_LOG` is not set: this program's events, and warnings of its
/// dependencies, except for the errors that actix-http logs of malformed requests, which would let
/// every client fill the log.
const DEFAULT_FILTER: &str = "warn,actix_http::h1=off,simusage=info";

tokio::task_local! {
    /// ID of the request that the current task handles.
    static REQUEST: Arc<str>;
}

/// Starts the log, with the filters in `SIMUSAGE_LOG`, for example `debug` or
/// `simusage=debug,actix_web=info`.
pub fn start(format: LogFormat) {
    let mut builder = env_logger::Builder::from_env(
        env_logger::Env::new().filter_or("SIMUSAGE_LOG", DEFAULT_FILTER),
    );
    match format {
        LogFormat::Text => builder.format(write_text),
        LogFormat::Json => {
            std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
            builder.format(write_json)
        }
    };
    builder.init();
}

/// Runs `future` so that the lines it logs carry the ID of the request.
pub(crate) async fn within_request<T>(request: Arc<str>, future: impl Future<Output = T>) -> T {
    REQUEST.scope(request, future).await
}

/// Like [`within_request`], for synchronous code.
pub(crate) fn within_request_sync<T>(request: Arc<str>, function: impl FnOnce() -> T) -> T {
    REQUEST.sync_scope(request, function)
}

/// The ID of the request that the current task handles.
pub(crate) fn current_request() -> Option<Arc<str>> {
    REQUEST.try_with(Arc::clone).ok()
}

fn write_text(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let style = out.default_level_style(record.level());
    let request = current_request()
        .map(|request| format!(" {request}"))
        .unwrap_or_default();
    let time = out.timestamp();
    writeln!(
        out,
        "[{time} {style}{:<5}{style:#}{request}] {}",
        record.level(),
        printable(&record.args().to_string())
    )
}

fn write_json(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let time = out.timestamp_millis().to_string();
    out.write_all(&json_line(&time, record)?)
}

/// A record as a line of JSON: the common fields, then the record's key-values.
fn json_line(time: &str, record: &Record<'_>) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = vec![];
    let mut serializer = serde_json::Serializer::new(&mut line);
    let mut object = serializer.serialize_map(None)?;
    object.serialize_entry("time", time)?;
    object.serialize_entry("level", &record.level().as_str().to_lowercase())?;
    object.serialize_entry("target", record.target())?;
    object.serialize_entry("message", &printable(&record.args().to_string()))?;
    if let Some(request) = current_request() {
        object.serialize_entry("request", &*request)?;
    }
    let mut fields = LogFields(vec![]);
    // `LogFields` never returns an error.
    let _ = record.key_values().visit(&mut fields);
    for (name, value) in fields.0 {
        object.serialize_entry(&name, &value)?;
    }
    object.end()?;
    line.push(b'\n');
    Ok(line)
}

/// Collects a record's key-values.
struct LogFields(Vec<(String, serde_json::Value)>);

impl<'kvs> VisitSource<'kvs> for LogFields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let value = match (value.to_u64(), value.to_f64()) {
            (Some(whole), _) => whole.into(),
            (None, Some(number)) => number.into(),
            (None, None) => without_secrets(&value.to_string()).into(),
        };
        self.0.push((key.to_string(), value));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    #[test]
    fn a_line_of_json_has_every_field_and_the_request() {
        let fields = [
            ("status", Value::from(200_u16)),
            ("ms", Value::from(1.5_f64)),
            ("path", Value::from("/a\"b")),
        ];
        let mut builder = Record::builder();
        builder
            .level(Level::Info)
            .target("simusage::access")
            .args(format_args!("two\nlines"))
            .key_values(&fields);
        let line = within_request_sync("r1".into(), || {
            json_line("2020-01-01T00:00:00.000Z", &builder.build())
        });
        let expected = concat!(
            r#"{"time":"2020-01-01T00:00:00.000Z","level":"info","target":"simusage::access","message":"two\\nlines","#,
            r#""request":"r1","status":200,"ms":1.5,"path":"/a\"b"}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(line.unwrap()).unwrap(), expected);
    }
}
