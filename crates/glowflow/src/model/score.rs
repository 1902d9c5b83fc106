//! Bits per dimension of images, and its estimators.

use std::fmt;

use glowflow_kernels::{Real, RngStream};
use ndarray::{ArrayView4, Axis, Slice};

use super::model::{Dequantization, Model};
use crate::models::Architecture;
use crate::{Error, random};

/// Noise of a bound: the distribution that makes pixels continuous, `r(w | q)` on the bin of a pixel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoiseKind {
    /// Uniform over the bin.
    #[default]
    Uniform,
    /// The noise of the model's dequantiser.
    Variational,
}

impl NoiseKind {
    /// `"uniform"` or `"variational"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Variational => "variational",
        }
    }
}

/// Estimator of bits per dimension: the noise of scored pixels, and the combination of its draws.
///
/// `L_j` is the log-density of an image under draw `j`, plus the log-volume of a bin, minus the log-density
/// of variational noise:
///
/// | estimate | log-likelihood | label |
/// | --- | --- | --- |
/// | [`Uniform`](Self::Uniform) | `Σ_j L_j / n` | `uniform bound (n draws)` |
/// | [`Variational`](Self::Variational) | `Σ_j L_j / n` | `variational bound (n draws)` |
/// | [`Importance`](Self::Importance) | `log Σ_j exp(L_j) − log k` | `importance-weighted bound, k = …, uniform noise` |
/// | [`Midpoint`](Self::Midpoint) | `L` at the bin's centre | `density at bin centre, not a bound` |
///
/// Bounds with different labels are different quantities and are never compared or averaged.
///
/// ```
/// use glowflow::{Draws, NoiseKind};
///
/// assert_eq!(Draws::default(), Draws::Uniform { draws: 1, seed: 0 });
/// assert_eq!(Draws::default().to_string(), "uniform bound (1 draw)");
/// let importance = Draws::Importance { noise: NoiseKind::Uniform, draws: 16, seed: 0 };
/// assert_eq!(importance.to_string(), "importance-weighted bound, k = 16, uniform noise");
/// assert_eq!(Draws::Midpoint.to_string(), "density at bin centre, not a bound");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draws {
    /// The centre of each bin. Deterministic, for comparing images. The result is the density at one point
    /// and not a bound: a flat image can have negative bits per dimension.
    Midpoint,
    /// The mean over draws of uniform noise: an upper bound on bits per dimension, in expectation. It is
    /// minimised by training and reported in papers.
    Uniform {
        /// Number of draws; 0 counts as 1.
        draws: u64,
        /// Their seed.
        seed: u64,
    },
    /// The mean over draws of the model's own noise: an upper bound on bits per dimension, in expectation. It
    /// is the training objective of a model with a dequantiser.
    Variational {
        /// Number of draws; 0 counts as 1.
        draws: u64,
        /// Their seed.
        seed: u64,
    },
    /// The log of the mean likelihood over k draws (Burda, Grosse and Salakhutdinov 2016): an upper bound on
    /// bits per dimension, in expectation, that approaches the model's bits per dimension from above as k
    /// grows. With one draw it equals the plain bound.
    Importance {
        /// The noise.
        noise: NoiseKind,
        /// Number of draws k; 0 counts as 1.
        draws: u64,
        /// Their seed. The draws are those of the plain bound.
        seed: u64,
    },
}

impl Default for Draws {
    fn default() -> Self {
        Self::Uniform { draws: 1, seed: 0 }
    }
}

impl Draws {
    /// The mean over draws of a noise: its plain bound.
    pub fn mean(noise: NoiseKind, draws: u64, seed: u64) -> Self {
        match noise {
            NoiseKind::Uniform => Self::Uniform { draws, seed },
            NoiseKind::Variational => Self::Variational { draws, seed },
        }
    }

    /// Number of forward passes per image; 1 for the midpoint.
    pub fn count(self) -> u64 {
        match self {
            Self::Midpoint => 1,
            Self::Uniform { draws, .. }
            | Self::Variational { draws, .. }
            | Self::Importance { draws, .. } => draws.max(1),
        }
    }

