//! Error responses, as RFC 9457 problem details.

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::AuthError;
use super::hosts::ForeignHost;
use super::limits::Limit;
use crate::db::StorageError;

/// `Retry-After`, in seconds, while the database is unavailable or busy.
const RETRY_AFTER_SECONDS: &str = "5";

/// `Allow`; the same for every path.
const ALLOWED: &str = "GET, HEAD";

/// An invalid query parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct ParameterProblem {
    /// Its name.
    pub parameter: String,
    /// The error, as a sentence.
    pub detail: String,
}

/// An error that the API responds with. The text is the `detail` of the response, except for
/// [`ApiError::Storage`], whose text is only logged.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// All invalid parameters of the request.
    #[error("{}", join(.0))]
    Parameters(Vec<ParameterProblem>),
    /// The same, if the cursor is not authentic.
    #[error("{}", join(.0))]
    ForgedCursor(Vec<ParameterProblem>),
    #[error("No organization {0} found!")]
    NoOrganization(String),
    #[error("No simcard {0} found!")]
    NoSimCard(String),
    #[error("No resource exists at this path.")]
    NoPath,
    #[error("The supported formats are application/json, text/csv and application/x-ndjson.")]
    NotAcceptable,
    #[error("This path supports only GET and HEAD.")]
    MethodNotAllowed,
    #[error(transparent)]
    Limit(#[from] Limit),
    #[error(transparent)]
    Unauthorized(#[from] AuthError),
    #[error(transparent)]
    Host(#[from] ForeignHost),
    #[error("The server is shutting down. Send the request to another server.")]
    ShuttingDown,
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a request failed; an extension of the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FailureReason(pub &'static str);

fn join(problems: &[ParameterProblem]) -> String {
    problems
        .iter()
        .map(|problem| problem.detail.as_str())
        .collect::<Vec<_>>()
        .join(" ")
}

/// An error, as RFC 9457 problem details.
#[derive(Serialize, ToSchema)]
pub(super) struct Problem<'a> {
    /// Always `about:blank`: the status describes the type of the problem.
    r#type: &'static str,
    /// The reason phrase of the status.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong, in one or more sentences.
    detail: String,
    /// The invalid parameters, if any.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    errors: &'a [ParameterProblem],
    /// The UTC day from which on this request can be answered, if retention has dropped what is
    /// before it.
    #[serde(rename = "complete-from", skip_serializing_if = "Option::is_none")]
    #[schema(required = false, format = Date)]
    complete_from: Option<&'a str>,
}

impl ApiError {
    /// The text for the client. It never contains text from the database.
    fn detail(&self) -> String {
        let Self::Storage(error) = self else {
            return self.to_string();
        };
        match error {
            StorageError::TotalOverflow => format!(
                "The total for this interval exceeds {} bytes. Try a shorter interval.",
                i64::MAX
            ),
            StorageError::NotKept(kept_from) => format!(
                "Part of this interval is no longer kept: what this request needs is complete from \
                 {kept_from} on. Start the interval there, or use whole UTC days, which may be kept longer."
            ),
            StorageError::Timeout => "The query timed out. Try a shorter interval.".to_owned(),
            StorageError::Busy => "All database connections are busy. Try again later.".to_owned(),
            StorageError::Unavailable(_) => {
                "The database is unavailable. Try again later.".to_owned()
            }
            StorageError::NewerSchema(_) => {
                "The database has been migrated to a newer version. Try again later.".to_owned()
            }
            StorageError::NotMigrated(_) => {
                "The database has not been migrated to this version. Try again later.".to_owned()
            }
            StorageError::Other(_) => {
                "The request failed. See the server's log for details.".to_owned()
            }
        }
    }

    /// The label of metrics and log lines.
    fn reason(&self) -> FailureReason {
        FailureReason(match self {
            Self::Parameters(_) => "parameters",
            Self::ForgedCursor(_) => "cursor",
            Self::NoOrganization(_) | Self::NoSimCard(_) | Self::NoPath => "not_found",
            Self::NotAcceptable => "not_acceptable",
            Self::MethodNotAllowed => "method",
            Self::Limit(limit) => limit.reason(),
            Self::Unauthorized(error) => error.reason(),
            Self::Host(_) => "host",
            Self::ShuttingDown => "shutting_down",
            Self::Storage(error) => match error {
                StorageError::Unavailable(_) => "database_unavailable",
                StorageError::Busy => "database_busy",
                StorageError::Timeout => "query_timeout",
                StorageError::TotalOverflow => "total_overflow",
                StorageError::NotMigrated(_) => "not_migrated",
                StorageError::NewerSchema(_) => "newer_schema",
                StorageError::NotKept(_) => "not_kept",
                StorageError::Other(_) => "internal",
            },
        })
    }

    /// The header that tells the client how to proceed.
    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::MethodNotAllowed => Some((ALLOW, HeaderValue::from_static(ALLOWED))),
            Self::Limit(limit) => limit
                .retry_after_s()
                .map(|seconds| (RETRY_AFTER, seconds.into())),
            Self::Unauthorized(error) => Some((WWW_AUTHENTICATE, error.challenge())),
            _ if self.status_code() == StatusCode::SERVICE_UNAVAILABLE => {
                Some((RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS)))
            }
            _ => None,
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Parameters(_) | Self::Storage(StorageError::NotKept(_)) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::ForgedCursor(_) => StatusCode::BAD_REQUEST,
            Self::NoOrganization(_) | Self::NoSimCard(_) | Self::NoPath => StatusCode::NOT_FOUND,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Limit(limit) => limit.status(),
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Host(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::Storage(StorageError::TotalOverflow | StorageError::Other(_)) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::ShuttingDown | Self::Storage(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let status = self.status_code();
        if status.is_server_error() {
            // The response leaves out the cause.
            log::error!("request failed with status {}: {self}", status.as_u16());
        }
        let problem = Problem {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: self.detail(),
            errors: match self {
                Self::Parameters(problems) | Self::ForgedCursor(problems) => problems,
                _ => &[],
            },
            complete_from: match self {
                Self::Storage(StorageError::NotKept(day)) => Some(day),
                _ => None,
            },
        };
        let body = serde_json::to_string(&problem).expect("strings and numbers serialize as JSON");
        let mut response = HttpResponse::build(status)
            .content_type("application/problem+json")
            .body(body);
        if let Some((name, value)) = self.header() {
            response.headers_mut().insert(name, value);
        }
        response.extensions_mut().insert(self.reason());
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_error_never_contains_text_from_the_database() {
        for error in [
            StorageError::Unavailable("secret".into()),
            StorageError::NotMigrated("secret".into()),
            StorageError::NewerSchema("secret".into()),
            StorageError::Other("secret".into()),
        ] {
            assert!(!ApiError::from(error).detail().contains("secret"));
        }
    }

    #[test]
    fn only_temporary_errors_have_retry_after() {
        for (error, status, retry) in [
            (StorageError::TotalOverflow, 500, false),
            (StorageError::Other("".into()), 500, false),
            (StorageError::Busy, 503, true),
            (StorageError::Timeout, 503, true),
            (StorageError::Unavailable("".into()), 503, true),
            (StorageError::NotMigrated("".into()), 503, true),
            (StorageError::NewerSchema("".into()), 503, true),
        ] {
            let response = ApiError::from(error).error_response();
            assert_eq!(
                (
                    response.status().as_u16(),
                    response.headers().contains_key(RETRY_AFTER)
                ),
                (status, retry)
            );
        }
    }
}
