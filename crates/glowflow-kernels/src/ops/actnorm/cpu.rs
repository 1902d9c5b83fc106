//! Two passes over the rows, in `f64`.

use super::{ActNorm, ActNormParams};
use crate::cpu::{Buffer, Cpu, Scalar};

/// Sets `bias = −mean` and `3·logs = −log(std + 1e-6)` for every channel of `x` `[rows, channels]`, with the
/// population standard deviation.
pub(in crate::ops) fn initialize<T: Scalar>(at: &ActNormParams, x: &[T], params: &mut [T]) {
    let channels = at.bias.len;
    let rows = (x.len() / channels) as f64;
    let mut mean = vec![0.0; channels];
    for row in x.chunks_exact(channels) {
        mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += x.wide() / rows);
    }
    let mut variance = vec![0.0; channels];
    for row in x.chunks_exact(channels) {
        for ((variance, x), mean) in variance.iter_mut().zip(row).zip(&mean) {
            *variance += (x.wide() - mean).powi(2) / rows;
        }
    }
    for (c, (mean, variance)) in mean.iter().zip(&variance).enumerate() {
        params[at.bias.start + c] = T::of(-mean);
        params[at.logs.start + c] = T::of(-(variance.sqrt() + 1e-6).ln() / 3.0);
    }
}

impl<T: Scalar> ActNorm for Cpu<T> {
    fn initialize_actnorm(&self, at: &ActNormParams, x: &Buffer<T>, params: &mut Buffer<T>) {
        initialize(at, x, params);
    }
}
