//! The kernel of a weight gradient for matrices whose elements are multiplied one by one: `MR` columns of
//! `A`, read down a panel, by `NR` columns of `B`, read along one.

use super::forward::{add_products, group_rows, rows};
use crate::cpu::element::Element;
use crate::cpu::panels::{DEPTH, View};
use crate::cpu::simd::{Sum, Vector};
use crate::real::Real;

/// Number of panels of `A` per task.
pub const AT_ONCE: usize = 1;

/// The rows of a weight gradient for one panel of `a`. [`DEPTH`] rows of `a` and `b` are processed at a time.
///
/// # Safety
/// The processor has `V`'s instruction set; the matrices are as [`transposed_products`] checks.
#[inline(always)]
pub unsafe fn transposed<V: Vector, const MR: usize, const NR: usize>(
    a: View<'_, V::Element>,
    b: View<'_, V::Element>,
    panel: usize,
    c: &mut [Sum<V>],
    column_sums: &mut [Sum<V>],
) {
    const { assert!(V::Element::GROUP == 1) };
    let n = b.cut.columns;
    let height = a.data.len() / a.cut.stride();
    for slab in (0..height).step_by(DEPTH) {
        // The tiles of the slab: start of each panel `p`, and number of rows.
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
            let mut first = 0;
            while first < column_sums.len() {
                let columns = group_rows::<MR>(NR - first);
                // SAFETY: `first + columns <= NR`.
                unsafe {
                    let c = &mut c[first * n..];
                    match columns {
                        columns if columns == MR => {
                            add_group::<V, MR, NR>(blocks(first), c, n, (b_panel, left))
                        }
                        4 => add_group::<V, 4, NR>(blocks(first), c, n, (b_panel, left)),
                        2 => add_group::<V, 2, NR>(blocks(first), c, n, (b_panel, left)),
                        _ => add_group::<V, 1, NR>(blocks(first), c, n, (b_panel, left)),
                    }
                }
                first += columns;
            }
        }
    }
}

/// Adds a block of sums to rows of `n` numbers; only the panel's first `left` columns are valid.
///
/// # Safety
/// The processor has `V`'s instruction set.
#[inline(always)]
pub unsafe fn add<V: Vector, const MR: usize, const W: usize, const NR: usize>(
    sums: [[V; W]; MR],
    c: &mut [Sum<V>],
    n: usize,
    (panel, left): (usize, usize),
) {
    if left == W * V::LANES && c.len() >= MR * n {
        for (i, sums) in sums.into_iter().enumerate() {
            for (j, sums) in sums.into_iter().enumerate() {
                // SAFETY: the caller's contract; the whole block is inside `c`.
                unsafe {
                    let c = c.as_mut_ptr().add(i * n + panel * NR + j * V::LANES);
                    V::load(c).plus(sums).store(c);
                }
            }
        }
        return;
    }
    for (sums, c) in rows::<V, MR, W, NR>(sums).iter().zip(c.chunks_exact_mut(n)) {
        let c = &mut c[panel * NR..][..left];
        c.iter_mut().zip(sums).for_each(|(c, &sum)| *c += sum);
    }
}

/// [`add`] of [`group`], only as wide as necessary.
///
/// # Safety
/// As for [`group`].
#[inline(always)]
unsafe fn add_group<V: Vector, const MR: usize, const NR: usize>(
    blocks: impl Iterator<Item = (usize, *const V::Element, *const V::Element)>,
    c: &mut [Sum<V>],
    n: usize,
    (panel, left): (usize, usize),
) {
    // SAFETY: the caller's contract.
    unsafe {
        if left > V::LANES {
            add::<V, MR, 2, NR>(group(blocks), c, n, (panel, left));
        } else {
            add::<V, MR, 1, NR>(group(blocks), c, n, (panel, left));
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
