//! `eyes`: positions are stored only if the demo allows it, and never for requests from other computers.

use std::path::PathBuf;

use glowflow::faces::{self, Faces};
use glowflow_data::Eyes;

use super::*;

const PATH: &str = "/api/v1/eyes";

/// A demo that stores positions or not, and the folder of its model.
fn storing(stored: bool) -> (Served, PathBuf) {
    let folder = bare();
    let demo = load(folder.path(), Limits::default()).unwrap().storing_eyes(stored);
    let path = folder.path().to_owned();
    (serve(demo, folder), path)
}

fn celeba() -> Value {
    json!({ "faces": true, "eyes": [[0.39, 0.51], [0.61, 0.51]] })
}

async fn put(served: &Served, body: Value) -> Answer {
    served.ask(Method::PUT, PATH, "application/json", body.to_string()).await
}

#[tokio::test]
async fn positions_are_stored_with_the_model() {
    let (served, folder) = storing(true);
    let info = served.get("/api/v1/info").await.json();
    assert_eq!((&info["stores_eyes"], &info["faces"]), (&json!(true), &Value::Null));
    assert_eq!(put(&served, celeba()).await.json(), celeba());
    assert_eq!(faces::read(&folder).unwrap(), Some(Faces::Aligned(Eyes::CELEBA)));
    let info = served.get("/api/v1/info").await.json();
    assert_eq!((&info["faces"], &info["eyes"]), (&json!(true), &celeba()["eyes"]));
    put(&served, json!({ "faces": false })).await.json();
    assert_eq!(faces::read(&folder).unwrap(), Some(Faces::None));
    let info = served.get("/api/v1/info").await.json();
    assert_eq!((&info["faces"], &info["eyes"]), (&json!(false), &Value::Null));
}

#[tokio::test]
async fn nothing_is_stored_by_default_or_through_a_proxy() {
    let (served, folder) = storing(false);
    assert_eq!(served.get("/api/v1/info").await.json()["stores_eyes"], false);
    put(&served, celeba()).await.problem(403, &["does not store"]);
    let default = whole();
    assert_eq!(default.get("/api/v1/info").await.json()["stores_eyes"], false);
    put(&default, celeba()).await.problem(403, &["does not store"]);
    assert_eq!(faces::read(&folder).unwrap(), None);
    assert_eq!(faces::read(default._folder.path()).unwrap(), None);

    let (served, folder) = storing(true);
    for (name, value) in [
        ("x-forwarded-for", "203.0.113.5"),
        ("forwarded", "for=203.0.113.5"),
        ("via", "1.1 proxy"),
        ("x-real-ip", "203.0.113.5"),
        ("x-forwarded-host", "demo.example.com"),
        ("x-forwarded-proto", "https"),
        ("cf-connecting-ip", "203.0.113.5"),
        ("true-client-ip", "203.0.113.5"),
        ("x-client-ip", "203.0.113.5"),
        ("x-original-host", "demo.example.com"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://demo.example.com"),
    ] {
        let request = Request::builder().method(Method::PUT).uri(PATH).header(name, value);
        let request = request.header("host", "127.0.0.1").header("content-type", "application/json");
        let request = request.body(Body::from(celeba().to_string())).unwrap();
        let answer = served.app.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{name}");
        if name != "origin" {
            assert_eq!(stores(&served, name, value).await, false, "{name}");
        }
    }
    assert_eq!(faces::read(&folder).unwrap(), None);
    for site in ["same-origin", "none"] {
        assert_eq!(stores(&served, "sec-fetch-site", site).await, true, "{site}");
    }
}

/// The answer of `info` to a request with a header.
async fn stores(served: &Served, name: &str, value: &str) -> Value {
    let request = Request::builder().uri("/api/v1/info").header("host", "127.0.0.1").header(name, value);
    let answer = served.app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    serde_json::from_slice::<Value>(&body).unwrap()["stores_eyes"].clone()
}

#[tokio::test]
async fn impossible_positions_are_refused() {
    let (served, folder) = storing(true);
    for (body, words) in [
        (json!({ "faces": true }), &["eyes"][..]),
        (json!({ "faces": false, "eyes": [[0.4, 0.5], [0.6, 0.5]] }), &["eyes"]),
        (json!({ "faces": true, "eyes": [[0.6, 0.5], [0.4, 0.5]] }), &["0.6", "0.02 greater than left x"]),
        (json!({ "faces": true, "eyes": [[0.5, 0.5], [0.51, 0.5]] }), &["0.51", "0.02 greater than left x"]),
        (json!({ "faces": true, "eyes": [[0.4, 0.5], [1.6, 0.5]] }), &["1.6"]),
        (json!({ "faces": true, "eyes": [[0.4, 0.5]] }), &["eyes"]),
        (json!({ "faces": true, "eyes": [[0.4, 0.5], [0.6, 0.5]], "path": "/etc" }), &["path"]),
        (json!({}), &["faces"]),
    ] {
        put(&served, body).await.problem(422, words);
    }
    assert_eq!(faces::read(&folder).unwrap(), None);
    assert_eq!(served.get("/api/v1/info").await.json()["faces"], Value::Null);
}

#[tokio::test]
async fn files_that_cannot_be_written_change_nothing() {
    let (served, folder) = storing(true);
    std::fs::create_dir(folder.join(faces::EYES)).unwrap();
    put(&served, celeba()).await.problem(500, &[faces::EYES]);
    assert_eq!(served.get("/api/v1/info").await.json()["faces"], Value::Null);
}
