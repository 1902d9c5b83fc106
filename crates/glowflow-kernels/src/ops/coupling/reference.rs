//! A map for each array that is modified, and a sum for the log-determinant.

use super::{AffineScale, Coupling, CouplingKind};
use crate::expr::{Expr, constant, input, old};
use crate::ops::Reference;
use crate::ops::views::{Rows, read, write};
use crate::primitives::{Primitives, Strided};
use crate::shape::Grid;

/// Log of the scale, given the index of the input with the network's output.
fn log_scale(form: AffineScale, r: usize) -> Expr {
    match form {
        // log sigmoid(t) = −softplus(−t)
        AffineScale::Sigmoid => -(-(input(r) + constant(2.0))).softplus(),
        AffineScale::Exp2Tanh => constant(2.0) * (constant(0.5) * input(r)).tanh(),
    }
}

/// The scale, likewise.
fn scale(form: AffineScale, r: usize) -> Expr {
    match form {
        AffineScale::Sigmoid => (input(r) + constant(2.0)).sigmoid(),
        AffineScale::Exp2Tanh => log_scale(form, r).exp(),
    }
}

/// The derivative of the log-scale with respect to the network's output, likewise.
fn slope(form: AffineScale, r: usize) -> Expr {
    match form {
        AffineScale::Sigmoid => (-(input(r) + constant(2.0))).sigmoid(),
        AffineScale::Exp2Tanh => {
            let tanh = || (constant(0.5) * input(r)).tanh();
            constant(1.0) - tanh() * tanh()
        }
    }
}

/// The last half of the channels of activations.
struct LastHalf {
    half: Rows,
    /// Its position in `x` and `dx`.
    x: Strided,
    outputs: usize,
}

impl LastHalf {
    fn of(kind: CouplingKind, channels: usize, rows: usize) -> Self {
        let half = Rows { rows, channels: channels / 2 };
        Self { half, x: half.part(channels, channels / 2), outputs: kind.network_outputs(channels) }
    }

    /// The position of the shift in the network's output.
    fn shift(&self) -> Strided {
        self.half.part(self.outputs, 0)
    }

    /// The position of `r`, the argument of the scale.
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
    let CouplingKind::Affine(form) = kind else {
        return device.map(&(old() + input(0)), last.half.shape(), &[shift], write(x, last.x));
    };
    let r = read(o, last.scale());
    device.map(&((old() + input(0)) * scale(form, 1)), last.half.shape(), &[shift, r], write(x, last.x));
    let by_images = Strided { strides: [grid.pixels() * channels, channels, 1], ..r.at };
    let shape = [grid.batch, grid.pixels(), last.half.channels];
    let per_image = Strided { start: 0, strides: [1, 0, 0] };
    device.reduce(&log_scale(form, 0), shape, &[read(o, by_images)], write(logp, per_image), true);
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
    let CouplingKind::Affine(form) = kind else {
        return device.map(&(old() - input(0)), last.half.shape(), &[shift], write(x, last.x));
    };
    let f = old() / scale(form, 1) - input(0);
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
    if let CouplingKind::Affine(form) = kind {
        let r = read(o, last.scale());
        let f = (input(0) * input(1) + constant(dlogp)) * slope(form, 2);
        device.map(&f, shape, &[read(&*dx, last.x), read(&*x, last.x), r], write(&mut *d_o, last.scale()));
        device.map(&(old() * scale(form, 0)), shape, &[r], write(&mut *dx, last.x));
    }
    device.map(&input(0), shape, &[read(dx, last.x)], write(d_o, last.shift()));
    uncouple(device, kind, channels, o, x);
}

impl<D: Primitives> Coupling for Reference<D> {}
