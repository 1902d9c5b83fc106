//! Gaussian priors: `eps = (z − mean)·exp(−logs)`, `log N = −(log 2π + 2·logs + eps²)/2`, and the
//! top level's learned mean and log standard deviation.

use std::f64::consts::TAU;

use rayon::prelude::*;

use crate::real::Real;
use crate::shape::{Grid, TopPriorParams};

pub fn standardize<T: Real>(grid: Grid, channels: usize, prior: &[T], z: &mut [T], logp: &mut [T]) {
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

pub fn unstandardize<T: Real>(channels: usize, prior: &[T], eps: &mut [T]) {
    for (eps, prior) in eps.chunks_exact_mut(channels).zip(prior.chunks_exact(2 * channels)) {
        let (mean, logs) = prior.split_at(channels);
        for ((eps, &mean), &logs) in eps.iter_mut().zip(mean).zip(logs) {
            *eps = mean + logs.exp() * *eps;
        }
    }
}

pub fn backward<T: Real>(
    channels: usize,
    prior: &[T],
    eps: &[T],
    dlogp: f64,
    dz: &mut [T],
    d_prior: &mut [T],
) {
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

/// The top level's prior.
pub struct TopPrior<T> {
    /// Mean and log standard deviation, `[2·channels]`.
    base: Vec<T>,
    /// What a class adds to them, `[classes, 2·channels]`.
    class_weight: Vec<T>,
}

impl<T: Real> TopPrior<T> {
    pub(super) fn prepare(at: &TopPriorParams, params: &[T]) -> Self {
        let class_weight = at.class_weight.map_or(vec![], |span| params[span.range()].to_vec());
        Self { base: [&params[at.mean.range()], &params[at.logs.range()]].concat(), class_weight }
    }

    /// Mean and log standard deviation at every pixel.
    pub(super) fn run(&self, grid: Grid, labels: &[T], prior: &mut [T]) {
        let width = self.base.len();
        for (b, prior) in prior.chunks_exact_mut(grid.pixels() * width).enumerate() {
            let mut row = self.base.clone();
            if !self.class_weight.is_empty() {
                let weight = &self.class_weight[class(labels, b) * width..][..width];
                row.iter_mut().zip(weight).for_each(|(row, &weight)| *row += weight);
            }
            prior.chunks_exact_mut(width).for_each(|prior| prior.copy_from_slice(&row));
        }
    }
}

/// The class of an image.
fn class<T: Real>(labels: &[T], image: usize) -> usize {
    labels[image].wide() as usize
}

/// Adds the gradient of the top prior's parameters.
pub fn top_prior_backward<T: Real>(
    at: &TopPriorParams,
    grid: Grid,
    labels: &[T],
    d_prior: &[T],
    gradient: &mut [T],
) {
    let width = 2 * at.channels;
    for (b, d_prior) in d_prior.chunks_exact(grid.pixels() * width).enumerate() {
        let sums = super::conv::column_sums(width, d_prior);
        let (d_mean, d_logs) = sums.split_at(at.channels);
        let add = |to: &mut [T], values: &[T]| {
            to.iter_mut().zip(values).for_each(|(to, &value)| *to += value);
        };
        add(&mut gradient[at.mean.range()], d_mean);
        add(&mut gradient[at.logs.range()], d_logs);
        if let Some(weight) = at.class_weight {
            add(&mut gradient[weight.range()][class(labels, b) * width..][..width], &sums);
        }
    }
}
