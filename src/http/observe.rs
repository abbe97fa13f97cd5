//! Middleware that gives every request an ID, an access log line and its share of the metrics.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    HeaderMap, HeaderValue, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::http::{ConnectionType, Method, StatusCode, Version};
use actix_web::middleware::Next;
use actix_web::{HttpMessage as _, web};
use bytes::Bytes;
use pin_project_lite::pin_project;
use tokio::task::spawn_local;

use super::access::TokenName;
use super::access_log::{self, RequestLine, Sent};
use super::client_address::ClientAddress;
use super::problem::FailureReason;
use super::request_id::{self, RequestId};
use super::response::Rules;
use super::telemetry::Telemetry;
use crate::logging::{within_request, within_request_sync};

/// Handles a request to its end, even if the client has disconnected, because a query that has begun
/// still occupies its connection: the client's turn must not end before the query does.
pub(super) async fn complete<B: 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    let handled = spawn_local(next.call(request)).await;
    handled.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Handles a request and observes it until the last byte of its response is sent.
pub(super) async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let id = RequestId::from_headers(request.headers());
    let rules = request
        .app_data::<web::Data<Rules>>()
        .expect("the app provides Rules");
    let client = ClientAddress::determine(
        request.request().peer_addr(),
        request.headers(),
        &rules.trusted_proxies,
    );
    let hsts = rules.hsts.clone();
    request.extensions_mut().insert(client);
    let line = RequestLine {
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        client,
        token: None,
    };
    let telemetry = request
        .app_data::<web::Data<Telemetry>>()
        .expect("the app provides Telemetry")
        .clone();
    let mut observation = Observation::start(id, line, telemetry);
    let mut response = within_request(observation.id.text(), next.call(request))
        .await
        .inspect_err(|error| {
            observation.status = error.as_response_error().status_code();
        })?;
    observation.status = response.status();
    let token = response.request().extensions().get::<TokenName>().cloned();
    observation.line.token = token.map(|TokenName(name)| name);
    observation.failure = response.response().extensions().get().copied();
    observation.route = response.request().match_pattern().unwrap_or_default();
    response
        .headers_mut()
        .insert(request_id::HEADER, observation.id.to_header());
    set_security_headers(response.headers_mut(), hsts);
    if response.request().version() == Version::HTTP_10 {
        // HTTP/1.0 has no chunks: the end of the connection ends the body.
        let head = response.response_mut().head_mut();
        head.no_chunking(true);
        head.set_connection_type(ConnectionType::Close);
    }
    Ok(response.map_body(|_, body| {
        observation.unsent = match body.size() {
            _ if observation.line.method == Method::HEAD => Unsent::Nothing,
            BodySize::None => Unsent::Nothing,
            BodySize::Sized(bytes) => Unsent::Bytes(bytes),
            BodySize::Stream => Unsent::End,
        };
        ObservedBody { body, observation }
    }))
}

/// Sets the headers of all responses that limit what browsers do with them.
fn set_security_headers(headers: &mut HeaderMap, hsts: Option<HeaderValue>) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(hsts) = hsts {
        headers.insert(STRICT_TRANSPORT_SECURITY, hsts);
    }
}

/// A request in flight. Dropping it records the request, after the last byte or when the client
/// disconnects.
struct Observation {
    telemetry: web::Data<Telemetry>,
    id: RequestId,
    line: RequestLine,
    /// The pattern of the path; empty if no route matches.
    route: String,
    started: Instant,
    status: StatusCode,
    bytes: u64,
    unsent: Unsent,
    failure: Option<FailureReason>,
}

/// What is missing from a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unsent {
    /// The response is complete, or has no body.
    Nothing,
    /// This many bytes of a body of known size.
    Bytes(u64),
    /// The end of a stream.
    End,
}

impl Unsent {
    fn is_complete(self) -> bool {
        matches!(self, Self::Nothing | Self::Bytes(0))
    }
}

impl Observation {
    fn start(id: RequestId, line: RequestLine, telemetry: web::Data<Telemetry>) -> Self {
        telemetry.begin();
        let (started, status) = (Instant::now(), StatusCode::INTERNAL_SERVER_ERROR);
        Self {
            telemetry,
            id,
            line,
            route: String::new(),
            started,
            status,
            bytes: 0,
            unsent: Unsent::Nothing,
            failure: None,
        }
    }

    /// The label of a response of 4xx or 5xx.
    fn failure(&self) -> Option<&'static str> {
        let is_failure = self.status.is_client_error() || self.status.is_server_error();
        let FailureReason(reason) = self.failure.unwrap_or(FailureReason("other"));
        is_failure.then_some(reason)
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        let sent = Sent {
            status: self.status,
            bytes: self.bytes,
            is_aborted: !self.unsent.is_complete(),
            failure: self.failure(),
        };
        if let Some(reason) = sent.failure {
            self.telemetry.count_failure(reason);
        }
        if sent.is_aborted {
            self.telemetry.count_aborted();
        }
        self.telemetry.end(
            std::mem::take(&mut self.route),
            self.status,
            elapsed.as_secs_f64(),
            self.bytes,
        );
        within_request_sync(self.id.text(), || {
            access_log::write(&self.line, sent, elapsed);
        });
    }
}

pin_project! {
    /// A response body that counts its bytes.
    struct ObservedBody<B> {
        #[pin]
        body: B,
        observation: Observation,
    }
}

impl<B: MessageBody> MessageBody for ObservedBody<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, B::Error>>> {
        let this = self.project();
        let observation = this.observation;
        let polled = within_request_sync(observation.id.text(), || this.body.poll_next(context));
        match &polled {
            Poll::Ready(Some(Ok(bytes))) => {
                let bytes = bytes.len() as u64;
                observation.bytes += bytes;
                if let Unsent::Bytes(unsent) = &mut observation.unsent {
                    *unsent = unsent.saturating_sub(bytes);
                }
            }
            Poll::Ready(None) => observation.unsent = Unsent::Nothing,
            _ => {}
        }
        polled
    }
}
