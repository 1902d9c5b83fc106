//! The attention of a residual network, written in primitives around the device's [`Attention`].

use super::ResidualAttentionParams;
use super::reference::{normalize, normalize_backward};
use crate::expr::{input, old};
use crate::ops::Attention;
use crate::ops::views::{Rows, read, write};
use crate::primitives::{Gemm, Matrix, MatrixMut, Strided};
use crate::shape::{Grid, Span};

/// Saved activations of an attention.
pub(super) struct AttentionActivations<B> {
    /// `[rows, 3·width]`
    qkv: B,
    /// The output of the heads, `[rows, width]`.
    heads: B,
}

impl ResidualAttentionParams {
    /// Query, key and value projections.
    pub(super) fn projections(&self) -> [Span; 3] {
        [self.query, self.key, self.value]
    }
}

/// The shape `[batch, pixels, width]`, the layout of activations, and that of one value per pixel and channel
/// from `start` on.
fn of_images(grid: Grid, width: usize, start: usize) -> ([usize; 3], Strided, Strided) {
    let pixels = grid.pixels();
    let each = Strided { start: 0, strides: [pixels * width, width, 1] };
    ([grid.batch, pixels, width], each, Strided { start, strides: [0, width, 1] })
}

fn matrix<B>(buffer: &B, start: usize, stride: usize) -> Matrix<'_, B> {
    Matrix { buffer, start, stride }
}

fn matrix_mut<B>(buffer: &mut B, start: usize, stride: usize) -> MatrixMut<'_, B> {
    MatrixMut { buffer, start, stride }
}

/// Computes `n`.
fn embedded<D: Attention>(
    device: &D,
    at: &ResidualAttentionParams,
    params: &D::Buffer,
    grid: Grid,
    width: usize,
    h: &D::Buffer,
) -> D::Buffer {
    let mut n = normalize(device, Rows { rows: grid.rows(), channels: width }, (params, at.norm), h);
    let (shape, each, position) = of_images(grid, width, at.position.start);
    device.map(&(old() + input(0)), shape, &[read(params, position)], write(&mut n, each));
    n
}

/// Adds the attention to `h` and returns the saved activations.
pub(super) fn forward<D: Attention>(
    device: &D,
    at: &ResidualAttentionParams,
    params: &D::Buffer,
    grid: Grid,
    width: usize,
    h: &mut D::Buffer,
) -> AttentionActivations<D::Buffer> {
    let shape = at.shape(grid, width);
    let rows = grid.rows();
    let n = embedded(device, at, params, grid, width, h);
    let product = |accumulate| Gemm {
        m: rows,
        n: width,
        k: width,
        a_transposed: false,
        b_transposed: true,
        accumulate,
    };
    let mut qkv = device.scratch(3 * rows * width);
    for (part, span) in at.projections().into_iter().enumerate() {
        let to = matrix_mut(&mut qkv, part * width, 3 * width);
        device.gemm(product(false), matrix(&n, 0, width), matrix(params, span.start, width), to);
    }
    let mut heads = device.scratch(rows * width);
    device.attention(shape, &qkv, &mut heads);
    let out = matrix(params, at.out.start, width);
    device.gemm(product(true), matrix(&heads, 0, width), out, matrix_mut(h, 0, width));
    AttentionActivations { qkv, heads }
}

/// Converts the gradient of `h` plus attention to the gradient of `h`, and adds the parameter gradients.
#[allow(clippy::too_many_arguments)]
pub(super) fn backward<D: Attention>(
    device: &D,
    at: &ResidualAttentionParams,
    params: &D::Buffer,
    grid: Grid,
    width: usize,
    h: &D::Buffer,
    AttentionActivations { qkv, heads }: &AttentionActivations<D::Buffer>,
    dh: &mut D::Buffer,
    gradient: &mut D::Buffer,
) {
    let shape = at.shape(grid, width);
    let rows = grid.rows();
    let by_weight =
        Gemm { m: width, n: width, k: rows, a_transposed: true, b_transposed: false, accumulate: true };
    let by_input = |accumulate| Gemm {
        m: rows,
        n: width,
        k: width,
        a_transposed: false,
        b_transposed: false,
        accumulate,
    };
    let to = matrix_mut(gradient, at.out.start, width);
    device.gemm(by_weight, matrix(dh, 0, width), matrix(heads, 0, width), to);
    let mut d_heads = device.scratch(rows * width);
    let (out, to) = (matrix(params, at.out.start, width), matrix_mut(&mut d_heads, 0, width));
    device.gemm(by_input(false), matrix(dh, 0, width), out, to);
    let mut d_qkv = device.scratch(3 * rows * width);
    device.attention_backward(shape, qkv, &d_heads, &mut d_qkv);

    let n = embedded(device, at, params, grid, width, h);
    let mut dn = d_heads;
    for (part, span) in at.projections().into_iter().enumerate() {
        let d_part = matrix(&d_qkv, part * width, 3 * width);
        device.gemm(by_weight, d_part, matrix(&n, 0, width), matrix_mut(gradient, span.start, width));
        let weight = matrix(params, span.start, width);
        device.gemm(by_input(part > 0), d_part, weight, matrix_mut(&mut dn, 0, width));
    }
    let (of_batch, each, position) = of_images(grid, width, at.position.start);
    device.reduce(&input(0), of_batch, &[read(&dn, each)], write(gradient, position), true);
    let rows = Rows { rows, channels: width };
    let from = normalize_backward(device, rows, (params, at.norm), h, &dn, gradient);
    let each = rows.each();
    device.map(&(old() + input(0)), rows.shape(), &[read(&from, each)], write(dh, each));
}
