//! A map for each array that changes, and a sum for the log-determinant.

use super::{Coupling, CouplingKind};
use crate::expr::{Expr, constant, input, old};
use crate::ops::Reference;
use crate::ops::views::{Rows, read, write};
use crate::primitives::{Primitives, Strided};
use crate::shape::Grid;

/// `t = o[C/2..] + 2`, given the input with this index.
fn t(index: usize) -> Expr {
    input(index) + constant(2.0)
}

/// The last half of the channels of activations.
struct LastHalf {
    half: Rows,
    /// Its place in `x` and `dx`.
    x: Strided,
    outputs: usize,
}

impl LastHalf {
    fn of(kind: CouplingKind, channels: usize, rows: usize) -> Self {
        let half = Rows { rows, channels: channels / 2 };
        Self { half, x: half.part(channels, channels / 2), outputs: kind.network_outputs(channels) }
    }

    /// The place of the shift in the network's output.
    fn shift(&self) -> Strided {
        self.half.part(self.outputs, 0)
    }

    /// The place of `t − 2`.
    fn scale(&self) -> Strided {
        self.half.part(self.outputs, self.half.channels)
    }
}

pub fn couple<D: Primitives>(
    device: &D,
    kind: CouplingKind,
    grid: Grid,
    channels: usize,
    o: &D::Buffer,
    x: &mut D::Buffer,
    logp: &mut D::Buffer,
) {
    let last = LastHalf::of(kind, channels, grid.rows());
    let shift = read(o, last.shift());
    if kind == CouplingKind::Additive {
        return device.map(&(old() + input(0)), last.half.shape(), &[shift], write(x, last.x));
    }
    let scale = read(o, last.scale());
    let f = (old() + input(0)) * t(1).sigmoid();
    device.map(&f, last.half.shape(), &[shift, scale], write(x, last.x));
    // log sigmoid(t) = −softplus(−t), by images.
    let by_images = Strided { strides: [grid.pixels() * channels, channels, 1], ..scale.at };
    let shape = [grid.batch, grid.pixels(), last.half.channels];
    let per_image = Strided { start: 0, strides: [1, 0, 0] };
    device.reduce(&-(-t(0)).softplus(), shape, &[read(o, by_images)], write(logp, per_image), true);
}

pub fn uncouple<D: Primitives>(
    device: &D,
    kind: CouplingKind,
    channels: usize,
    o: &D::Buffer,
    x: &mut D::Buffer,
) {
    let last = LastHalf::of(kind, channels, device.len(x) / channels);
    let shift = read(o, last.shift());
    if kind == CouplingKind::Additive {
        return device.map(&(old() - input(0)), last.half.shape(), &[shift], write(x, last.x));
    }
    let f = old() / t(1).sigmoid() - input(0);
    device.map(&f, last.half.shape(), &[shift, read(o, last.scale())], write(x, last.x));
}

#[allow(clippy::too_many_arguments)]
pub fn backward<D: Primitives>(
    device: &D,
    kind: CouplingKind,
    channels: usize,
    o: &D::Buffer,
    x: &mut D::Buffer,
    dx: &mut D::Buffer,
    dlogp: f64,
    d_o: &mut D::Buffer,
) {
    let last = LastHalf::of(kind, channels, device.len(x) / channels);
    let shape = last.half.shape();
    if kind == CouplingKind::Affine {
        let t_minus_2 = read(o, last.scale());
        let inputs = [read(&*dx, last.x), read(&*x, last.x), t_minus_2];
        let f = (input(0) * input(1) + constant(dlogp)) * (-t(2)).sigmoid();
        device.map(&f, shape, &inputs, write(&mut *d_o, last.scale()));
        device.map(&(old() * t(0).sigmoid()), shape, &[t_minus_2], write(&mut *dx, last.x));
    }
    device.map(&input(0), shape, &[read(dx, last.x)], write(d_o, last.shift()));
    uncouple(device, kind, channels, o, x);
}

impl<D: Primitives> Coupling for Reference<D> {}
