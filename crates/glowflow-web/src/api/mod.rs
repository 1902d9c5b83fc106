//! The HTTP API under `/api/v1`, one request a file.
//!
//! `encode` takes a picture and `sample` draws some; both answer with ids. `decode`, `manipulate` and `mix` take ids and
//! answer with pictures.

mod decode;
mod encode;
mod images;
mod info;
mod manipulate;
mod mix;
mod sample;
mod upload;

use std::sync::Arc;

use axum::Json;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::{MethodRouter, get, post};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::Demo;

/// How long a frame of an animation is shown.
const MILLISECONDS: u16 = 80;

type Shared = State<Arc<Demo>>;

/// All paths and what answers them.
pub(crate) fn routes(demo: &Demo) -> Vec<(&'static str, MethodRouter<Arc<Demo>>)> {
    let json = DefaultBodyLimit::max(demo.limits.json_bytes);
    vec![
        ("/api/v1/openapi.json", get(|| async { Json(openapi()) })),
        ("/api/v1/info", get(info::info)),
        ("/api/v1/encode", post(encode::encode)),
        ("/api/v1/decode/{id}", get(decode::decode)),
        ("/api/v1/manipulate", post(manipulate::manipulate).layer(json)),
        ("/api/v1/mix", post(mix::mix).layer(json)),
        ("/api/v1/sample", post(sample::sample).layer(json)),
    ]
}

/// The API's description.
pub fn openapi() -> utoipa::openapi::OpenApi {
    #[derive(OpenApi)]
    #[openapi(
        info(
            title = "glowflow",
            description = "Images in the latent space of a Glow model: encode, change, mix, draw. Latents stay on the \
                           server, which forgets images that nobody asks about for a while."
        ),
        paths(info::info, encode::encode, decode::decode, manipulate::manipulate, mix::mix, sample::sample),
        // Relative to the description, which may be below a path that a proxy strips.
        servers((url = "../..", description = "The server that this description is from")),
        security((), ("token" = [])),
        modifiers(&TokenScheme)
    )]
    struct Api;
    Api::openapi()
}

/// Describes the token, which some servers demand.
struct TokenScheme;

impl Modify for TokenScheme {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
    }
}
