//! Matrix products: activations by packed weights with a fused epilogue, and gradients of weights.
//!
//! [`product`] computes `C = finish(A·B + bias)` for a tile of `A` `[rows, k]` in panels (see
//! [`super::panels`]) and `B` `[k, n]` [`Packed`] beforehand. [`transposed_products`] computes `C += Aᵀ·B` for `A`
//! `[rows, m]` and `B` `[rows, n]`, both in panels. Both are one kernel: an `MR × NR` tile of sums in registers,
//! `NR` numbers of `B` that lie side by side, and `MR` numbers of `A` that lie a fixed distance apart:
//! the width of a panel for rows, 1 for columns.
//!
//! Every element of `C` is summed in the order of `k`, whatever tile it falls into: an image gets the same
//! bits in any batch, and with any number of threads.

#![allow(unsafe_code)]

use rayon::prelude::*;

use super::panels::{DEPTH, View};
use super::simd::{F32x8, F32x16, F64x4, F64x8, Isa, Plain, Vector};
use super::{Buffer, Cpu};
use crate::real::Real;

/// A matrix `B` `[k, n]` and a bias `[n]`, in the panels of one instruction set.
pub struct Packed<T> {
    isa: Isa,
    k: usize,
    n: usize,
    /// `[n.div_ceil(NR), k, NR]`, the last panel filled up with zeros.
    panels: Buffer<T>,
    /// `[n.div_ceil(NR) * NR]`, filled up with zeros.
    bias: Vec<T>,
}

impl<T: Real> Packed<T> {
    /// Packs a matrix column by column: column `j` holds every `step`-th number of the slice, times a factor,
    /// that `column(j)` returns.
    pub fn of_columns<'a>(
        cpu: &Cpu<T>,
        k: usize,
        n: usize,
        step: usize,
        column: impl Fn(usize) -> (&'a [T], T) + Sync,
    ) -> Self {
        /// Rows that are read from all columns of a panel before the next ones: a cache line.
        const ROWS: usize = 16;
        Self::by_panel(cpu, k, n, |first, panel, nr| {
            let columns: Vec<_> = (first..n.min(first + nr)).map(&column).collect();
            if columns.len() < nr {
                panel.fill(T::zero());
            }
            for (block, panel) in panel.chunks_mut(ROWS * nr).enumerate() {
                for (j, (from, factor)) in columns.iter().enumerate() {
                    let from = from[block * ROWS * step..].iter().step_by(step);
                    for (to, &x) in panel[j..].iter_mut().step_by(nr).zip(from) {
                        *to = x * *factor;
                    }
                }
            }
        })
    }

    /// Packs a matrix row by row: `row(i, j, part)` fills `part` with row `i` from column `j` on.
    pub fn of_rows(cpu: &Cpu<T>, k: usize, n: usize, row: impl Fn(usize, usize, &mut [T]) + Sync) -> Self {
        Self::by_panel(cpu, k, n, |first, panel, nr| {
            let columns = nr.min(n - first);
            for (i, part) in panel.chunks_exact_mut(nr).enumerate() {
                row(i, first, &mut part[..columns]);
                part[columns..].fill(T::zero());
            }
        })
    }

    /// Has each panel filled: `fill` gets its first column, its elements, and how many columns it has.
    fn by_panel(cpu: &Cpu<T>, k: usize, n: usize, fill: impl Fn(usize, &mut [T], usize) + Sync) -> Self {
        let isa = cpu.isa;
        let nr = T::kernels(isa).panel;
        let mut panels = cpu.take(n.next_multiple_of(nr) * k);
        panels.par_chunks_mut((k * nr).max(1)).enumerate().for_each(|(p, panel)| fill(p * nr, panel, nr));
        Self { isa, k, n, panels, bias: vec![T::zero(); n.next_multiple_of(nr)] }
    }

    /// Sets the bias, `n` numbers.
    pub fn with_bias(mut self, bias: impl Iterator<Item = T>) -> Self {
        self.bias.iter_mut().take(self.n).zip(bias).for_each(|(to, from)| *to = from);
        self
    }
}

