//! A request to the demo: a line of method and path, then the body. `@` stands for the id of an image.

#![no_main]

use std::path::Path;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, StatusCode, header};
use glowflow::Model;
use glowflow_web::{Access, Demo, Limits, router};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

struct Served {
    runtime: Runtime,
    app: Router,
    /// The id of an image in the store.
    id: String,
}

static SERVED: LazyLock<Served> = LazyLock::new(|| {
    let run = Path::new(glowflow_fuzz::RUN);
    let model = Model::load(run).expect("the model of the tests is read");
    let limits = Limits { images: 4, ..Limits::default() };
    let demo = Demo::load(model, run, None, None, limits).expect("it can be served");
    let app = router(Arc::new(demo), Access::default());
    let runtime = Builder::new_current_thread().enable_time().build().expect("no runtime");
    let sample = br#"{"count": 1, "temperature": 0.7, "seed": 1}"#;
    let (_, body) = runtime.block_on(answer(&app, "POST /api/v1/sample", sample)).expect("a valid request");
    let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    let id = body["ids"][0].as_str().expect("an id").to_owned();
    Served { runtime, app, id }
});

/// The answer to a request; `None` if it is not one of HTTP.
async fn answer(app: &Router, head: &str, body: &[u8]) -> Option<(StatusCode, Bytes)> {
    let (method, path) = head.split_once(' ')?;
    let kind = if body.starts_with(b"{") { "application/json" } else { "image/png" };
    let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, kind);
    let request = request.body(Body::from(body.to_vec())).ok()?;
    let (head, body) = app.clone().oneshot(request).await.expect("every request is answered").into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("the answer is complete");
    Some((head.status, body))
}

fuzz_target!(init: glowflow_fuzz::allow_caught_panics(), |bytes: &[u8]| {
    let Served { runtime, app, id } = &*SERVED;
    let end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
    let head = String::from_utf8_lossy(&bytes[..end]).replace('@', id);
    let body = bytes.get(end + 1..).unwrap_or_default();
    let body = match str::from_utf8(body) {
        Ok(text) => text.replace('@', id).into_bytes(),
        Err(_) => body.to_vec(),
    };
    let status = runtime.block_on(answer(app, &head, &body)).map(|(status, _)| status);
    assert_ne!(status, Some(StatusCode::INTERNAL_SERVER_ERROR));
});
