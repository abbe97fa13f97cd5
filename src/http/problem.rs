//! What a request is answered when it is not answered: problems as RFC 9457 has them.

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::AuthError;
use super::limits::Limit;
use crate::db::StorageError;

/// The seconds after which a client may ask again where the database is away or busy.
const RETRY_AFTER_SECONDS: &str = "5";

/// The methods that every path has.
const ALLOWED: &str = "GET, HEAD";

/// One parameter that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ParameterProblem {
    /// Its name.
    pub parameter: String,
    /// What is wrong with it.
    pub detail: String,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Parameters that are wrong, all of them.
    #[error("{}", join(.0))]
    Parameters(Vec<ParameterProblem>),
    /// An organization that nobody knows.
    #[error("No organization {0} found!")]
    NoOrganization(String),
    /// A SIM card that nobody knows.
    #[error("No simcard {0} found!")]
    NoSimCard(String),
    /// A path that nothing answers.
    #[error("There is nothing at this path.")]
    NoPath,
    /// Records that would have to be summed, and are not kept any more.
    #[error(
        "A bucket's edge cuts the hour at {hour} in two, and records before {kept_from} are not kept any more. \
         Buckets and intervals of whole UTC hours can be answered."
    )]
    RecordsGone {
        /// The first hour that is cut.
        hour: String,
        /// From when on records are kept.
        kept_from: String,
    },
    /// A format that no answer has.
    #[error("Answers come as application/json, text/csv or application/x-ndjson.")]
    NotAcceptable,
    /// A method that the path does not have.
    #[error("This path answers {ALLOWED} only.")]
    Method,
    /// A request that is larger, or comes sooner, than it may.
    #[error(transparent)]
    Limit(#[from] Limit),
    /// A request that does not say who asks.
    #[error(transparent)]
    AuthError(#[from] AuthError),
    /// The server is about to stop.
    #[error("This server is about to stop. Ask another one.")]
    Ending,
    /// The database's doing. Its text is for the log; [`ApiError::detail`] is for the client.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The details of all parameters, one after the other.
fn join(problems: &[ParameterProblem]) -> String {
    problems
        .iter()
        .map(|problem| problem.detail.as_str())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Why a request has no answer, as RFC 9457 has it.
#[derive(Serialize, ToSchema)]
pub(super) struct Problem<'a> {
    /// `about:blank`: the title is the status's own phrase, and there is no page to read about it.
    r#type: &'static str,
    /// The status's own phrase.
    title: &'static str,
    /// The status.
    status: u16,
    /// What is wrong, in a sentence or more.
    detail: String,
    /// The parameters that are wrong, if that is what it is.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    errors: &'a [ParameterProblem],
}

impl ApiError {
    /// What the client is told. Nothing in here is the database's own text.
    fn detail(&self) -> String {
        let Self::Storage(error) = self else {
            return self.to_string();
        };
        match error {
            StorageError::TotalOverflow => {
                format!(
                    "The total of this interval exceeds {} bytes. A shorter interval may fit.",
                    i64::MAX
                )
            }
            StorageError::Timeout => {
                "The database took longer than it may. A shorter interval may be answered in time."
                    .to_owned()
            }
            StorageError::Busy => {
                "All connections to the database are busy. Try again later.".to_owned()
            }
            StorageError::Unavailable(_) => "The database is away. Try again later.".to_owned(),
            StorageError::NotMigrated(_) => {
                "The database is not ready for this version. Try again later.".to_owned()
            }
            StorageError::Other(_) => {
                "The request could not be answered. The server's log says why.".to_owned()
            }
        }
    }
}

impl ApiError {
    /// The header that says what to do next, where there is one.
    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::Method => Some((ALLOW, HeaderValue::from_static(ALLOWED))),
            Self::Limit(Limit::Rate { retry_after_s, .. }) => {
                Some((RETRY_AFTER, (*retry_after_s).into()))
            }
            Self::AuthError(no_caller) => Some((WWW_AUTHENTICATE, no_caller.challenge())),
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
            Self::Parameters(_) | Self::RecordsGone { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NoOrganization(_) | Self::NoSimCard(_) | Self::NoPath => StatusCode::NOT_FOUND,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Limit(limit) => limit.status(),
            Self::AuthError(_) => StatusCode::UNAUTHORIZED,
            Self::Storage(StorageError::TotalOverflow | StorageError::Other(_)) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::Ending | Self::Storage(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let status = self.status_code();
        if status.is_server_error() {
            // Here, because this is the last place that has the cause.
            log::error!("answering {}: {self}", status.as_u16());
        }
        let problem = Problem {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: self.detail(),
            errors: if let Self::Parameters(problems) = self {
                problems
            } else {
                &[]
            },
        };
        let body = serde_json::to_string(&problem).expect("a problem of texts and numbers is JSON");
        let mut response = HttpResponse::build(status)
            .content_type("application/problem+json")
            .body(body);
        if let Some((name, value)) = self.header() {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_error_never_carries_the_databases_text() {
        for error in [
            StorageError::Unavailable("secret".into()),
            StorageError::NotMigrated("secret".into()),
            StorageError::Other("secret".into()),
        ] {
            assert!(!ApiError::from(error).detail().contains("secret"));
        }
    }

    #[test]
    fn only_what_may_pass_is_worth_a_retry() {
        for (error, status, retry) in [
            (StorageError::TotalOverflow, 500, false),
            (StorageError::Other("".into()), 500, false),
            (StorageError::Busy, 503, true),
            (StorageError::Timeout, 503, true),
            (StorageError::Unavailable("".into()), 503, true),
            (StorageError::NotMigrated("".into()), 503, true),
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
