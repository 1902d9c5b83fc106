//! `blend`: the weighted mean of several images.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::Response;
use glowflow::{Model, latent};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Shared;
use super::images::{File, MAX_IDS, all_stored, png};
use crate::Problem;
use crate::gate::Client;

/// Images and their weights.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Blend {
    /// The images, 1 to 8.
    #[schema(min_items = 1, max_items = 8)]
    ids: Vec<Uuid>,
    /// A weight for each image, 0 or more. Weights are normalised to a sum of 1.
    #[schema(min_items = 1, max_items = 8, example = json!([1, 2, 1]))]
    weights: Vec<f64>,
}

/// Decodes the weighted mean of the latents of several images; returns a PNG. The mean is not rescaled: a
/// mean of many images is smoother, as at a lower temperature. The class is that of the image with the
/// largest weight.
#[utoipa::path(
    post,
    path = "/api/v1/blend",
    request_body = Blend,
    responses(
        (status = 200, body = File, content_type = "image/png",
            headers(("glowflow-finite" = bool, description = "False if the \
            model's numbers are not all finite. Other pixels are black and meaningless."))),
        (status = "4XX", body = Problem, content_type = "application/problem+json",
            description = "No such image, or invalid weights"),
        (status = "5XX", body = Problem, content_type = "application/problem+json",
            description = "Server too busy, or the model failed")
    )
)]
pub(super) async fn blend(
    State(demo): Shared,
    request: Result<Json<Blend>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(Blend { ids, weights }) = request?;
    if !(1..=MAX_IDS).contains(&ids.len()) || weights.len() != ids.len() {
        return Err(Problem::unprocessable(format!(
            "{} images and {} weights: use 1 to {MAX_IDS} images and a weight for each",
            ids.len(),
            weights.len()
        )));
    }
    let images = all_stored(&demo, &ids)?;
    let work = move |glow: &Model, client: &Client| {
        let latents: Vec<_> = images.iter().map(|image| &image.latents).collect();
        let mean = latent::weighted_mean(&latents, &weights)?;
        let heaviest = weights.iter().zip(&images).rev().max_by(|(a, _), (b, _)| a.total_cmp(b));
        let labels = heaviest.map_or(&[][..], |(_, image)| &image.labels);
        let mean = glow.decode_while(&mean, labels, || client.check())?;
        let finite = mean.all_finite();
        png(&mean.into_bytes(), glow.config().image(), finite)
    };
    demo.compute(work).await
}
