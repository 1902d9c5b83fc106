//! Log-likelihoods of whole datasets, and how exactly a model inverts their images.

use std::sync::Arc;

use glowflow_data::{Dataset, Subset};
use glowflow_kernels::{Device, Stream};
use serde::{Serialize, Serializer};

use crate::latent::{PixelBatch, read_each};
use crate::model::largest;
use crate::{Dequantization, Error, Glow, random};

/// How pixels are made continuous for scoring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draws {
    /// The middle of each bin: deterministic.
    Midpoint,
    /// Uniform noise, the mean over so many draws: what training minimises and papers report.
    Uniform {
        /// Number of draws.
        draws: u64,
        /// Their seed.
        seed: u64,
    },
}

/// The images that an evaluation encodes and decodes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inversion {
    /// Number of images; all of the dataset if it has no more.
    pub images: usize,
    /// Seed by which they are drawn from the readable images.
    pub seed: u64,
}

/// What a model says of one image.
#[derive(Clone, Debug, Serialize)]
pub struct Score {
    /// The image's name in its dataset.
    pub image: String,
    /// `log p(x)`, or `log p(x | label)`, in nats.
    #[serde(serialize_with = "finite")]
    pub log_likelihood: f64,
    /// The same in bits per dimension: smaller is likelier.
    #[serde(serialize_with = "finite")]
    pub bits_per_dim: f64,
    /// The label it was scored with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<usize>,
}

/// A number, or nothing if it is not finite: an empty field of a table.
fn finite<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if number.is_finite() { serializer.serialize_f64(*number) } else { serializer.serialize_none() }
}

impl Score {
    /// Whether it is a number.
    pub fn is_finite(&self) -> bool {
        self.log_likelihood.is_finite() && self.bits_per_dim.is_finite()
    }
}

/// What a model says of a dataset.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// Images scored.
    pub images: usize,
    /// Mean bits per dimension.
    pub bits_per_dim: f64,
    /// Standard error of that mean.
    pub standard_error: f64,
    /// Images encoded and decoded again.
    pub inverted: usize,
    /// Images among them whose pixels came back exactly, in the model's bits.
    pub exact: usize,
    /// `max |decode(encode(v)) − v|` over the inverted images.
    pub inverse_error: f64,
    /// Names of the images whose bits per dimension are not finite.
    #[serde(skip)]
    pub not_finite: Vec<String>,
}

/// Scores every readable image of a dataset, in order. `label`, if given, replaces all labels of the data.
///
/// # Errors
/// Errors of reading, of the model, and of `each`.
pub fn score<D: Device>(
    glow: &Glow<D>,
    dataset: &Arc<dyn Dataset>,
    draws: Draws,
    label: Option<usize>,
    mut each: impl FnMut(Score) -> Result<(), Error>,
) -> Result<(), Error> {
    read_each(glow, dataset, label, |batch| {
        let log_likelihoods = log_likelihoods(glow, &batch, draws)?;
        for (i, (&index, log_likelihood)) in batch.images.iter().zip(log_likelihoods).enumerate() {
            each(Score {
                image: dataset.name(index),
                log_likelihood,
                bits_per_dim: glow.config().bits_per_dim(log_likelihood),
                label: batch.labels.get(i).copied(),
            })?;
        }
        Ok(())
    })
}

/// Mean log-likelihood of each image over the draws.
fn log_likelihoods<D: Device>(glow: &Glow<D>, batch: &PixelBatch, draws: Draws) -> Result<Vec<f64>, Error> {
    let mut sums = vec![0.0; batch.images.len()];
    let count = match draws {
        Draws::Midpoint => 1,
        Draws::Uniform { draws, .. } => draws.max(1),
    };
    for draw in 0..count {
        let dequantization = match draws {
            Draws::Midpoint => Dequantization::Midpoint,
            // Each draw of each batch has its own seed. Its noise occurs in no other, under this seed or another.
            Draws::Uniform { seed, .. } => {
                let stream = Stream { seed, id: random::EVALUATION_SEEDS };
                let [low, high, ..] = stream.block((draw << 40) | batch.number).map(u64::from);
                Dequantization::Uniform { seed: low | high << 32 }
            }
        };
        let encoded = glow.encode(batch.pixels.view(), &batch.labels, dequantization)?;
        sums.iter_mut().zip(encoded.log_likelihood).for_each(|(sum, ll)| *sum += ll / count as f64);
    }
    Ok(sums)
}

/// Mean bits/dim of a dataset, and how exactly the model inverts the images that `inversion` selects.
///
/// `progress` is called after each batch, scored or inverted, with the number of its images. An error from it ends
/// the evaluation: [`Error::Stopped`] on request.
///
/// # Errors
/// Errors of reading, of the model, and of `progress`.
pub fn evaluate<D: Device>(
    glow: &Glow<D>,
    dataset: &Arc<dyn Dataset>,
    draws: Draws,
    inversion: Inversion,
    mut progress: impl FnMut(usize) -> Result<(), Error>,
) -> Result<Evaluation, Error> {
    let (mut readable, mut scores) = (vec![], vec![]);
    read_each(glow, dataset, None, |batch| {
        let log_likelihoods = log_likelihoods(glow, &batch, draws)?;
        scores.extend(log_likelihoods.into_iter().map(|ll| glow.config().bits_per_dim(ll)));
        let count = batch.images.len();
        readable.extend(batch.images);
        progress(count)
    })?;
    let images = scores.len();
    let mean = scores.iter().sum::<f64>() / images as f64;
    let variance = scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (images.max(2) - 1) as f64;
    let not_finite = readable.iter().zip(&scores).filter(|(_, score)| !score.is_finite());
    let not_finite = not_finite.map(|(&index, _)| dataset.name(index)).collect();

    let (mut inverted, mut exact, mut inverse_error) = (0, 0, 0.0);
    if inversion.images > 0 {
        let readable = Arc::new(Subset::new(Arc::clone(dataset), readable));
        let sample: Arc<dyn Dataset> = Arc::new(Subset::sample(readable, inversion.images, inversion.seed));
        read_each(glow, &sample, None, |batch| {
            let back = glow.round_trip(batch.pixels.view(), &batch.labels)?;
            inverted += back.exact.len();
            exact += back.exact.iter().filter(|&&exact| exact).count();
            inverse_error = largest(back.errors.into_iter().chain([inverse_error]));
            progress(batch.images.len())
        })?;
    }
    Ok(Evaluation {
        images,
        bits_per_dim: mean,
        standard_error: (variance / images as f64).sqrt(),
        inverted,
        exact,
        inverse_error,
        not_finite,
    })
}
