//! Which pages of other origins may call the API (CORS).

use actix_cors::Cors;
use actix_web::http::Method;
use actix_web::http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_DISPOSITION, ETAG, HeaderName, IF_NONE_MATCH, LINK, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use actix_web::middleware::Condition;

use super::request_id;
use crate::config::CorsOrigins;

/// For how long browsers may keep the answer to a preflight request.
const MAX_AGE_S: usize = 3_600;

/// Allows the origins to read responses and to send a token. Does nothing if there are none.
///
/// Browsers send no credentials by themselves, because the API uses no cookies.
pub(super) fn middleware(origins: &CorsOrigins) -> Condition<Cors> {
    let cors = Cors::default()
        .allowed_methods([Method::GET, Method::HEAD])
        .allowed_headers([AUTHORIZATION, ACCEPT, IF_NONE_MATCH, request_id::HEADER])
        .expose_headers([
            CONTENT_DISPOSITION,
            ETAG,
            LINK,
            HeaderName::from_static("list-changed"),
            RETRY_AFTER,
            WWW_AUTHENTICATE,
            request_id::HEADER,
        ])
        .max_age(MAX_AGE_S);
    let cors = origins.iter().fold(cors, Cors::allowed_origin);
    Condition::new(!origins.is_empty(), cors)
}
