//! `mix`: interpolates between two images.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::Response;
use glowflow::latent::between;
use glowflow::{Latents, Model};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Shared;
use super::format::{Course, Format};
use super::images::{File, png, stored};
use crate::Problem;
use crate::gate::Client;

/// Parameters of an interpolation.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mix {
    /// The first image.
    a: Uuid,
    /// The second image.
    b: Uuid,
    /// Positions between the first and the second image, 0 to 1: one number for an image, several for a strip
    /// or an animation.
    #[schema(min_items = 1, example = json!([0.5]))]
    at: Vec<f64>,
    /// Linear, or spherical along the great circle.
    #[serde(default)]
    path: Course,
    /// Format of the answer.
    #[serde(default)]
    format: Format,
}

/// Decodes points between two images.
#[utoipa::path(
    post,
    path = "/api/v1/mix",
    request_body = Mix,
    responses(
        (status = 200, description = "The images, in the requested format",
            content((File = "image/png"), (File = "image/gif"), (File = "image/apng")),
            headers(("glowflow-finite" = bool, description = "False if the \
            model's numbers are not all finite. Other pixels are black and meaningless."))),
        (status = "4XX", body = Problem, content_type = "application/problem+json", description = "No such image"),
        (status = "5XX", body = Problem, content_type = "application/problem+json",
            description = "Server too busy, or the model failed")
    )
)]
pub(super) async fn mix(
    State(demo): Shared,
    request: Result<Json<Mix>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(Mix { a, b, at: points, path, format }) = request?;
    let (a, b) = (stored(&demo, a)?, stored(&demo, b)?);
    let most = demo.images();
    if points.is_empty() || points.len() > most || points.iter().any(|t| !(0.0..=1.0).contains(t)) {
        let [height, width, _] = demo.config.image();
        return Err(Problem::unprocessable(format!(
            "\"at\" must contain 1 to {most} numbers from 0 to 1, one for each picture of {width}×{height} pixels"
        )));
    }
    let work = move |glow: &Model, client: &Client| {
        let point = |&t: &f64| between(&a.latents, &b.latents, t, path.into());
        let parts: Vec<Latents> = points.iter().map(point).collect();
        let labels: Vec<usize> =
            points.iter().flat_map(|&t| if t > 0.5 { &b.labels } else { &a.labels }).copied().collect();
        let mixed = glow.decode_while(&Latents::concatenate(&parts)?, &labels, || client.check())?;
        let (shape, finite, pixels) = (glow.config().image(), mixed.all_finite(), mixed.into_bytes());
        match format {
            Format::Png if points.len() == 1 => png(&pixels, shape, finite),
            format => format.pictures(&pixels, shape, finite),
        }
    };
    demo.compute(work).await
}
