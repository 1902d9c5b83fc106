//! Operands of products: tiles of rows, in the panels of [`crate::cpu::panels`].
//!
//! A tile is copied from a stored matrix, or from a convolution's patches, immediately before it is
//! multiplied. It is then still in the cache, and a matrix of patches never exists in memory.

use crate::cpu::Scalar;
use crate::cpu::Workspace;
use crate::cpu::isa::Task;
use crate::cpu::panels::Cut;
use crate::shape::Grid;

/// A matrix whose rows can be copied into a tile.
pub trait Rows<T>: Sync {
    /// Fills a tile with `rows` rows from row `first` on. Implementations are `#[inline(always)]`: see
    /// [`Task`].
    fn fill(&self, first: usize, rows: usize, cut: Cut, tile: &mut [T]);
}

/// Fills a tile, compiled for the workspace's instruction set.
pub fn fill<T: Scalar>(
    work: &Workspace<T>,
    matrix: &impl Rows<T>,
    first: usize,
    rows: usize,
    cut: Cut,
    tile: &mut [T],
) {
    work.run(Fill { matrix, first, rows, cut, tile });
}

struct Fill<'a, M, T> {
    matrix: &'a M,
    first: usize,
    rows: usize,
    cut: Cut,
    tile: &'a mut [T],
}

impl<T: Scalar, M: Rows<T>> Task for Fill<'_, M, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        // Padding columns are 0.
        let Cut { columns, width, .. } = self.cut;
        if let Some(panel) = self.tile.chunks_exact_mut(self.rows * width).nth(columns / width) {
            panel.chunks_exact_mut(width).for_each(|row| row[columns % width..].fill(T::zero()));
        }
        self.matrix.fill(self.first, self.rows, self.cut, self.tile);
    }
}

/// A matrix in memory: row `r` begins at `r·stride`.
#[derive(Clone, Copy)]
pub struct Stored<'a, T> {
    pub data: &'a [T],
    pub stride: usize,
}

impl<T: Scalar> Rows<T> for Stored<'_, T> {
    #[inline(always)]
    fn fill(&self, first: usize, rows: usize, cut: Cut, tile: &mut [T]) {
        match cut.width {
            32 => self.fill_panels::<32>(first, rows, cut, tile),
            16 => self.fill_panels::<16>(first, rows, cut, tile),
            8 => self.fill_panels::<8>(first, rows, cut, tile),
            _ => self.fill_panels::<0>(first, rows, cut, tile),
        }
    }
}

impl<T: Scalar> Stored<'_, T> {
    /// As [`Rows::fill`]. `WIDTH` is the panel width, or 0 if it is not a compile-time constant.
    #[inline(always)]
    fn fill_panels<const WIDTH: usize>(&self, first: usize, rows: usize, cut: Cut, tile: &mut [T]) {
        let width = if WIDTH > 0 { WIDTH } else { cut.width };
        // Row by row: sequential reads are fastest.
        for i in 0..rows {
            let row = &self.data[(first + i) * self.stride..][..cut.columns];
            for (p, from) in row.chunks(width).enumerate() {
                let to = &mut tile[(p * rows + i) * width..][..from.len()];
                match (to.first_chunk_mut::<WIDTH>(), from.first_chunk::<WIDTH>()) {
                    (Some(to), Some(from)) if WIDTH > 0 => *to = *from,
                    _ => to.copy_from_slice(from),
                }
            }
        }
    }
}

/// A matrix in memory, transposed: column `c` begins at `c·stride`.
#[derive(Clone, Copy)]
pub struct Transposed<'a, T>(pub Stored<'a, T>);

impl<T: Scalar> Rows<T> for Transposed<'_, T> {
    #[inline(always)]
    fn fill(&self, first: usize, rows: usize, cut: Cut, tile: &mut [T]) {
        let Self(Stored { data, stride }) = *self;
        for (p, panel) in tile.chunks_exact_mut(rows * cut.width).enumerate() {
            for j in 0..cut.width.min(cut.columns - p * cut.width) {
                let from = &data[(p * cut.width + j) * stride + first..][..rows];
                panel[j..].iter_mut().step_by(cut.width).zip(from).for_each(|(to, &from)| *to = from);
            }
        }
    }
}

/// The patches of `x` `[grid, channels]`, `[grid, kernel·kernel·channels]`: column
/// `(kernel·dy + dx)·channels + c`.
#[derive(Clone, Copy)]
pub struct Patches<'a, T> {
    pub grid: Grid,
    pub channels: usize,
    pub kernel: usize,
    pub x: &'a [T],
}

