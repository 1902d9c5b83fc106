//! The attention, in the device's scalars.

use rayon::prelude::*;

use super::backward::{add, normalize_backward};
use super::rows::Embed;
use crate::cpu::primitives::gemm::{Target, gemm};
use crate::cpu::primitives::tiles::Stored;
use crate::cpu::workspace::Workspace;
use crate::cpu::{Buffer, Scalar};
use crate::ops::attention::cpu as heads_of;
use crate::ops::residual_network::ResidualAttentionParams;
use crate::primitives::Gemm;
use crate::shape::Grid;

/// Saved activations of an attention.
pub struct AttentionActivations<T: Scalar> {
    /// `[rows, 3·width]`
    qkv: Buffer<T>,
    /// The output of the heads, `[rows, width]`.
    heads: Buffer<T>,
}

/// `h·r ⊙ norm + position`
fn embedded<T: Scalar>(
    work: &Workspace<T>,
    at: &ResidualAttentionParams,
    params: &[T],
    h: &[T],
) -> Buffer<T> {
    let mut n = work.take(h.len());
    let (norm, position) = (&params[at.norm.range()], &params[at.position.range()]);
    let of_image = position.len();
    n.par_chunks_mut(of_image)
        .zip(h.par_chunks(of_image))
        .for_each(|(to, x)| work.run(Embed { x, norm, position, to }));
    n
}

/// Adds the attention to `h` and returns the saved activations.
pub fn forward<T: Scalar>(
    work: &Workspace<T>,
    at: &ResidualAttentionParams,
    params: &[T],
    grid: Grid,
    h: &mut [T],
) -> AttentionActivations<T> {
    let (rows, width) = (grid.rows(), at.norm.len);
    let shape = at.shape(grid, width);
    let n = embedded(work, at, params, h);
    let (a_transposed, b_transposed) = (false, true);
    let product = Gemm { m: rows, n: width, k: width, a_transposed, b_transposed, accumulate: false };
    let mut qkv = work.take(3 * rows * width);
    for (part, span) in at.projections().into_iter().enumerate() {
        let weight = Stored { data: &params[span.range()], stride: width };
        let to = Target { data: &mut qkv[part * width..], stride: 3 * width, accumulate: false };
        gemm(work, product, Stored { data: &n, stride: width }, weight, to);
    }
    let mut heads = work.take(rows * width);
    heads_of::forward(work, shape, &qkv, &mut heads);
    let weight = Stored { data: &params[at.out.range()], stride: width };
    let to = Target { data: h, stride: width, accumulate: true };
    gemm(work, Gemm { accumulate: true, ..product }, Stored { data: &heads, stride: width }, weight, to);
    AttentionActivations { qkv, heads }
}

/// Converts the gradient of `h` plus attention to the gradient of `h`, and adds the parameter gradients.
#[allow(clippy::too_many_arguments)]
pub fn backward<T: Scalar>(
    work: &Workspace<T>,
    at: &ResidualAttentionParams,
    params: &[T],
    grid: Grid,
    h: &[T],
    AttentionActivations { qkv, heads }: &AttentionActivations<T>,
    dh: &mut [T],
    gradient: &mut [T],
) {
    let (rows, width) = (grid.rows(), at.norm.len);
    let shape = at.shape(grid, width);
    let by_weight =
        Gemm { m: width, n: width, k: rows, a_transposed: true, b_transposed: false, accumulate: true };
    let by_input =
        Gemm { m: rows, n: width, k: width, a_transposed: false, b_transposed: false, accumulate: false };
    let to = Target { data: &mut gradient[at.out.range()], stride: width, accumulate: true };
    let (d_out, of_heads) = (Stored { data: &*dh, stride: width }, Stored { data: heads, stride: width });
    gemm(work, by_weight, d_out, of_heads, to);
    let mut d_heads = work.take(rows * width);
    let weight = Stored { data: &params[at.out.range()], stride: width };
    gemm(work, by_input, d_out, weight, Target { data: &mut d_heads, stride: width, accumulate: false });
    let mut d_qkv = work.take(3 * rows * width);
    heads_of::backward(work, shape, qkv, &d_heads, &mut d_qkv);

    let n = embedded(work, at, params, h);
    let mut dn = d_heads;
    for (part, span) in at.projections().into_iter().enumerate() {
        let d_part = Stored { data: &d_qkv[part * width..], stride: 3 * width };
        let to = Target { data: &mut gradient[span.range()], stride: width, accumulate: true };
        gemm(work, by_weight, d_part, Stored { data: &n, stride: width }, to);
        let weight = Stored { data: &params[span.range()], stride: width };
        let accumulate = part > 0;
        let to = Target { data: &mut dn, stride: width, accumulate };
        gemm(work, Gemm { accumulate, ..by_input }, d_part, weight, to);
    }
    dn.chunks_exact(at.position.len).for_each(|dn| add(&mut gradient[at.position.range()], dn));
    let norm = &params[at.norm.range()];
    normalize_backward(work, norm, h, &mut dn, &mut gradient[at.norm.range()]);
    add(dh, &dn);
}
