//! The web page: its files are embedded, and nothing is loaded from elsewhere.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};

/// Paths, content types and contents.
const FILES: [(&str, &str, &str); 29] = [
    ("/", "text/html; charset=utf-8", include_str!("../assets/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("../assets/style.css")),
    ("/icon.svg", "image/svg+xml", include_str!("../assets/icon.svg")),
    ("/about.js", SCRIPT, include_str!("../assets/about.js")),
    ("/align.js", SCRIPT, include_str!("../assets/align.js")),
    ("/api.js", SCRIPT, include_str!("../assets/api.js")),
    ("/app.js", SCRIPT, include_str!("../assets/app.js")),
    ("/camera.js", SCRIPT, include_str!("../assets/camera.js")),
    ("/compare.js", SCRIPT, include_str!("../assets/compare.js")),
    ("/crop.js", SCRIPT, include_str!("../assets/crop.js")),
    ("/dom.js", SCRIPT, include_str!("../assets/dom.js")),
    ("/download.js", SCRIPT, include_str!("../assets/download.js")),
    ("/drop.js", SCRIPT, include_str!("../assets/drop.js")),
    ("/examples.js", SCRIPT, include_str!("../assets/examples.js")),
    ("/eyes.js", SCRIPT, include_str!("../assets/eyes.js")),
    ("/faces.js", SCRIPT, include_str!("../assets/faces.js")),
    ("/history.js", SCRIPT, include_str!("../assets/history.js")),
    ("/image.js", SCRIPT, include_str!("../assets/image.js")),
    ("/manipulate.js", SCRIPT, include_str!("../assets/manipulate.js")),
    ("/markers.js", SCRIPT, include_str!("../assets/markers.js")),
    ("/message.js", SCRIPT, include_str!("../assets/message.js")),
    ("/mix.js", SCRIPT, include_str!("../assets/mix.js")),
    ("/photo.js", SCRIPT, include_str!("../assets/photo.js")),
    ("/range.js", SCRIPT, include_str!("../assets/range.js")),
    ("/sample.js", SCRIPT, include_str!("../assets/sample.js")),
    ("/score.js", SCRIPT, include_str!("../assets/score.js")),
    ("/source.js", SCRIPT, include_str!("../assets/source.js")),
    ("/token.js", SCRIPT, include_str!("../assets/token.js")),
    ("/video.js", SCRIPT, include_str!("../assets/video.js")),
];

/// Files of the token form, which are served without a token.
pub(crate) const PUBLIC: [&str; 3] = ["/style.css", "/icon.svg", "/token.js"];

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// All paths and their handlers.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>()
-> impl Iterator<Item = (&'static str, MethodRouter<S>)> {
    FILES.into_iter().map(|(path, kind, text)| {
        let file = move || async move { ([(header::CONTENT_TYPE, kind)], text).into_response() };
        (path, get(file))
    })
}

/// The page with the form for the token.
pub(crate) fn token_form() -> Response {
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    let page = include_str!("../assets/token.html");
    (StatusCode::UNAUTHORIZED, [(header::CONTENT_TYPE, html)], page).into_response()
}

/// Adds security headers to every answer: load nothing from elsewhere, do not embed in other pages, do not
/// guess types, do not cache.
pub(crate) async fn secure(mut response: Response) -> Response {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' \
                          blob:; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (
            header::HeaderName::from_static("permissions-policy"),
            "camera=(self), microphone=(), geolocation=()",
        ),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
