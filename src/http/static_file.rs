//! Files compiled into the binary. All responses share one copy of each, which is compressed once.

use std::convert::Infallible;
use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::http::header::{
    AcceptEncoding, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, ETAG, Encoding,
    EntityTag, Header as _, IfNoneMatch, REFERRER_POLICY, VARY,
};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// A connection copies at most this much of a file at once, so that a client that does not read its
/// response occupies little memory.
const CHUNK_BYTES: usize = 16 * 1024;

/// A file and its compressed form.
#[derive(Debug)]
pub(super) struct StaticFile {
    content_type: String,
    /// Weak, because the body may be compressed.
    tag: EntityTag,
    plain: Bytes,
    gzip: Bytes,
}

impl StaticFile {
    /// Compresses a file with this version.
    ///
    /// # Panics
    /// Never, because memory accepts every write.
    #[must_use]
    pub fn new(content_type: impl Into<String>, version: String, plain: Bytes) -> Self {
        let mut encoder = GzEncoder::new(vec![], Compression::default());
        let compressed = encoder.write_all(&plain).and_then(|()| encoder.finish());
        Self {
            content_type: content_type.into(),
            tag: EntityTag::new_weak(version),
            plain,
            gzip: compressed.expect("memory accepts every write").into(),
        }
    }

    /// Responds with the file, or with 304 if the client's copy is current.
    #[must_use]
    pub fn respond(
        &self,
        request: &HttpRequest,
        cache_control: &'static str,
        security_policy: &'static str,
    ) -> HttpResponse {
        let is_unchanged = match IfNoneMatch::parse(request) {
            Ok(IfNoneMatch::Any) => true,
            Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|tag| tag.weak_eq(&self.tag)),
            Err(_) => false,
        };
        let mut response = if is_unchanged {
            HttpResponse::NotModified()
        } else {
            HttpResponse::Ok()
        };
        response
            .insert_header((ETAG, self.tag.clone()))
            .insert_header((CACHE_CONTROL, cache_control))
            .insert_header((CONTENT_SECURITY_POLICY, security_policy))
            .insert_header((REFERRER_POLICY, "no-referrer"))
            .insert_header((VARY, "accept-encoding"));
        if is_unchanged {
            return response.finish();
        }
        response.content_type(&*self.content_type);
        let supported = [Encoding::gzip(), Encoding::identity()];
        let negotiated = AcceptEncoding::parse(request)
            .ok()
            .and_then(|accepted| accepted.negotiate(supported.iter()));
        if negotiated == Some(Encoding::gzip()) {
            response.insert_header((CONTENT_ENCODING, "gzip"));
            response.body(SharedBody(self.gzip.clone()))
        } else {
            response.body(SharedBody(self.plain.clone()))
        }
    }
}

/// The unsent part of a file.
struct SharedBody(Bytes);

impl MessageBody for SharedBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.0.len() as u64)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        if self.0.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.0.len().min(CHUNK_BYTES);
        Poll::Ready(Some(Ok(self.0.split_to(length))))
    }
}