    /// The noise: `"midpoint"`, `"uniform"` or `"variational"`.
    pub fn dequantization(self) -> &'static str {
        match self {
            Self::Midpoint => "midpoint",
            Self::Uniform { .. } => NoiseKind::Uniform.name(),
            Self::Variational { .. } => NoiseKind::Variational.name(),
            Self::Importance { noise, .. } => noise.name(),
        }
    }

    /// The kind of bound: `"uniform"`, `"variational"`, `"importance-weighted"`, or `"none"` at the midpoint.
    pub fn bound(self) -> &'static str {
        match self {
            Self::Midpoint => "none",
            Self::Uniform { .. } => NoiseKind::Uniform.name(),
            Self::Variational { .. } => NoiseKind::Variational.name(),
            Self::Importance { .. } => "importance-weighted",
        }
    }

    /// k of an importance-weighted bound; `None` for others.
    pub fn importance(self) -> Option<u64> {
        matches!(self, Self::Importance { .. }).then(|| self.count())
    }

    /// Dequantisation of a draw of a batch. Each has its own seed, and its noise occurs in no other draw or
    /// batch, of this or any other seed.
    fn of_batch<R>(self, draw: u64, batch: u64) -> Dequantization<'static, R> {
        let (noise, seed) = match self {
            Self::Midpoint => return Dequantization::Midpoint,
            Self::Uniform { seed, .. } => (NoiseKind::Uniform, seed),
            Self::Variational { seed, .. } => (NoiseKind::Variational, seed),
            Self::Importance { noise, seed, .. } => (noise, seed),
        };
        let stream = RngStream { seed, id: random::EVALUATION_SEEDS };
        let [low, high, ..] = stream.block((draw << 40) | batch).map(u64::from);
        let seed = low | high << 32;
        match noise {
            NoiseKind::Uniform => Dequantization::Uniform { seed },
            NoiseKind::Variational => Dequantization::Variational { seed },
        }
    }

    /// An empty combination of draws.
    fn combination(self) -> Combination {
        match self {
            Self::Midpoint | Self::Uniform { .. } | Self::Variational { .. } => {
                Combination::Mean { count: self.count() as f64, mean: 0.0 }
            }
            Self::Importance { .. } => {
                Combination::LogMeanExp { count: self.count() as f64, largest: f64::NEG_INFINITY, sum: 0.0 }
            }
        }
    }
}

impl fmt::Display for Draws {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Midpoint => f.write_str("density at bin centre, not a bound"),
            Self::Uniform { .. } | Self::Variational { .. } => {
                let count = self.count();
                let s = if count == 1 { "" } else { "s" };
                write!(f, "{} bound ({count} draw{s})", self.bound())
            }
            Self::Importance { noise, .. } => {
                write!(f, "{} bound, k = {}, {} noise", self.bound(), self.count(), noise.name())
            }
        }
    }
}

/// A running combination of the log-densities of one image.
#[derive(Clone, Copy, Debug)]
enum Combination {
    /// `Σ_j L_j / count`.
    Mean { count: f64, mean: f64 },
    /// `log Σ_j exp(L_j) − log count`, with `sum = Σ_j exp(L_j − largest)`.
    LogMeanExp { count: f64, largest: f64, sum: f64 },
}

impl Combination {
    fn push(&mut self, log_density: f64) {
        match self {
            Self::Mean { count, mean } => *mean += log_density / *count,
            Self::LogMeanExp { largest, sum, .. } => {
                if largest.is_nan() || log_density == f64::NEG_INFINITY {
                    // A draw of density 0 adds nothing.
                } else if log_density <= *largest {
                    *sum += (log_density - *largest).exp();
                } else {
                    // NaN also takes this branch, and persists.
                    *sum = *sum * (*largest - log_density).exp() + 1.0;
                    *largest = log_density;
                }
            }
        }
    }

    fn value(self) -> f64 {
        match self {
            Self::Mean { mean, .. } => mean,
            Self::LogMeanExp { largest, .. } if !largest.is_finite() => largest,
            Self::LogMeanExp { count, largest, sum } => largest + (sum / count).ln(),
        }
    }
}

