//! Activations in tiles of rows, and each tile in panels of columns.
//!
//! ```text
//! tile 0: rows 0..h     panel 0 [h, W]  panel 1 [h, W]  …     W = two vectors
//! tile 1: rows h..2h    panel 0 [h, W]  panel 1 [h, W]  …     the last tile may have fewer rows
//! ```
//!
//! The last panel is filled up with columns of zeros. Read along a row this is the left side of a product,
//! read down a column it is the left side of a weight gradient, and a panel as such is the right side of
//! one: no operand is ever copied or transposed. A tile is what one thread works on, and what stays in
//! its second-level cache.

use rayon::prelude::*;
use rayon::slice::{Chunks, ChunksMut};

use super::element::Element;
use super::{Buffer, Workspace};
use crate::real::Real;

/// How a matrix is cut up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Columns that count.
    pub columns: usize,
    /// Rows of a tile.
    pub tile: usize,
    /// Columns of a panel.
    pub width: usize,
}

impl Cut {
    /// For a matrix of so many rows and columns.
    pub fn of<E: Element>(work: &Workspace<E>, rows: usize, columns: usize) -> Self {
        Self { columns, tile: tile_rows(rows), width: E::kernels(work.isa()).panel }
    }

    /// Elements of a row, with those that fill up.
    pub fn stride(self) -> usize {
        self.columns.next_multiple_of(self.width)
    }
}

/// A matrix in tiles and panels.
pub struct Panels<T> {
    pub cut: Cut,
    data: Buffer<T>,
}

/// Some whole tiles of a matrix in panels.
#[derive(Clone, Copy)]
pub struct View<'a, T> {
    pub cut: Cut,
    pub data: &'a [T],
}

/// Rows of a tile: enough tiles for every thread to get several, few enough rows that two hidden activations
/// of common width stay in the second-level cache. A power of two, so that it divides [`DEPTH`].
fn tile_rows(rows: usize) -> usize {
    (rows / (4 * rayon::current_num_threads())).next_power_of_two().clamp(16, 64)
}

/// Rows that are summed in registers at once in a weight gradient, whatever the tile: the bits of a sum do not
/// depend on the number of threads.
pub const DEPTH: usize = 128;

/// The same where pairs of rows are interleaved first. Rows that a gradient is taken of at once are a multiple of it, and so of
/// [`DEPTH`], so that the slabs are the same with any number of threads.
pub const SLAB: usize = 2 * DEPTH;

impl<T: Element> Panels<T> {
    /// A matrix of any contents.
    pub fn scratch(work: &Workspace<T>, rows: usize, columns: usize) -> Self {
        Self::scratch_as(work, rows, Cut::of(work, rows, columns))
    }

    /// A matrix of any contents, cut up like this.
    pub fn scratch_as(work: &Workspace<T>, rows: usize, cut: Cut) -> Self {
        Self { cut, data: work.take(rows * cut.stride()) }
    }

    /// A row-major matrix, copied and rounded.
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

    /// All of it.
    pub fn view(&self) -> View<'_, T> {
        View { cut: self.cut, data: &self.data }
    }
}

impl<'a, T: Element> View<'a, T> {
    /// The tiles, in order.
    pub fn tiles(self) -> Chunks<'a, T> {
        self.data.par_chunks(self.cut.tile * self.cut.stride())
    }

    /// The part from row `first` on, `rows` of them at most; `first` begins a tile.
    pub fn part(self, first: usize, rows: usize) -> Self {
        let stride = self.cut.stride();
        let data = &self.data[first * stride..];
        Self { data: &data[..data.len().min(rows * stride)], ..self }
    }
}

/// Fills a tile row by row, with numbers that are rounded once a row is whole.
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
