//! The web page, whose files are part of the program: it asks the public API, and nothing else.

use std::sync::LazyLock;

use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, EntityTag, Header as _, IfNoneMatch,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::{HttpRequest, HttpResponse, web};

use super::problem::ApiError;

/// What the page may load, and from where: its own files and the API of its own server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

/// The page, in which `VERSION` stands for the version of its assets.
const PAGE: &str = include_str!("../../web/index.html");

/// A file that the page loads.
struct Asset {
    name: &'static str,
    content_type: &'static str,
    body: &'static str,
}

/// An asset of `web/`, by its path there and its type.
macro_rules! asset {
    ($folder:literal, $name:literal, $content_type:expr) => {
        Asset {
            name: $name,
            content_type: $content_type,
            body: include_str!(concat!("../../web/", $folder, $name)),
        }
    };
}

static ASSETS: [Asset; 21] = [
    asset!("", "app.js", JAVASCRIPT),
    asset!("", "api.js", JAVASCRIPT),
    asset!("", "calendar.js", JAVASCRIPT),
    asset!("", "chart.js", JAVASCRIPT),
    asset!("", "controls.js", JAVASCRIPT),
    asset!("", "dom.js", JAVASCRIPT),
    asset!("", "extent.js", JAVASCRIPT),
    asset!("", "format.js", JAVASCRIPT),
    asset!("", "initial-theme.js", JAVASCRIPT),
    asset!("", "messages.js", JAVASCRIPT),
    asset!("", "render.js", JAVASCRIPT),
    asset!("", "search.js", JAVASCRIPT),
    asset!("", "share.js", JAVASCRIPT),
    asset!("", "theme.js", JAVASCRIPT),
    asset!("", "token.js", JAVASCRIPT),
    asset!("", "usage.js", JAVASCRIPT),
    asset!("", "view.js", JAVASCRIPT),
    asset!("", "style.css", CSS),
    asset!("", "icon.svg", SVG),
    asset!("vendor/", "uPlot.iife.min.js", JAVASCRIPT),
    asset!("vendor/", "uPlot.min.css", CSS),
];

/// The licence of what is in `web/vendor`, which asks to be handed on with it.
static LICENCE: Asset = asset!("vendor/", "uPlot.LICENSE", TEXT);

fn assets() -> impl Iterator<Item = &'static Asset> {
    ASSETS.iter().chain([&LICENCE])
}

/// The version of all assets together: a folder's name, so that modules find each other beside themselves.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = blake3::Hasher::new();
    for asset in assets() {
        hasher
            .update(asset.name.as_bytes())
            .update(asset.body.as_bytes());
    }
    short(&hasher)
});

/// The page with the version of its assets.
static INDEX: LazyLock<String> = LazyLock::new(|| PAGE.replace("VERSION", &VERSION));

static INDEX_VERSION: LazyLock<String> =
    LazyLock::new(|| short(blake3::Hasher::new().update(INDEX.as_bytes())));

/// 64 bits tell the versions of a page from each other.
fn short(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex()[..16].to_owned()
}

/// `GET /`
pub(super) async fn index(request: HttpRequest) -> HttpResponse {
    answer(&request, HTML, &INDEX_VERSION, "no-cache", &INDEX)
}

/// `GET /assets/{version}/{name}`; a version that is not this program's is not here.
pub(super) async fn asset(
    request: HttpRequest,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let (version, name) = path.into_inner();
    let found = assets()
        .find(|asset| asset.name == name && version == *VERSION)
        .ok_or(ApiError::NoPath)?;
    Ok(answer(
        &request,
        found.content_type,
        &VERSION,
        "public, max-age=31536000, immutable",
        found.body,
    ))
}

/// A file, or that it has not changed. The tag is a weak one, because the body may be compressed on its way.
fn answer(
    request: &HttpRequest,
    content_type: &'static str,
    version: &str,
    caching: &'static str,
    body: &'static str,
) -> HttpResponse {
    let tag = EntityTag::new_weak(version.to_owned());
    let unchanged = match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Any) => true,
        Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|known| known.weak_eq(&tag)),
        Err(_) => false,
    };
    let mut response = if unchanged {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    response
        .insert_header((ETAG, tag))
        .insert_header((CACHE_CONTROL, caching))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((REFERRER_POLICY, "no-referrer"));
    if unchanged {
        response.finish()
    } else {
        response.content_type(content_type).body(body)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::read_dir;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_of_the_folder_is_served() {
        let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
        let mut files: Vec<String> = [web.clone(), web.join("vendor")]
            .iter()
            .flat_map(|folder| read_dir(folder).unwrap())
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_type().unwrap().is_file())
            .map(|entry| entry.file_name().into_string().unwrap())
            .filter(|name| name != "index.html")
            .collect();
        files.sort();
        let mut served: Vec<_> = assets().map(|asset| asset.name.to_owned()).collect();
        served.sort();
        assert_eq!(served, files);
    }

    #[test]
    fn the_page_names_no_asset_that_is_not_there() {
        let prefix = format!("assets/{}/", *VERSION);
        let named: Vec<_> = INDEX
            .split(&prefix)
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        assert!(named.len() > 5, "{named:?}");
        for name in named {
            assert!(assets().any(|asset| asset.name == name), "{name}");
        }
        assert!(!INDEX.contains("assets/VERSION"));
    }
}
