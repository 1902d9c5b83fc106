//! `mix`: points between two images.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::Response;
use glowflow::latent::{Walk, between};
use glowflow::{Glow, Latents};
use glowflow_report::{animation, picture};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::images::{answer, decoded, png, stored};
use super::{MILLISECONDS, Shared};
use crate::Problem;
use crate::gate::Client;

/// How to mix two images.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mix {
    /// The first image.
    a: Uuid,
    /// The second.
    b: Uuid,
    /// How far from the first to the second: one number for a picture, several for a strip or an animation.
    #[schema(min_items = 1, example = json!([0.5]))]
    at: Vec<f64>,
    /// Straight, or along the great circle.
    #[serde(default)]
    path: Course,
    /// What to answer with.
    #[serde(default)]
    format: Format,
}

/// The way from one image to the other.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Walk)]
pub(crate) enum Course {
    #[default]
    Linear,
    Spherical,
}

/// Pictures side by side as PNG, or one after the other as GIF.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    #[default]
    Png,
    Gif,
}

/// Decodes points between two images.
#[utoipa::path(
    post,
    path = "/api/v1/mix",
    request_body = Mix,
    responses(
        (status = 200, description = "The pictures, in the format asked for",
            content((Vec<u8> = "image/png"), (Vec<u8> = "image/gif")),
            headers(("glowflow-finite" = bool, description = "False if the \
            model's numbers are not all finite. Pixels of others are black and mean nothing."))),
        (status = "4XX", body = Problem, content_type = "application/problem+json", description = "No such image"),
        (status = "5XX", body = Problem, content_type = "application/problem+json",
            description = "Too busy, or the model failed")
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
        let [height, width, _] = demo.config.image;
        return Err(Problem::unprocessable(format!(
            "\"at\" should hold 1 to {most} numbers from 0 to 1, one for each picture of {width}×{height} pixels"
        )));
    }
    let work = move |glow: &Glow, client: &Client| {
        let walk = match path {
            Course::Linear => Walk::Linear,
            Course::Spherical => Walk::Spherical,
        };
        let parts: Vec<Latents> = points.iter().map(|&t| between(&a.latents, &b.latents, t, walk)).collect();
        let labels: Vec<usize> =
            points.iter().flat_map(|&t| if t > 0.5 { &b.labels } else { &a.labels }).copied().collect();
        let mixed = decoded(glow, &Latents::concatenate(&parts)?, &labels, client)?;
        let (shape, finite, pixels) = (glow.config().image, mixed.all_finite(), mixed.pixels);
        match format {
            Format::Png if points.len() == 1 => png(&pixels, shape, finite),
            Format::Png => {
                answer("image/png", picture::encode_png(&picture::rows(&[&pixels], shape)), finite)
            }
            Format::Gif => {
                let gif = animation::encode(animation::Format::Gif, &pixels, shape, MILLISECONDS);
                answer("image/gif", gif, finite)
            }
        }
    };
    demo.compute(work).await
}
