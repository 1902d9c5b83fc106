//! The HTTP API under `/api/v1`, one request per file.
//!
//! `encode` takes an image and `sample` draws some; both return ids. `decode`, `manipulate`, `mix`, `walk`
//! and `blend` take ids and return images. `faces` detects the faces in a photograph, and `eyes` stores the
//! eye positions of the model's images.

mod blend;
mod bound;
mod decode;
mod encode;
mod eyes;
mod faces;
mod format;
mod images;
mod info;
mod manipulate;
mod mix;
mod sample;
mod upload;
mod walk;

use std::sync::Arc;

use axum::Json;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::{MethodRouter, get, post, put};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::Demo;

type Shared = State<Arc<Demo>>;

/// Paths that accept uploads.
pub(crate) const UPLOADS: [&str; 2] = ["/api/v1/encode", "/api/v1/faces"];

/// All paths and their handlers.
pub(crate) fn routes(demo: &Demo) -> Vec<(&'static str, MethodRouter<Arc<Demo>>)> {
    let json = DefaultBodyLimit::max(demo.limits.json_bytes);
    vec![
        ("/api/v1/openapi.json", get(|| async { Json(openapi()) })),
        ("/api/v1/info", get(info::info)),
        ("/api/v1/encode", post(encode::encode)),
        ("/api/v1/decode/{id}", get(decode::decode)),
        ("/api/v1/manipulate", post(manipulate::manipulate).layer(json)),
        ("/api/v1/eyes", put(eyes::eyes).layer(json)),
        ("/api/v1/faces", post(faces::faces)),
        ("/api/v1/blend", post(blend::blend).layer(json)),
        ("/api/v1/walk", post(walk::walk).layer(json)),
        ("/api/v1/mix", post(mix::mix).layer(json)),
        ("/api/v1/sample", post(sample::sample).layer(json)),
    ]
}

/// The OpenAPI description.
pub fn openapi() -> utoipa::openapi::OpenApi {
    #[derive(OpenApi)]
    #[openapi(
        info(
            title = "glowflow",
            description = "Images in the latent space of a normalizing flow: encode, change, mix, sample. Latents stay on the \
                           server, which drops images after a period without use."
        ),
        paths(
            info::info, encode::encode, decode::decode, manipulate::manipulate, mix::mix, walk::walk, blend::blend,
            sample::sample, faces::faces, eyes::eyes
        ),
        // Relative to the description, which may be below a path that a proxy strips.
        servers((url = "../..", description = "The server of this description")),
        security((), ("token" = [])),
        modifiers(&TokenScheme)
    )]
    struct Api;
    Api::openapi()
}

/// Describes the token, which some servers require.
struct TokenScheme;

impl Modify for TokenScheme {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
    }
}
