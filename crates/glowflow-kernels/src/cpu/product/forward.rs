//! The kernel of a product: an `MR × NR` tile of sums in registers, from `NR` adjacent columns of a packed
//! `B` and `MR` rows of `A` that are a panel width apart.

use super::{Finish, Out, Packed};
use crate::cpu::element::Element;
use crate::cpu::simd::{Sum, Vector};
use crate::real::Real;

/// Adds products of `len` groups of columns of `A` and rows of `B` to an `MR × W` block of vectors.
///
/// # Safety
/// The groups `a[i·row + p·step..]` and `W` vectors of factors at `b + p·2·LANES·GROUP` exist for every
/// `i < MR` and `p < len`.
#[inline(always)]
pub unsafe fn add_products<V: Vector, const MR: usize, const W: usize>(
    mut sums: [[V; W]; MR],
    len: usize,
    a: *const V::Element,
    (row, step): (usize, usize),
    b: *const V::Element,
) -> [[V; W]; MR] {
    let vector = V::LANES * V::Element::GROUP;
    for p in 0..len {
        // SAFETY: the caller's contract.
        unsafe {
            let b: [V::Factors; W] = std::array::from_fn(|j| V::factors(b.add((2 * p + j) * vector)));
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = V::splat(a.add(i * row + p * step));
                for (sum, &b) in sums.iter_mut().zip(&b) {
                    *sum = sum.add_products(a, b);
                }
            }
        }
    }
    sums
}

/// A block of vectors of sums as rows of `NR` numbers; if `W` is 1, the second half is 0.
#[inline(always)]
pub fn rows<V: Vector, const MR: usize, const W: usize, const NR: usize>(
    sums: [[V; W]; MR],
) -> [[Sum<V>; NR]; MR] {
    const { assert!(W * V::LANES <= NR) };
    let mut rows = [[Sum::<V>::of(0.0); NR]; MR];
    for (row, sums) in rows.iter_mut().zip(sums) {
        for (j, sums) in sums.into_iter().enumerate() {
            // SAFETY: there is room for `W` vectors.
            unsafe { sums.store(row.as_mut_ptr().add(j * V::LANES)) }
        }
    }
    rows
}

/// Computes rows `first..first + MR` of one panel of a product, of which the first `W` vectors are valid;
/// returns `MR`.
///
/// # Safety
/// As for [`forward`]; `first + MR <= height`.
#[inline(always)]
unsafe fn group<V: Vector, const MR: usize, const W: usize, const NR: usize>(
    (height, first, panel): (usize, usize, usize),
    a: &[V::Element],
    b: &Packed<V::Element>,
    to: &mut Out<'_, V::Element>,
) -> usize {
    let size = V::Element::GROUP;
    // SAFETY: `a` holds `k.div_ceil(NR)` panels of `height × NR`, and `b` more than `panel` panels of
    // `rows × NR`, with `NR` biases each. In `a` and `b` the last group is padded with zeros.
    let sums = unsafe {
        let bias = b.bias.as_ptr().add(panel * NR);
        let mut sums = [[V::zero(); W]; MR];
        for (j, bias) in (0..W).map(|j| (j, V::load(bias.add(j * V::LANES)))) {
            sums.iter_mut().for_each(|sums| sums[j] = bias);
        }
        for (block, at) in (0..b.k).step_by(NR).enumerate() {
            let len = NR.min(b.k - at).div_ceil(size);
            let a = a.as_ptr().add((block * height + first) * NR);
            let weights = b.panels.as_ptr().add((panel * b.rows + at) * NR);
            // Whole blocks take the branch with a compile-time length.
            sums = if len == NR / size {
                add_products::<V, MR, W>(sums, NR / size, a, (NR, size), weights)
            } else {
                add_products::<V, MR, W>(sums, len, a, (NR, size), weights)
            };
        }
        sums
    };
    match to {
        // SAFETY: `to` is as [`super::product`] checks.
        Out::Panels(c, finish) => unsafe {
            into_panels::<V, MR, W, NR>(c, *finish, ((panel * height + first) * NR, NR), sums);
        },
        Out::Rows(c) => {
            for (i, row) in rows::<V, MR, W, NR>(sums).iter().enumerate() {
                let c = &mut c[(first + i) * b.n..(first + i + 1) * b.n][panel * NR..];
                // Whole panels take the branch with a compile-time length.
                match c.first_chunk_mut::<NR>() {
                    Some(c) => *c = *row,
                    None => c.copy_from_slice(&row[..c.len()]),
                }
            }
        }
    }
    MR
}

