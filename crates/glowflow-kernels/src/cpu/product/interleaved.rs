//! The kernel of a weight gradient, of matrices whose elements are multiplied in groups of two: pairs of rows, which a sum
//! over rows takes together, are interleaved first. That is one pass over what is then read many times.

use super::forward::{add_products, rows};
use crate::cpu::element::Element;
use crate::cpu::panels::{DEPTH, View};
use crate::cpu::simd::{Sum, Vector};
use crate::real::Real;

/// Rows that are summed in registers at once.
const SLAB: usize = 2 * DEPTH;

/// Interleaves pairs of rows of a panel: element `j` of rows `2p` and `2p + 1` side by side. A row without a partner gets
/// zeros for one. Returns the number of pairs.
#[inline(always)]
fn interleave<E: Element, const NR: usize>(rows: &[E], to: &mut [[[E; 2]; NR]]) -> usize {
    for (to, rows) in to.iter_mut().zip(rows.chunks(2 * NR)) {
        let (first, second) = rows.split_at(NR);
        if second.is_empty() {
            to.iter_mut().zip(first).for_each(|(to, &a)| *to = [a, E::default()]);
        } else {
            to.iter_mut().zip(first.iter().zip(second)).for_each(|(to, (&a, &b))| *to = [a, b]);
        }
    }
    rows.len().div_ceil(2 * NR)
}

/// The rows of a weight gradient that one panel of `a` makes, [`SLAB`] rows of `a` and `b` after the other.
///
/// # Safety
/// The processor has `V`'s instruction set; the matrices are as [`super::transposed_products`] checks.
#[inline(always)]
pub unsafe fn transposed<V: Vector, const MR: usize, const NR: usize>(
    a: View<'_, V::Element>,
    b: View<'_, V::Element>,
    panel: usize,
    c: &mut [Sum<V>],
    column_sums: &mut [Sum<V>],
) {
    const { assert!(NR.is_multiple_of(MR) && V::Element::GROUP == 2) };
    let n = b.cut.columns;
    let height = a.data.len() / a.cut.stride();
    let mut pairs_of_a = [[[V::Element::default(); 2]; NR]; SLAB / 2];
    let mut pairs_of_b = pairs_of_a;
    for slab in (0..height).step_by(SLAB) {
        // Each tile's part of a panel, over the slab.
        let parts = |of: View<'_, V::Element>, panel: usize, each: &mut dyn FnMut(&[V::Element])| {
            for first in (slab..height.min(slab + SLAB)).step_by(of.cut.tile) {
                let len = of.cut.tile.min(height - first);
                each(&of.data[first * of.cut.stride() + panel * len * NR..][..len * NR]);
            }
        };
        let mut len = 0;
        let mut slab_sums = [Sum::<V>::of(0.0); NR];
        parts(a, panel, &mut |rows| {
            len += interleave(rows, &mut pairs_of_a[len..]);
            for row in rows.chunks_exact(NR) {
                slab_sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += x.to_sum());
            }
        });
        column_sums.iter_mut().zip(slab_sums).for_each(|(sum, x)| *sum += x);
        for (b_panel, left) in (0..n).step_by(NR).map(|first| (first / NR, NR.min(n - first))) {
            let mut len = 0;
            parts(b, b_panel, &mut |rows| len += interleave(rows, &mut pairs_of_b[len..]));
            for first in (0..column_sums.len()).step_by(MR) {
                // SAFETY: there are `len` pairs of rows of `NR` elements of both, and `first + MR <= NR`, for `MR` divides `NR`.
                let done = unsafe {
                    let a = pairs_of_a.as_ptr().cast::<V::Element>().add(2 * first);
                    if left > V::LANES {
                        rows::<V, MR, 2, NR>(group(len, a, pairs_of_b.as_ptr().cast()))
                    } else {
                        rows::<V, MR, 1, NR>(group(len, a, pairs_of_b.as_ptr().cast()))
                    }
                };
                for (done, c) in done.iter().zip(c.chunks_exact_mut(n).skip(first)) {
                    let c = &mut c[b_panel * NR..][..left];
                    c.iter_mut().zip(done).for_each(|(c, &sum)| *c += sum);
                }
            }
        }
    }
}

/// Sums over `len` pairs of rows.
///
/// # Safety
/// As for [`add_products`].
#[inline(always)]
unsafe fn group<V: Vector, const MR: usize, const W: usize>(
    len: usize,
    a: *const V::Element,
    b: *const V::Element,
) -> [[V; W]; MR] {
    // SAFETY: the caller's contract.
    unsafe {
        let zero = [[V::zero(); W]; MR];
        add_products(zero, len, a, (2, 4 * V::LANES), b)
    }
}
