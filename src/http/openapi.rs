//! What the API says about itself: OpenAPI 3.1, made from the handlers and the types that they answer with, and a
//! page that shows it.
//!
//! The parameters stand here once more, for readers. Tests hold them against what the handlers know.

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, ETAG, EntityTag};
use utoipa::openapi::schema::{
    KnownFormat, ObjectBuilder, OneOfBuilder, Schema, SchemaFormat, Type,
};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{IntoParams, IntoResponses, Modify, OpenApi};
use utoipa_swagger_ui::SwaggerUi;

use super::problem::Problem;
use super::{cursor, health, inventory, usage_series, usage_totals};

/// Where the description is.
pub const PATH: &str = "/openapi.json";

/// Parameters of a time series.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it is there to be described")]
pub(super) struct SeriesParameters {
    /// First instant: a date (its midnight in `tz`) or an RFC 3339 date-time.
    #[param(schema_with = instant, example = "2020-02-01")]
    start: String,
    /// End: a date (that whole day in `tz`) or an RFC 3339 date-time, which is not included.
    #[param(schema_with = instant, example = "2020-02-28")]
    end: String,
    /// Width of the buckets: `1hour`, `6hour`, `1day`, `1week`, `1month` and so on; without the number, 1; or as an
    /// ISO 8601 duration of one unit, such as `PT6H`.
    #[param(
        example = "1day",
        pattern = "^([1-9][0-9]{0,3}|)(hour|day|week|month)$|^PT[1-9][0-9]{0,3}H$|^P[1-9][0-9]{0,3}[DWM]$"
    )]
    every: String,
    /// Time zone of bare dates and of the buckets, by its IANA name; `UTC` by default.
    #[param(example = "Europe/Berlin")]
    tz: Option<String>,
    /// `zero`: buckets without usage are answered, too. `none` by default.
    #[param(inline)]
    fill: Option<Fill>,
    #[param(inline)]
    page: Option<PageNumber>,
    #[param(inline)]
    size: Option<PageSize>,
    /// Where the page begins, as `next` has it. It wins over `page`, and is of use for the same question alone.
    #[param(pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
    #[param(inline)]
    format: Option<FormatName>,
}

/// Parameters of a list of totals.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it is there to be described")]
pub(super) struct ListParameters {
    /// First instant: a date (its midnight in `tz`) or an RFC 3339 date-time. All time by default.
    #[param(schema_with = instant, example = "2020-02-01")]
    start: Option<String>,
    /// End: a date (that whole day in `tz`) or an RFC 3339 date-time, which is not included. All time by default.
    #[param(schema_with = instant, example = "2020-02-28")]
    end: Option<String>,
    /// Accepted and checked, as clients send it along. It changes nothing.
    #[param(
        example = "1day",
        pattern = "^([1-9][0-9]{0,3}|)(hour|day|week|month)$|^PT[1-9][0-9]{0,3}H$|^P[1-9][0-9]{0,3}[DWM]$"
    )]
    every: Option<String>,
    /// Time zone of bare dates, by its IANA name; `UTC` by default.
    #[param(example = "Europe/Berlin")]
    tz: Option<String>,
    /// Most bytes first (`-bytes`, the default), fewest first, or by identifier.
    #[param(inline)]
    sort: Option<Sort>,
    #[param(inline)]
    page: Option<PageNumber>,
    #[param(inline)]
    size: Option<PageSize>,
    /// Where the page begins, as `next` has it. It wins over `page`, and is of use for the same question alone.
    #[param(pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
    #[param(inline)]
    format: Option<FormatName>,
}

/// What narrows a list of SIM cards.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it is there to be described")]
pub(super) struct OrganizationParameter {
    /// Only what was used on behalf of this organization, or assigned to it.
    #[param(example = "x00g8")]
    organization: Option<String>,
}

/// Parameters of the inventory.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it is there to be described")]
pub(super) struct InventoryParameters {
    /// Only where the SIM card's or the organization's identifier begins so.
    #[param(example = "8944")]
    q: Option<String>,
    #[param(inline)]
    page: Option<PageNumber>,
    #[param(inline)]
    size: Option<PageSize>,
    /// Where the page begins, as `next` has it. It wins over `page`, and is of use for the same question alone.
    #[param(pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
    #[param(inline)]
    format: Option<FormatName>,
}

/// What every question about usage and inventory may be answered otherwise.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it is there to be described")]
pub(super) enum OtherAnswers {
    /// The client has the answer already.
    #[response(status = 304)]
    Unchanged,
    /// No format is acceptable.
    #[response(status = 406, content_type = "application/problem+json")]
    NotAcceptable(Problem<'static>),
    /// Parameters are wrong, all of them named.
    #[response(status = 422, content_type = "application/problem+json")]
    Parameters(Problem<'static>),
    /// A total exceeds 64 bits, or worse.
    #[response(status = 500, content_type = "application/problem+json")]
    Failed(Problem<'static>),
    /// The database is away or busy.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem<'static>),
}

/// A date, or a date-time.
fn instant() -> Schema {
    let text = |format| {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(format)))
    };
    OneOfBuilder::new()
        .item(text(KnownFormat::Date))
        .item(text(KnownFormat::DateTime))
        .build()
        .into()
}

/// Which buckets are answered.
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "it is there to be described")]
enum Fill {
    None,
    Zero,
}

/// The order of a list.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it is there to be described")]
enum Sort {
    #[schema(rename = "-bytes")]
    MostBytes,
    #[schema(rename = "bytes")]
    FewestBytes,
    #[schema(rename = "id")]
    Id,
}

/// The format of the answer; by default what `Accept` likes best. CSV and NDJSON have all rows, unless a `size` is
/// given.
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "it is there to be described")]
enum FormatName {
    Json,
    Csv,
    Ndjson,
}

/// The page, from 1.
#[derive(utoipa::ToSchema)]
#[schema(minimum = 1, maximum = 1_000_000_000, default = 1)]
#[expect(dead_code, reason = "it is there to be described")]
struct PageNumber(i64);

/// Rows of a page.
#[derive(utoipa::ToSchema)]
#[schema(minimum = 1, maximum = 1000, default = 50)]
#[expect(dead_code, reason = "it is there to be described")]
struct PageSize(i64);

/// The API.
#[derive(OpenApi)]
#[openapi(
    info(description = "How many bytes every SIM card and every organization used in which hour. \
                        Errors are problems as RFC 9457 has them."),
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
    modifiers(&Tokens),
)]
struct Api;

/// Says how tokens are sent.
struct Tokens;

impl Modify for Tokens {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "A token of `simusage token create`. None is needed until the first one exists.",
            ));
        let components = api
            .components
            .get_or_insert_with(utoipa::openapi::Components::new);
        components.add_security_scheme("token", SecurityScheme::Http(bearer.build()));
    }
}

/// The description, as JSON.
///
/// # Panics
/// Never: what it is made from can be written as JSON.
#[must_use]
pub fn description() -> String {
    let mut text = Api::openapi()
        .to_pretty_json()
        .expect("the description is JSON");
    text.push('\n');
    text
}

/// `GET /openapi.json`
pub(super) async fn describe() -> HttpResponse {
    let text = description();
    HttpResponse::Ok()
        .content_type("application/json")
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((ETAG, EntityTag::new_weak(cursor::digest(&text))))
        .body(text)
}

/// The page under `/docs/`, all of it from inside the program.
pub(super) fn page() -> SwaggerUi {
    SwaggerUi::new("/docs/{_:.*}").config(utoipa_swagger_ui::Config::from(PATH))
}
