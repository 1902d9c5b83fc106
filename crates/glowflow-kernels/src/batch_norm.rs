//! Batch normalisation of activations `[rows, channels]` followed by a ReLU, with μ and σ² per channel:
//!
//! ```text
//! x̂ = (x − μ)·r,  r = 1/√(σ² + ε)        y = max(x̂ + bias, 0)
//! g = dy where x̂ + bias > 0, else 0      dbias = Σ g
//! dx = r·(g − (Σ g + x̂·Σ g·x̂)/rows), or r·g if μ and σ² are constants
//! ```
//!
//! The functions here are the default bodies of the operations in [`Primitives`], expressed with `map` and
//! `reduce`. A device may override them.

use crate::expr::{Expr, constant, input, old};
use crate::primitives::{Primitives, Strided, View, ViewMut, holds};

/// Shape of normalised activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchNorm {
    /// Number of pixels in the batch.
    pub rows: usize,
    /// Number of channels.
    pub channels: usize,
}

impl BatchNorm {
    /// Number of elements of the activations.
    pub fn len(self) -> usize {
        self.rows * self.channels
    }

    /// Returns whether there are no activations.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    fn shape(self) -> [usize; 3] {
        [1, self.rows, self.channels]
    }

    fn each(self) -> Strided {
        Strided { start: 0, strides: [0, self.channels, 1] }
    }

    /// Checks the lengths of activations and of per-channel buffers.
    ///
    /// # Panics
    /// If one is too short.
    #[track_caller]
    pub(crate) fn check(self, activations: &[(&str, usize)], per_channel: &[(&str, usize)]) {
        activations.iter().for_each(|&(name, len)| holds(name, len, self.len()));
        per_channel.iter().for_each(|&(name, len)| holds(name, len, 2 * self.channels));
    }
}

/// Statistics and bias: `[2, channels]` with μ then r, and the bias at element `bias_start` of a buffer.
#[derive(Debug)]
pub struct Normalizer<'a, B> {
    /// μ, then r.
    pub statistics: &'a B,
    /// The buffer with the bias.
    pub bias: &'a B,
    /// Index of the first channel's bias.
    pub bias_start: usize,
}

impl<B> Clone for Normalizer<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for Normalizer<'_, B> {}

fn per_channel(start: usize) -> Strided {
    Strided { start, strides: [0, 0, 1] }
}

/// x̂ of the inputs x, μ and r.
fn standardized() -> Expr {
    (input(0) - input(1)) * input(2)
}

/// The body of [`Primitives::moments`].
pub(crate) fn moments<D: Primitives>(device: &D, norm: BatchNorm, x: &D::Buffer, out: &mut D::Buffer) {
    let (shape, c) = (norm.shape(), norm.channels);
    let x = View { buffer: x, at: norm.each() };
    let share = || constant(1.0 / norm.rows as f64);
    let mut mean = device.scratch(c);
    let to = ViewMut { buffer: &mut mean, at: per_channel(0) };
    device.reduce(&(share() * input(0)), shape, &[x], to, false);
    let mean = View { buffer: &mean, at: per_channel(0) };
    let from_mean = || input(0) - input(1);
    let to = ViewMut { buffer: &mut *out, at: per_channel(c) };
    device.reduce(&(share() * from_mean() * from_mean()), shape, &[x, mean], to, false);
    device.map(&input(0), [1, 1, c], &[mean], ViewMut { buffer: out, at: per_channel(0) });
}

/// The body of [`Primitives::norm_relu`].
pub(crate) fn norm_relu<D: Primitives>(
    device: &D,
    norm: BatchNorm,
    by: Normalizer<'_, D::Buffer>,
    x: &D::Buffer,
    y: &mut D::Buffer,
) {
    let f = (standardized() + input(3)).relu();
    device.map(&f, norm.shape(), &inputs(norm, by, x), ViewMut { buffer: y, at: norm.each() });
}

/// The inputs x, μ, r and bias.
fn inputs<'a, B>(norm: BatchNorm, by: Normalizer<'a, B>, x: &'a B) -> [View<'a, B>; 4] {
    let statistics = |start| View { buffer: by.statistics, at: per_channel(start) };
    [
        View { buffer: x, at: norm.each() },
        statistics(0),
        statistics(norm.channels),
        View { buffer: by.bias, at: per_channel(by.bias_start) },
    ]
}

/// The body of [`Primitives::norm_relu_backward`].
#[allow(clippy::too_many_arguments)]
pub(crate) fn norm_relu_backward<D: Primitives>(
    device: &D,
    norm: BatchNorm,
    by: Normalizer<'_, D::Buffer>,
    constants: bool,
    x: &D::Buffer,
    dy: &D::Buffer,
    sums: &mut D::Buffer,
    dx: &mut D::Buffer,
    accumulate: bool,
) {
    let (shape, c) = (norm.shape(), norm.channels);
    let [x, mean, r, bias] = inputs(norm, by, x);
    let dy = View { buffer: dy, at: norm.each() };
    let inputs = [x, mean, r, bias, dy];
    let g = || input(4) * (standardized() + input(3)).step();
    device.reduce(&g(), shape, &inputs, ViewMut { buffer: &mut *sums, at: per_channel(0) }, false);
    let to = ViewMut { buffer: &mut *sums, at: per_channel(c) };
    device.reduce(&(g() * standardized()), shape, &inputs, to, false);
    let by_input = if constants {
        input(2) * g()
    } else {
        let share = constant(1.0 / norm.rows as f64);
        input(2) * (g() - share * (input(5) + standardized() * input(6)))
    };
    let f = if accumulate { old() + by_input } else { by_input };
    let sums = [0, c].map(|start| View { buffer: &*sums, at: per_channel(start) });
    let inputs = [x, mean, r, bias, dy, sums[0], sums[1]];
    device.map(&f, shape, &inputs, ViewMut { buffer: dx, at: norm.each() });
}
