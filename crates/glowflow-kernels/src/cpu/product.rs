//! Matrix products: activations by packed weights with a fused epilogue, and gradients of weights.
//!
//! [`product`] computes `C = finish(A·B + bias)` for row-major `A` `[rows, k]` and `C` `[rows, n]`, with
//! `B` `[k, n]` [`Packed`] beforehand into panels of `NR` columns (each panel row-major, `[k, NR]`).
//! Weights are packed once and met by thousands of rows, so `A` is read where it lies, and bias, ReLU
//! and mask cost nothing, for the tile is still in registers.
//!
//! One kernel, written over arrays and unrolled by the compiler, is instantiated for each instruction
//! set with the tile that fills its registers; [`Isa::detect`] picks at run time. Every element
//! of `C` is summed over `k` in order, whatever the tile it falls into: an image gets the same bits
//! in any batch, and whatever the number of threads.

#![allow(unsafe_code)]

use std::sync::OnceLock;

use rayon::prelude::*;

use super::{Buffer, Cpu};
use crate::real::Real;

/// Instruction sets that the kernel is instantiated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// x86-64 with AVX-512 (F, VL, BW, DQ).
    Avx512,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// Whatever the compiler may assume: SSE2 on x86-64, NEON on 64-bit Arm.
    Baseline,
}

impl Isa {
    /// The best instruction set of this processor.
    pub fn detect() -> Self {
        static DETECTED: OnceLock<Isa> = OnceLock::new();
        *DETECTED.get_or_init(|| Self::available()[0])
    }

    /// Every instruction set that this processor has, the best first.
    pub fn available() -> Vec<Self> {
        let mut found = vec![];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
            {
                found.push(Self::Avx512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                found.push(Self::Avx2);
            }
        }
        found.push(Self::Baseline);
        found
    }

    /// Columns in a panel: two vector registers' worth.
    fn panel<T>(self) -> usize {
        let bytes = match self {
            Self::Avx512 => 128,
            Self::Avx2 => 64,
            Self::Baseline => 32,
        };
        bytes / size_of::<T>()
    }
}

/// Side of the blocks in which matrices are transposed: rows a power of two apart share a set of the first-level
/// cache, which holds eight of them.
const BLOCK: usize = 8;

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
    /// Packs the matrix whose element in row `i` and column `j` is `element(i, j)`.
    pub fn new(cpu: &Cpu<T>, k: usize, n: usize, element: impl Fn(usize, usize) -> T + Sync) -> Self {
        let nr = cpu.isa.panel::<T>();
        Self::by_panel(cpu, k, n, |first_column, columns, panel| {
            // In square blocks, which read whole cache lines whether the source runs along rows or columns.
            for first in (0..k).step_by(BLOCK) {
                for j in 0..columns {
                    for i in first..k.min(first + BLOCK) {
                        panel[i * nr + j] = element(i, first_column + j);
                    }
                }
            }
        })
    }

    /// Packs a row-major matrix.
    fn of_rows(cpu: &Cpu<T>, k: usize, n: usize, rows: &[T]) -> Self {
        let nr = cpu.isa.panel::<T>();
        Self::by_panel(cpu, k, n, |first_column, columns, panel| {
            for (to, row) in panel.chunks_exact_mut(nr).zip(rows.chunks_exact(n)) {
                to[..columns].copy_from_slice(&row[first_column..][..columns]);
            }
        })
    }

    /// Has each panel filled: its first column, how many it has, and its elements.
    fn by_panel(cpu: &Cpu<T>, k: usize, n: usize, fill: impl Fn(usize, usize, &mut [T]) + Sync) -> Self {
        let isa = cpu.isa;
        let nr = isa.panel::<T>();
        let mut panels = cpu.take(n.div_ceil(nr) * nr * k);
        panels.par_chunks_mut((k * nr).max(1)).enumerate().for_each(|(p, panel)| {
            let columns = nr.min(n - p * nr);
            if columns < nr {
                panel.fill(T::zero());
            }
            fill(p * nr, columns, panel);
        });
        Self { isa, k, n, panels, bias: vec![T::zero(); n.div_ceil(nr) * nr] }
    }

    /// Sets the bias, `n` numbers.
    pub fn with_bias(mut self, bias: impl Iterator<Item = T>) -> Self {
        self.bias.iter_mut().take(self.n).zip(bias).for_each(|(to, from)| *to = from);
        self
    }

    /// Columns of `B`.
    pub fn columns(&self) -> usize {
        self.n
    }
}

/// What becomes of a tile of `A·B + bias` on its way to memory.
#[derive(Clone, Copy, Debug)]
pub enum Finish<'a, T> {
    /// It is stored.
    Store,
    /// It is added to what is there.
    Add,
    /// Its negative elements become 0.
    Relu,
    /// It is kept where this matrix, of the shape of `C`, is positive, and 0 elsewhere: the gradient
    /// of a ReLU by its input, given its output.
    Mask(&'a [T]),
}