impl<T> Patches<'_, T> {
    /// Starting positions of the pixels that the window of pixel `row` covers, tap by tap; `None` outside the
    /// image.
    #[inline(always)]
    pub fn neighbour(&self, row: usize, tap: usize) -> Option<usize> {
        let (Grid { height, width, .. }, reach) = (self.grid, self.kernel / 2);
        let (y, x) = (row / width % height + tap / self.kernel, row % width + tap % self.kernel);
        let inside = (reach..reach + height).contains(&y) && (reach..reach + width).contains(&x);
        inside.then(|| row + (tap / self.kernel) * width + tap % self.kernel - reach * width - reach)
    }
}

impl<T: Scalar> Rows<T> for Patches<'_, T> {
    #[inline(always)]
    fn fill(&self, first: usize, rows: usize, cut: Cut, tile: &mut [T]) {
        for tap in 0..self.kernel * self.kernel {
            // The channels of a tap, one panel's part at a time.
            let mut channel = 0;
            while channel < self.channels {
                let column = tap * self.channels + channel;
                let (panel, offset) = (column / cut.width, column % cut.width);
                let len = (cut.width - offset).min(self.channels - channel);
                let piece = Piece { tap, channel, len, width: cut.width };
                let to = &mut tile[panel * rows * cut.width..][..rows * cut.width][offset..];
                match len {
                    32 => self.fill_piece::<32>(piece, first, rows, to),
                    16 => self.fill_piece::<16>(piece, first, rows, to),
                    8 => self.fill_piece::<8>(piece, first, rows, to),
                    _ => self.fill_piece::<0>(piece, first, rows, to),
                }
                channel += len;
            }
        }
    }
}

/// A range of a tap's channels within one panel.
#[derive(Clone, Copy)]
struct Piece {
    tap: usize,
    channel: usize,
    len: usize,
    /// Panel width.
    width: usize,
}

impl<T: Scalar> Patches<'_, T> {
    /// Fills a piece of the patches of `rows` pixels; its columns are the first of each row of `to`. `LEN` is
    /// its length, or 0 if it is not a compile-time constant.
    #[inline(always)]
    fn fill_piece<const LEN: usize>(&self, piece: Piece, first: usize, rows: usize, to: &mut [T]) {
        let (Grid { height, width, .. }, reach) = (self.grid, self.kernel / 2);
        let (dy, dx) = (piece.tap / self.kernel, piece.tap % self.kernel);
        let (mut y, mut x) = (first / width % height, first % width);
        let mut i = 0;
        // Pixels of one image row at a time: the window is outside at the first, at the last, or at all of
        // them.
        while i < rows {
            let end = width.min(x + rows - i);
            let (from, until) = if (reach..reach + height).contains(&(y + dy)) {
                let from = reach.saturating_sub(dx).clamp(x, end);
                (from, (width + reach).saturating_sub(dx).clamp(from, end))
            } else {
                (end, end)
            };
            let run = |from: usize, until: usize| (i + from - x) * piece.width..(i + until - x) * piece.width;
            clear::<T, LEN>(piece, rows_of(to, run(x, from)));
            if from < until {
                let pixel = first + i + (from - x) + dy * width + dx - reach * width - reach;
                let data = &self.x[pixel * self.channels + piece.channel..];
                copy::<T, LEN>(piece, data, self.channels, rows_of(to, run(from, until)));
            }
            clear::<T, LEN>(piece, rows_of(to, run(until, end)));
            i += end - x;
            (y, x) = (if y + 1 == height { 0 } else { y + 1 }, 0);
        }
    }
}

/// A range of rows of a panel; the last one may lack the columns before the piece.
#[inline(always)]
fn rows_of<T>(to: &mut [T], rows: std::ops::Range<usize>) -> &mut [T] {
    let end = rows.end.min(to.len());
    &mut to[rows.start.min(end)..end]
}

/// Writes zeros to a piece of each row.
#[inline(always)]
fn clear<T: Scalar, const LEN: usize>(piece: Piece, to: &mut [T]) {
    for to in to.chunks_mut(piece.width) {
        match to.first_chunk_mut::<LEN>() {
            Some(to) if LEN > 0 => *to = [T::zero(); LEN],
            _ => to[..piece.len].fill(T::zero()),
        }
    }
}

/// Copies a piece of each row; rows of `from` are `stride` apart.
#[inline(always)]
fn copy<T: Scalar, const LEN: usize>(piece: Piece, from: &[T], stride: usize, to: &mut [T]) {
    for (to, from) in to.chunks_mut(piece.width).zip(from.chunks(stride)) {
        match (to.first_chunk_mut::<LEN>(), from.first_chunk::<LEN>()) {
            (Some(to), Some(from)) if LEN > 0 => *to = *from,
            _ => to[..piece.len].iter_mut().zip(from).for_each(|(to, &from)| *to = from),
        }
    }
}
