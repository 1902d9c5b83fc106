//! Kernels for processors with AMX, whose registers are tiles: one instruction multiplies 16 rows of 32 bf16
//! by 32 rows of 16, stored in adjacent pairs, and adds the 16 × 16 products, summed in `f32`, to a third
//! tile.
//!
//! The instructions read panels of activations and packed panels directly: a tile is 16 rows of the former,
//! or 16 pairs of rows of half the latter. Sums are blocks of 32 × 32:
//!
//! ```text
//!                        tmm6 | tmm7     32 rows of a packed panel of 32 columns
//! rows 0..16    tmm4     tmm0 | tmm1
//! rows 16..32   tmm5     tmm2 | tmm3
//! ```
//!
//! The tiles persist between blocks of assembly: no compiler keeps anything in them. (The intrinsics are not
//! in stable Rust.) Denormal numbers are treated as zeros.

use std::arch::asm;

use half::bf16;

#[cfg(all(test, target_os = "linux"))]
pub mod emulator;

use super::forward::into_panels;
use super::interleaved::{Pairs, interleave, sums_of_columns};
use super::{Out, Packed};
use crate::cpu::element::Element;
use crate::cpu::panels::{SLAB, View};
use crate::cpu::simd::{Pairing, Square, Vector};

/// Columns of a panel, and rows of a block of sums.
pub const PANEL: usize = 32;
/// Rows of a tile.
const ROWS: usize = 16;
/// Bytes of a row of a tile.
const ROW: usize = 64;
/// Number of bf16 values that one instruction multiplies and sums.
const DEPTH: usize = bf16::ROWS_MULTIPLE;
const _: () = assert!(DEPTH == 2 * ROWS && DEPTH * size_of::<bf16>() == ROW && PANEL == DEPTH);

/// A block of sums.
#[repr(align(64))]
struct Block([[f32; PANEL]; PANEL]);

/// The tile configuration, in the processor's format.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_of_a_row: [u16; 16],
    rows: [u8; 16],
}

/// Configured tiles for blocks with a given number of rows, released on drop.
struct Tiles {
    /// Start of a block's lower rows; 0 if it has none.
    lower: usize,
}

impl Tiles {
    /// # Safety
    /// The processor has AMX, here and in all methods below.
    unsafe fn of(rows: usize) -> Self {
        // Tiles without rows are not allowed: without a lower half, its tiles recompute the first row, and
        // the result is unused.
        let [upper, lower] = [rows.min(ROWS) as u8, rows.saturating_sub(ROWS).max(1) as u8];
        let mut config =
            Config { palette: 1, start_row: 0, reserved: [0; 14], bytes_of_a_row: [0; 16], rows: [0; 16] };
        config.bytes_of_a_row[..8].fill(ROW as u16);
        let full = ROWS as u8;
        config.rows[..8].copy_from_slice(&[upper, upper, lower, lower, upper, lower, full, full]);
        // SAFETY: the caller's contract; the instruction reads 64 bytes.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly, preserves_flags));
        }
        Self { lower: if rows > ROWS { ROWS } else { 0 } }
    }

    /// Loads sums from rows `stride` bytes apart; with stride 0 every row is the same.
    ///
    /// # Safety
    /// [`PANEL`] rows are readable, each of `PANEL` numbers.
    #[inline(always)]
    unsafe fn load(&self, from: *const f32, stride: usize) {
        // SAFETY: the caller's contract.
        unsafe {
            asm!(
                "tileloadd tmm0, [{upper} + {stride}*1]",
                "tileloadd tmm1, [{upper} + {stride}*1 + 64]",
                "tileloadd tmm2, [{lower} + {stride}*1]",
                "tileloadd tmm3, [{lower} + {stride}*1 + 64]",
                upper = in(reg) from, lower = in(reg) from.byte_add(ROWS * stride), stride = in(reg) stride,
                options(nostack, readonly, preserves_flags),
            );
        }
    }

    /// Stores sums to rows `stride` bytes apart.
    ///
    /// # Safety
    /// [`PANEL`] rows are writable, each of `PANEL` numbers.
    #[inline(always)]
    unsafe fn store(&self, to: *mut f32, stride: usize) {
        // SAFETY: the caller's contract.
        unsafe {
            asm!(
                "tilestored [{upper} + {stride}*1], tmm0",
                "tilestored [{upper} + {stride}*1 + 64], tmm1",
                "tilestored [{lower} + {stride}*1], tmm2",
                "tilestored [{lower} + {stride}*1 + 64], tmm3",
                upper = in(reg) to, lower = in(reg) to.byte_add(ROWS * stride), stride = in(reg) stride,
                options(nostack, preserves_flags),
            );
        }
    }

    /// Adds `blocks` products of [`DEPTH`] columns of `A` and rows of `B`. Rows of `A` are `stride` bytes
    /// apart, and the next columns `step` bytes further.
    ///
    /// # Safety
    /// The block's rows of `A` exist, and the same number of rows of a packed panel.
    #[inline(always)]
    unsafe fn add_products(
        &self,
        blocks: usize,
        a: *const bf16,
        (stride, step): (usize, usize),
        b: *const bf16,
    ) {
        if blocks == 0 {
            return;
        }
        // SAFETY: the caller's contract.
        unsafe {
            asm!(
                "2:",
                "tileloadd tmm6, [{b} + {pair}*1]",
                "tileloadd tmm7, [{b} + {pair}*1 + 64]",
                "tileloadd tmm4, [{upper} + {stride}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{lower} + {stride}*1]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {upper}, {step}",
                "add {lower}, {step}",
                "add {b}, 2048",
                "dec {blocks}",
                "jnz 2b",
                blocks = inout(reg) blocks => _, b = inout(reg) b => _, pair = in(reg) 2 * ROW,
                upper = inout(reg) a => _, lower = inout(reg) a.byte_add(self.lower * stride) => _,
                stride = in(reg) stride, step = in(reg) step, options(nostack, readonly),
            );
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: whoever made this has AMX.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) }
    }
}

