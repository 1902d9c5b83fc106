//! Finds the images of a dataset that are most similar to a query image, by their latents.
//!
//! The similarity of two images is a weighted mean over the levels of the cosine between their latents, after
//! subtraction of the dataset's mean. The latents are averaged over small shifts of the image, because those
//! of a single position depend on the alignment of edges with the grid. `docs/model.md` has the formula and
//! measurements. The Euclidean distance is unsuitable: it is smallest for images of low contrast, whose
//! latents are short, and returns the same few images for every query.
//!
//! Images are read as a stream and latents are not kept, so memory does not grow with the dataset. Up to
//! [`MEAN_OF`] images are encoded a second time, for the mean.

use std::sync::Arc;

use glowflow_data::{Dataset, Subset};
use glowflow_kernels::Real;
use ndarray::{Array4, ArrayView4, Axis};
use serde::Serialize;

use super::{PixelBatch, read_each};
use crate::{Dequantization, Error, Model};

/// Maximum number of randomly drawn images that the subtracted mean is computed from.
pub const MEAN_OF: usize = 1000;

/// Shifts, in pixels down and right, over which an image's latents are averaged.
const SHIFTS: [[isize; 2]; 2] = [[0, 0], [1, 1]];

/// Weight of all levels except the last (coarsest), which has weight 1: the best of those tried on
/// photographs of faces.
const FINER: f64 = 0.5;

/// An image with its similarity to the query.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Neighbour {
    /// Its index in the dataset.
    #[serde(skip)]
    pub index: usize,
    /// Its name in the dataset.
    pub image: String,
    /// Weighted mean of the levels' cosines, −1 to 1: 1 for the same image, near 0 for unrelated images.
    pub similarity: f64,
}

/// Result of a search for similar images.
#[derive(Clone, Debug, PartialEq)]
pub struct Similar {
    /// The most similar images, most similar first.
    pub nearest: Vec<Neighbour>,
    /// Number of images without a similarity, because their latents or those of the query are not finite.
    pub not_finite: usize,
}

/// The default weights of the levels, the finest first: 1 for the last level, ½ for the others.
///
/// ```
/// assert_eq!(glowflow::latent::level_weights(3), [0.5, 0.5, 1.0]);
/// ```
pub fn level_weights(levels: usize) -> Vec<f64> {
    (1..=levels).map(|level| if level == levels { 1.0 } else { FINER }).collect()
}

/// The `count` images of a dataset most similar to `image` (`[1, H, W, C]`), most similar first. `weights`
/// holds one weight per level, the finest first; a level of weight 0 is ignored. `labels` holds the class of
/// the image if the model has classes, and `label`, if given, replaces all labels of the data.
///
/// # Errors
/// Errors of reading and of the model; [`Error::Input`] if the weights do not match the model or are all 0,
/// or if `image` is not exactly one image.
pub fn nearest(
    model: &Model,
    image: ArrayView4<u8>,
    labels: &[usize],
    dataset: &Arc<dyn Dataset>,
    count: usize,
    weights: &[f64],
    label: Option<usize>,
) -> Result<Similar, Error> {
    check_level_weights(weights, model.latent_shapes().len())?;
    let [query] = &features(model, image, labels)?[..] else {
        return Err(Error::Input(format!("need 1 image to search for, got {}", image.len_of(Axis(0)))));
    };
    let mean = mean_of_sample(model, dataset, label)?;
    let query = query.less(&mean);
    let (mut nearest, mut not_finite): (Vec<Neighbour>, usize) = (vec![], 0);
    read_each(model, dataset, label, |PixelBatch { images, labels, pixels, .. }| {
        for (index, found) in images.into_iter().zip(features(model, pixels.view(), &labels)?) {
            let similarity = query.similarity(&found.less(&mean), weights);
            if similarity.is_finite() {
                nearest.push(Neighbour { index, image: dataset.name(index), similarity });
            } else {
                not_finite += 1;
            }
        }
        nearest.sort_by(|a, b| b.similarity.total_cmp(&a.similarity));
        nearest.truncate(count);
        Ok(())
    })?;
    Ok(Similar { nearest, not_finite })
}

