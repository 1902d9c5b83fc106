//! Blends of several images: the weighted mean of their latents, `Σ wᵢ·zᵢ / Σ wᵢ`.
//!
//! The mean is not rescaled. Independent latents are near a sphere, and their mean is closer to its centre,
//! so blends are smoother, as at a temperature below 1.

use glowflow_kernels::Real;

use crate::{Error, Latents};

/// The weighted mean of latents of equal shapes. Latents with weight 0 are ignored; if only one weight is
/// non-zero, the mean is bit-identical to those latents.
///
/// # Errors
/// [`Error::Input`] if the number of weights differs from that of the latents, a weight is negative or not
/// finite, or all are 0.
pub fn weighted_mean<R: Real>(latents: &[&Latents<R>], weights: &[f64]) -> Result<Latents<R>, Error> {
    let invalid = || {
        Error::Input(format!(
            "invalid weights {weights:?}: use one for each image, none negative, one above 0"
        ))
    };
    let sum: f64 = weights.iter().sum();
    let valid = weights.iter().all(|weight| *weight >= 0.0) && sum > 0.0 && sum.is_finite();
    if !valid || weights.len() != latents.len() {
        return Err(invalid());
    }
    let mut terms = latents.iter().zip(weights).filter(|(_, weight)| **weight > 0.0);
    let term = |weight: f64| R::of(weight / sum);
    let (first, &weight) = terms.next().ok_or_else(invalid)?;
    let first = Latents(first.0.iter().map(|level| level.mapv(|x| x * term(weight))).collect());
    Ok(terms.fold(first, |mean, (latents, &weight)| mean.combine(R::of(1.0), latents, term(weight))))
}

#[cfg(test)]
mod tests {
    use ndarray::Array4;

    use super::*;

    fn latents(value: f32) -> Latents {
        Latents(vec![Array4::from_elem((1, 2, 2, 1), value), Array4::from_elem((1, 1, 1, 2), -value)])
    }

    #[test]
    fn weights_are_divided_by_their_sum() {
        let (a, b, lost) = (latents(1.0), latents(3.0), latents(f32::NAN));
        assert_eq!(weighted_mean(&[&a, &b], &[1.0, 3.0]).unwrap(), latents(2.5));
        assert_eq!(weighted_mean(&[&lost, &b, &lost], &[0.0, 7.0, 0.0]).unwrap(), b);
    }

    #[test]
    fn impossible_weights_are_named() {
        let (a, b) = (latents(1.0), latents(3.0));
        for weights in [&[][..], &[1.0], &[0.0, 0.0], &[-1.0, 2.0], &[f64::NAN, 1.0], &[f64::MAX, f64::MAX]] {
            let error = weighted_mean(&[&a, &b], weights).unwrap_err().to_string();
            assert!(
                error.contains(&format!("{weights:?}")) && error.contains("one for each image"),
                "{error}"
            );
        }
    }
}
