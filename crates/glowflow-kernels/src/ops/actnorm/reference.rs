//! Two sums over the rows, then a map for each parameter.

use super::{ActNorm, ActNormParams};
use crate::expr::{constant, input};
use crate::ops::Reference;
use crate::ops::views::{Rows, per_channel, read, write};
use crate::primitives::Primitives;

pub(in crate::ops) fn initialize<D: Primitives>(
    device: &D,
    at: &ActNormParams,
    x: &D::Buffer,
    params: &mut D::Buffer,
) {
    let channels = at.bias.len;
    let rows = Rows { rows: device.len(x) / channels, channels };
    let share = constant(1.0 / rows.rows as f64);
    let mut mean = device.scratch(channels);
    let x = read(x, rows.each());
    device.reduce(&(share.clone() * input(0)), rows.shape(), &[x], write(&mut mean, per_channel(0)), false);
    let mut variance = device.scratch(channels);
    let deviation = input(0) - input(1);
    let f = share * deviation.clone() * deviation;
    let inputs = [x, read(&mean, per_channel(0))];
    device.reduce(&f, rows.shape(), &inputs, write(&mut variance, per_channel(0)), false);

    let shape = [1, 1, channels];
    let bias = write(&mut *params, per_channel(at.bias.start));
    device.map(&-input(0), shape, &[read(&mean, per_channel(0))], bias);
    let logs = (input(0).sqrt() + constant(1e-6)).ln() * constant(-1.0 / 3.0);
    let to = write(params, per_channel(at.logs.start));
    device.map(&logs, shape, &[read(&variance, per_channel(0))], to);
}

impl<D: Primitives> ActNorm for Reference<D> {}
