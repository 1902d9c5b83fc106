//! Bits per dimension of an image: the upper bound with the dequantisation noise that the model was trained
//! with.

use glowflow::{Architecture, Draws, Model};
use ndarray::ArrayView4;

use crate::gate::Client;
use crate::{Demo, Problem};

/// Maximum number of noise draws for one image.
const MAX_DRAWS: usize = 8;

/// Mean bound of an image over noise draws. Draws are numbered, so equal images have equal bounds.
pub(super) struct Bound {
    pub bits_per_dim: f64,
    /// Standard error of the mean over the draws; `None` for a single draw.
    pub standard_error: Option<f64>,
}

impl Bound {
    /// Computes the bound of one image `[1, H, W, C]`.
    pub fn of(
        glow: &Model,
        image: ArrayView4<u8>,
        labels: &[usize],
        draws: usize,
        client: &Client,
    ) -> Result<Self, Problem> {
        let draw = |seed: u64| {
            client.check()?;
            let bits = glow.bits_per_dim(image, labels, Draws::mean(glow.config().noise(), 1, seed))?;
            Ok(bits[0])
        };
        let bits: Vec<f64> = (0..draws as u64).map(draw).collect::<Result<_, Problem>>()?;
        let count = bits.len() as f64;
        let mean = bits.iter().sum::<f64>() / count;
        let squares: f64 = bits.iter().map(|bits| (bits - mean).powi(2)).sum();
        let standard_error = (bits.len() > 1).then(|| (squares / (count - 1.0) / count).sqrt());
        Ok(Self { bits_per_dim: mean, standard_error })
    }
}

impl Demo {
    /// Number of draws for an uploaded image: fewer for large ones, whose bounds vary less.
    pub(super) fn draws(&self) -> usize {
        (self.images() / MAX_DRAWS).clamp(1, MAX_DRAWS)
    }
}
