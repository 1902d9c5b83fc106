//! `encode`: converts an image to latents, which stay on the server.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use glowflow::{Architecture, Decoded, Dequantization, Model};
use glowflow_data::{ImageShape, image_of_bytes};
use ndarray::Array4;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Shared;
use super::bound::Bound;
use super::images::File;
use super::upload::Upload;
use crate::Problem;
use crate::gate::Client;
use crate::store::Stored;

/// The class of an image.
#[derive(Deserialize, ToSchema)]
pub(crate) struct Class {
    /// Required if the model has classes.
    class: Option<usize>,
}

/// An image stored on the server.
#[derive(Serialize, ToSchema)]
pub(crate) struct Encoded {
    /// Its id.
    id: Uuid,
    /// Upper bound on the image's bits per dimension, the mean over `draws`. A smaller bound means that the
    /// image is more similar to the training images.
    bits_per_dim: f64,
    /// Standard error of that mean; null for a single draw.
    standard_error: Option<f64>,
    /// Dequantisation of the pixels for `bits_per_dim`: `uniform` (noise over each bin) or `variational`
    /// (learned noise).
    dequantization: &'static str,
    /// Number of noise draws. The draws are the same for equal images.
    draws: usize,
    /// True if its latents decode to identical pixels, at the model's bit depth and size.
    exact: bool,
    /// Number of pixels that decode to different values.
    differing_pixels: usize,
}

/// Encodes an image (PNG, JPEG, WebP or BMP), centre-cropped and resized to the model's size, into latents.
#[utoipa::path(
    post,
    path = "/api/v1/encode",
    params(("class" = Option<usize>, Query, description = "Class of the image, if the model has classes")),
    request_body(
        description = "The image file",
        content(
            (File = "image/png"), (File = "image/jpeg"), (File = "image/webp"), (File = "image/bmp")
        )
    ),
    responses(
        (status = 200, body = Encoded),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "Upload too slow"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "Upload too large"),
        (status = "4XX", body = Problem, content_type = "application/problem+json", description = "Not a readable image"),
        (status = "5XX", body = Problem, content_type = "application/problem+json",
            description = "Server too busy, or the model failed")
    )
)]
pub(super) async fn encode(
    State(demo): Shared,
    class: Result<Query<Class>, QueryRejection>,
    body: Body,
) -> Result<Json<Encoded>, Problem> {
    let Query(Class { class }) = class?;
    let upload = Upload::read(&demo, body).await?;
    let at = Arc::clone(&demo);
    let work = move |glow: &Model, client: &Client| {
        let [height, width, channels] = glow.config().image();
        let shape = ImageShape { height, width, channels };
        let pixels = image_of_bytes(&upload.bytes, shape, at.limits.upload_pixels)
            .map_err(|error| Problem::unprocessable(error.to_string()))?;
        drop(upload);
        let labels: Vec<usize> = class.into_iter().collect();
        let image = Array4::from_shape_vec((1, height, width, channels), pixels)
            .map_err(|e| Problem::unprocessable(e.to_string()))?;
        let draws = at.draws();
        let Bound { bits_per_dim, standard_error } = Bound::of(glow, image.view(), &labels, draws, client)?;
        let latents = glow.encode(image.view(), &labels, Dequantization::Typical)?.latents;
        if !bits_per_dim.is_finite() || !latents.is_finite(0) {
            return Err(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the model's numbers for this picture are not finite; the model may be damaged, or its training \
                 diverged",
            ));
        }
        let Decoded { pixels, finite } = glow.decode_while(&latents, &labels, || client.check())?;
        let pixels = pixels.into_raw_vec_and_offset().0;
        let dropped = 8 - glow.config().bits();
        let original: Vec<u8> = image.iter().map(|pixel| pixel >> dropped << dropped).collect();
        let pairs = original.chunks(channels).zip(pixels.chunks(channels));
        let differing_pixels = pairs.filter(|(a, b)| a != b).count();
        let (exact, finite) = (differing_pixels == 0 && finite[0], finite[0]);
        let source = (differing_pixels > 0).then_some(original);
        let id = at.store.put(Stored { latents, pixels, source, finite, labels });
        let dequantization = glow.config().noise().name();
        Ok(Json(Encoded { id, bits_per_dim, standard_error, dequantization, draws, exact, differing_pixels }))
    };
    demo.compute(work).await
}
