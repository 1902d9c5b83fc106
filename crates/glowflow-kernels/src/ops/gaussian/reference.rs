//! A map for each array that is modified, and a sum for the log-density.

use std::f64::consts::TAU;

use super::Gaussian;
use crate::expr::{constant, input, old};
use crate::ops::Reference;
use crate::ops::views::{Rows, read, write};
use crate::primitives::{Primitives, Strided};
use crate::shape::Grid;

pub fn standardize<D: Primitives>(
    device: &D,
    grid: Grid,
    channels: usize,
    prior: &D::Buffer,
    z: &mut D::Buffer,
    logp: &mut D::Buffer,
) {
    let rows = Rows { rows: grid.rows(), channels };
    let [mean, logs] = [0, channels].map(|first| read(prior, rows.part(2 * channels, first)));
    let f = (old() - input(0)) * (-input(1)).exp();
    device.map(&f, rows.shape(), &[mean, logs], write(&mut *z, rows.each()));

    let by_images = |start, stride| Strided { start, strides: [grid.pixels() * stride, stride, 1] };
    let inputs = [read(&*z, by_images(0, channels)), read(prior, by_images(channels, 2 * channels))];
    let log_density = constant(-0.5) * (input(0) * input(0) + constant(TAU.ln())) - input(1);
    let shape = [grid.batch, grid.pixels(), channels];
    let per_image = Strided { start: 0, strides: [1, 0, 0] };
    device.reduce(&log_density, shape, &inputs, write(logp, per_image), true);
}

pub fn unstandardize<D: Primitives>(device: &D, channels: usize, prior: &D::Buffer, eps: &mut D::Buffer) {
    let rows = Rows { rows: device.len(eps) / channels, channels };
    let inputs = [0, channels].map(|first| read(prior, rows.part(2 * channels, first)));
    let f = input(0) + input(1).exp() * old();
    device.map(&f, rows.shape(), &inputs, write(eps, rows.each()));
}

pub fn backward<D: Primitives>(
    device: &D,
    channels: usize,
    prior: &D::Buffer,
    eps: &D::Buffer,
    dlogp: f64,
    dz: &mut D::Buffer,
    d_prior: &mut D::Buffer,
) {
    let rows = Rows { rows: device.len(eps) / channels, channels };
    let [mean, logs] = [0, channels].map(|first| rows.part(2 * channels, first));
    let inputs = [read(eps, rows.each()), read(prior, logs)];
    let d_mean = constant(dlogp) * input(0) * (-input(1)).exp();
    device.map(&-d_mean.clone(), rows.shape(), &inputs, write(dz, rows.each()));
    device.map(&d_mean, rows.shape(), &inputs, write(&mut *d_prior, mean));
    let d_logs = constant(dlogp) * (input(0) * input(0) - constant(1.0));
    device.map(&d_logs, rows.shape(), &inputs[..1], write(d_prior, logs));
}

impl<D: Primitives> Gaussian for Reference<D> {}
