//! Where usage records come from: files and standard input, and which format they are in.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A JSON object a line.
    Ndjson,
    /// CSV under a header.
    Csv,
}

/// A place that usage records are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

impl Source {
    /// The name that messages and rejected records carry.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        match self {
            Self::Stdin => "stdin".into(),
            Self::File(path) => path.display().to_string().into(),
        }
    }

    /// Opens the source. Returns it with its size in bytes, where that is known beforehand.
    pub(super) fn open(&self) -> anyhow::Result<(Box<dyn Read + Send>, Option<u64>)> {
        match self {
            Self::Stdin => Ok((Box::new(io::stdin()), None)),
            Self::File(path) => {
                let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
                let metadata = file.metadata().with_context(|| format!("opening {}", path.display()))?;
                anyhow::ensure!(!metadata.is_dir(), "opening {}: it is a folder", path.display());
                let size = metadata.is_file().then_some(metadata.len());
                Ok((Box::new(file), size))
            }
        }
    }

    /// The format that the file's name, or else the first bytes of its content, tell.
    pub(super) fn detect_format(&self, content: &[u8]) -> Format {
        let by_name = match self {
            Self::File(path) => by_extension(path),
            Self::Stdin => None,
        };
        by_name.unwrap_or_else(|| match content.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'{' | b'[') | None => Format::Ndjson,
            Some(_) => Format::Csv,
        })
    }
}

fn by_extension(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "ndjson" | "jsonl" | "json" => Some(Format::Ndjson),
        "csv" => Some(Format::Csv),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_tells_the_format_or_else_the_content_does() {
        let format = |name: &str, content: &str| Source::File(name.into()).detect_format(content.as_bytes());
        assert_eq!(format("a.CSV", "{"), Format::Csv);
        assert_eq!(format("a.ndjson", "a,b"), Format::Ndjson);
        assert_eq!(format("a.txt", "\n {\"a\":1}"), Format::Ndjson);
        assert_eq!(format("a", "sim-card-id,date"), Format::Csv);
        assert_eq!(Source::Stdin.detect_format(b""), Format::Ndjson);
    }
}