/// Applies `finish` to rows and writes them to a panel, the first at element `at` and the others `row`
/// elements apart.
///
/// # Safety
/// The rows exist in `c` and in a mask.
#[inline(always)]
pub unsafe fn into_panels<V: Vector, const MR: usize, const W: usize, const NR: usize>(
    c: &mut [V::Element],
    finish: Finish<'_, V::Element>,
    (at, row): (usize, usize),
    sums: [[V; W]; MR],
) {
    debug_assert!(at + (MR - 1) * row + NR <= c.len());
    let c = c.as_mut_ptr();
    for (i, sums) in sums.into_iter().enumerate() {
        for (j, sum) in sums.into_iter().enumerate() {
            let at = at + i * row + j * V::LANES;
            // SAFETY: the caller's contract.
            unsafe {
                match finish {
                    Finish::Relu => sum.relu().narrow(c.add(at)),
                    Finish::Mask(mask) => sum.where_positive(mask.as_ptr().add(at)).narrow(c.add(at)),
                }
            }
        }
        for j in W..2 {
            // SAFETY: as above.
            unsafe { V::zero().narrow(c.add(at + i * row + j * V::LANES)) }
        }
    }
}

/// Number of rows in the next group, given the remaining number: `MR`, then 4, 2 and 1.
#[inline(always)]
pub const fn group_rows<const MR: usize>(left: usize) -> usize {
    match left {
        // Two groups of 4 are faster than one of 6 and one of 2, which has too few sums to keep the processor
        // busy.
        8 if MR == 6 => 4,
        left if left >= MR => MR,
        4.. => 4,
        2.. => 2,
        _ => 1,
    }
}

/// Computes all rows of one panel of a product.
///
/// # Safety
/// As for [`forward`].
#[inline(always)]
unsafe fn one_panel<V: Vector, const MR: usize, const W: usize, const NR: usize>(
    height: usize,
    panel: usize,
    a: &[V::Element],
    b: &Packed<V::Element>,
    to: &mut Out<'_, V::Element>,
) {
    let mut first = 0;
    while first < height {
        let at = (height, first, panel);
        // SAFETY: no group is larger than the remaining rows.
        first += unsafe {
            match group_rows::<MR>(height - first) {
                rows if rows == MR => group::<V, MR, W, NR>(at, a, b, to),
                4 => group::<V, 4, W, NR>(at, a, b, to),
                2 => group::<V, 2, W, NR>(at, a, b, to),
                _ => group::<V, 1, W, NR>(at, a, b, to),
            }
        };
    }
}

/// Computes the product of a tile: each panel of `b`, which stays in the nearest caches, with all rows of
/// `a`.
///
/// # Safety
/// The processor has `V`'s instruction set; `a`, `b` and `to` are as [`super::product`] checks.
#[inline(always)]
pub unsafe fn forward<V: Vector, const MR: usize, const NR: usize>(
    height: usize,
    a: &[V::Element],
    b: &Packed<V::Element>,
    to: &mut Out<'_, V::Element>,
) {
    const { assert!(NR == 2 * V::LANES) };
    for panel in 0..b.n.div_ceil(NR) {
        // SAFETY: the caller's contract.
        unsafe {
            if b.n - panel * NR > V::LANES {
                one_panel::<V, MR, 2, NR>(height, panel, a, b, to);
            } else {
                one_panel::<V, MR, 1, NR>(height, panel, a, b, to);
            }
        }
    }
}
