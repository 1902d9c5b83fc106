//! Scores of whole datasets, and measurement of the inversion error.

use std::sync::Arc;

use glowflow_data::{Dataset, Subset};
use serde::{Serialize, Serializer};

use crate::latent::read_each;
use crate::model::largest;
pub use crate::model::{Draws, NoiseKind};
use crate::{Error, Model};

/// The images that an evaluation encodes and decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inversion {
    /// Number of images, or all if the dataset has fewer.
    pub images: usize,
    /// Seed for drawing them from the readable images.
    pub seed: u64,
}

/// Score of one image.
#[derive(Clone, Debug, Serialize)]
pub struct Score {
    /// Name of the image in its dataset.
    pub image: String,
    /// Lower bound on `log p(x)`, or on `log p(x | label)`, in nats, as combined by [`Draws`]. With midpoint
    /// dequantisation it is instead the density at bin centres times the volume of a bin.
    #[serde(serialize_with = "finite")]
    pub log_likelihood: f64,
    /// The same in bits per dimension: a smaller value is likelier.
    #[serde(serialize_with = "finite")]
    pub bits_per_dim: f64,
    /// The label used for scoring.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<usize>,
    /// [`Draws::dequantization`].
    pub dequantization: &'static str,
    /// [`Draws::count`].
    pub draws: u64,
    /// [`Draws::bound`].
    pub bound: &'static str,
    /// [`Draws::importance`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub importance: Option<u64>,
}

/// Serialises a number, or an empty field if it is not finite.
fn finite<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if number.is_finite() { serializer.serialize_f64(*number) } else { serializer.serialize_none() }
}

impl Score {
    /// Returns whether the score is finite.
    pub fn is_finite(&self) -> bool {
        self.log_likelihood.is_finite() && self.bits_per_dim.is_finite()
    }
}

/// Scores of a dataset.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// Number of images scored.
    pub images: usize,
    /// Mean bits per dimension.
    pub bits_per_dim: f64,
    /// [`Draws::dequantization`].
    pub dequantization: &'static str,
    /// [`Draws::count`].
    pub draws: u64,
    /// [`Draws::bound`].
    pub bound: &'static str,
    /// [`Draws::importance`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub importance: Option<u64>,
    /// Standard error of the mean; NaN for one image.
    pub standard_error: f64,
    /// Number of images encoded and decoded.
    pub inverted: usize,
    /// Number of these images with exactly equal pixels, at the model's bit depth.
    pub exact: usize,
    /// `max |decode(encode(v)) − v|` over the inverted images.
    pub inverse_error: f64,
    /// The estimator, whose text is its label.
    #[serde(skip)]
    pub estimate: Draws,
    /// Bits per dimension of each image, with its index in the dataset.
    #[serde(skip)]
    pub scores: Vec<(usize, f64)>,
    /// Names of the images whose bits per dimension are not finite.
    #[serde(skip)]
    pub not_finite: Vec<String>,
}

/// Scores every readable image of a dataset, in order. `label`, if given, replaces all labels of the data.
///
/// # Errors
/// Errors of reading, of the model, and of `each`.
pub fn score(
    model: &Model,
    dataset: &Arc<dyn Dataset>,
    draws: Draws,
    label: Option<usize>,
    mut each: impl FnMut(Score) -> Result<(), Error>,
) -> Result<(), Error> {
    read_each(model, dataset, label, |batch| {
        let log_densities = model.log_densities(batch.pixels.view(), &batch.labels, draws, batch.number)?;
        for (i, (&index, log_likelihood)) in batch.images.iter().zip(log_densities).enumerate() {
            each(Score {
                image: dataset.name(index),
                log_likelihood,
                bits_per_dim: model.config().bits_per_dim(log_likelihood),
                label: batch.labels.get(i).copied(),
                dequantization: draws.dequantization(),
                draws: draws.count(),
                bound: draws.bound(),
                importance: draws.importance(),
            })?;
        }
        Ok(())
    })
}

/// Computes the mean bits/dim of a dataset, and the inversion error on the images selected by `inversion`.
///
/// `progress` is called after each scored or inverted batch with its number of images. An error from it ends
/// the evaluation, for example [`Error::Stopped`].
///
/// # Errors
/// Errors of reading, of the model, and of `progress`.
pub fn evaluate(
    model: &Model,
    dataset: &Arc<dyn Dataset>,
    draws: Draws,
    inversion: Inversion,
    mut progress: impl FnMut(usize) -> Result<(), Error>,
) -> Result<Evaluation, Error> {
    let (mut readable, mut scores) = (vec![], vec![]);
    read_each(model, dataset, None, |batch| {
        let log_densities = model.log_densities(batch.pixels.view(), &batch.labels, draws, batch.number)?;
        scores.extend(log_densities.into_iter().map(|ld| model.config().bits_per_dim(ld)));
        let count = batch.images.len();
        readable.extend(batch.images);
        progress(count)
    })?;
    let images = scores.len();
    let mean = scores.iter().sum::<f64>() / images as f64;
    // Not a number for one image.
    let variance = scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (images as f64 - 1.0);
    let not_finite = readable.iter().zip(&scores).filter(|(_, score)| !score.is_finite());
    let not_finite = not_finite.map(|(&index, _)| dataset.name(index)).collect();

    let (mut inverted, mut exact, mut inverse_error) = (0, 0, 0.0);
    if inversion.images > 0 {
        let readable = Arc::new(Subset::new(Arc::clone(dataset), readable.clone()));
        let sample: Arc<dyn Dataset> = Arc::new(Subset::sample(readable, inversion.images, inversion.seed));
        read_each(model, &sample, None, |batch| {
            let back = model.round_trip(batch.pixels.view(), &batch.labels)?;
            inverted += back.exact.len();
            exact += back.exact.iter().filter(|&&exact| exact).count();
            inverse_error = largest(back.errors.into_iter().chain([inverse_error]));
            progress(batch.images.len())
        })?;
    }
    Ok(Evaluation {
        images,
        bits_per_dim: mean,
        dequantization: draws.dequantization(),
        draws: draws.count(),
        bound: draws.bound(),
        importance: draws.importance(),
        standard_error: (variance / images as f64).sqrt(),
        inverted,
        exact,
        inverse_error,
        estimate: draws,
        scores: readable.into_iter().zip(scores).collect(),
        not_finite,
    })
}
