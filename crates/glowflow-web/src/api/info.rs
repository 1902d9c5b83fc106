//! `info`: the model and what can be asked of it.

use axum::Json;
use axum::extract::State;
use glowflow::ModelConfig;
use glowflow::faces::Faces;
use glowflow::latent::About;
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use crate::Problem;

/// What the model is and what can be asked of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct Info {
    /// Architecture: `image` (height, width, channels), `bits`, `levels`, `steps`, `hidden`, `coupling`, `permutation`,
    /// `classes`.
    #[schema(value_type = Object)]
    config: ModelConfig,
    /// Number of trained parameters.
    parameters: usize,
    /// Bits per dimension on test images, when the model's run was last evaluated.
    bits_per_dim: Option<f64>,
    /// Largest difference between a test image and its decoded latents.
    inverse_error: Option<f64>,
    /// Attributes that can be changed.
    attributes: Vec<Attribute>,
    /// Whether the model's images show faces; null if that is unknown.
    faces: Option<bool>,
    /// Positions of the left and right eye in the model's images, as fractions of width and height; null if they are
    /// unknown.
    eyes: Option<[[f64; 2]; 2]>,
    /// The largest upload, in bytes.
    upload_bytes: usize,
    /// The largest upload, in pixels.
    upload_pixels: u64,
    /// The largest number of images in one request.
    images: usize,
}

/// An attribute that can be changed.
#[derive(Serialize, ToSchema)]
pub(crate) struct Attribute {
    /// Its name.
    name: String,
    /// Labelled images with it.
    positives: usize,
    /// Labelled images without it.
    negatives: usize,
    /// How well its direction tells held-out images apart: 0.5 is chance, 1 perfect.
    auc: Option<f64>,
}

impl From<&About> for Attribute {
    fn from(about: &About) -> Self {
        let About { name, positives, negatives, auc } = about.clone();
        Self { name, positives, negatives, auc: auc.map(|auc| auc.value) }
    }
}

/// The model.
#[utoipa::path(
    get,
    path = "/api/v1/info",
    responses(
        (status = 200, body = Info),
        (status = "4XX", body = Problem, content_type = "application/problem+json", description = "No access"),
        (status = "5XX", body = Problem, content_type = "application/problem+json", description = "Too busy")
    )
)]
pub(super) async fn info(State(demo): Shared) -> Json<Info> {
    let directions = demo.directions.iter().flat_map(|directions| &directions.list);
    Json(Info {
        config: demo.config.clone(),
        parameters: demo.parameters,
        bits_per_dim: demo.evaluation.map(|evaluation| evaluation.bits_per_dim),
        inverse_error: demo.evaluation.map(|evaluation| evaluation.inverse_error),
        attributes: directions.map(|direction| (&direction.about).into()).collect(),
        faces: demo.faces.map(|faces| matches!(faces, Faces::Aligned(_))),
        eyes: match demo.faces {
            Some(Faces::Aligned(eyes)) => Some([eyes.left(), eyes.right()]),
            Some(Faces::None) | None => None,
        },
        upload_bytes: demo.limits.upload_bytes,
        upload_pixels: demo.limits.upload_pixels,
        images: demo.images(),
    })
}