/// Checks the weights of a model's levels.
///
/// # Errors
/// [`Error::Input`] if their number is not that of the levels, one is negative or not finite, or all are 0.
pub fn check_level_weights(weights: &[f64], levels: usize) -> Result<(), Error> {
    let valid = |weight: &f64| weight.is_finite() && *weight >= 0.0;
    if weights.len() == levels && weights.iter().all(valid) && weights.iter().any(|&weight| weight > 0.0) {
        return Ok(());
    }
    Err(Error::Input(format!(
        "invalid level weights {weights:?}: the model has {levels} levels, each needs a weight of 0 or more, and at \
         least one a weight above 0"
    )))
}

/// An image's latents, averaged over small shifts: one vector per level.
struct Features(Vec<Vec<f64>>);

impl Features {
    fn less(&self, mean: &Self) -> Self {
        let level = |(a, b): (&Vec<f64>, &Vec<f64>)| a.iter().zip(b).map(|(a, b)| a - b).collect();
        Self(self.0.iter().zip(&mean.0).map(level).collect())
    }

    fn add(&mut self, other: &Self) {
        for (sums, values) in self.0.iter_mut().zip(&other.0) {
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
    }

    fn is_finite(&self) -> bool {
        self.0.iter().flatten().all(|x| x.is_finite())
    }

    /// The weighted mean of the levels' cosines.
    fn similarity(&self, other: &Self, weights: &[f64]) -> f64 {
        let levels = self.0.iter().zip(&other.0).zip(weights).filter(|(_, weight)| **weight > 0.0);
        levels.map(|((a, b), weight)| weight * cosine(a, b)).sum::<f64>() / weights.iter().sum::<f64>()
    }
}

/// The cosine between vectors: 1 for two zero vectors, 0 for a zero vector and another one.
fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (aa, bb) = (dot(a, a), dot(b, b));
    if aa == 0.0 || bb == 0.0 {
        return if aa == bb { 1.0 } else { 0.0 };
    }
    (dot(a, b) / (aa * bb).sqrt()).clamp(-1.0, 1.0)
}

/// The features of images `[batch, H, W, C]`.
fn features(model: &Model, pixels: ArrayView4<u8>, labels: &[usize]) -> Result<Vec<Features>, Error> {
    let sizes = model.latent_shapes().iter().map(|shape| shape.iter().product::<usize>());
    let zeros: Vec<Vec<f64>> = sizes.map(|size| vec![0.0; size]).collect();
    let mut features: Vec<_> = pixels.outer_iter().map(|_| Features(zeros.clone())).collect();
    for shift in SHIFTS {
        let latents = model.encode(shifted(pixels, shift).view(), labels, Dequantization::Typical)?.latents;
        for (level, eps) in latents.0.iter().enumerate() {
            for (features, eps) in features.iter_mut().zip(eps.outer_iter()) {
                let sums = features.0[level].iter_mut();
                sums.zip(eps).for_each(|(sum, x)| *sum += x.wide() / SHIFTS.len() as f64);
            }
        }
    }
    Ok(features)
}

/// Images shifted down and to the right, with the outermost pixels repeated.
fn shifted(pixels: ArrayView4<u8>, [down, right]: [isize; 2]) -> Array4<u8> {
    let (_, height, width, _) = pixels.dim();
    let from = |at: usize, shift: isize, size: usize| at.saturating_add_signed(-shift).min(size - 1);
    Array4::from_shape_fn(pixels.dim(), |(image, y, x, channel)| {
        pixels[[image, from(y, down, height), from(x, right, width), channel]]
    })
}

/// The mean features of up to [`MEAN_OF`] images, ignoring non-finite latents; 0 if there are none.
fn mean_of_sample(
    model: &Model,
    dataset: &Arc<dyn Dataset>,
    label: Option<usize>,
) -> Result<Features, Error> {
    const SEED: u64 = 0;
    let sample: Arc<dyn Dataset> = Arc::new(Subset::sample(Arc::clone(dataset), MEAN_OF, SEED));
    let shapes = model.latent_shapes();
    let mut sum = Features(shapes.iter().map(|shape| vec![0.0; shape.iter().product()]).collect());
    let mut count = 0;
    read_each(model, &sample, label, |PixelBatch { labels, pixels, .. }| {
        for features in
            features(model, pixels.view(), &labels)?.iter().filter(|features| features.is_finite())
        {
            sum.add(features);
            count += 1;
        }
        Ok(())
    })?;
    sum.0.iter_mut().flatten().for_each(|x| *x /= f64::from(count.max(1)));
    Ok(sum)
}
