//! The kernel of a weight gradient, of matrices whose elements are multiplied in groups of two: pairs of rows, which a sum
//! over rows takes together, are interleaved first. That is one pass over what is then read many times.

use super::forward::{add_products, rows};
use crate::cpu::element::Element;
use crate::cpu::panels::{SLAB, View};
use crate::cpu::simd::{Pairing, Sum, Vector};
use crate::real::Real;

/// Interleaves pairs of rows of one panel, for the rows from `slab` on: element `j` of rows `2p` and `2p + 1` side by side. A
/// row without a partner gets zeros for one. Returns the number of pairs.
///
/// # Safety
/// The processor has `V`'s instruction set.
#[inline(always)]
pub unsafe fn interleave<V: Pairing, const NR: usize>(
    of: View<'_, V::Element>,
    panel: usize,
    slab: usize,
    pairs: &mut [[[V::Element; 2]; NR]; SLAB / 2],
) -> usize {
    const { assert!(NR == 2 * V::LANES) };
    let height = of.data.len() / of.cut.stride();
    let mut done = 0;
    for first in (slab..height.min(slab + SLAB)).step_by(of.cut.tile) {
        let len = of.cut.tile.min(height - first);
        let rows = &of.data[first * of.cut.stride() + panel * len * NR..][..len * NR];
        for (pair, rows) in pairs[done..].iter_mut().zip(rows.chunks(2 * NR)) {
            let (first, second) = rows.split_at(NR);
            let second = if second.is_empty() { &[V::Element::default(); NR][..] } else { second };
            // SAFETY: the caller's contract; both rows have `NR` elements, and the pairs twice as many.
            unsafe { V::interleave(first.as_ptr(), second.as_ptr(), pair.as_mut_ptr().cast()) }
        }
        done += len.div_ceil(2);
    }
    done
}

/// The sums of a panel's columns, of which pairs of rows are interleaved: products by ones.
///
/// # Safety
/// The processor has `V`'s instruction set.
#[inline(always)]
pub unsafe fn sums_of_columns<V: Pairing, const NR: usize>(pairs: &[[[V::Element; 2]; NR]]) -> [Sum<V>; NR] {
    // SAFETY: the caller's contract; there are `NR` pairs in a row, and two ones.
    unsafe {
        let one = V::Element::of_sum(Sum::<V>::of(1.0));
        let ones = V::splat([one; 2].as_ptr());
        let mut sums = [[V::zero(); 2]; 1];
        for pairs in pairs {
            for (j, sum) in sums[0].iter_mut().enumerate() {
                let factors = V::factors(pairs.as_ptr().cast::<V::Element>().add(2 * j * V::LANES));
                *sum = sum.add_products(factors, ones);
            }
        }
        let [sums] = rows::<V, 1, 2, NR>(sums);
        sums
    }
}

/// The rows of a weight gradient that one panel of `a` makes, [`SLAB`] rows of `a` and `b` after the other.
///
/// # Safety
/// The processor has `V`'s instruction set; the matrices are as [`super::transposed_products`] checks.
#[inline(always)]
pub unsafe fn transposed<V: Pairing, const MR: usize, const NR: usize>(
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
        // SAFETY: the caller's contract.
        let len = unsafe { interleave::<V, NR>(a, panel, slab, &mut pairs_of_a) };
        // SAFETY: the caller's contract.
        let slab_sums = unsafe { sums_of_columns::<V, NR>(&pairs_of_a[..len]) };
        column_sums.iter_mut().zip(slab_sums).for_each(|(sum, x)| *sum += x);
        for (b_panel, left) in (0..n).step_by(NR).map(|first| (first / NR, NR.min(n - first))) {
            // SAFETY: the caller's contract.
            unsafe { interleave::<V, NR>(b, b_panel, slab, &mut pairs_of_b) };
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
