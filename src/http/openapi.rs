//! The OpenAPI 3.1 description of the API, generated from the handlers and their types, and Swagger
//! UI, which displays it.

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, ETAG, EntityTag};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_swagger_ui::SwaggerUi;

use super::{cursor, health, inventory, usage_series, usage_totals};

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

/// Handles `GET /openapi.json`.
pub(super) async fn describe() -> HttpResponse {
    let text = description();
    HttpResponse::Ok()
        .content_type("application/json")
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((ETAG, EntityTag::new_weak(cursor::digest(&text))))
        .body(text)
}

/// Swagger UI under `/docs/`, with all of its files in the binary.
pub(super) fn page() -> SwaggerUi {
    SwaggerUi::new("/docs/{_:.*}").config(utoipa_swagger_ui::Config::from(PATH))
}