/// Where a product goes.
pub enum Out<'a, T> {
    /// A tile in panels, of as many rows as `A` has.
    Panels(&'a mut [T]),
    /// Row-major, `[rows, n]`.
    Rows(&'a mut [T]),
}

/// What becomes of a tile of `A·B + bias` on its way to memory.
#[derive(Clone, Copy, Debug)]
pub enum Finish<'a, T> {
    /// It is stored.
    Store,
    /// Its negative elements become 0.
    Relu,
    /// It is kept where this matrix, laid out as `C` is, is positive, and 0 elsewhere: the gradient of a
    /// ReLU by its input, given its output.
    Mask(&'a [T]),
}

/// `c = finish(a·b + bias)` for a tile `a` of a matrix in panels, on the calling thread.
///
/// # Panics
/// Where the lengths do not go with the matrix's dimensions.
pub fn product<T: Real>(a: &[T], b: &Packed<T>, c: Out<'_, T>, finish: Finish<'_, T>) {
    let KernelSet { panel: width, forward, .. } = T::kernels(b.isa);
    let rows = a.len() / b.k.next_multiple_of(width);
    let mut to = match c {
        Out::Panels(c) => {
            assert_eq!(c.len(), rows * b.n.next_multiple_of(width));
            Target { c, row: width, panel: rows * width, padded: true }
        }
        Out::Rows(c) => {
            assert_eq!(c.len(), rows * b.n);
            Target { c, row: b.n, panel: width, padded: false }
        }
    };
    assert_eq!(a.len(), rows * b.k.next_multiple_of(width));
    if let Finish::Mask(mask) = finish {
        assert_eq!(mask.len(), to.c.len());
    }
    // SAFETY: the processor has `b.isa`, which `Packed` took from a device, and it from `Isa::available`;
    // the lengths were checked above, and `Packed` lays panels out as the kernel reads them.
    unsafe { forward(rows, a, b, &mut to, finish) }
}

/// `c = a·b + bias`, row-major, for a whole matrix in panels; tiles are divided among threads.
///
/// # Panics
/// As [`product`].
pub fn product_into_rows<T: Real>(a: View<'_, T>, b: &Packed<T>, c: &mut [T]) {
    assert_eq!(c.len(), a.data.len() / a.cut.stride() * b.n);
    a.tiles()
        .zip(c.par_chunks_mut(a.cut.tile * b.n))
        .for_each(|(a, c)| product(a, b, Out::Rows(c), Finish::Store));
}

/// `C` as the kernel writes it: element `(i, j)` of panel `p` is `c[p·panel + i·row + j]`.
#[doc(hidden)]
pub struct Target<'a, T> {
    c: &'a mut [T],
    row: usize,
    panel: usize,
    /// Whether there is room for the columns that fill up the last panel.
    padded: bool,
}

/// One gradient of a weight: `c += aᵀ·b`, and `sums +=` the column sums of `a`.
pub struct Gradient<'a, T> {
    /// `[rows, m]`
    pub a: View<'a, T>,
    /// `[rows, n]`
    pub b: View<'a, T>,
    /// Row-major, `[m, n]`.
    pub c: &'a mut [T],
    /// `[m]`
    pub sums: &'a mut [T],
}

/// Several gradients of weights, divided among threads by panels of their `a`.
///
/// # Panics
/// Where the matrices' dimensions do not fit together.
pub fn transposed_products<T: Real>(cpu: &Cpu<T>, gradients: Vec<Gradient<'_, T>>) {
    let KernelSet { panel: width, transposed: kernel, .. } = T::kernels(cpu.isa);
    let mut tasks = vec![];
    for Gradient { a, b, c, sums } in gradients {
        let (m, n) = (a.cut.columns, b.cut.columns);
        assert_eq!((a.cut.tile, a.cut.width, b.cut.width), (b.cut.tile, width, width));
        assert_eq!(a.data.len() / a.cut.stride(), b.data.len() / b.cut.stride());
        assert_eq!((c.len(), sums.len()), (m * n, m));
        let parts = c.chunks_mut(width * n).zip(sums.chunks_mut(width)).enumerate();
        tasks.extend(parts.map(|(panel, (c, sums))| (a, b, panel, c, sums)));
    }
    tasks.into_par_iter().for_each(|(a, b, panel, c, sums)| {
        // SAFETY: the processor has the device's instruction set; the dimensions were checked above.
        unsafe { kernel(a, b, panel, c, sums) }
    });
}

/// [`product`] without its checks.
type Forward<T> = unsafe fn(usize, &[T], &Packed<T>, &mut Target<'_, T>, Finish<'_, T>);

/// One task of [`transposed_products`], without its checks: the rows of `c` that panel `panel` of `a` makes.
type Transposed<T> = unsafe fn(View<'_, T>, View<'_, T>, usize, &mut [T], &mut [T]);

