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
//! One block of assembly configures the tiles, executes a chain of products and releases the tiles, so no
//! state persists in registers that the compiler does not track. A chain has several products because each
//! configuration takes time. (The intrinsics are not in stable Rust.) Denormal numbers are treated as zeros.

use std::arch::asm;
use std::mem::offset_of;

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

/// Products per chain of a forward product.
const CHAIN: usize = 4;

/// A block of sums.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Block([[f32; PANEL]; PANEL]);

impl Block {
    const ZERO: Self = Self([[0.0; PANEL]; PANEL]);
}

/// The upper and the lower rows of an operand in memory.
#[derive(Clone, Copy)]
#[repr(C)]
struct Halves<T> {
    upper: *mut T,
    lower: *mut T,
    /// Bytes between rows; with 0 every row is the same.
    stride: usize,
}

impl<T> Halves<T> {
    /// Rows from `first` on, `stride` bytes apart, the lower ones from row `lower` on.
    ///
    /// # Safety
    /// Row `lower` is in the same array as `first`.
    unsafe fn new(first: *mut T, lower: usize, stride: usize) -> Self {
        // SAFETY: the caller's contract.
        Self { upper: first, lower: unsafe { first.byte_add(lower * stride) }, stride }
    }
}

/// `to = from + a·b` for one block. Only `to` is written, and it may be `from`.
#[repr(C)]
struct BlockProduct {
    from: Halves<f32>,
    a: Halves<bf16>,
    b: *const bf16,
    to: Halves<f32>,
}

// The places that `Config::add_products` reads.
const _: () = assert!(
    offset_of!(BlockProduct, from) == 0
        && offset_of!(BlockProduct, a) == 24
        && offset_of!(BlockProduct, b) == 48
        && offset_of!(BlockProduct, to) == 56
        && size_of::<BlockProduct>() == 80
);

/// The tile configuration, in the processor's format.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_of_a_row: [u16; 16],
    rows: [u8; 16],
}

impl Config {
    /// Tiles for blocks with a given number of rows.
    fn of(rows: usize) -> Self {
        // Tiles without rows are not allowed: without a lower half, its tiles recompute the first row, and
        // the result is unused.
        let [upper, lower] = [rows.min(ROWS) as u8, rows.saturating_sub(ROWS).max(1) as u8];
        let mut config =
            Self { palette: 1, start_row: 0, reserved: [0; 14], bytes_of_a_row: [0; 16], rows: [0; 16] };
        config.bytes_of_a_row[..8].fill(ROW as u16);
        let full = ROWS as u8;
        config.rows[..8].copy_from_slice(&[upper, upper, lower, lower, upper, lower, full, full]);
        config
    }

