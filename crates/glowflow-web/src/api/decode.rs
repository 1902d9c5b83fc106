//! `decode`: the picture of an image that the server keeps.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use uuid::Uuid;

use super::Shared;
use super::images::{png, stored};
use crate::Problem;

/// The picture that latents decode to, as PNG.
#[utoipa::path(
    get,
    path = "/api/v1/decode/{id}",
    params(("id" = Uuid, Path, description = "From encode or sample")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "image/png",
            headers(("glowflow-finite" = bool, description = "False if the \
            model's numbers are not all finite. Pixels of others are black and mean nothing."))),
        (status = "4XX", body = Problem, content_type = "application/problem+json", description = "No such image"),
        (status = "5XX", body = Problem, content_type = "application/problem+json",
            description = "Too busy, or the model failed")
    )
)]
pub(super) async fn decode(
    State(demo): Shared,
    id: Result<Path<Uuid>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    let image = stored(&demo, id)?;
    let shape = demo.config.image;
    demo.gate.run(move |_| png(&image.pixels, shape, image.finite)).await
}