/// The kernels of one instruction set.
#[doc(hidden)]
pub struct KernelSet<T> {
    /// Columns in a panel.
    pub(super) panel: usize,
    forward: Forward<T>,
    transposed: Transposed<T>,
}

/// Scalars that there are kernels for.
pub trait Kernels: Sized {
    #[doc(hidden)]
    fn kernels(isa: Isa) -> KernelSet<Self>;
}

/// Adds `len` products of a column of `A` and a row of `B` to an `MR × W` block of vectors.
///
/// # Safety
/// `a[i·row + p·step]` and `W` vectors at `b + p·2·LANES` are there for every `i < MR` and `p < len`.
#[inline(always)]
unsafe fn add_products<V: Vector, const MR: usize, const W: usize>(
    mut sums: [[V; W]; MR],
    len: usize,
    a: *const V::Scalar,
    (row, step): (usize, usize),
    b: *const V::Scalar,
) -> [[V; W]; MR] {
    for p in 0..len {
        // SAFETY: the caller's contract.
        unsafe {
            let b: [V; W] = load(b.add(p * 2 * V::LANES));
            for (i, sums) in sums.iter_mut().enumerate() {
                let x = V::splat(*a.add(i * row + p * step));
                for (sum, &b) in sums.iter_mut().zip(&b) {
                    *sum = x.mul_add(b, *sum);
                }
            }
        }
    }
    sums
}

/// `W` vectors side by side.
///
/// # Safety
/// So many are there.
#[inline(always)]
unsafe fn load<V: Vector, const W: usize>(from: *const V::Scalar) -> [V; W] {
    // SAFETY: the caller's contract.
    std::array::from_fn(|j| unsafe { V::load(from.add(j * V::LANES)) })
}

/// A block of vectors as rows of a panel, whose second half is 0 where the block is one vector wide.
#[inline(always)]
fn rows<V: Vector<Scalar: Real>, const MR: usize, const W: usize, const NR: usize>(
    sums: [[V; W]; MR],
) -> [[V::Scalar; NR]; MR] {
    const { assert!(W * V::LANES <= NR) };
    let mut rows = [[V::Scalar::of(0.0); NR]; MR];
    for (row, sums) in rows.iter_mut().zip(sums) {
        for (j, sums) in sums.into_iter().enumerate() {
            // SAFETY: a row has room for `W` vectors.
            unsafe { sums.store(row.as_mut_ptr().add(j * V::LANES)) }
        }
    }
    rows
}

/// Rows `first..first + MR` of one panel of a product, of which the first `W` vectors count; returns `MR`.
///
/// # Safety
/// As for [`forward`]; `first + MR <= rows`.
#[inline(always)]
unsafe fn forward_group<V: Vector<Scalar: Real>, const MR: usize, const W: usize, const NR: usize>(
    (height, first, panel): (usize, usize, usize),
    a: &[V::Scalar],
    b: &Packed<V::Scalar>,
    to: &mut Target<'_, V::Scalar>,
    finish: Finish<'_, V::Scalar>,
) -> usize {
    // SAFETY: `a` holds `k.div_ceil(NR)` panels of `height × NR`, and `b` more than `panel` of `k × NR`, with as many
    // groups of `NR` biases.
    let sums = unsafe {
        let mut sums = [load::<V, W>(b.bias.as_ptr().add(panel * NR)); MR];
        for (block, at) in (0..b.k).step_by(NR).enumerate() {
            let len = NR.min(b.k - at);
            let a = a.as_ptr().add((block * height + first) * NR);
            let weights = b.panels.as_ptr().add((panel * b.k + at) * NR);
            // Whole blocks take the branch whose length the compiler knows.
            sums = if len == NR {
                add_products(sums, NR, a, (NR, 1), weights)
            } else {
                add_products(sums, len, a, (NR, 1), weights)
            };
        }
        sums
    };
    let columns = if to.padded { NR } else { NR.min(b.n - panel * NR) };
    for (i, done) in rows::<V, MR, W, NR>(sums).iter().enumerate() {
        let at = panel * to.panel + (first + i) * to.row;
        // As above.
        if columns == NR {
            store(&mut to.c[at..at + NR], done, finish, at);
        } else {
            store(&mut to.c[at..at + columns], &done[..columns], finish, at);
        }
    }
    MR
}

