//! The kernel of a weight gradient, of matrices whose elements are multiplied one by one: `MR` columns of `A`, read down a
//! panel, by `NR` columns of `B`, read along one.

use super::forward::{add_products, rows};
use crate::cpu::element::Element;
use crate::cpu::panels::{DEPTH, View};
use crate::cpu::simd::{Sum, Vector};
use crate::real::Real;

/// The rows of a weight gradient that one panel of `a` makes, [`DEPTH`] rows of `a` and `b` after the other.
///
/// # Safety
/// The processor has `V`'s instruction set; the matrices are as [`transposed_products`] checks; `MR` divides `NR`.
#[inline(always)]
pub unsafe fn transposed<V: Vector, const MR: usize, const NR: usize>(
    a: View<'_, V::Element>,
    b: View<'_, V::Element>,
    panel: usize,
    c: &mut [Sum<V>],
    column_sums: &mut [Sum<V>],
) {
    const { assert!(NR.is_multiple_of(MR) && V::Element::GROUP == 1) };
    let n = b.cut.columns;
    let height = a.data.len() / a.cut.stride();
    for slab in (0..height).step_by(DEPTH) {
        // The tiles of the slab: where each panel `p` begins, and how many rows it has.
        let tiles = || {
            (slab..height.min(slab + DEPTH))
                .step_by(a.cut.tile)
                .map(|first| (first, a.cut.tile.min(height - first)))
        };
        let start = |of: View<'_, V::Element>, (first, len): (usize, usize), panel: usize| {
            first * of.cut.stride() + panel * len * NR
        };
        let mut slab_sums = [Sum::<V>::of(0.0); NR];
        for tile in tiles() {
            for row in a.data[start(a, tile, panel)..][..tile.1 * NR].chunks_exact(NR) {
                slab_sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += x.to_sum());
            }
        }
        column_sums.iter_mut().zip(slab_sums).for_each(|(sum, x)| *sum += x);
        for (b_panel, left) in (0..n).step_by(NR).map(|first| (first / NR, NR.min(n - first))) {
            let blocks = |first| {
                tiles().map(move |tile| {
                    // SAFETY: every panel of a tile has `tile.1 × NR` elements, and `first < NR`.
                    let a = unsafe { a.data.as_ptr().add(start(a, tile, panel) + first) };
                    // SAFETY: as above.
                    let b = unsafe { b.data.as_ptr().add(start(b, tile, b_panel)) };
                    (tile.1, a, b)
                })
            };
            for first in (0..column_sums.len()).step_by(MR) {
                // SAFETY: `first + MR <= NR`, for `MR` divides `NR`.
                let done = unsafe {
                    if left > V::LANES {
                        rows::<V, MR, 2, NR>(group(blocks(first)))
                    } else {
                        rows::<V, MR, 1, NR>(group(blocks(first)))
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

/// Sums of products of `MR` columns of `A` and `W` vectors of columns of `B`, over blocks of rows.
///
/// # Safety
/// As for [`add_products`], with `row` 1 and `step` the width of a panel.
#[inline(always)]
unsafe fn group<V: Vector, const MR: usize, const W: usize>(
    blocks: impl Iterator<Item = (usize, *const V::Element, *const V::Element)>,
) -> [[V; W]; MR] {
    // SAFETY: the caller's contract.
    unsafe {
        let mut sums = [[V::zero(); W]; MR];
        for (len, a, b) in blocks {
            sums = add_products(sums, len, a, (1, 2 * V::LANES), b);
        }
        sums
    }
}
