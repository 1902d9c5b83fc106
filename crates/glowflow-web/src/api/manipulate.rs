//! `manipulate`: attributes of an image are changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::Response;
use glowflow::{Glow, latent};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Shared;
use super::images::{decoded, png, stored};
use crate::Problem;
use crate::gate::Client;

/// How to change an image.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manipulate {
    /// The image.
    id: Uuid,
    /// How far to move along each attribute's direction, −1 to 1.
    #[schema(example = json!({ "Smiling": 0.7 }))]
    amounts: BTreeMap<String, f64>,
}

/// Changes attributes of an image; answers with a PNG.
#[utoipa::path(
    post,
    path = "/api/v1/manipulate",
    request_body = Manipulate,
    responses(
        (status = 200, body = Vec<u8>, content_type = "image/png",
            headers(("glowflow-finite" = bool, description = "False if the \
            model's numbers are not all finite. Pixels of others are black and mean nothing."))),
        (status = "4XX", body = Problem, content_type = "application/problem+json", description = "No such image, or \
            no such attribute"),
        (status = "5XX", body = Problem, content_type = "application/problem+json",
            description = "Too busy, or the model failed")
    )
)]
pub(super) async fn manipulate(
    State(demo): Shared,
    request: Result<Json<Manipulate>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(Manipulate { id, amounts }) = request?;
    let image = stored(&demo, id)?;
    let at = Arc::clone(&demo);
    let work = move |glow: &Glow, client: &Client| {
        let directions = at.directions.as_ref().ok_or_else(|| {
            Problem::unprocessable("this model has no directions, so nothing can be changed")
        })?;
        let moves = amounts.iter().map(|(name, &amount)| Ok((directions.get(name)?, amount)));
        let moved = latent::manipulate(&image.latents, &moves.collect::<Result<Vec<_>, glowflow::Error>>()?)?;
        let moved = decoded(glow, &moved, &image.labels, client)?;
        png(&moved.pixels, glow.config().image, moved.all_finite())
    };
    demo.compute(work).await
}
