//! Image by image.

use std::f64::consts::TAU;

use rayon::prelude::*;

use super::Gaussian;
use crate::cpu::{Buffer, Cpu, Scalar};
use crate::shape::Grid;

fn standardize<T: Scalar>(grid: Grid, channels: usize, prior: &[T], z: &mut [T], logp: &mut [T]) {
    let pixels = grid.pixels();
    z.par_chunks_mut(pixels * channels).zip(prior.par_chunks(2 * pixels * channels)).zip(logp).for_each(
        |((z, prior), logp)| {
            let mut sum = 0.0;
            for (z, prior) in z.chunks_exact_mut(channels).zip(prior.chunks_exact(2 * channels)) {
                let (mean, logs) = prior.split_at(channels);
                for ((z, &mean), &logs) in z.iter_mut().zip(mean).zip(logs) {
                    *z = (*z - mean) * (-logs).exp();
                    sum += 2.0 * logs.wide() + z.wide().powi(2);
                }
            }
            *logp -= T::of(0.5 * (sum + TAU.ln() * z.len() as f64));
        },
    );
}

fn unstandardize<T: Scalar>(channels: usize, prior: &[T], eps: &mut [T]) {
    for (eps, prior) in eps.chunks_exact_mut(channels).zip(prior.chunks_exact(2 * channels)) {
        let (mean, logs) = prior.split_at(channels);
        for ((eps, &mean), &logs) in eps.iter_mut().zip(mean).zip(logs) {
            *eps = mean + logs.exp() * *eps;
        }
    }
}

fn backward<T: Scalar>(channels: usize, prior: &[T], eps: &[T], dlogp: f64, dz: &mut [T], d_prior: &mut [T]) {
    let dlogp = T::of(dlogp);
    for (((eps, prior), dz), d_prior) in eps
        .chunks_exact(channels)
        .zip(prior.chunks_exact(2 * channels))
        .zip(dz.chunks_exact_mut(channels))
        .zip(d_prior.chunks_exact_mut(2 * channels))
    {
        let (d_mean, d_logs) = d_prior.split_at_mut(channels);
        for i in 0..channels {
            d_mean[i] = dlogp * eps[i] * (-prior[channels + i]).exp();
            d_logs[i] = dlogp * (eps[i] * eps[i] - T::one());
            dz[i] = -d_mean[i];
        }
    }
}

impl<T: Scalar> Gaussian for Cpu<T> {
    fn standardize(
        &self,
        grid: Grid,
        channels: usize,
        prior: &Buffer<T>,
        z: &mut Buffer<T>,
        logp: &mut Buffer<T>,
    ) {
        standardize(grid, channels, prior, z, logp);
    }

    fn unstandardize(&self, channels: usize, prior: &Buffer<T>, eps: &mut Buffer<T>) {
        unstandardize(channels, prior, eps);
    }

    fn standardize_backward(
        &self,
        channels: usize,
        prior: &Buffer<T>,
        eps: &Buffer<T>,
        dlogp: f64,
        dz: &mut Buffer<T>,
        d_prior: &mut Buffer<T>,
    ) {
        backward(channels, prior, eps, dlogp, dz, d_prior);
    }
}