/// One panel of a product: all rows in groups of `MR`, then 4, 2 and 1.
///
/// # Safety
/// As for [`forward`].
#[inline(always)]
unsafe fn forward_panel<V: Vector<Scalar: Real>, const MR: usize, const W: usize, const NR: usize>(
    height: usize,
    panel: usize,
    a: &[V::Scalar],
    b: &Packed<V::Scalar>,
    to: &mut Target<'_, V::Scalar>,
    finish: Finish<'_, V::Scalar>,
) {
    let mut first = 0;
    while first < height {
        let at = (height, first, panel);
        // SAFETY: no group is larger than the rows left.
        first += unsafe {
            match height - first {
                left if left >= MR => forward_group::<V, MR, W, NR>(at, a, b, to, finish),
                4.. => forward_group::<V, 4, W, NR>(at, a, b, to, finish),
                2.. => forward_group::<V, 2, W, NR>(at, a, b, to, finish),
                _ => forward_group::<V, 1, W, NR>(at, a, b, to, finish),
            }
        };
    }
}

/// Writes one row of a block, which begins at element `at` of `C`.
#[inline(always)]
fn store<T: Real>(c: &mut [T], sums: &[T], finish: Finish<'_, T>, at: usize) {
    let zero = T::zero();
    match finish {
        Finish::Store => c.copy_from_slice(sums),
        // Written so that NaN stays NaN.
        Finish::Relu => c.iter_mut().zip(sums).for_each(|(c, &s)| *c = if s < zero { zero } else { s }),
        Finish::Mask(mask) => {
            let mask = &mask[at..at + c.len()];
            c.iter_mut().zip(sums).zip(mask).for_each(|((c, &s), &m)| *c = if m > zero { s } else { zero });
        }
    }
}

/// The product of a tile: each panel of `b`, which stays in the nearest caches, with all rows of `a`.
///
/// # Safety
/// The processor has `V`'s instruction set; `a`, `b` and `to` are as [`product`] checks.
#[inline(always)]
unsafe fn forward<V: Vector<Scalar: Real>, const MR: usize, const NR: usize>(
    height: usize,
    a: &[V::Scalar],
    b: &Packed<V::Scalar>,
    to: &mut Target<'_, V::Scalar>,
    finish: Finish<'_, V::Scalar>,
) {
    for panel in 0..b.n.div_ceil(NR) {
        // SAFETY: the caller's contract.
        unsafe {
            if b.n - panel * NR > V::LANES {
                forward_panel::<V, MR, 2, NR>(height, panel, a, b, to, finish);
            } else {
                forward_panel::<V, MR, 1, NR>(height, panel, a, b, to, finish);
            }
        }
    }
}