impl<A: Architecture, R: Real> Model<A, R> {
    /// Bits per dimension of images `[batch, H, W, C]`; `labels` holds one class per image, or is empty if
    /// the model has no classes. Smaller is likelier. Equal images in an equal order give equal numbers,
    /// those of [`evaluate::score`](crate::evaluate::score).
    ///
    /// ```
    /// use glowflow::{Draws, Model, GlowConfig};
    /// use ndarray::Array4;
    ///
    /// let config = GlowConfig { image: [8, 8, 3], levels: 2, steps: 2, hidden: 8, ..GlowConfig::default() };
    /// let glow = Model::new(config, 0)?;
    /// let pixels = Array4::from_elem((2, 8, 8, 3), 128);
    /// let bits = glow.bits_per_dim(pixels.view(), &[], Draws::Uniform { draws: 8, seed: 0 })?;
    /// assert!(bits.iter().all(|bits| *bits > 0.0));
    /// let log_prob = glow.log_prob(pixels.view(), &[], Draws::Uniform { draws: 8, seed: 0 })?;
    /// assert_eq!(glow.config().bits_per_dim(log_prob[0]), bits[0]);
    /// # Ok::<(), glowflow::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn bits_per_dim(
        &self,
        pixels: ArrayView4<u8>,
        labels: &[usize],
        draws: Draws,
    ) -> Result<Vec<f64>, Error> {
        let log_densities = self.log_densities(pixels, labels, draws, 0)?;
        Ok(log_densities.into_iter().map(|log_density| self.config().bits_per_dim(log_density)).collect())
    }

    /// The log-likelihood of images in nats, by the estimate `draws`: `−D·log 2` times their
    /// [`bits_per_dim`](Self::bits_per_dim).
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn log_prob(
        &self,
        pixels: ArrayView4<u8>,
        labels: &[usize],
        draws: Draws,
    ) -> Result<Vec<f64>, Error> {
        self.log_densities(pixels, labels, draws, 0)
    }

    /// Each image's [`log_density`](super::Encoded::log_density), combined over the draws. The first image is
    /// in chunk `first` of a dataset.
    pub(crate) fn log_densities(
        &self,
        pixels: ArrayView4<u8>,
        labels: &[usize],
        draws: Draws,
        first: u64,
    ) -> Result<Vec<f64>, Error> {
        self.check_images("pixels", pixels.shape(), pixels.len_of(Axis(0)), labels)?;
        let batch = pixels.len_of(Axis(0));
        let mut combined = Vec::with_capacity(batch);
        for (number, start) in (0..batch).step_by(self.chunk()).enumerate() {
            let end = batch.min(start + self.chunk());
            let chunk = pixels.slice_axis(Axis(0), Slice::from(start..end));
            let labels = labels.get(start..end).unwrap_or_default();
            let mut images = vec![draws.combination(); end - start];
            for draw in 0..draws.count() {
                let dequantization = draws.of_batch(draw, first + number as u64);
                let encoded = self.encode(chunk, labels, dequantization)?;
                images.iter_mut().zip(encoded.log_density).for_each(|(image, ld)| image.push(ld));
            }
            combined.extend(images.into_iter().map(Combination::value));
        }
        Ok(combined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_mean_exp(log_densities: &[f64]) -> f64 {
        let draws = log_densities.len() as u64;
        let mut combination = Draws::Importance { noise: NoiseKind::Uniform, draws, seed: 0 }.combination();
        log_densities.iter().for_each(|&log_density| combination.push(log_density));
        combination.value()
    }

    #[test]
    fn extreme_log_densities_are_combined() {
        assert!((log_mean_exp(&[2f64.ln(), 4f64.ln()]) - 3f64.ln()).abs() < 1e-15);
        // exp(±10,000) is not representable.
        for offset in [-1e4, 1e4] {
            let expected = offset + (1.0f64 / 2.0 + (-1.0f64).exp() / 2.0).ln();
            assert!((log_mean_exp(&[offset, offset - 1.0]) - expected).abs() < 1e-11);
            assert_eq!(log_mean_exp(&[offset - 1.0, offset]), log_mean_exp(&[offset, offset - 1.0]));
        }
        assert_eq!(log_mean_exp(&[0.0, f64::NEG_INFINITY]), 0.5f64.ln());
        assert_eq!(log_mean_exp(&[f64::NEG_INFINITY, 0.0]), 0.5f64.ln());
        assert_eq!(log_mean_exp(&[f64::NEG_INFINITY; 3]), f64::NEG_INFINITY);
        assert_eq!(log_mean_exp(&[0.0, f64::INFINITY, f64::INFINITY, 1.0]), f64::INFINITY);
        for order in [[f64::NAN, 0.0, 1.0], [0.0, f64::NAN, 1.0], [0.0, 1.0, f64::NAN]] {
            assert!(log_mean_exp(&order).is_nan(), "{order:?}");
        }
    }
}
