//! 3×3 neighbourhoods: a 3×3 convolution is a product preceded by gathering patches, or followed by adding
//! shifted rows.
//!
//! Offset `k = 3·ky + kx` of a kernel refers to pixel `(y + ky − 1, x + kx − 1)`. If the input of a
//! convolution is narrow, its patches are gathered; if its output is narrow, every pixel's contributions to
//! its nine neighbours are computed first and then added. Wide activations are never shifted or padded.

use rayon::prelude::*;

use super::Workspace;
use super::element::Element;
use super::isa::Task;
use super::panels::{self, Cut, Panels};
use crate::cpu::Scalar;
use crate::real::Real;
use crate::shape::Grid;

/// The offsets of the nine neighbours of a pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offsets {
    /// `(y + ky − 1, x + kx − 1)`, as in the convolution.
    Convolution,
    /// `(y − ky + 1, x − kx + 1)`, as in its transpose.
    Transposed,
}

/// Rows of the nine neighbours of the pixel in row `row` of the activation; `None` outside the image.
fn neighbours(grid: Grid, row: usize, offsets: Offsets) -> [Option<usize>; 9] {
    let (y, x) = (row / grid.width % grid.height, row % grid.width);
    std::array::from_fn(|k| {
        let (ky, kx) = match offsets {
            Offsets::Convolution => (k / 3, k % 3),
            Offsets::Transposed => (2 - k / 3, 2 - k % 3),
        };
        let inside = (1..=grid.height).contains(&(y + ky)) && (1..=grid.width).contains(&(x + kx));
        inside.then(|| row + ky * grid.width + kx - grid.width - 1)
    })
}

/// Gathers patches of the first channels, with the edge channel last, for the rows from `first_row` on, into
/// a tile of `[rows, 9·(inputs + 1)]` in panels.
///
/// Column `9·c + k` is channel `c` at offset `k`: the order of an OIHW weight.
pub struct Gather<'a, E: Element> {
    pub grid: Grid,
    /// Number of channels, starting at the first.
    pub inputs: usize,
    /// Number of channels of `x`.
    pub stride: usize,
    pub x: &'a [E::Sum],
    pub first_row: usize,
    pub cut: Cut,
    pub tile: &'a mut [E],
}

impl<E: Element> Task for Gather<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { grid, inputs, stride, x, first_row, cut, tile } = self;
        let (zero, one) = (E::Sum::of(0.0), E::Sum::of(1.0));
        panels::fill(cut, tile, |i, patch| {
            let (channels, edge) = patch.split_at_mut(9 * inputs);
            for (k, neighbour) in
                neighbours(grid, first_row + i, Offsets::Convolution).into_iter().enumerate()
            {
                let to = channels[k..].iter_mut().step_by(9);
                match neighbour {
                    Some(row) => to.zip(&x[row * stride..][..inputs]).for_each(|(to, &x)| *to = x),
                    None => to.for_each(|to| *to = zero),
                }
                edge[k] = if neighbour.is_some() { zero } else { one };
            }
        });
    }
}

/// All patches of a batch, in the layout of [`Gather`].
pub fn all_with_edge<E: Element>(
    work: &Workspace<E>,
    grid: Grid,
    inputs: usize,
    stride: usize,
    x: &[E::Sum],
) -> Panels<E> {
    let mut patches = Panels::scratch(work, grid.rows(), 9 * (inputs + 1));
    let cut = patches.cut;
    patches.tiles_mut().enumerate().for_each(|(t, tile)| {
        work.run(Gather { grid, inputs, stride, x, first_row: t * cut.tile, cut, tile });
    });
    patches
}

/// Gathers the output gradients that depend on each pixel, into a tile of `[rows, 9·channels]` in panels:
/// column `k·channels + c` is channel `c` of `dy` at the pixel that offset `k` of this pixel contributed to.
/// Further columns are those of `after`, `[grid, columns]`.
pub struct GatherBack<'a, E: Element> {
    pub grid: Grid,
    pub channels: usize,
    pub dy: &'a [E::Sum],
    pub after: &'a [E::Sum],
    pub first_row: usize,
    pub cut: Cut,
    pub tile: &'a mut [E],
}

impl<E: Element> Task for GatherBack<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { grid, channels, dy, after, first_row, cut, tile } = self;
        let columns = cut.columns - 9 * channels;
        panels::fill(cut, tile, |i, patch| {
            let (patch, end) = patch.split_at_mut(9 * channels);
            end.copy_from_slice(&after[(first_row + i) * columns..][..columns]);
            let neighbours = neighbours(grid, first_row + i, Offsets::Transposed);
            for (part, neighbour) in patch.chunks_exact_mut(channels).zip(neighbours) {
                match neighbour {
                    Some(row) => part.copy_from_slice(&dy[row * channels..][..channels]),
                    None => part.fill(E::Sum::of(0.0)),
                }
            }
        });
    }
}

/// Adds nine shifted copies: row by row, to the first channels of `y`, column `k·channels + c` of
/// `contributions` at the neighbour of offset `k`.
#[derive(Clone, Copy)]
pub struct AddShifted<'a, T> {
    pub grid: Grid,
    pub offsets: Offsets,
    pub channels: usize,
    /// Number of channels of `y`.
    pub stride: usize,
    /// `[rows, 9·channels]`
    pub contributions: &'a [T],
    /// Contribution of a neighbour outside the image, `[9, channels]`.
    pub edge: Option<&'a [T]>,
}

impl<T: Scalar> AddShifted<'_, T> {
    /// Adds to all rows of `y` `[rows, stride]`.
    pub fn to<E: Element<Sum = T>>(self, work: &Workspace<E>, y: &mut [T]) {
        let rows_at_once = self.grid.width.max(16);
        y.par_chunks_mut(rows_at_once * self.stride).enumerate().for_each(|(chunk, y)| {
            work.run(AddToRows { what: self, first_row: chunk * rows_at_once, y });
        });
    }
}

/// The same for the rows from `first_row` on.
struct AddToRows<'a, T> {
    what: AddShifted<'a, T>,
    first_row: usize,
    y: &'a mut [T],
}

impl<T: Scalar> Task for AddToRows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let AddShifted { grid, offsets, channels, stride, contributions, edge } = self.what;
        for (row, y) in (self.first_row..).zip(self.y.chunks_exact_mut(stride)) {
            for (k, neighbour) in neighbours(grid, row, offsets).into_iter().enumerate() {
                let from = match (neighbour, edge) {
                    (Some(row), _) => &contributions[(9 * row + k) * channels..][..channels],
                    (None, Some(edge)) => &edge[k * channels..][..channels],
                    (None, None) => continue,
                };
                y.iter_mut().zip(from).for_each(|(y, &from)| *y += from);
            }
        }
    }
}

/// The gradient of `edge` in [`AddShifted`], given that of `y` `[rows, channels]`: for each offset the sum
/// over the pixels whose neighbour there is outside the image.
pub fn edge_gradient<T: Scalar>(grid: Grid, channels: usize, dy: &[T]) -> Vec<T> {
    let mut sums = vec![0.0; 9 * channels];
    for (row, dy) in dy.chunks_exact(channels).enumerate() {
        let (y, x) = (row / grid.width % grid.height, row % grid.width);
        if (1..grid.height - 1).contains(&y) && (1..grid.width - 1).contains(&x) {
            continue;
        }
        for (k, neighbour) in neighbours(grid, row, Offsets::Convolution).into_iter().enumerate() {
            if neighbour.is_none() {
                sums[k * channels..][..channels].iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy.wide());
            }
        }
    }
    sums.into_iter().map(T::of).collect()
}
