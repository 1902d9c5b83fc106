//! Two rows of pixels at a time.

use rayon::prelude::*;

use super::Squeeze;
use crate::cpu::{Buffer, Cpu, Scalar};
use crate::shape::Grid;

/// Calls `pair(i, j)` for each element `i` of two adjacent pixel rows of the large image, and the element `j`
/// of the squeezed row that it maps to.
fn squeezed_row(width: usize, channels: usize, mut pair: impl FnMut(usize, usize)) {
    for dy in 0..2 {
        for x in 0..width {
            for c in 0..channels {
                pair((dy * width + x) * channels + c, x / 2 * 4 * channels + 4 * c + 2 * dy + x % 2);
            }
        }
    }
}

fn squeeze<T: Scalar>(grid: Grid, channels: usize, x: &[T], y: &mut [T]) {
    let two_rows = 2 * grid.width * channels;
    x.par_chunks(two_rows)
        .zip(y.par_chunks_mut(two_rows))
        .for_each(|(x, y)| squeezed_row(grid.width, channels, |i, j| y[j] = x[i]));
}

fn unsqueeze<T: Scalar>(grid: Grid, channels: usize, y: &[T], x: &mut [T]) {
    let two_rows = 2 * grid.width * channels;
    x.par_chunks_mut(two_rows)
        .zip(y.par_chunks(two_rows))
        .for_each(|(x, y)| squeezed_row(grid.width, channels, |i, j| x[i] = y[j]));
}

impl<T: Scalar> Squeeze for Cpu<T> {
    fn squeeze(&self, grid: Grid, channels: usize, x: &Buffer<T>, y: &mut Buffer<T>) {
        squeeze(grid, channels, x, y);
    }

    fn unsqueeze(&self, grid: Grid, channels: usize, y: &Buffer<T>, x: &mut Buffer<T>) {
        unsqueeze(grid, channels, y, x);
    }
}
