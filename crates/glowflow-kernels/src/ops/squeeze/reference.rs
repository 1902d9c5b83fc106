//! A strided copy for each of the four pixels that are merged.

use super::Squeeze;
use crate::expr::input;
use crate::ops::Reference;
use crate::primitives::{Primitives, Strided, View, ViewMut};
use crate::shape::Grid;

/// Shape of the pixels with the offset `(dy, dx)`, and their strides in the large and the squeezed image.
fn places(grid: Grid, channels: usize, dy: usize, dx: usize) -> ([usize; 3], Strided, Strided) {
    let Grid { batch, height, width } = grid;
    let row = width * channels;
    (
        [batch * height / 2, width / 2, channels],
        Strided { start: dy * row + dx * channels, strides: [2 * row, 2 * channels, 1] },
        Strided { start: 2 * dy + dx, strides: [2 * row, 4 * channels, 4] },
    )
}

pub fn squeeze<D: Primitives>(device: &D, grid: Grid, channels: usize, x: &D::Buffer, y: &mut D::Buffer) {
    for offset in 0..4 {
        let (shape, large, squeezed) = places(grid, channels, offset / 2, offset % 2);
        let to = ViewMut { buffer: &mut *y, at: squeezed };
        device.map(&input(0), shape, &[View { buffer: x, at: large }], to);
    }
}

pub fn unsqueeze<D: Primitives>(device: &D, grid: Grid, channels: usize, y: &D::Buffer, x: &mut D::Buffer) {
    for offset in 0..4 {
        let (shape, large, squeezed) = places(grid, channels, offset / 2, offset % 2);
        let to = ViewMut { buffer: &mut *x, at: large };
        device.map(&input(0), shape, &[View { buffer: y, at: squeezed }], to);
    }
}

impl<D: Primitives> Squeeze for Reference<D> {}
