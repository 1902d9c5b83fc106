//! 3×3 neighbourhoods: conv3×3 is a product with patches gathered before it, or with shifted rows
//! added up after it.
//!
//! Offset `k = 3·ky + kx` of a kernel looks at pixel `(y + ky − 1, x + kx − 1)`. Where the input of a
//! convolution is narrow, its patches are gathered; where its output is narrow, every pixel's
//! contribution to its nine neighbours is computed first and then added up. Nothing wide is ever
//! shifted or padded.

use rayon::prelude::*;

use super::Workspace;
use super::element::Element;
use super::panels::{self, Cut, Panels};
use crate::real::Real;
use crate::shape::Grid;

/// Which neighbour an offset means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// `(y + ky − 1, x + kx − 1)`, as the convolution itself.
    Ahead,
    /// `(y − ky + 1, x − kx + 1)`, as its transpose.
    Back,
}

/// The nine neighbours of the pixel in row `row` of the activation: their rows, `None` outside the image.
fn neighbours(grid: Grid, row: usize, look: Look) -> [Option<usize>; 9] {
    let (y, x) = (row / grid.width % grid.height, row % grid.width);
    std::array::from_fn(|k| {
        let (ky, kx) = match look {
            Look::Ahead => (k / 3, k % 3),
            Look::Back => (2 - k / 3, 2 - k % 3),
        };
        let inside = (1..=grid.height).contains(&(y + ky)) && (1..=grid.width).contains(&(x + kx));
        inside.then(|| row + ky * grid.width + kx - grid.width - 1)
    })
}

/// Gathers the patches of the first `inputs` of the `stride` channels of `x`, with the edge channel last, for the
/// rows from `first_row` on, into a tile of `[rows, 9·(inputs + 1)]` in panels.
///
/// Column `9·c + k` is channel `c` at offset `k`: the order of an OIHW weight.
#[inline(always)]
pub fn gather_with_edge<E: Element>(
    grid: Grid,
    inputs: usize,
    stride: usize,
    x: &[E::Sum],
    first_row: usize,
    cut: Cut,
    tile: &mut [E],
) {
    panels::fill(cut, tile, |i, patch| {
        for (k, neighbour) in neighbours(grid, first_row + i, Look::Ahead).into_iter().enumerate() {
            match neighbour {
                Some(row) => {
                    let pixel = &x[row * stride..row * stride + inputs];
                    for (c, &value) in pixel.iter().enumerate() {
                        patch[9 * c + k] = E::of_sum(value);
                    }
                    patch[9 * inputs + k] = E::default();
                }
                None => {
                    for c in 0..inputs {
                        patch[9 * c + k] = E::default();
                    }
                    patch[9 * inputs + k] = E::of_sum(E::Sum::of(1.0));
                }
            }
        }
    });
}

/// All patches of a batch, as [`gather_with_edge`] has them.
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
        gather_with_edge(grid, inputs, stride, x, t * cut.tile, cut, tile);
    });
    patches
}

/// Gathers what each pixel's contributions became, into a tile of `[rows, 9·channels]` in panels: column
/// `k·channels + c` is channel `c` of `dy` at the pixel that offset `k` of this one went to.
#[inline(always)]
pub fn gather_back<E: Element>(
    grid: Grid,
    channels: usize,
    dy: &[E::Sum],
    first_row: usize,
    cut: Cut,
    tile: &mut [E],
) {
    panels::fill(cut, tile, |i, patch| {
        let neighbours = neighbours(grid, first_row + i, Look::Back);
        for (part, neighbour) in patch.chunks_exact_mut(channels).zip(neighbours) {
            match neighbour {
                Some(row) => {
                    let from = &dy[row * channels..(row + 1) * channels];
                    part.iter_mut().zip(from).for_each(|(to, &x)| *to = E::of_sum(x));
                }
                None => part.fill(E::default()),
            }
        }
    });
}

/// Adds up nine shifted copies: row by row, to the first `channels` of the `stride` channels of `y`, column
/// `k·channels + c` of `contributions` `[rows, 9·channels]` at the neighbour that offset `k` looks at.
/// Outside the image `edge` `[9, channels]` contributes, where given.
#[allow(clippy::too_many_arguments)]
pub fn add_shifted<E: Element<Sum = T>, T: Real>(
    work: &Workspace<E>,
    grid: Grid,
    channels: usize,
    stride: usize,
    look: Look,
    contributions: &[T],
    edge: Option<&[T]>,
    y: &mut [T],
) {
    let rows_at_once = grid.width.max(16);
    y.par_chunks_mut(rows_at_once * stride).enumerate().for_each(|(chunk, y)| {
        work.enabled(|| {
            for (i, y) in y.chunks_exact_mut(stride).enumerate() {
                let row = chunk * rows_at_once + i;
                for (k, neighbour) in neighbours(grid, row, look).into_iter().enumerate() {
                    let from = match (neighbour, edge) {
                        (Some(row), _) => &contributions[(9 * row + k) * channels..][..channels],
                        (None, Some(edge)) => &edge[k * channels..][..channels],
                        (None, None) => continue,
                    };
                    y.iter_mut().zip(from).for_each(|(y, &from)| *y += from);
                }
            }
        })
    });
}

/// The gradient by `edge` of [`add_shifted`], given that by `y`, `[rows, channels]`: for each offset the sum over
/// the pixels whose neighbour there lies outside.
pub fn edge_gradient<T: Real>(grid: Grid, channels: usize, dy: &[T]) -> Vec<T> {
    let mut sums = vec![0.0; 9 * channels];
    for (row, dy) in dy.chunks_exact(channels).enumerate() {
        let (y, x) = (row / grid.width % grid.height, row % grid.width);
        if (1..grid.height - 1).contains(&y) && (1..grid.width - 1).contains(&x) {
            continue;
        }
        for (k, neighbour) in neighbours(grid, row, Look::Ahead).into_iter().enumerate() {
            if neighbour.is_none() {
                sums[k * channels..][..channels].iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy.wide());
            }
        }
    }
    sums.into_iter().map(T::of).collect()
}