/// The product of a tile of activations: see [`super::product`].
///
/// # Safety
/// The processor has AMX and `V`'s instruction set; `a`, `b` and `to` are as [`super::product`] checks.
#[inline(always)]
pub unsafe fn forward<V: Vector<Element = bf16>>(
    height: usize,
    a: &[bf16],
    b: &Packed<bf16>,
    to: &mut Out<'_, bf16>,
) {
    const { assert!(PANEL == 2 * V::LANES) };
    let mut sums = Block([[0.0; PANEL]; PANEL]);
    // Blocks of equal size one after another, so that tiles rarely change their shape.
    for rows in [PANEL, height % PANEL] {
        let blocks = if rows == PANEL { 0..height / PANEL } else { height / PANEL..height.div_ceil(PANEL) };
        if blocks.is_empty() {
            continue;
        }
        // SAFETY: `a` holds `b.rows / 32` panels of `height × 32`, and `b` more than `panel` of `rows × 32`,
        // with as many times 32 biases; `sums` has room for a block; `to` is as `super::product` checks.
        unsafe {
            let tiles = Tiles::of(rows);
            for panel in 0..b.n.div_ceil(PANEL) {
                for first in blocks.clone().map(|block| block * PANEL) {
                    tiles.load(b.bias.as_ptr().add(panel * PANEL), 0);
                    let a = a.as_ptr().add(first * PANEL);
                    let weights = b.panels.as_ptr().add(panel * b.rows * PANEL);
                    tiles.add_products(b.rows / DEPTH, a, (ROW, height * ROW), weights);
                    tiles.store(sums.0.as_mut_ptr().cast(), PANEL * size_of::<f32>());
                    for (row, sums) in (first..).zip(&sums.0[..rows]) {
                        match to {
                            Out::Panels(c, finish) => {
                                let sums = [V::load(sums.as_ptr()), V::load(sums[V::LANES..].as_ptr())];
                                let at = ((panel * height + row) * PANEL, PANEL);
                                into_panels::<V, 1, 2, PANEL>(c, *finish, at, [sums]);
                            }
                            Out::Rows(c) => {
                                let c = &mut c[row * b.n..(row + 1) * b.n][panel * PANEL..];
                                let len = c.len().min(PANEL);
                                c[..len].copy_from_slice(&sums[..len]);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A panel of [`SLAB`] rows, transposed: the pairs of a column are consecutive.
type Columns = [[[bf16; 2]; SLAB / 2]; PANEL];

/// [`interleave`], padded with pairs of zeros to whole tiles. Returns the number of tiles.
///
/// # Safety
/// The processor has `V`'s instruction set.
#[inline(always)]
unsafe fn interleave_tiles<V: Pairing<Element = bf16>>(
    of: View<'_, bf16>,
    panel: usize,
    slab: usize,
    pairs: &mut Pairs<bf16, PANEL>,
) -> usize {
    // SAFETY: the caller's contract.
    let len = unsafe { interleave::<V, PANEL>(of, panel, slab, pairs) };
    pairs.0[len..len.next_multiple_of(ROWS)].fill(Default::default());
    len.div_ceil(ROWS)
}

/// Transposes `tiles · 16` pairs of rows, in squares of 16 × 16 pairs, each of the size of an `f32`.
///
/// # Safety
/// The processor has `V`'s instruction set.
#[inline(always)]
unsafe fn transpose<V: Vector<Element = bf16>>(
    Pairs(pairs): &Pairs<bf16, PANEL>,
    tiles: usize,
    columns: &mut Columns,
) {
    for (tile, pairs) in pairs.chunks_exact(ROWS).take(tiles).enumerate() {
        for half in 0..PANEL / ROWS {
            let mut square: Square<f32> = [[0.0; ROWS]; ROWS];
            for (to, from) in square.iter_mut().zip(pairs) {
                to.copy_from_slice(bytemuck::cast_slice(&from[half * ROWS..][..ROWS]));
            }
            // SAFETY: the caller's contract.
            unsafe { V::transpose(&mut square) };
            for (column, from) in columns[half * ROWS..].iter_mut().zip(&square) {
                column[tile * ROWS..][..ROWS].copy_from_slice(bytemuck::cast_slice(from));
            }
        }
    }
}

/// The rows of a weight gradient for several panels of `a`, starting at `panel`. [`SLAB`] rows of `a` and `b`
/// are processed at a time: `a` transposed is the left operand, `b` interleaved the right one.
///
/// # Safety
/// The processor has AMX and `V`'s instruction set; the matrices are as [`super::transposed_products`]
/// checks.
#[inline(always)]
pub unsafe fn transposed<V: Pairing<Element = bf16>>(
    a: View<'_, bf16>,
    b: View<'_, bf16>,
    panel: usize,
    c: &mut [f32],
    column_sums: &mut [f32],
) {
    let (m, n) = (column_sums.len(), b.cut.columns);
    let height = a.data.len() / a.cut.stride();
    let mut pairs = Pairs::zero();
    let mut columns_of_a = vec![[[[bf16::default(); 2]; SLAB / 2]; PANEL]; m.div_ceil(PANEL)];
    let mut edge = Block([[0.0; PANEL]; PANEL]);
    // SAFETY: the caller's contract.
    let tiles = unsafe { Tiles::of(PANEL) };
    for slab in (0..height).step_by(SLAB) {
        for (p, (columns, sums)) in columns_of_a.iter_mut().zip(column_sums.chunks_mut(PANEL)).enumerate() {
            // SAFETY: the caller's contract.
            let (deep, slab_sums) = unsafe {
                let deep = interleave_tiles::<V>(a, panel + p, slab, &mut pairs);
                (deep, sums_of_columns::<V, PANEL>(&pairs.0[..deep * ROWS]))
            };
            sums.iter_mut().zip(slab_sums).for_each(|(sum, x)| *sum += x);
            // SAFETY: the caller's contract.
            unsafe { transpose::<V>(&pairs, deep, columns) };
        }
        for first in (0..n).step_by(PANEL) {
            // SAFETY: the caller's contract.
            let deep = unsafe { interleave_tiles::<V>(b, first / PANEL, slab, &mut pairs) };
            for (columns, c) in columns_of_a.iter().zip(c.chunks_mut(PANEL * n)) {
                let whole = c.len() == PANEL * n && n - first >= PANEL;
                let (sums, stride) = if whole {
                    (c[first..].as_mut_ptr(), n * size_of::<f32>())
                } else {
                    edge.0 = [[0.0; PANEL]; PANEL];
                    (edge.0.as_mut_ptr().cast(), PANEL * size_of::<f32>())
                };
                // SAFETY: there are `deep` tiles of both matrices, and room for a block.
                unsafe {
                    tiles.load(sums, stride);
                    let a = columns.as_ptr().cast();
                    tiles.add_products(deep, a, (SLAB * size_of::<bf16>(), ROW), pairs.0.as_ptr().cast());
                    tiles.store(sums, stride);
                }
                if !whole {
                    let len = (n - first).min(PANEL);
                    for (c, edge) in c.chunks_mut(n).zip(&edge.0) {
                        c[first..first + len].iter_mut().zip(edge).for_each(|(c, &sum)| *c += sum);
                    }
                }
            }
        }
    }
}