/// `c = finish(a·b + bias)` with row-major `a` `[rows, k]` and `c` `[rows, n]`, on the calling thread.
///
/// # Panics
/// Where the slices' lengths are not `rows` times the matrix's dimensions.
pub fn product<T: Real>(rows: usize, a: &[T], b: &Packed<T>, c: &mut [T], finish: Finish<'_, T>) {
    assert_eq!((a.len(), c.len()), (rows * b.k, rows * b.n));
    if let Finish::Mask(mask) = finish {
        assert_eq!(mask.len(), c.len());
    }
    let tiles = T::tiles(b.isa);
    // SAFETY: `tiles` needs the processor to have `b.isa`, and `Packed::new` took it from `Isa::available`;
    // it needs the lengths checked above, and panels as `Packed::new` lays them out.
    unsafe { tiles(rows, a, b, c, finish) }
}

/// A kernel for one instruction set: [`product`] without its checks.
#[doc(hidden)]
pub type Tiles<T> = unsafe fn(usize, &[T], &Packed<T>, &mut [T], Finish<'_, T>);

/// Scalars that the product has kernels for.
pub trait Kernels: Sized {
    #[doc(hidden)]
    fn tiles(isa: Isa) -> Tiles<Self>;
}

/// The kernel: for each panel of `b`, which stays in the first-level cache, all rows of `a` in groups of
/// `MR`, with an `MR × NR` tile of sums in registers.
///
/// # Safety
/// `a` is `rows × b.k` and `c` (and a mask) `rows × b.n` long; `b`'s panels are `NR` columns wide.
#[inline(always)]
unsafe fn tiles<T: Real, const MR: usize, const NR: usize, const FUSED: bool>(
    rows: usize,
    a: &[T],
    b: &Packed<T>,
    c: &mut [T],
    finish: Finish<'_, T>,
) {
    let (k, n) = (b.k, b.n);
    for panel in 0..n.div_ceil(NR) {
        let first_column = panel * NR;
        let columns = NR.min(n - first_column);
        // SAFETY: `Packed` holds `n.div_ceil(NR)` panels of `k × NR`, and as many groups of `NR` biases.
        let (weights, bias) = unsafe {
            (b.panels.as_ptr().add(panel * k * NR), *b.bias.as_ptr().add(first_column).cast::<[T; NR]>())
        };
        for first_row in (0..rows).step_by(MR) {
            // Past the end, the last row stands in for rows that do not exist; their sums are dropped.
            let row = |i: usize| (first_row + i).min(rows - 1);
            // SAFETY: `row(i) < rows`, so the `k` elements from here on lie within `a`.
            let a: [*const T; MR] = std::array::from_fn(|i| unsafe { a.as_ptr().add(row(i) * k) });
            let mut sums = [bias; MR];
            for p in 0..k {
                // SAFETY: `p < k`; see the two pointers above.
                let weights = unsafe { *weights.add(p * NR).cast::<[T; NR]>() };
                for i in 0..MR {
                    // SAFETY: as above.
                    let x = unsafe { *a[i].add(p) };
                    for j in 0..NR {
                        sums[i][j] = if FUSED {
                            x.mul_add(weights[j], sums[i][j])
                        } else {
                            x * weights[j] + sums[i][j]
                        };
                    }
                }
            }
            for (i, sums) in sums.iter().enumerate().take(rows - first_row) {
                let at = (first_row + i) * n + first_column;
                // Whole panels take the branch whose length the compiler knows.
                if columns == NR {
                    store(&mut c[at..at + NR], sums, finish, at);
                } else {
                    store(&mut c[at..at + columns], sums, finish, at);
                }
            }
        }
    }
}

/// Writes one row of a tile, which begins at element `at` of `C`.
#[inline(always)]
fn store<T: Real>(c: &mut [T], sums: &[T], finish: Finish<'_, T>, at: usize) {
    let zero = T::zero();
    match finish {
        Finish::Store => c.copy_from_slice(&sums[..c.len()]),
        Finish::Add => c.iter_mut().zip(sums).for_each(|(c, &s)| *c += s),
        // Written so that NaN stays NaN.
        Finish::Relu => c.iter_mut().zip(sums).for_each(|(c, &s)| *c = if s < zero { zero } else { s }),
        Finish::Mask(mask) => {
            let mask = &mask[at..at + c.len()];
            c.iter_mut().zip(sums).zip(mask).for_each(|((c, &s), &m)| *c = if m > zero { s } else { zero });
        }
    }
}

/// Instantiates the kernel for a scalar: tile rows by instruction set, columns as in [`Isa::panel`].
macro_rules! kernels {
    ($scalar:ty, $avx512:ident, $avx2:ident, $baseline:ident) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,fma")]
        unsafe fn $avx512(
            rows: usize,
            a: &[$scalar],
            b: &Packed<$scalar>,
            c: &mut [$scalar],
            finish: Finish<'_, $scalar>,
        ) {
            // SAFETY: the caller keeps the contract of `Tiles`.
            unsafe { tiles::<$scalar, 12, { 128 / size_of::<$scalar>() }, true>(rows, a, b, c, finish) }
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn $avx2(
            rows: usize,
            a: &[$scalar],
            b: &Packed<$scalar>,
            c: &mut [$scalar],
            finish: Finish<'_, $scalar>,
        ) {
            // SAFETY: the caller keeps the contract of `Tiles`.
            unsafe { tiles::<$scalar, 6, { 64 / size_of::<$scalar>() }, true>(rows, a, b, c, finish) }
        }

        unsafe fn $baseline(
            rows: usize,
            a: &[$scalar],
            b: &Packed<$scalar>,
            c: &mut [$scalar],
            finish: Finish<'_, $scalar>,
        ) {
            // A fused multiply-add is an instruction of 64-bit Arm, and a slow call on plain x86-64.
            const FUSED: bool = cfg!(target_arch = "aarch64");
            // SAFETY: the caller keeps the contract of `Tiles`.
            unsafe { tiles::<$scalar, 6, { 32 / size_of::<$scalar>() }, FUSED>(rows, a, b, c, finish) }
        }

        impl Kernels for $scalar {
            fn tiles(isa: Isa) -> Tiles<Self> {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => $avx512,
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => $avx2,
                    _ => $baseline,
                }
            }
        }
    };
}

