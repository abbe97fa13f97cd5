//! What goes around every request: its name, its line in the log.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::middleware::Next;
use bytes::Bytes;
use pin_project_lite::pin_project;

use super::access_log::{self, Asked};
use super::request_id::{self, RequestId};
use crate::logging::{at_once_within_request, within_request};

/// Answers a request, and keeps account of it until its last byte.
pub(super) async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let id = RequestId::of(request.headers());
    let asked = Asked { method: request.method().clone(), path: request.uri().path().to_owned() };
    // From here on the account is settled when it is dropped, which a client that goes away does, too.
    let mut account =
        Account { id, asked, started: Instant::now(), status: StatusCode::INTERNAL_SERVER_ERROR, bytes: 0 };
    let mut response = within_request(account.id.text(), next.call(request)).await.inspect_err(|error| {
        account.status = error.as_response_error().status_code();
    })?;
    account.status = response.status();
    response.headers_mut().insert(request_id::HEADER, account.id.to_header());
    Ok(response.map_body(|_, body| Observed { body, account }))
}

/// One request.
struct Account {
    id: RequestId,
    asked: Asked,
    started: Instant,
    status: StatusCode,
    bytes: u64,
}

impl Drop for Account {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        at_once_within_request(self.id.text(), || access_log::write(&self.asked, self.status, took, self.bytes));
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

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, B::Error>>> {
        let this = self.project();
        let account = this.account;
        let polled = at_once_within_request(account.id.text(), || this.body.poll_next(context));
        if let Poll::Ready(Some(Ok(bytes))) = &polled {
            account.bytes += bytes.len() as u64;
        }
        polled
    }
}
