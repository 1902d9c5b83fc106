//! Gaussian priors: latents standardised by mean and log standard deviation.
//!
//! `eps = (z − mean)·exp(−logs)` and `log N = −(log 2π + 2·logs + eps²)/2`, with `z` and `eps`
//! `[rows, channels]` and `(mean, logs)` the halves of `prior` `[rows, 2·channels]`.

mod cpu;
mod cuda;
mod reference;

use crate::primitives::Primitives;
use crate::shape::Grid;

/// Standardisation by a Gaussian prior.
pub trait Gaussian: Primitives {
    /// Standardises `z` in place, and adds `log N(z; mean, exp(logs)²)` to `logp` `[batch]`.
    fn standardize(
        &self,
        grid: Grid,
        channels: usize,
        prior: &Self::Buffer,
        z: &mut Self::Buffer,
        logp: &mut Self::Buffer,
    ) {
        reference::standardize(self, grid, channels, prior, z, logp);
    }

    /// Inverts [`standardize`](Self::standardize).
    fn unstandardize(&self, channels: usize, prior: &Self::Buffer, eps: &mut Self::Buffer) {
        reference::unstandardize(self, channels, prior, eps);
    }

    /// Writes the gradients of the log-likelihood with respect to `z` and `prior`, given `eps`.
    fn standardize_backward(
        &self,
        channels: usize,
        prior: &Self::Buffer,
        eps: &Self::Buffer,
        dlogp: f64,
        dz: &mut Self::Buffer,
        d_prior: &mut Self::Buffer,
    ) {
        reference::backward(self, channels, prior, eps, dlogp, dz, d_prior);
    }
}
