//! Convolutions as products with patches that are gathered tile by tile ([`Patches`]).
//!
//! | | product |
//! | --- | --- |
//! | `y` | patches of `x` `[rows, k·k·inputs]` by `weightᵀ` |
//! | `dx` | patches of `dy` `[rows, k·k·outputs]` by the weight with reversed taps |
//! | `dweight` | `dyᵀ` `[outputs, rows]` by patches of `x` |
//!
//! Most 3×3 convolutions between many channels need fewer operations with [`winograd`].

use super::gemm::{Target, add_up_rows, multiply_rows};
use super::tiles::{Patches, Stored};
use super::winograd;
use crate::cpu::Scalar;
use crate::cpu::Workspace;
use crate::cpu::product::Packed;
use crate::primitives::Conv;

/// The forward pass.
pub fn forward<T: Scalar>(
    work: &Workspace<T>,
    conv: Conv,
    x: &[T],
    weight: &[T],
    y: &mut [T],
    accumulate: bool,
) {
    if winograd::suits(work, conv) {
        return winograd::forward(work, conv, x, weight, y, accumulate);
    }
    let (rows, outputs, columns) = (conv.grid.rows(), conv.outputs, conv.columns());
    let packed = Packed::of_columns(work, columns, outputs, 1, |j| {
        (&weight[j * columns..(j + 1) * columns], T::one())
    });
    let target = Target { data: y, stride: outputs, accumulate };
    by_patches(work, conv, conv.inputs, x, (rows, columns), &packed, target);
}

/// The input gradient.
pub fn backward_input<T: Scalar>(
    work: &Workspace<T>,
    conv: Conv,
    weight: &[T],
    dy: &[T],
    dx: &mut [T],
    accumulate: bool,
) {
    if winograd::suits(work, conv) {
        return winograd::backward_input(work, conv, weight, dy, dx, accumulate);
    }
    let Conv { grid, inputs, outputs, kernel } = conv;
    let (taps, columns) = (kernel * kernel, conv.columns());
    let packed = Packed::of_rows(work, taps * outputs, inputs, |i, j, to| {
        let (tap, output) = (taps - 1 - i / outputs, i % outputs);
        to.copy_from_slice(&weight[output * columns + tap * inputs + j..][..to.len()]);
    });
    let target = Target { data: dx, stride: inputs, accumulate };
    by_patches(work, conv, outputs, dy, (grid.rows(), taps * outputs), &packed, target);
}

/// Multiplies patches of an activation by a matrix.
fn by_patches<T: Scalar>(
    work: &Workspace<T>,
    Conv { grid, kernel, .. }: Conv,
    channels: usize,
    x: &[T],
    (rows, columns): (usize, usize),
    b: &Packed<T>,
    target: Target<'_, T>,
) {
    let n = target.stride;
    if kernel == 1 {
        multiply_rows(work, rows, (&Stored { data: x, stride: channels }, columns), b, n, target);
    } else {
        multiply_rows(work, rows, (&Patches { grid, channels, kernel, x }, columns), b, n, target);
    }
}

/// The weight gradient.
pub fn backward_weight<T: Scalar>(
    work: &Workspace<T>,
    conv: Conv,
    x: &[T],
    dy: &[T],
    dweight: &mut [T],
    accumulate: bool,
) {
    if winograd::suits(work, conv) {
        return winograd::backward_weight(work, conv, x, dy, dweight, accumulate);
    }
    let Conv { grid, inputs, outputs, kernel } = conv;
    let columns = conv.columns();
    let dy = (&Stored { data: dy, stride: outputs }, outputs);
    let target = Target { data: dweight, stride: columns, accumulate };
    if kernel == 1 {
        add_up_rows(work, grid.rows(), dy, (&Stored { data: x, stride: inputs }, columns), target);
    } else {
        let patches = Patches { grid, channels: inputs, kernel, x };
        add_up_rows(work, grid.rows(), dy, (&patches, columns), target);
    }
}