    /// Executes a chain of products, each over `depth` times [`DEPTH`] columns of `a` and rows of `b`. The
    /// next columns of a row of `a` are `step` bytes further.
    ///
    /// # Safety
    /// The processor has AMX. Of every product, the configured rows of `from` and `a` are readable and those
    /// of `to` writable, those of `from` and `to` with [`PANEL`] numbers; `b` has `depth · DEPTH` rows of a
    /// packed panel.
    unsafe fn add_products(&self, products: &[BlockProduct], depth: usize, step: usize) {
        if products.is_empty() {
            return;
        }
        // SAFETY: the caller's contract; `products` has `count` elements, at the offsets checked above. The
        // configuration is valid, and has 64 bytes. All tiles are declared, and released, so that they are
        // afterwards in their initial state, as before.
        unsafe {
            asm!(
                "ldtilecfg [{config}]",
                "2:",
                "mov {upper}, [{product}]",
                "mov {lower}, [{product} + 8]",
                "mov {stride}, [{product} + 16]",
                "tileloadd tmm0, [{upper} + {stride}*1]",
                "tileloadd tmm1, [{upper} + {stride}*1 + 64]",
                "tileloadd tmm2, [{lower} + {stride}*1]",
                "tileloadd tmm3, [{lower} + {stride}*1 + 64]",
                "mov {upper}, [{product} + 24]",
                "mov {lower}, [{product} + 32]",
                "mov {stride}, [{product} + 40]",
                "mov {b}, [{product} + 48]",
                "mov {left}, {depth}",
                "test {left}, {left}",
                "jz 4f",
                "3:",
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
                "dec {left}",
                "jnz 3b",
                "4:",
                "mov {upper}, [{product} + 56]",
                "mov {lower}, [{product} + 64]",
                "mov {stride}, [{product} + 72]",
                "tilestored [{upper} + {stride}*1], tmm0",
                "tilestored [{upper} + {stride}*1 + 64], tmm1",
                "tilestored [{lower} + {stride}*1], tmm2",
                "tilestored [{lower} + {stride}*1 + 64], tmm3",
                "add {product}, 80",
                "dec {count}",
                "jnz 2b",
                "tilerelease",
                config = in(reg) std::ptr::from_ref(self),
                product = inout(reg) products.as_ptr() => _, count = inout(reg) products.len() => _,
                depth = in(reg) depth, step = in(reg) step, pair = in(reg) 2 * ROW,
                upper = out(reg) _, lower = out(reg) _, stride = out(reg) _, b = out(reg) _,
                left = out(reg) _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
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
    let panels = b.n.div_ceil(PANEL);
    let mut sums = [Block::ZERO; CHAIN];
    let mut products = Vec::with_capacity(CHAIN);
    // Blocks of equal size one after another, so that tiles rarely change their shape.
    for rows in [PANEL, height % PANEL] {
        let blocks = if rows == PANEL { 0..height / PANEL } else { height / PANEL..height.div_ceil(PANEL) };
        if blocks.is_empty() {
            continue;
        }
        let config = Config::of(rows);
        let lower = if rows > ROWS { ROWS } else { 0 };
        let count = panels * blocks.len();
        // The panel of `b` and the first row of a block; panel by panel.
        let place = |i: usize| (i / blocks.len(), (blocks.start + i % blocks.len()) * PANEL);
        for chain in (0..count).step_by(CHAIN).map(|start| start..count.min(start + CHAIN)) {
            products.clear();
            for ((panel, first), sums) in chain.clone().map(place).zip(&mut sums) {
                // SAFETY: `a` holds `b.rows / 32` panels of `height × 32`, and `b` more than `panel` panels
                // of `rows × 32`, with 32 biases for each; `sums` has room for a block.
                products.push(unsafe {
                    BlockProduct {
                        from: Halves::new(b.bias.as_ptr().add(panel * PANEL).cast_mut(), ROWS, 0),
                        a: Halves::new(a.as_ptr().add(first * PANEL).cast_mut(), lower, ROW),
                        b: b.panels.as_ptr().add(panel * b.rows * PANEL),
                        to: Halves::new(sums.0.as_mut_ptr().cast(), ROWS, PANEL * size_of::<f32>()),
                    }
                });
            }
            // SAFETY: as above; rows of a panel of `a` are adjacent.
            unsafe { config.add_products(&products, b.rows / DEPTH, height * ROW) };
            for ((panel, first), sums) in chain.map(place).zip(&sums) {
                for (row, sums) in (first..).zip(&sums.0[..rows]) {
                    match to {
                        // SAFETY: `to` is as `super::product` checks, and a row of sums has two vectors.
                        Out::Panels(c, finish) => unsafe {
                            let sums = [V::load(sums.as_ptr()), V::load(sums[V::LANES..].as_ptr())];
                            let at = ((panel * height + row) * PANEL, PANEL);
                            into_panels::<V, 1, 2, PANEL>(c, *finish, at, [sums]);
                        },
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
    let mut edges = vec![Block::ZERO; columns_of_a.len()];
    let mut products = Vec::with_capacity(columns_of_a.len());
    let config = Config::of(PANEL);
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
            let is_whole = |c: &[f32]| c.len() == PANEL * n && n - first >= PANEL;
            products.clear();
            for ((columns, c), edge) in columns_of_a.iter().zip(c.chunks_mut(PANEL * n)).zip(&mut edges) {
                let (sums, stride) = if is_whole(c) {
                    (c[first..].as_mut_ptr(), n * size_of::<f32>())
                } else {
                    *edge = Block::ZERO;
                    (edge.0.as_mut_ptr().cast(), PANEL * size_of::<f32>())
                };
                // SAFETY: there is room for a block, and `columns` has 32 rows.
                products.push(unsafe {
                    let sums = Halves::new(sums, ROWS, stride);
                    BlockProduct {
                        from: sums,
                        a: Halves::new(columns.as_ptr().cast_mut().cast(), ROWS, SLAB * size_of::<bf16>()),
                        b: pairs.0.as_ptr().cast(),
                        to: sums,
                    }
                });
            }
            // SAFETY: the caller's contract, and as above; there are `deep` tiles of both matrices.
            unsafe { config.add_products(&products, deep, ROW) };
            for (c, edge) in c.chunks_mut(PANEL * n).zip(&edges) {
                if !is_whole(c) {
                    let len = (n - first).min(PANEL);
                    for (c, edge) in c.chunks_mut(n).zip(&edge.0) {
                        c[first..first + len].iter_mut().zip(edge).for_each(|(c, &sum)| *c += sum);
                    }
                }
            }
        }
    }
}
