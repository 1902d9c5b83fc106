//! Squeeze: `[H, W, C] → [H/2, W/2, 4C]`.
//!
//! Output channel `4c + 2dy + dx` is input channel `c` at pixel `(2h + dy, 2w + dx)`: the order of PyTorch's
//! `pixel_unshuffle`.

mod cpu;
mod cuda;
mod reference;

use crate::primitives::Primitives;
use crate::shape::Grid;

/// Trades height and width for channels.
pub trait Squeeze: Primitives {
    /// Squeezes `x` `[grid, channels]` into `y` `[grid.halved(), 4·channels]`.
    fn squeeze(&self, grid: Grid, channels: usize, x: &Self::Buffer, y: &mut Self::Buffer) {
        reference::squeeze(self, grid, channels, x, y);
    }

    /// The inverse of [`squeeze`](Self::squeeze), with the same `grid` and `channels`.
    fn unsqueeze(&self, grid: Grid, channels: usize, y: &Self::Buffer, x: &mut Self::Buffer) {
        reference::unsqueeze(self, grid, channels, y, x);
    }
}
