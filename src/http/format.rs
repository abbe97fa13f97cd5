//! Response formats and their negotiation.

use actix_web::HttpRequest;
use actix_web::http::header::{ACCEPT, Accept, Header as _};

/// The format of a response body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ResponseFormat {
    /// One JSON object with the rows of a page and the totals.
    Json,
    /// A header line, then one line per row.
    Csv,
    /// One JSON object per line and row.
    Ndjson,
}

impl ResponseFormat {
    /// Parses the value of the query parameter `format`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            "ndjson" => Some(Self::Ndjson),
            _ => None,
        }
    }

    /// The media type, per RFC 8259, RFC 4180 and convention.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Ndjson => "application/x-ndjson",
        }
    }

    /// The format that the request's `Accept` header prefers: JSON if the header is missing or
    /// malformed, and `None` if it accepts no supported format.
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
