//! Why the settings cannot be used.

use std::io;
use std::ops::RangeInclusive;

/// A setting that cannot be used, with its origin: a file, an environment variable or an option.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The settings file cannot be read.
    #[error(
        "cannot read {file}: {error}; check the path and its permissions, or use another --config"
    )]
    Unreadable {
        /// Path of the file.
        file: String,
        /// The operating system's error.
        #[source]
        error: io::Error,
    },
    /// The settings file is not TOML.
    #[error("{file} is not valid TOML: {error}")]
    NotToml {
        /// Path of the file.
        file: String,
        /// The parser's error, with line and column.
        #[source]
        error: toml::de::Error,
    },
    /// A key or section that does not exist.
    #[error("{origin}: there is no setting {key}; {available}")]
    UnknownKey {
        /// The file or environment variable.
        origin: String,
        /// `section.key`, `[section]` or a key outside any section.
        key: String,
        /// The keys or sections that exist there.
        available: String,
    },
    /// A value that its key does not accept.
    #[error("{origin}: {key}: {problem}")]
    Invalid {
        /// The file, environment variable or option.
        origin: String,
        /// `section.key`.
        key: String,
        /// The value, and which values are accepted.
        problem: String,
    },
}

/// A value that its section does not accept.
pub(super) struct InvalidValue {
    /// The key within its section.
    pub key: &'static str,
    /// The value, and which values are accepted.
    pub problem: String,
}

impl InvalidValue {
    pub fn new(key: &'static str, problem: impl Into<String>) -> Self {
        let problem = problem.into();
        Self { key, problem }
    }
}

/// Checks that no value is 0.
pub(super) fn check_positive(
    values: impl IntoIterator<Item = (&'static str, u64)>,
) -> Result<(), InvalidValue> {
    match values.into_iter().find(|(_, value)| *value == 0) {
        Some((key, _)) => Err(InvalidValue::new(key, "0 is too low; use at least 1")),
        None => Ok(()),
    }
}

/// Checks that a value is within a range.
pub(super) fn check_range(
    key: &'static str,
    value: u64,
    range: RangeInclusive<u64>,
) -> Result<(), InvalidValue> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = range.into_inner();
    let problem = format!("{value} is out of range; use {least} to {most}");
    Err(InvalidValue::new(key, problem))
}
