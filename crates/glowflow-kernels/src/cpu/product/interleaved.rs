//! The kernel of a weight gradient for matrices whose elements are multiplied in groups of two: pairs of
//! rows, which a sum over rows consumes together, are interleaved first. This is one pass over data that is
//! then read many times, the more often the more panels of `A` one task takes.

use super::forward::{add_products, rows};
use super::transposed::add;
use crate::cpu::element::Element;
use crate::cpu::panels::{SLAB, View};
use crate::cpu::simd::{Pairing, Sum, Vector};
use crate::real::Real;

/// Maximum number of panels of `A` per task.
pub const AT_ONCE: usize = 4;

/// Interleaved pairs of rows of a slab of one panel: element `j` of rows `2p` and `2p + 1` are adjacent.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct Pairs<E, const NR: usize>(pub [[[E; 2]; NR]; SLAB / 2]);

impl<E: Element, const NR: usize> Pairs<E, NR> {
    /// All zeros.
    pub fn zero() -> Self {
        Self([[[E::default(); 2]; NR]; SLAB / 2])
    }
}

/// Interleaves pairs of rows of one panel, for the rows from `slab` on. A row without a partner is paired
/// with zeros. Returns the number of pairs.
///
/// # Safety
/// The processor has `V`'s instruction set.
#[inline(always)]
pub unsafe fn interleave<V: Pairing, const NR: usize>(
    of: View<'_, V::Element>,
    panel: usize,
    slab: usize,
    Pairs(pairs): &mut Pairs<V::Element, NR>,
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
            // SAFETY: the caller's contract; both rows have `NR` elements, and the pairs have twice that
            // number.
            unsafe { V::interleave(first.as_ptr(), second.as_ptr(), pair.as_mut_ptr().cast()) }
        }
        done += len.div_ceil(2);
    }
    done
}

/// Column sums of a panel with interleaved pairs of rows, as products by ones.
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

/// The rows of a weight gradient for several panels of `a`, starting at `panel`. [`SLAB`] rows of `a` and `b`
/// are processed at a time.
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
    let mut pairs_of_a = vec![Pairs::<V::Element, NR>::zero(); column_sums.len().div_ceil(NR)];
    let mut pairs_of_b = Pairs::<V::Element, NR>::zero();
    for slab in (0..height).step_by(SLAB) {
        let mut len = 0;
        for (p, (pairs, sums)) in pairs_of_a.iter_mut().zip(column_sums.chunks_mut(NR)).enumerate() {
            // SAFETY: the caller's contract.
            let slab_sums = unsafe {
                len = interleave::<V, NR>(a, panel + p, slab, pairs);
                sums_of_columns::<V, NR>(&pairs.0[..len])
            };
            sums.iter_mut().zip(slab_sums).for_each(|(sum, x)| *sum += x);
        }
        for (b_panel, left) in (0..n).step_by(NR).map(|first| (first / NR, NR.min(n - first))) {
            // SAFETY: the caller's contract.
            unsafe { interleave::<V, NR>(b, b_panel, slab, &mut pairs_of_b) };
            for (pairs, c) in pairs_of_a.iter().zip(c.chunks_mut(NR * n)) {
                for (block, c) in c.chunks_mut(MR * n).enumerate() {
                    // SAFETY: both have `len` pairs of rows of `NR` elements, and `MR` divides `NR`.
                    unsafe {
                        let a = pairs.0.as_ptr().cast::<V::Element>().add(2 * block * MR);
                        let b = pairs_of_b.0.as_ptr().cast();
                        if left > V::LANES {
                            add::<V, MR, 2, NR>(group(len, a, b), c, n, (b_panel, left));
                        } else {
                            add::<V, MR, 1, NR>(group(len, a, b), c, n, (b_panel, left));
                        }
                    }
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
