//! Measures the exactness of the inverse: encodes images, decodes them and compares.

use glowflow_kernels::Real;
use ndarray::{ArrayView3, ArrayView4};

use super::model::{Dequantization, Model};
use super::{Latents, RoundTrip};
use crate::Error;
use crate::models::Architecture;

/// The largest error, or NaN if any of them is NaN, which `f64::max` would ignore.
///
/// ```
/// use glowflow::model::largest;
///
/// assert_eq!(largest([1.0, 3.0, 2.0]), 3.0);
/// assert!(largest([1.0, f64::NAN, 2.0]).is_nan());
/// ```
pub fn largest(errors: impl IntoIterator<Item = f64>) -> f64 {
    errors.into_iter().fold(0.0, |most, e| if most.is_nan() || most >= e { most } else { e })
}

/// A pixel without the low bits that the model discards.
pub(crate) fn in_bits(pixel: u8, bits: u32) -> u8 {
    pixel >> (8 - bits) << (8 - bits)
}

impl<A: Architecture, R: Real> Model<A, R> {
    /// The maximum difference between an image and its decoded latents, `max |decode(encode(v)) − v|`, for
    /// images with the noise of [`Dequantization::Typical`].
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn inverse_error(&self, pixels: ArrayView4<u8>, labels: &[usize]) -> Result<f64, Error> {
        Ok(largest(self.round_trip(pixels, labels)?.errors))
    }

    /// Encodes images with the noise of [`Dequantization::Typical`], decodes their latents, and compares.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn round_trip(&self, pixels: ArrayView4<u8>, labels: &[usize]) -> Result<RoundTrip<R>, Error> {
        let encoded = self.encode(pixels, labels, Dequantization::Typical)?;
        let noise = self.typical_noise(pixels)?;
        let bits = self.config().bits();
        let back = self.decode_as(&encoded.latents, labels, |images| {
            let pixels = images.pixels()?.pixels;
            Ok(images.values()?.into_iter().zip(pixels).collect())
        })?;
        let bins = f64::from(self.config().bins());
        let (mut errors, mut exact) = (vec![], vec![]);
        for ((back, pixels), noise) in back.outer_iter().zip(pixels.outer_iter()).zip(noise.outer_iter()) {
            let error = |(((v, _), &pixel), noise): ((&(R, u8), &u8), &R)| {
                (v.wide() - (f64::from(pixel >> (8 - bits)) / bins - 0.5 + noise.wide())).abs()
            };
            errors.push(largest(back.iter().zip(&pixels).zip(&noise).map(error)));
            let mut pairs = back.iter().zip(&pixels);
            exact.push(pairs.all(|((v, back), &pixel)| v.is_finite() && *back == in_bits(pixel, bits)));
        }
        Ok(RoundTrip { encoded, errors, exact })
    }

    /// Returns whether each image's latents decode to its pixels, at the model's bit depth. Pixels of
    /// non-finite values are meaningless, even if they are equal.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn comes_back(
        &self,
        pixels: ArrayView4<u8>,
        latents: &Latents<R>,
        labels: &[usize],
    ) -> Result<Vec<bool>, Error> {
        let bits = self.config().bits();
        let back = self.decode(latents, labels)?;
        self.check_images("pixels", pixels.shape(), latents.batch(), labels)?;
        let same = |(back, pixels): (ArrayView3<u8>, ArrayView3<u8>)| {
            back.iter().zip(pixels).all(|(&back, &pixel)| back == in_bits(pixel, bits))
        };
        let pairs = back.pixels.outer_iter().zip(pixels.outer_iter());
        Ok(pairs.map(same).zip(&back.finite).map(|(same, &finite)| same && finite).collect())
    }
}
