//! `encode`: a picture becomes latents, which stay on the server.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use glowflow::{Dequantization, Glow};
use glowflow_data::{ImageShape, image_of_bytes};
use ndarray::Array4;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Shared;
use super::images::{Decoded, decoded};
use super::upload::Upload;
use crate::Problem;
use crate::gate::Client;
use crate::store::Stored;

/// The class of an image.
#[derive(Deserialize, ToSchema)]
pub(crate) struct Class {
    /// Needed where the model has classes.
    class: Option<usize>,
}

/// An image that the server keeps.
#[derive(Serialize, ToSchema)]
pub(crate) struct Encoded {
    /// Its id.
    id: Uuid,
    /// Bits per dimension by which the model describes it: the less, the more like what it was trained on.
    bits_per_dim: f64,
    /// Whether its latents decode to the very same pixels, in the model's bits and size.
    exact: bool,
    /// How many of its pixels do not come back.
    differing_pixels: usize,
}

/// Turns a picture (PNG, JPEG, WebP or BMP) into latents, cropped to the middle and resized to the model's size.
#[utoipa::path(
    post,
    path = "/api/v1/encode",
    params(("class" = Option<usize>, Query, description = "Class of the image, where the model has classes")),
    request_body(
        description = "The picture",
        content(
            (Vec<u8> = "image/png"), (Vec<u8> = "image/jpeg"), (Vec<u8> = "image/webp"), (Vec<u8> = "image/bmp")
        )
    ),
    responses(
        (status = 200, body = Encoded),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "Sent too slowly"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "Too many bytes"),
        (status = "4XX", body = Problem, content_type = "application/problem+json", description = "No picture"),
        (status = "5XX", body = Problem, content_type = "application/problem+json",
            description = "Too busy, or the model failed")
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
    let work = move |glow: &Glow, client: &Client| {
        let [height, width, channels] = glow.config().image;
        let shape = ImageShape { height, width, channels };
        let pixels = image_of_bytes(&upload.bytes, shape, at.limits.upload_pixels)
            .map_err(|error| Problem::unprocessable(error.to_string()))?;
        drop(upload);
        let labels: Vec<usize> = class.into_iter().collect();
        let image = Array4::from_shape_vec((1, height, width, channels), pixels)
            .map_err(|e| Problem::unprocessable(e.to_string()))?;
        let encoded = glow.encode(image.view(), &labels, Dequantization::Midpoint)?;
        let bits_per_dim = glow.config().bits_per_dim(encoded.log_likelihood[0]);
        if !bits_per_dim.is_finite() {
            return Err(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the model's numbers for this picture are not finite; the model may be damaged, or its training \
                 diverged",
            ));
        }
        let Decoded { pixels, finite } = decoded(glow, &encoded.latents, &labels, client)?;
        let shift = 8 - glow.config().bits;
        let differ = |(a, b): (&[u8], &[u8])| a.iter().zip(b).any(|(a, b)| a >> shift != b >> shift);
        let original = image.as_slice().unwrap_or_default();
        let differing_pixels =
            original.chunks(channels).zip(pixels.chunks(channels)).filter(|&pair| differ(pair)).count();
        let (exact, finite) = (differing_pixels == 0 && finite[0], finite[0]);
        let id = at.store.put(Stored { latents: encoded.latents, pixels, finite, labels });
        Ok(Json(Encoded { id, bits_per_dim, exact, differing_pixels }))
    };
    demo.compute(work).await
}