kernels!(f32, f32_avx512, f32_avx2, f32_baseline);
kernels!(f64, f64_avx512, f64_avx2, f64_baseline);

/// Rows that [`transposed_product`] sums at once: a panel of so many fits the first-level cache.
const DEPTH: usize = 512;

/// `aᵀ·b` `[m, n]` of row-major `a` `[rows, m]` and `b` `[rows, n]`: the gradient of a weight.
///
/// Blocks of rows are packed, `b` into panels and `a` transposed, and added to the result one after the other;
/// within a block each thread makes rows of the result of its own.
pub fn transposed_product<T: Real>(cpu: &Cpu<T>, m: usize, n: usize, a: &[T], b: &[T]) -> Buffer<T> {
    let mut c = cpu.take(m * n);
    c.fill(T::zero());
    let tile = m.div_ceil(rayon::current_num_threads()).next_multiple_of(12).clamp(12, 96);
    for (a, b) in a.chunks(DEPTH * m).zip(b.chunks(DEPTH * n)) {
        let depth = a.len() / m;
        let packed = Packed::of_rows(cpu, depth, n, b);
        c.par_chunks_mut(tile * n).enumerate().for_each(|(t, c)| {
            let columns = c.len() / n;
            let mut transposed = cpu.take(columns * depth);
            for first in (0..depth).step_by(BLOCK) {
                for (j, row) in transposed.chunks_exact_mut(depth).enumerate() {
                    for (r, to) in row[first..depth.min(first + BLOCK)].iter_mut().enumerate() {
                        *to = a[(first + r) * m + t * tile + j];
                    }
                }
            }
            product(columns, &transposed, &packed, c, Finish::Add);
        });
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    fn numbers<T: Real>(id: u64, len: usize) -> Vec<T> {
        (0..len as u64).map(|i| T::of(Stream { seed: 1, id }.uniform(i)[0] - 0.5)).collect()
    }

    /// Every kernel of this processor against a literal sum, at sizes around the tile's.
    fn against_sums<T: Real>(tolerance: f64) {
        for isa in Isa::available() {
            for (rows, k, n) in [(1, 1, 1), (5, 3, 7), (6, 16, 16), (13, 40, 33), (25, 7, 70)] {
                let (a, b) = (numbers::<T>(0, rows * k), numbers::<T>(1, k * n));
                let (bias, mask) = (numbers::<T>(2, n), numbers::<T>(3, rows * n));
                let cpu = Cpu { isa, ..Cpu::new() };
                let packed = Packed::new(&cpu, k, n, |i, j| b[i * n + j]).with_bias(bias.iter().copied());
                for (name, finish) in
                    [("store", Finish::Store), ("relu", Finish::Relu), ("mask", Finish::Mask(&mask))]
                {
                    let mut c = vec![T::nan(); rows * n];
                    product(rows, &a, &packed, &mut c, finish);
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
    fn a_row_has_the_same_bits_in_any_batch() {
        let (rows, k, n) = (29, 50, 40);
        let (a, b) = (numbers::<f32>(0, rows * k), numbers::<f32>(1, k * n));
        let packed = Packed::new(&Cpu::new(), k, n, |i, j| b[i * n + j]);
        let mut whole = vec![0.0; rows * n];
        product(rows, &a, &packed, &mut whole, Finish::Store);
        for r in 0..rows {
            let mut alone = vec![0.0; n];
            product(1, &a[r * k..(r + 1) * k], &packed, &mut alone, Finish::Store);
            assert_eq!(alone, whole[r * n..(r + 1) * n], "row {r}");
        }
    }

    #[test]
    fn transposed_products_are_sums() {
        let (rows, m, n) = (DEPTH + 70, 9, 13);
        let (a, b) = (numbers::<f64>(0, rows * m), numbers::<f64>(1, rows * n));
        let c = transposed_product(&Cpu::new(), m, n, &a, &b);
        for i in 0..m {
            for j in 0..n {
                let want: f64 = (0..rows).map(|r| a[r * m + i] * b[r * n + j]).sum();
                assert!((c[i * n + j] - want).abs() < 1e-12);
            }
        }
    }
}
