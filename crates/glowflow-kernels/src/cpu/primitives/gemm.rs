//! Matrix products `C = op(A)·op(B)` with the kernels of [`crate::cpu::product`].
//!
//! | operands | method |
//! | --- | --- |
//! | long sums into a small `C`, A stored transposed | [`add_up_rows`]: sums over slabs of rows, in order |
//! | all others | [`multiply_rows`]: tiles of rows of `op(A)` by `op(B)`, packed once |
//!
//! Parts depend only on the shape, so the bits do not depend on the number of threads.

use rayon::prelude::*;

use super::tiles::{Rows, Stored, Transposed, fill};
use crate::cpu::Scalar;
use crate::cpu::panels::{Cut, DEPTH, View};
use crate::cpu::product::{Gradient, Out, Packed, product, transposed_product};
use crate::cpu::{Buffer, Workspace};
use crate::primitives::Gemm;

/// Terms of a sum multiplied per packing of B: more would not fit the caches.
const TERMS_AT_ONCE: usize = 2048;

/// Minimum number of terms at which a small `C` is summed in parts.
const LONG: usize = 2048;

/// Maximum number of elements of a small `C`.
const SMALL: usize = 1 << 19;

/// Minimum number of rows per part.
const PART_ROWS: usize = 1024;

/// Maximum number of elements in all parts of a `C`.
const PARTS_SIZE: usize = 1 << 24;

/// Destination of a product: `C` `[m, n]` from the first element of `data` on, rows `stride` apart.
pub struct Target<'a, T> {
    pub data: &'a mut [T],
    pub stride: usize,
    pub accumulate: bool,
}

/// Computes the product.
pub fn gemm<T: Scalar>(
    work: &Workspace<T>,
    gemm: Gemm,
    a: Stored<'_, T>,
    b: Stored<'_, T>,
    target: Target<'_, T>,
) {
    let Gemm { m, n, k, a_transposed, b_transposed, .. } = gemm;
    if m == 0 || n == 0 {
        return;
    }
    let target = Target { data: &mut target.data[..(m - 1) * target.stride + n], ..target };
    if k == 0 {
        if !target.accumulate {
            target.data.chunks_mut(target.stride.max(1)).for_each(|row| row[..n].fill(T::zero()));
        }
        return;
    }
    if a_transposed && !b_transposed && k >= LONG && m * n <= SMALL {
        return add_up_rows(work, k, (&a, m), (&b, n), target);
    }
    let Target { data, stride, mut accumulate } = target;
    for first in (0..k).step_by(TERMS_AT_ONCE) {
        let len = TERMS_AT_ONCE.min(k - first);
        let packed = if b_transposed {
            Packed::of_columns(work, len, n, 1, |j| (&b.data[j * b.stride + first..][..len], T::one()))
        } else {
            Packed::of_rows(work, len, n, |i, j, to| {
                to.copy_from_slice(&b.data[(first + i) * b.stride + j..][..to.len()]);
            })
        };
        let target = Target { data: &mut *data, stride, accumulate };
        if a_transposed {
            let rows = Transposed(Stored { data: &a.data[first * a.stride..], ..a });
            multiply_rows(work, m, (&rows, len), &packed, n, target);
        } else {
            multiply_rows(work, m, (&Stored { data: &a.data[first..], ..a }, len), &packed, n, target);
        }
        accumulate = true;
    }
}

/// `C = A·B` for `A` `[m, k]` and a packed `B` `[k, n]`; tiles of rows are distributed over threads.
pub fn multiply_rows<T: Scalar>(
    work: &Workspace<T>,
    m: usize,
    (a, k): (&impl Rows<T>, usize),
    b: &Packed<T>,
    n: usize,
    Target { data, stride, accumulate }: Target<'_, T>,
) {
    let cut = Cut::of(work, m, k);
    data.par_chunks_mut(cut.tile * stride).enumerate().for_each(|(t, c)| {
        let rows = c.len().div_ceil(stride);
        let mut tile = work.take(rows * cut.stride());
        fill(work, a, t * cut.tile, rows, cut, &mut tile);
        if stride == n && !accumulate {
            return product(&tile, b, Out::Rows(c));
        }
        let mut products = work.take(rows * n);
        product(&tile, b, Out::Rows(&mut products));
        for (c, products) in c.chunks_mut(stride).zip(products.chunks_exact(n)) {
            write(&mut c[..n], products, accumulate);
        }
    });
}

/// Writes or accumulates a row.
fn write<T: Scalar>(to: &mut [T], from: &[T], accumulate: bool) {
    if accumulate {
        to.iter_mut().zip(from).for_each(|(to, &from)| *to += from);
    } else {
        to.copy_from_slice(from);
    }
}

/// `C = Aᵀ·B` for `A` `[rows, m]` and `B` `[rows, n]`; parts of the rows are distributed over threads.
pub fn add_up_rows<T: Scalar>(
    work: &Workspace<T>,
    rows: usize,
    (a, m): (&impl Rows<T>, usize),
    (b, n): (&impl Rows<T>, usize),
    Target { data, stride, accumulate }: Target<'_, T>,
) {
    if rows == 0 {
        if !accumulate {
            data.chunks_mut(stride).for_each(|row| row[..n].fill(T::zero()));
        }
        return;
    }
    let parts = (rows / PART_ROWS).clamp(1, (PARTS_SIZE / (m * n)).max(1));
    let part_rows = rows.div_ceil(parts).next_multiple_of(DEPTH);
    let sums: Vec<Buffer<T>> = (0..rows)
        .into_par_iter()
        .step_by(part_rows)
        .map(|first| {
            let mut c = work.take(m * n);
            c.fill(T::zero());
            let mut column_sums = vec![T::zero(); m];
            // The kernel sums this number of rows at a time.
            let cut = |columns| Cut { tile: DEPTH, ..Cut::of(work, rows, columns) };
            let (a_cut, b_cut) = (cut(m), cut(n));
            let (mut a_tile, mut b_tile) =
                (work.take(DEPTH * a_cut.stride()), work.take(DEPTH * b_cut.stride()));
            let end = rows.min(first + part_rows);
            for slab in (first..end).step_by(DEPTH) {
                let rows = DEPTH.min(end - slab);
                let a_tile = &mut a_tile[..rows * a_cut.stride()];
                let b_tile = &mut b_tile[..rows * b_cut.stride()];
                fill(work, a, slab, rows, a_cut, a_tile);
                fill(work, b, slab, rows, b_cut, b_tile);
                let (a, b) = (View { cut: a_cut, data: a_tile }, View { cut: b_cut, data: b_tile });
                transposed_product(work, Gradient { a, b, c: &mut c, sums: &mut column_sums });
            }
            c
        })
        .collect();
    data.par_chunks_mut(stride).with_min_len(8).enumerate().for_each(|(i, to)| {
        for (part, sums) in sums.iter().enumerate() {
            write(&mut to[..n], &sums[i * n..(i + 1) * n], accumulate || part > 0);
        }
    });
}
