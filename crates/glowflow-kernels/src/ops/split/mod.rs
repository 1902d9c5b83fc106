//! Split: the first and the last half of the channels, `x = (first, last)` at every pixel.

mod cpu;
mod cuda;
mod reference;

use crate::primitives::Primitives;

/// Splits activations into two halves of the channels.
pub trait Split: Primitives {
    /// Splits `x` `[rows, channels]` into its first and its last half of the channels.
    fn split(&self, channels: usize, x: &Self::Buffer, first: &mut Self::Buffer, last: &mut Self::Buffer) {
        reference::split(self, channels, x, first, last);
    }

    /// The inverse of [`split`](Self::split).
    fn join(&self, channels: usize, first: &Self::Buffer, last: &Self::Buffer, x: &mut Self::Buffer) {
        reference::join(self, channels, first, last, x);
    }
}
