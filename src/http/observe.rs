//! What goes around every request: its name, its line in the log, its place in the counters.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::middleware::Next;
use actix_web::web;
use bytes::Bytes;
use pin_project_lite::pin_project;

use super::access_log::{self, Asked};
use super::request_id::{self, RequestId};
use super::telemetry::Telemetry;
use crate::logging::{within_request, within_request_sync};

/// Answers a request, and keeps account of it until its last byte.
pub(super) async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let id = RequestId::of(request.headers());
    let asked = Asked {
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
    };
    let telemetry = request
        .app_data::<web::Data<Telemetry>>()
        .expect("the app has its counters")
        .clone();
    let mut account = Account::open(id, asked, telemetry);
    let mut response = within_request(account.id.text(), next.call(request))
        .await
        .inspect_err(|error| {
            account.status = error.as_response_error().status_code();
        })?;
    account.status = response.status();
    account.route = response.request().match_pattern().unwrap_or_default();
    response
        .headers_mut()
        .insert(request_id::HEADER, account.id.to_header());
    Ok(response.map_body(|_, body| Observed { body, account }))
}

/// One request. It is settled when it is dropped, which happens at the last byte, or where a client goes away before.
struct Account {
    telemetry: web::Data<Telemetry>,
    id: RequestId,
    asked: Asked,
    /// The pattern of the path, empty where nothing answers there.
    route: String,
    started: Instant,
    status: StatusCode,
    bytes: u64,
}

impl Account {
    fn open(id: RequestId, asked: Asked, telemetry: web::Data<Telemetry>) -> Self {
        telemetry.begin();
        let (started, status) = (Instant::now(), StatusCode::INTERNAL_SERVER_ERROR);
        Self {
            telemetry,
            id,
            asked,
            route: String::new(),
            started,
            status,
            bytes: 0,
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        self.telemetry.end(
            std::mem::take(&mut self.route),
            self.status,
            took.as_secs_f64(),
            self.bytes,
        );
        within_request_sync(self.id.text(), || {
            access_log::write(&self.asked, self.status, took, self.bytes);
        });
    }
}

pin_project! {
    /// A body whose bytes are counted.
    struct Observed<B> {
        #[pin]
        body: B,
        account: Account,
    }
}

impl<B: MessageBody> MessageBody for Observed<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, B::Error>>> {
        let this = self.project();
        let account = this.account;
        let polled = within_request_sync(account.id.text(), || this.body.poll_next(context));
        if let Poll::Ready(Some(Ok(bytes))) = &polled {
            account.bytes += bytes.len() as u64;
        }
        polled
    }
}
