//! Log-likelihoods of whole datasets.

use std::sync::Arc;

use glowflow_data::{Dataset, batches_in_order};
use glowflow_kernels::{Device, Stream};
use ndarray::Axis;
use serde::Serialize;

use crate::model::largest;
use crate::{Dequantization, Error, Glow, data, random};

/// Images on which the inverse is measured.
const INVERTED: usize = 64;

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

/// What a model says of one image.
#[derive(Clone, Debug, Serialize)]
pub struct Score {
    /// The image's name in its dataset.
    pub image: String,
    /// `log p(x)`, or `log p(x | label)`, in nats.
    pub log_likelihood: f64,
    /// The same in bits per dimension: smaller is likelier.
    pub bits_per_dim: f64,
    /// The label it was scored with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<usize>,
}

/// What a model says of a dataset.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Evaluation {
    /// Images scored.
    pub images: usize,
    /// Mean bits per dimension.
    pub bits_per_dim: f64,
    /// Standard error of that mean.
    pub standard_error: f64,
    /// `max |decode(encode(v)) − v|` over the first images.
    pub inverse_error: f64,
}

/// Scores every readable image of a dataset, in order. `label`, where given, stands for all labels of the data.
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
    let config = glow.config();
    for batch in batches_in_order(Arc::clone(dataset), glow.chunk(), data::loader_threads())? {
        let batch = batch?;
        let pixels = data::pixels(config, &batch)?;
        let labels = data::labels_or(config, &batch, label);
        let mut sums = vec![0.0; batch.indices.len()];
        let count = match draws {
            Draws::Midpoint => 1,
            Draws::Uniform { draws, .. } => draws.max(1),
        };
        for draw in 0..count {
            let dequantization = match draws {
                Draws::Midpoint => Dequantization::Midpoint,
                // Each draw of each batch has a seed of its own, so that its noise is in no other's, under this seed or another.
                Draws::Uniform { seed, .. } => {
                    let stream = Stream { seed, id: random::EVALUATION_SEEDS };
                    let [low, high, ..] = stream.block((draw << 40) | batch.number).map(u64::from);
                    Dequantization::Uniform { seed: low | high << 32 }
                }
            };
            let encoded = glow.encode(pixels.view(), &labels, dequantization)?;
            sums.iter_mut().zip(encoded.log_likelihood).for_each(|(sum, ll)| *sum += ll / count as f64);
        }
        for (i, (&index, log_likelihood)) in batch.indices.iter().zip(sums).enumerate() {
            each(Score {
                image: dataset.name(index),
                log_likelihood,
                bits_per_dim: config.bits_per_dim(log_likelihood),
                label: labels.get(i).copied(),
            })?;
        }
    }
    Ok(())
}

/// Mean bits/dim of a dataset, and how exactly the model inverts the first of its images that can be read.
///
/// # Errors
/// Errors of reading and of the model.
pub fn evaluate<D: Device>(
    glow: &Glow<D>,
    dataset: &Arc<dyn Dataset>,
    draws: Draws,
) -> Result<Evaluation, Error> {
    let mut scores = vec![];
    score(glow, dataset, draws, None, |score| {
        scores.push(score.bits_per_dim);
        Ok(())
    })?;
    let images = scores.len();
    let mean = scores.iter().sum::<f64>() / images as f64;
    let variance = scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (images.max(2) - 1) as f64;

    let mut inverse_error = 0.0;
    if let Some(batch) = batches_in_order(Arc::clone(dataset), INVERTED, 1)?.next() {
        let batch = batch?;
        let pixels = data::pixels(glow.config(), &batch)?;
        let labels = data::labels(glow.config(), &batch);
        for (i, image) in pixels.axis_chunks_iter(Axis(0), glow.chunk()).enumerate() {
            let labels = labels.chunks(glow.chunk()).nth(i).unwrap_or_default();
            inverse_error = largest([inverse_error, glow.inverse_error(image, labels)?]);
        }
    }
    let standard_error = (variance / images as f64).sqrt();
    Ok(Evaluation { images, bits_per_dim: mean, standard_error, inverse_error })
}
