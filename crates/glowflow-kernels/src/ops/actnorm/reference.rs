//! Two sums over the rows of each part, then a map for each parameter.
//!
//! With `nₚ` of `N` rows in part `p`, and the moments `meanₚ` and `varianceₚ` of a channel in it:
//!
//! ```text
//! mean     = Σ nₚ/N · meanₚ
//! variance = Σ nₚ/N · (varianceₚ + (meanₚ − mean)²)
//! ```

use super::{ActNorm, ActNormParams};
use crate::expr::{constant, input, old};
use crate::ops::Reference;
use crate::ops::views::{Rows, per_channel, read, write};
use crate::primitives::Primitives;

/// Mean and variance of each channel of a part.
pub(in crate::ops) struct Moments<B> {
    rows: usize,
    mean: B,
    variance: B,
}

/// Moments of `x` `[rows, channels]`.
pub(in crate::ops) fn moments<D: Primitives>(
    device: &D,
    channels: usize,
    x: &D::Buffer,
) -> Moments<D::Buffer> {
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
    Moments { rows: rows.rows, mean, variance }
}

/// Moments of all rows.
fn combined<D: Primitives>(device: &D, parts: &[Moments<D::Buffer>], channels: usize) -> Moments<D::Buffer> {
    let rows: usize = parts.iter().map(|part| part.rows).sum();
    let shape = [1, 1, channels];
    let share = |part: &Moments<D::Buffer>| constant(part.rows as f64 / rows as f64);
    let [mut mean, mut variance] = [(); 2].map(|()| device.zeros(channels));
    for part in parts {
        let inputs = [read(&part.mean, per_channel(0))];
        device.map(&(old() + share(part) * input(0)), shape, &inputs, write(&mut mean, per_channel(0)));
    }
    for part in parts {
        let deviation = input(1) - input(2);
        let f = old() + share(part) * (input(0) + deviation.clone() * deviation);
        let inputs = [&part.variance, &part.mean, &mean].map(|buffer| read(buffer, per_channel(0)));
        device.map(&f, shape, &inputs, write(&mut variance, per_channel(0)));
    }
    Moments { rows, mean, variance }
}

/// Sets bias and logs from the moments of all parts.
pub(in crate::ops) fn initialize_from<D: Primitives>(
    device: &D,
    at: &ActNormParams,
    parts: &[Moments<D::Buffer>],
    params: &mut D::Buffer,
) {
    match parts {
        [moments] => set(device, at, moments, params),
        parts => set(device, at, &combined(device, parts, at.bias.len), params),
    }
}

fn set<D: Primitives>(
    device: &D,
    at: &ActNormParams,
    Moments { mean, variance, .. }: &Moments<D::Buffer>,
    params: &mut D::Buffer,
) {
    let shape = [1, 1, at.bias.len];
    let bias = write(&mut *params, per_channel(at.bias.start));
    device.map(&-input(0), shape, &[read(mean, per_channel(0))], bias);
    let logs = (input(0).sqrt() + constant(1e-6)).ln() * constant(-1.0 / 3.0);
    let to = write(params, per_channel(at.logs.start));
    device.map(&logs, shape, &[read(variance, per_channel(0))], to);
}

pub(in crate::ops) fn initialize<D: Primitives>(
    device: &D,
    at: &ActNormParams,
    x: &D::Buffer,
    params: &mut D::Buffer,
) {
    set(device, at, &moments(device, at.bias.len, x), params);
}

impl<D: Primitives> ActNorm for Reference<D> {}
