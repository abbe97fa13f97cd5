//! The web page, compiled into the binary. It uses only the public API.

use std::sync::LazyLock;

use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::problem::ApiError;
use super::static_file::StaticFile;

/// The page may load its own files and call the API of the server that sent it, nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

/// A template: `VERSION` is replaced with the version of the assets.
const PAGE: &str = include_str!("../../web/index.html");

/// A file below `/assets/{version}/`.
struct Asset {
    name: &'static str,
    content_type: &'static str,
    body: &'static str,
}

/// Embeds a file of `web/`.
macro_rules! asset {
    ($folder:literal, $name:literal, $content_type:expr) => {
        Asset {
            name: $name,
            content_type: $content_type,
            body: include_str!(concat!("../../web/", $folder, $name)),
        }
    };
}

static ASSETS: [Asset; 22] = [
    asset!("", "app.js", JAVASCRIPT),
    asset!("", "api.js", JAVASCRIPT),
    asset!("", "assignment.js", JAVASCRIPT),
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

/// The licence of uPlot, which must be distributed with it.
static LICENCE: Asset = asset!("vendor/", "uPlot.LICENSE", TEXT);

fn assets() -> impl Iterator<Item = &'static Asset> {
    ASSETS.iter().chain([&LICENCE])
}

/// A hash of all assets. It is a folder in their URLs, so that relative imports between modules
/// stay within one version.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = blake3::Hasher::new();
    for asset in assets() {
        hasher
            .update(asset.name.as_bytes())
            .update(asset.body.as_bytes());
    }
    short_hash(&hasher)
});

static INDEX: LazyLock<String> = LazyLock::new(|| PAGE.replace("VERSION", &VERSION));

static INDEX_FILE: LazyLock<StaticFile> = LazyLock::new(|| {
    let version = short_hash(blake3::Hasher::new().update(INDEX.as_bytes()));
    StaticFile::new(HTML, version, INDEX.clone().into())
});

static FILES: LazyLock<FxHashMap<&str, StaticFile>> = LazyLock::new(|| {
    let file = |asset: &Asset| {
        let body = Bytes::from_static(asset.body.as_bytes());
        StaticFile::new(asset.content_type, VERSION.clone(), body)
    };
    assets().map(|asset| (asset.name, file(asset))).collect()
});

/// Compresses all files, which would delay the first requests.
pub(super) fn prepare() {
    LazyLock::force(&INDEX_FILE);
    LazyLock::force(&FILES);
}

/// The first 64 bits in hexadecimal, enough to tell versions apart.
fn short_hash(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex()[..16].to_owned()
}

/// `GET /`
pub(super) async fn index(request: HttpRequest) -> HttpResponse {
    INDEX_FILE.respond(&request, "no-cache", POLICY)
}

/// `GET /assets/{version}/{name}`. Only the version of this binary exists.
pub(super) async fn asset(
    request: HttpRequest,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    let (version, name) = path.into_inner();
    let file = FILES.get(&*name).filter(|_| version == *VERSION);
    let file = file.ok_or(ApiError::NoPath)?;
    Ok(file.respond(&request, "public, max-age=31536000, immutable", POLICY))
}

#[cfg(test)]
mod tests {
    use std::fs::read_dir;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_in_web_is_served() {
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
    fn the_page_refers_only_to_existing_assets() {
        let prefix = format!("assets/{}/", *VERSION);
        let referenced: Vec<_> = INDEX
            .split(&prefix)
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        assert!(referenced.len() > 5, "{referenced:?}");
        for name in referenced {
            assert!(assets().any(|asset| asset.name == name), "{name}");
        }
        assert!(!INDEX.contains("assets/VERSION"));
    }
}
