//! The OpenAPI 3.1 description of the API, generated from the handlers and their types, and Swagger
//! UI, which displays it.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_swagger_ui::{SwaggerFile, serve};

use super::problem::ApiError;
use super::static_file::StaticFile;
use super::{cursor, feeds, health, inventory, usage_series, usage_totals};

/// Like the policy of the web page, but Swagger UI has styles and images in its code.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     connect-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; \
     form-action 'none'";

/// The path of the description.
pub const PATH: &str = "/openapi.json";

#[derive(OpenApi)]
#[openapi(
    info(description = "Data usage of SIM cards and organizations, by hour or longer intervals. \
                        Errors are RFC 9457 problem details."),
    servers((url = "/")),
    paths(
        usage_totals::of_organizations,
        usage_totals::of_sim_cards,
        usage_series::of_organization,
        usage_series::of_sim_card,
        inventory::list,
        feeds::list,
        health::live,
        health::ready,
    ),
    components(schemas(usage_totals::OrganizationTotal, usage_totals::SimCardTotal)),
    modifiers(&BearerToken),
)]
struct Api;

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "A token created by `simusage token create`. Until the first token exists, none is \
                 needed.",
            ));
        let components = api
            .components
            .get_or_insert_with(utoipa::openapi::Components::new);
        components.add_security_scheme("token", SecurityScheme::Http(bearer.build()));
    }
}

/// The description as JSON.
///
/// # Panics
/// Never, because the description can be written as JSON.
#[must_use]
pub fn description() -> String {
    let mut text = Api::openapi()
        .to_pretty_json()
        .expect("the description is JSON");
    text.push('\n');
    text
}

static DESCRIPTION: LazyLock<StaticFile> = LazyLock::new(|| {
    let text = description();
    StaticFile::new("application/json", cursor::digest(&text), text.into())
});

/// The files of Swagger UI that its page loads.
const NAMES: [&str; 8] = [
    "index.html",
    "index.css",
    "swagger-ui.css",
    "swagger-ui-bundle.js",
    "swagger-ui-standalone-preset.js",
    "swagger-initializer.js",
    "favicon-16x16.png",
    "favicon-32x32.png",
];

static FILES: LazyLock<FxHashMap<&str, StaticFile>> = LazyLock::new(|| {
    let config = Arc::new(utoipa_swagger_ui::Config::from(PATH));
    let file = |name| {
        let SwaggerFile {
            bytes,
            content_type,
            ..
        } = serve(name, Arc::clone(&config)).ok()??;
        let body = match bytes {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => bytes.into(),
        };
        let version = blake3::hash(&body).to_hex()[..16].to_owned();
        Some((name, StaticFile::new(content_type, version, body)))
    };
    NAMES.into_iter().filter_map(file).collect()
});

/// Compresses all files, which would delay the first requests.
pub(super) fn prepare() {
    LazyLock::force(&DESCRIPTION);
    LazyLock::force(&FILES);
}

/// Handles `GET /openapi.json`.
pub(super) async fn describe(request: HttpRequest) -> HttpResponse {
    DESCRIPTION.respond(&request, "no-cache", POLICY)
}

/// Handles `GET /docs/{name}`: Swagger UI, with all of its files in the binary.
pub(super) async fn page(
    request: HttpRequest,
    name: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let name = match &**name {
        "" => "index.html",
        name => name,
    };
    let file = FILES.get(name).ok_or(ApiError::NoPath)?;
    Ok(file.respond(&request, "no-cache", POLICY))
}
