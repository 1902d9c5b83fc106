//! Activations in tiles of rows, and each tile in panels of columns.
//!
//! ```text
//! tile 0: rows 0..h     panel 0 [h, W]  panel 1 [h, W]  …     W = two vectors
//! tile 1: rows h..2h    panel 0 [h, W]  panel 1 [h, W]  …     the last tile may have fewer rows
//! ```
//!
//! The last panel is padded with columns of zeros. Read along a row, this is the left operand of a product;
//! read down a column, it is the left operand of a weight gradient; and a panel as a whole is the right
//! operand of one: no operand is ever copied or transposed. A tile is the unit of work of a thread, and fits
//! its second-level cache.

use rayon::prelude::*;
use rayon::slice::{Chunks, ChunksMut};

use super::element::Element;
use super::{Buffer, Workspace};
use crate::real::Real;

/// The partition of a matrix into tiles and panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Columns without padding.
    pub columns: usize,
    /// Rows per tile.
    pub tile: usize,
    /// Columns per panel.
    pub width: usize,
}

impl Cut {
    /// The partition for a matrix with these dimensions.
    pub fn of<E: Element>(work: &Workspace<E>, rows: usize, columns: usize) -> Self {
        Self { columns, tile: tile_rows(rows), width: E::kernels(work.isa()).panel }
    }

    /// Elements per row, including padding.
    pub fn stride(self) -> usize {
        self.columns.next_multiple_of(self.width)
    }
}

/// A matrix in tiles and panels.
pub struct Panels<T> {
    pub cut: Cut,
    data: Buffer<T>,
}

/// A range of whole tiles of a matrix in panels.
#[derive(Clone, Copy)]
pub struct View<'a, T> {
    pub cut: Cut,
    pub data: &'a [T],
}

/// Rows per tile: enough tiles for every thread to get several, few enough rows that two hidden activations
/// of common width fit the second-level cache. A power of two, so that it divides [`DEPTH`].
fn tile_rows(rows: usize) -> usize {
    (rows / (4 * rayon::current_num_threads())).next_power_of_two().clamp(16, 64)
}

/// Number of rows summed in registers in a weight gradient. It is the same for all tiles, so that the bits of
/// a sum do not depend on the number of threads.
pub const DEPTH: usize = 128;

/// The same if pairs of rows are interleaved first. A gradient is computed over multiples of it, and so of
/// [`DEPTH`], so the slabs are the same with any number of threads.
pub const SLAB: usize = 2 * DEPTH;

impl<T: Element> Panels<T> {
    /// A matrix with unspecified contents.
    pub fn scratch(work: &Workspace<T>, rows: usize, columns: usize) -> Self {
        Self::scratch_as(work, rows, Cut::of(work, rows, columns))
    }

    /// A matrix with unspecified contents and the given partition.
    pub fn scratch_as(work: &Workspace<T>, rows: usize, cut: Cut) -> Self {
        Self { cut, data: work.take(rows * cut.stride()) }
    }

    /// Copies and rounds a row-major matrix.
    pub fn of_rows(work: &Workspace<T>, columns: usize, rows: &[T::Sum]) -> Self {
        let mut panels = Self::scratch(work, rows.len() / columns, columns);
        let cut = panels.cut;
        panels.tiles_mut().zip(rows.par_chunks(cut.tile * columns)).for_each(|(tile, rows)| {
            fill(cut, tile, |i, row| row.copy_from_slice(&rows[i * columns..(i + 1) * columns]));
        });
        panels
    }

    /// The tiles, in order.
    pub fn tiles_mut(&mut self) -> ChunksMut<'_, T> {
        self.data.par_chunks_mut(self.cut.tile * self.cut.stride())
    }

    /// A view of the whole matrix.
    pub fn view(&self) -> View<'_, T> {
        View { cut: self.cut, data: &self.data }
    }
}

impl<'a, T: Element> View<'a, T> {
    /// The tiles, in order.
    pub fn tiles(self) -> Chunks<'a, T> {
        self.data.par_chunks(self.cut.tile * self.cut.stride())
    }

    /// The part from row `first` on, with at most `rows` rows; a tile begins at `first`.
    pub fn part(self, first: usize, rows: usize) -> Self {
        let stride = self.cut.stride();
        let data = &self.data[first * stride..];
        Self { data: &data[..data.len().min(rows * stride)], ..self }
    }
}

/// Fills a tile row by row; a row is rounded once it is complete.
#[inline(always)]
pub fn fill<E: Element>(cut: Cut, tile: &mut [E], mut row: impl FnMut(usize, &mut [E::Sum])) {
    let rows = tile.len() / cut.stride();
    let mut whole = vec![E::Sum::of(0.0); cut.stride()];
    for i in 0..rows {
        row(i, &mut whole[..cut.columns]);
        for (panel, part) in tile.chunks_exact_mut(rows * cut.width).zip(whole.chunks_exact(cut.width)) {
            let panel = &mut panel[i * cut.width..][..cut.width];
            panel.iter_mut().zip(part).for_each(|(to, &x)| *to = E::of_sum(x));
        }
    }
}
