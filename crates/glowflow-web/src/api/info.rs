//! `info`: the model and what can be asked of it.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use glowflow::faces::Faces;
use glowflow::latent::About;
use glowflow::train::{self, LastEvaluation};
use glowflow::{Architecture, ModelConfig};
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::eyes;
use crate::Problem;

/// The model and what can be asked of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct Info {
    /// Architecture: `image` (height, width, channels), `bits`, `levels`, `steps`, `hidden`, `coupling`, `permutation`,
    /// `classes`.
    #[schema(value_type = Object)]
    config: ModelConfig,
    /// Tells models apart: equal for equal weights.
    fingerprint: String,
    /// Number of trained parameters.
    parameters: usize,
    /// Names of the classes, in the order of their numbers; empty if there are none or they are unknown.
    class_names: Vec<String>,
    /// Training of the model's run so far, if known.
    trained: Option<Trained>,
    /// The last evaluation of the model's run on test images, if there was one.
    evaluation: Option<Evaluation>,
    /// The same as `evaluation.bits_per_dim`.
    bits_per_dim: Option<f64>,
    /// The same as `evaluation.inverse_error`.
    inverse_error: Option<f64>,
    /// Attributes that can be changed.
    attributes: Vec<Attribute>,
    /// Whether the model's images show faces; null if that is unknown.
    faces: Option<bool>,
    /// Positions of the left and right eye in the model's images, as fractions of width and height; null if they are
    /// unknown.
    eyes: Option<[[f64; 2]; 2]>,
    /// Whether a request that comes as this one did, through the same proxies, can store these positions.
    stores_eyes: bool,
    /// Whether a request can find the faces in a photograph.
    detector: bool,
    /// The largest upload, in bytes.
    upload_bytes: usize,
    /// The largest upload, in pixels.
    upload_pixels: u64,
    /// The largest number of images in one request.
    images: usize,
}

/// Training of a run.
#[derive(Serialize, ToSchema)]
pub(crate) struct Trained {
    /// Steps.
    steps: u64,
    /// Images of all steps, each counted as often as it was used.
    images: u64,
}

impl From<train::Trained> for Trained {
    fn from(train::Trained { steps, images }: train::Trained) -> Self {
        Self { steps, images }
    }
}

/// An evaluation on test images.
#[derive(Serialize, ToSchema)]
pub(crate) struct Evaluation {
    /// The step after which it was made.
    step: u64,
    /// Mean upper bound on bits per dimension.
    bits_per_dim: f64,
    /// Dequantisation of the pixels: `uniform`, noise over each bin, or `variational`, noise that the model has learned.
    dequantization: &'static str,
    /// Largest difference between a test image and its decoded latents.
    inverse_error: f64,
}

impl Evaluation {
    fn of(config: &ModelConfig, last: LastEvaluation) -> Self {
        let LastEvaluation { step, bits_per_dim, inverse_error } = last;
        Self { step, bits_per_dim, dequantization: config.noise().name(), inverse_error }
    }
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
    /// Probability that its direction orders two held-out images correctly, one with and one without it: 0.5 is
    /// chance, 1 perfect.
    auc: Option<f64>,
    /// Why the direction is not reliable; null if it is.
    weak: Option<String>,
}

impl From<&About> for Attribute {
    fn from(about: &About) -> Self {
        Self {
            name: about.name.clone(),
            positives: about.positives,
            negatives: about.negatives,
            auc: about.auc.map(|auc| auc.value),
            weak: about.weakness(),
        }
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
pub(super) async fn info(State(demo): Shared, headers: HeaderMap) -> Json<Info> {
    let directions = demo.directions.iter().flat_map(|directions| &directions.list);
    let known = demo.eyes.get();
    Json(Info {
        config: demo.config.clone(),
        fingerprint: format!("{:08x}", demo.fingerprint),
        parameters: demo.parameters,
        class_names: demo.class_names.clone(),
        trained: demo.trained.map(Trained::from),
        evaluation: demo.evaluation.map(|last| Evaluation::of(&demo.config, last)),
        bits_per_dim: demo.evaluation.map(|evaluation| evaluation.bits_per_dim),
        inverse_error: demo.evaluation.map(|evaluation| evaluation.inverse_error),
        attributes: directions.map(|direction| (&direction.about).into()).collect(),
        faces: known.map(|faces| matches!(faces, Faces::Aligned(_))),
        eyes: match known {
            Some(Faces::Aligned(eyes)) => Some([eyes.left(), eyes.right()]),
            Some(Faces::None) | None => None,
        },
        stores_eyes: eyes::are_stored(&demo, &headers),
        detector: demo.detector.is_some(),
        upload_bytes: demo.limits.upload_bytes,
        upload_pixels: demo.limits.upload_pixels,
        images: demo.images(),
    })
}
