//! In which format an answer is written.

use actix_web::HttpRequest;
use actix_web::http::header::{ACCEPT, Accept, Header as _};

/// The formats of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// One JSON object with the rows of a page and what is true of all.
    Json,
    /// A header and a line a row.
    Csv,
    /// A JSON object a line, one a row.
    Ndjson,
}

impl Format {
    /// The format of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            "ndjson" => Some(Self::Ndjson),
            _ => None,
        }
    }

    /// Its media type, as RFC 8259, RFC 4180 and custom have it.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Ndjson => "application/x-ndjson",
        }
    }

    /// The format that the request's `Accept` likes best: JSON where it has none, or one that cannot be read, and
    /// `None` where it likes none of them.
    #[must_use]
    pub fn accepted(request: &HttpRequest) -> Option<Self> {
        let ranked = match Accept::parse(request) {
            Ok(accept) if request.headers().contains_key(ACCEPT) => accept.ranked(),
            _ => return Some(Self::Json),
        };
        if ranked.is_empty() {
            return Some(Self::Json);
        }
        ranked.iter().find_map(
            |media| match (media.type_().as_str(), media.subtype().as_str()) {
                ("*", _) | ("application", "*" | "json") => Some(Self::Json),
                ("text", "*" | "csv") => Some(Self::Csv),
                ("application", "x-ndjson" | "ndjson" | "jsonl") => Some(Self::Ndjson),
                _ => None,
            },
        )
    }
}
