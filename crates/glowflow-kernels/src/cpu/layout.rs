//! Squeeze, and taking channels apart: bytes moved, nothing computed.

use rayon::prelude::*;

use crate::real::Real;
use crate::shape::Grid;

/// Calls `pair(i, j)` for each element `i` of one row of pixels of the large image, two rows high, and the element
/// `j` of the squeezed row that it becomes.
fn squeezed_row(width: usize, channels: usize, mut pair: impl FnMut(usize, usize)) {
    for dy in 0..2 {
        for x in 0..width {
            for c in 0..channels {
                pair((dy * width + x) * channels + c, x / 2 * 4 * channels + 4 * c + 2 * dy + x % 2);
            }
        }
    }
}

pub fn squeeze<T: Real>(grid: Grid, channels: usize, x: &[T], y: &mut [T]) {
    let two_rows = 2 * grid.width * channels;
    x.par_chunks(two_rows)
        .zip(y.par_chunks_mut(two_rows))
        .for_each(|(x, y)| squeezed_row(grid.width, channels, |i, j| y[j] = x[i]));
}

pub fn unsqueeze<T: Real>(grid: Grid, channels: usize, y: &[T], x: &mut [T]) {
    let two_rows = 2 * grid.width * channels;
    x.par_chunks_mut(two_rows)
        .zip(y.par_chunks(two_rows))
        .for_each(|(x, y)| squeezed_row(grid.width, channels, |i, j| x[i] = y[j]));
}

pub fn split<T: Real>(channels: usize, x: &[T], first: &mut [T], last: &mut [T]) {
    let half = channels / 2;
    for ((x, first), last) in
        x.chunks_exact(channels).zip(first.chunks_exact_mut(half)).zip(last.chunks_exact_mut(half))
    {
        first.copy_from_slice(&x[..half]);
        last.copy_from_slice(&x[half..]);
    }
}

pub fn join<T: Real>(channels: usize, first: &[T], last: &[T], x: &mut [T]) {
    let half = channels / 2;
    for ((x, first), last) in
        x.chunks_exact_mut(channels).zip(first.chunks_exact(half)).zip(last.chunks_exact(half))
    {
        x[..half].copy_from_slice(first);
        x[half..].copy_from_slice(last);
    }
}
