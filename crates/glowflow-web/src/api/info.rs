//! `info`: describes the model and the operations available on it.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use glowflow::faces::Faces;
use glowflow::latent::About;
use glowflow::train::{self, Evaluated};
use glowflow::{Architecture, ModelConfig};
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::eyes;
use crate::Problem;

/// The model and the operations available on it.
#[derive(Serialize, ToSchema)]
pub(crate) struct Info {
    /// Configuration of the model. All have `image` (height, width, channels) and `bits`. `architecture` is
    /// absent for Glow, which has `levels`, `steps`, `hidden`, `coupling`, `permutation` and `classes`.
    #[schema(value_type = Object)]
    config: ModelConfig,
    /// Identifies the model: equal for equal weights.
    fingerprint: String,
    /// Number of trained parameters.
    parameters: usize,
    /// Names of the classes, in the order of their numbers; empty if there are none or they are unknown.
    class_names: Vec<String>,
    /// Training progress of the model's run, if known.
    trained: Option<Trained>,
    /// Evaluation on test images, if any: for a run's best model, the one that selected it; for other models,
    /// the latest of the run.
    evaluation: Option<Evaluation>,
    /// Equal to `evaluation.bits_per_dim`.
    bits_per_dim: Option<f64>,
    /// Equal to `evaluation.inverse_error`.
    inverse_error: Option<f64>,
    /// Attributes that can be changed.
    attributes: Vec<Attribute>,
    /// True if the model's images show faces; null if unknown.
    faces: Option<bool>,
    /// Positions of the left and right eye in the model's images, as fractions of width and height; null if
    /// unknown.
    eyes: Option<[[f64; 2]; 2]>,
    /// True if a request that arrives like this one, through the same proxies, can store these positions.
    stores_eyes: bool,
    /// True if the server can detect faces in a photograph.
    detector: bool,
    /// Maximum size of an upload in bytes.
    upload_bytes: usize,
    /// Maximum size of an upload in pixels.
    upload_pixels: u64,
    /// Maximum number of images in one request.
    images: usize,
}

/// Training progress of a run.
#[derive(Serialize, ToSchema)]
pub(crate) struct Trained {
    /// Number of steps.
    steps: u64,
    /// Number of images processed, repeats included.
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
    /// The step that it followed.
    step: u64,
    /// Mean upper bound on bits per dimension.
    bits_per_dim: f64,
    /// Dequantisation of the pixels: `uniform` (noise over each bin) or `variational` (learned noise).
    dequantization: &'static str,
    /// Maximum difference between a test image and its reconstruction from latents; null if unknown.
    inverse_error: Option<f64>,
}

impl Evaluation {
    fn of(config: &ModelConfig, evaluated: Evaluated) -> Self {
        let Evaluated { step, bits_per_dim, inverse_error } = evaluated;
        Self { step, bits_per_dim, dequantization: config.noise().name(), inverse_error }
    }
}

/// An attribute that can be changed.
#[derive(Serialize, ToSchema)]
pub(crate) struct Attribute {
    /// Its name.
    name: String,
    /// Number of labelled images with it.
    positives: usize,
    /// Number of labelled images without it.
    negatives: usize,
    /// Probability that its direction ranks a held-out image with the attribute above one without it: 0.5 is
    /// chance, 1 perfect.
    auc: Option<f64>,
    /// The reason why the direction is unreliable; null if it is reliable.
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

/// Describes the model.
#[utoipa::path(
    get,
    path = "/api/v1/info",
    responses(
        (status = 200, body = Info),
        (status = "4XX", body = Problem, content_type = "application/problem+json", description = "Access denied"),
        (status = "5XX", body = Problem, content_type = "application/problem+json", description = "Server too busy")
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
        evaluation: demo.evaluation.map(|evaluated| Evaluation::of(&demo.config, evaluated)),
        bits_per_dim: demo.evaluation.map(|evaluation| evaluation.bits_per_dim),
        inverse_error: demo.evaluation.and_then(|evaluation| evaluation.inverse_error),
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
