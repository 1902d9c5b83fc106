//! `sample`: draws images from the model.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use glowflow::{Architecture, Decoded, Model};
use ndarray::ArrayView4;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Shared;
use super::bound::Bound;
use crate::Problem;
use crate::gate::Client;
use crate::store::Stored;

/// Parameters of sampling.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sample {
    /// Number of images.
    #[schema(minimum = 1)]
    count: usize,
    /// Factor on the standard deviation of the latents: 1 samples the model's distribution, smaller values
    /// give smoother images, and 0 gives the image at the centre, which does not depend on the seed.
    #[schema(minimum = 0, maximum = 2)]
    temperature: f64,
    /// Equal seeds give equal images.
    seed: u64,
    /// Required if the model has classes.
    class: Option<usize>,
    /// If true, also computes the bits per dimension of each image, which takes at least as long as sampling
    /// it.
    #[serde(default)]
    score: bool,
}

/// Sampled images.
#[derive(Serialize, ToSchema)]
pub(crate) struct Samples {
    /// Their ids.
    ids: Vec<Uuid>,
    /// True if the values before quantisation are finite, for each image. Pixels with other values are black
    /// and meaningless.
    finite: Vec<bool>,
    /// Scores, if requested.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    #[schema(inline)]
    scores: Option<Scores>,
}

/// Bits per dimension of images.
#[derive(Serialize, ToSchema)]
pub(crate) struct Scores {
    /// Upper bound on the bits per dimension of each image, the mean over `draws`: a smaller bound means a
    /// likelier image. Null for values that are not finite.
    bits_per_dim: Vec<Option<f64>>,
    /// Dequantisation of the pixels: `uniform` (noise over each bin) or `variational` (learned noise).
    dequantization: &'static str,
    /// Number of noise draws per image.
    draws: usize,
}

/// Samples images.
#[utoipa::path(
    post,
    path = "/api/v1/sample",
    request_body = Sample,
    responses(
        (status = 200, body = Samples),
        (status = "4XX", body = Problem, content_type = "application/problem+json", description = "Invalid parameters"),
        (status = "5XX", body = Problem, content_type = "application/problem+json",
            description = "Server too busy, or the model failed")
    )
)]
pub(super) async fn sample(
    State(demo): Shared,
    request: Result<Json<Sample>, JsonRejection>,
) -> Result<Json<Samples>, Problem> {
    let Json(Sample { count, temperature, seed, class, score }) = request?;
    let most = demo.images();
    let [height, width, channels] = demo.config.image();
    if !(1..=most).contains(&count) || !(0.0..=2.0).contains(&temperature) {
        return Err(Problem::unprocessable(format!(
            "{count} images at temperature {temperature}: use 1 to {most} images of {width}×{height} pixels at 0 to 2"
        )));
    }
    let at = Arc::clone(&demo);
    let work = move |glow: &Model, client: &Client| {
        let labels = class.map_or(vec![], |class| vec![class; count]);
        let latents = glow.draw(count, temperature, seed)?;
        let Decoded { pixels, finite } = glow.decode_while(&latents, &labels, || client.check())?;
        let pixels = pixels.into_raw_vec_and_offset().0;
        let images = || pixels.chunks(pixels.len() / count).zip(&finite);
        // One draw is enough to rank images, and a person is waiting.
        let draws = 1;
        let bits_of = |(image, &finite): (&[u8], &bool)| {
            let image = ArrayView4::from_shape((1, height, width, channels), image)
                .map_err(|e| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
            let bits = Bound::of(glow, image, class.as_slice(), draws, client)?.bits_per_dim;
            Ok((finite && bits.is_finite()).then_some(bits))
        };
        let bits = score.then(|| images().map(bits_of).collect::<Result<_, Problem>>()).transpose()?;
        let dequantization = glow.config().noise().name();
        let scores = bits.map(|bits_per_dim| Scores { bits_per_dim, dequantization, draws });
        let ids = images().enumerate().map(|(i, (image, &finite))| {
            at.store.put(Stored {
                latents: latents.slice(i..i + 1),
                pixels: image.to_vec(),
                source: None,
                finite,
                labels: class.into_iter().collect(),
            })
        });
        Ok(Json(Samples { ids: ids.collect(), finite: finite.clone(), scores }))
    };
    demo.compute(work).await
}
