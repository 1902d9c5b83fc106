//! Matrices as products read them: tiles of rows, in the panels of [`crate::cpu::panels`].
//!
//! A tile is copied from where the matrix is stored, or from where a convolution's patches lie, right before it is
//! multiplied. It is still in the cache then, and no matrix of patches is ever in memory.

use crate::cpu::Workspace;
use crate::cpu::isa::Task;
use crate::cpu::panels::Cut;
use crate::real::Real;
use crate::shape::Grid;

/// A matrix whose rows can be copied into a tile.
pub trait Rows<T>: Sync {
    /// Fills a tile with `rows` rows from row `first` on. Implementations are `#[inline(always)]`: see [`Task`].
    fn fill(&self, first: usize, rows: usize, cut: Cut, tile: &mut [T]);
}

/// Fills a tile with the instructions of the workspace.
pub fn fill<T: Real>(
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

impl<T: Real, M: Rows<T>> Task for Fill<'_, M, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        // Columns beyond the matrix's are 0.
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

impl<T: Real> Rows<T> for Stored<'_, T> {
    #[inline(always)]
    fn fill(&self, first: usize, rows: usize, cut: Cut, tile: &mut [T]) {
        // Row by row, for memory is read fastest in order.
        for i in 0..rows {
            let row = &self.data[(first + i) * self.stride..][..cut.columns];
            for (p, from) in row.chunks(cut.width).enumerate() {
                let to = &mut tile[(p * rows + i) * cut.width..][..from.len()];
                to.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
            }
        }
    }
}

/// A matrix in memory, transposed: column `c` begins at `c·stride`.
#[derive(Clone, Copy)]
pub struct Transposed<'a, T>(pub Stored<'a, T>);

impl<T: Real> Rows<T> for Transposed<'_, T> {
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

/// The patches of `x` `[grid, channels]`, `[grid, kernel·kernel·channels]`: column `(kernel·dy + dx)·channels + c`.
#[derive(Clone, Copy)]
pub struct Patches<'a, T> {
    pub grid: Grid,
    pub channels: usize,
    pub kernel: usize,
    pub x: &'a [T],
}

impl<T> Patches<'_, T> {
    /// Where the pixels begin that the window of pixel `row` covers, tap by tap; `None` outside the image.
    #[inline(always)]
    pub fn neighbour(&self, row: usize, tap: usize) -> Option<usize> {
        let (Grid { height, width, .. }, reach) = (self.grid, self.kernel / 2);
        let (y, x) = (row / width % height + tap / self.kernel, row % width + tap % self.kernel);
        let inside = (reach..reach + height).contains(&y) && (reach..reach + width).contains(&x);
        inside.then(|| row + (tap / self.kernel) * width + tap % self.kernel - reach * width - reach)
    }
}

impl<T: Real> Rows<T> for Patches<'_, T> {
    #[inline(always)]
    fn fill(&self, first: usize, rows: usize, cut: Cut, tile: &mut [T]) {
        let Cut { width, .. } = cut;
        for i in 0..rows {
            for tap in 0..self.kernel * self.kernel {
                let from = self.neighbour(first + i, tap).map(|row| &self.x[row * self.channels..]);
                // The channels of a tap, a panel's part after the other.
                let mut done = 0;
                while done < self.channels {
                    let column = tap * self.channels + done;
                    let (panel, offset) = (column / width, column % width);
                    let len = (width - offset).min(self.channels - done);
                    let to = &mut tile[(panel * rows + i) * width + offset..][..len];
                    match from {
                        Some(from) => {
                            to.iter_mut().zip(&from[done..][..len]).for_each(|(to, &from)| *to = from)
                        }
                        None => to.fill(T::zero()),
                    }
                    done += len;
                }
            }
        }
    }
}
