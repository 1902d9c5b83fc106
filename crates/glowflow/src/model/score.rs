//! Bits per dimension of images, and the dequantisation behind the number.

use std::fmt;

use glowflow_kernels::{Real, Stream};
use ndarray::{ArrayView4, Axis, Slice};

use super::model::{Dequantization, Model};
use crate::models::Architecture;
use crate::{Error, random};

/// Dequantisation of scored pixels.
///
/// ```
/// use glowflow::Draws;
///
/// assert_eq!(Draws::default(), Draws::Uniform { draws: 1, seed: 0 });
/// assert_eq!(Draws::default().to_string(), "uniform dequantisation, 1 draw: an upper bound");
/// assert_eq!(Draws::Midpoint.to_string(), "midpoint: density at bin centres, not a bound");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draws {
    /// The centre of each bin. Deterministic, for comparing images. The result is the density at one point and bounds
    /// nothing: a flat image can have negative bits per dimension.
    Midpoint,
    /// The mean over draws of uniform noise: an upper bound on bits per dimension, in expectation. Training minimises
    /// it and papers report it.
    Uniform {
        /// Number of draws; 0 counts as 1.
        draws: u64,
        /// Their seed.
        seed: u64,
    },
}

impl Default for Draws {
    fn default() -> Self {
        Self::Uniform { draws: 1, seed: 0 }
    }
}

impl Draws {
    /// Number of forward passes that are averaged; 1 at the midpoint.
    pub fn count(self) -> u64 {
        match self {
            Self::Midpoint => 1,
            Self::Uniform { draws, .. } => draws.max(1),
        }
    }

    /// `"midpoint"` or `"uniform"`.
    pub fn dequantization(self) -> &'static str {
        match self {
            Self::Midpoint => "midpoint",
            Self::Uniform { .. } => "uniform",
        }
    }

    /// Dequantisation of a draw of a batch. Each has its own seed, and its noise occurs in no other draw or batch,
    /// under this seed or another.
    fn of_batch<R>(self, draw: u64, batch: u64) -> Dequantization<'static, R> {
        match self {
            Self::Midpoint => Dequantization::Midpoint,
            Self::Uniform { seed, .. } => {
                let stream = Stream { seed, id: random::EVALUATION_SEEDS };
                let [low, high, ..] = stream.block((draw << 40) | batch).map(u64::from);
                Dequantization::Uniform { seed: low | high << 32 }
            }
        }
    }
}

impl fmt::Display for Draws {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Midpoint => f.write_str("midpoint: density at bin centres, not a bound"),
            Self::Uniform { .. } => {
                let count = self.count();
                let s = if count == 1 { "" } else { "s" };
                write!(f, "uniform dequantisation, {count} draw{s}: an upper bound")
            }
        }
    }
}

impl<A: Architecture, R: Real> Model<A, R> {
    /// Bits per dimension of images `[batch, H, W, C]`; `labels` holds one class an image, or nothing if the model has
    /// no classes. Smaller is likelier. Equal images in an equal order give equal numbers, those of
    /// [`evaluate::score`](crate::evaluate::score).
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

    /// Mean over the draws of each image's [`log_density`](super::Encoded::log_density). The images begin with those
    /// of chunk `first` of a dataset.
    pub(crate) fn log_densities(
        &self,
        pixels: ArrayView4<u8>,
        labels: &[usize],
        draws: Draws,
        first: u64,
    ) -> Result<Vec<f64>, Error> {
        self.check_images("pixels", pixels.shape(), pixels.len_of(Axis(0)), labels)?;
        let batch = pixels.len_of(Axis(0));
        let mut means = Vec::with_capacity(batch);
        for (number, start) in (0..batch).step_by(self.chunk()).enumerate() {
            let end = batch.min(start + self.chunk());
            let chunk = pixels.slice_axis(Axis(0), Slice::from(start..end));
            let labels = labels.get(start..end).unwrap_or_default();
            let mut sums = vec![0.0; end - start];
            for draw in 0..draws.count() {
                let dequantization = draws.of_batch(draw, first + number as u64);
                let encoded = self.encode(chunk, labels, dequantization)?;
                sums.iter_mut()
                    .zip(encoded.log_density)
                    .for_each(|(sum, ld)| *sum += ld / draws.count() as f64);
            }
            means.extend(sums);
        }
        Ok(means)
    }
}
