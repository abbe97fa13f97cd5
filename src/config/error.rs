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
    /// The settings file is not TOML. The line is not shown, because it may contain a password.
    #[error("{file} is not valid TOML: line {line}, column {column}: {problem}; correct this line")]
    NotToml {
        /// Path of the file.
        file: String,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
        /// The parser's message.
        problem: String,
    },
    /// An environment variable is not text.
    #[error("{name} is not valid UTF-8; set it to text in UTF-8, or unset it")]
    NotUtf8 {
        /// Name of the variable.
        name: String,
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

impl ConfigError {
    /// The parser's error about `text`, the content of `file`.
    pub(super) fn not_toml(file: String, text: &str, error: &toml::de::Error) -> Self {
        let offset = error.span().map_or(0, |span| span.start);
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|&letter| letter != '\n');
        let column = column.count() + 1;
        // Only this message quotes the value.
        let problem = match error.message() {
            message if message.starts_with("invalid type") => "the number is too large".to_owned(),
            message => message.to_owned(),
        };
        Self::NotToml {
            file,
            line,
            column,
            problem,
        }
    }
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