/// The rows of a weight gradient that one panel of `a` makes, [`DEPTH`] rows of `a` and `b` after the other.
///
/// # Safety
/// The processor has `V`'s instruction set; the matrices are as [`transposed_products`] checks; `MR` divides `NR`.
#[inline(always)]
unsafe fn transposed<V: Vector<Scalar: Real>, const MR: usize, const NR: usize>(
    a: View<'_, V::Scalar>,
    b: View<'_, V::Scalar>,
    panel: usize,
    c: &mut [V::Scalar],
    column_sums: &mut [V::Scalar],
) {
    const { assert!(NR.is_multiple_of(MR)) };
    let n = b.cut.columns;
    let height = a.data.len() / a.cut.stride();
    for slab in (0..height).step_by(DEPTH) {
        // The tiles of the slab: where each panel `p` begins, and how many rows it has.
        let tiles = || {
            (slab..height.min(slab + DEPTH))
                .step_by(a.cut.tile)
                .map(|first| (first, a.cut.tile.min(height - first)))
        };
        let start = |of: View<'_, V::Scalar>, (first, len): (usize, usize), panel: usize| {
            first * of.cut.stride() + panel * len * NR
        };
        let mut slab_sums = [V::Scalar::of(0.0); NR];
        for tile in tiles() {
            for row in a.data[start(a, tile, panel)..][..tile.1 * NR].chunks_exact(NR) {
                slab_sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += x);
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
                        rows::<V, MR, 2, NR>(transposed_group(blocks(first)))
                    } else {
                        rows::<V, MR, 1, NR>(transposed_group(blocks(first)))
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
unsafe fn transposed_group<V: Vector<Scalar: Real>, const MR: usize, const W: usize>(
    blocks: impl Iterator<Item = (usize, *const V::Scalar, *const V::Scalar)>,
) -> [[V; W]; MR] {
    // SAFETY: the caller's contract.
    unsafe {
        let mut sums = [[V::splat(V::Scalar::of(0.0)); W]; MR];
        for (len, a, b) in blocks {
            sums = add_products(sums, len, a, (1, 2 * V::LANES), b);
        }
        sums
    }
}

/// Instantiates the kernels for a vector: rows of a block of a product, and of a weight gradient, where they divide a panel.
macro_rules! instantiate {
    ($module:ident, $vector:ty, $rows:literal, $gradient_rows:literal, $features:literal) => {
        mod $module {
            use super::*;
            type Scalar = <$vector as Vector>::Scalar;
            /// Columns of a panel: two vectors' worth.
            const PANEL: usize = 2 * <$vector as Vector>::LANES;

            #[cfg_attr(target_arch = "x86_64", target_feature(enable = $features))]
            unsafe fn forward(
                rows: usize,
                a: &[Scalar],
                b: &Packed<Scalar>,
                to: &mut Target<'_, Scalar>,
                finish: Finish<'_, Scalar>,
            ) {
                // SAFETY: the caller keeps the same contract.
                unsafe { super::forward::<$vector, $rows, PANEL>(rows, a, b, to, finish) }
            }

            #[cfg_attr(target_arch = "x86_64", target_feature(enable = $features))]
            unsafe fn transposed(
                a: View<'_, Scalar>,
                b: View<'_, Scalar>,
                panel: usize,
                c: &mut [Scalar],
                sums: &mut [Scalar],
            ) {
                // SAFETY: the caller keeps the same contract.
                unsafe { super::transposed::<$vector, $gradient_rows, PANEL>(a, b, panel, c, sums) }
            }

            pub const SET: KernelSet<Scalar> = KernelSet { panel: PANEL, forward, transposed };
        }
    };
}

#[cfg(target_arch = "x86_64")]
instantiate!(f32_avx512, F32x16, 8, 8, "avx512f,avx2,fma");
#[cfg(target_arch = "x86_64")]
instantiate!(f64_avx512, F64x8, 8, 8, "avx512f,avx2,fma");
#[cfg(target_arch = "x86_64")]
instantiate!(f32_avx2, F32x8, 6, 4, "avx2,fma");
#[cfg(target_arch = "x86_64")]
instantiate!(f64_avx2, F64x4, 6, 4, "avx2,fma");
instantiate!(f32_baseline, Plain<f32, 4>, 4, 4, "sse2");
instantiate!(f64_baseline, Plain<f64, 2>, 4, 4, "sse2");

macro_rules! kernels {
    ($scalar:ty, $avx512:ident, $avx2:ident, $baseline:ident) => {
        impl Kernels for $scalar {
            fn kernels(isa: Isa) -> KernelSet<Self> {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => $avx512::SET,
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => $avx2::SET,
                    _ => $baseline::SET,
                }
            }
        }
    };
}

kernels!(f32, f32_avx512, f32_avx2, f32_baseline);
kernels!(f64, f64_avx512, f64_avx2, f64_baseline);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::panels::Panels;
    use crate::random::Stream;

    fn numbers<T: Real>(id: u64, len: usize) -> Vec<T> {
        (0..len as u64).map(|i| T::of(Stream { seed: 1, id }.uniform(i)[0] - 0.5)).collect()
    }

    /// `a·b` with `b` in `packed`, by tiles, row-major.
    fn multiply<T: Real>(
        cpu: &Cpu<T>,
        k: usize,
        a: &[T],
        packed: &Packed<T>,
        finish: Finish<'_, T>,
    ) -> Vec<T> {
        let a = Panels::of_rows(cpu, k, a);
        let rows = a.view().data.len() / a.cut.stride();
        let mut c = vec![T::nan(); rows * packed.n];
        let height = a.cut.tile * packed.n;
        a.view().tiles().zip(c.par_chunks_mut(height)).enumerate().for_each(|(t, (a, c))| {
            let finish = match finish {
                Finish::Mask(mask) => Finish::Mask(&mask[t * height..][..c.len()]),
                other => other,
            };
            product(a, packed, Out::Rows(c), finish);
        });
        c
    }

    /// Every kernel of this processor against a literal sum, at sizes around the blocks'.
    fn against_sums<T: Real>(tolerance: f64) {
        for isa in Isa::available() {
            let cpu = Cpu { isa, ..Cpu::new() };
            for (rows, k, n) in [(1, 1, 1), (5, 3, 7), (6, 16, 16), (13, 40, 33), (29, 7, 70), (150, 65, 9)] {
                let (a, b) = (numbers::<T>(0, rows * k), numbers::<T>(1, k * n));
                let (bias, mask) = (numbers::<T>(2, n), numbers::<T>(3, rows * n));
                let packed =
                    Packed::of_rows(&cpu, k, n, |i, j, to| to.copy_from_slice(&b[i * n + j..][..to.len()]))
                        .with_bias(bias.iter().copied());
                for (name, finish) in
                    [("store", Finish::Store), ("relu", Finish::Relu), ("mask", Finish::Mask(&mask))]
                {
                    let c = multiply(&cpu, k, &a, &packed, finish);
                    for (at, &c) in c.iter().enumerate() {
                        let (r, j) = (at / n, at % n);
                        let sum: f64 = (0..k).map(|p| a[r * k + p].wide() * b[p * n + j].wide()).sum();
                        let sum = sum + bias[j].wide();
                        let want = match name {
                            "relu" => sum.max(0.0),
                            "mask" if mask[at] <= T::zero() => 0.0,
                            _ => sum,
                        };
                        assert!(
                            (c.wide() - want).abs() <= tolerance,
                            "{isa:?} {rows}x{k}x{n} {name}: {c} instead of {want} at {r}, {j}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn products_are_sums() {
        against_sums::<f32>(1e-5);
        against_sums::<f64>(1e-13);
    }

    #[test]
    fn products_into_panels_are_those_into_rows() {
        for isa in Isa::available() {
            let cpu = Cpu { isa, ..Cpu::new() };
            let (rows, k, n) = (29, 50, 40);
            let (a, b) = (numbers::<f32>(0, rows * k), numbers::<f32>(1, k * n));
            let packed =
                Packed::of_rows(&cpu, k, n, |i, j, to| to.copy_from_slice(&b[i * n + j..][..to.len()]));
            let want = Panels::of_rows(&cpu, n, &multiply(&cpu, k, &a, &packed, Finish::Relu));
            let a = Panels::of_rows(&cpu, k, &a);
            let mut c = Panels::scratch(&cpu, rows, n);
            a.view().tiles().zip(c.tiles_mut()).for_each(|(a, c)| {
                product(a, &packed, Out::Panels(c), Finish::Relu);
            });
            assert_eq!(c.view().data, want.view().data);
        }
    }

    #[test]
    fn a_row_has_the_same_bits_in_any_batch() {
        let cpu = Cpu::new();
        let (rows, k, n) = (29, 50, 40);
        let (a, b) = (numbers::<f32>(0, rows * k), numbers::<f32>(1, k * n));
        let packed = Packed::of_rows(&cpu, k, n, |i, j, to| to.copy_from_slice(&b[i * n + j..][..to.len()]));
        let whole = multiply(&cpu, k, &a, &packed, Finish::Store);
        for r in 0..rows {
            let alone = multiply(&cpu, k, &a[r * k..(r + 1) * k], &packed, Finish::Store);
            assert_eq!(alone, whole[r * n..(r + 1) * n], "row {r}");
        }
    }

    #[test]
    fn transposed_products_are_sums_on_top_of_what_is_there() {
        for isa in Isa::available() {
            let cpu = Cpu { isa, ..Cpu::new() };
            for (rows, m, n) in [(DEPTH + 70, 9, 13), (37, 33, 70), (3, 1, 1)] {
                let (a, b) = (numbers::<f64>(0, rows * m), numbers::<f64>(1, rows * n));
                let (mut c, mut sums) = (vec![1.0; m * n], vec![2.0; m]);
                let (in_panels_a, in_panels_b) = (Panels::of_rows(&cpu, m, &a), Panels::of_rows(&cpu, n, &b));
                let (view_a, view_b) = (in_panels_a.view(), in_panels_b.view());
                transposed_products(
                    &cpu,
                    vec![Gradient { a: view_a, b: view_b, c: &mut c, sums: &mut sums }],
                );
                for i in 0..m {
                    for j in 0..n {
                        let want: f64 = 1.0 + (0..rows).map(|r| a[r * m + i] * b[r * n + j]).sum::<f64>();
                        assert!((c[i * n + j] - want).abs() < 1e-12, "{isa:?} {rows}x{m}x{n} at {i}, {j}");
                    }
                    let want: f64 = 2.0 + (0..rows).map(|r| a[r * m + i]).sum::<f64>();
                    assert!((sums[i] - want).abs() < 1e-12, "{isa:?} sum of column {i}");
                }
            }
        }
    }
}
