//! Depthwise convolution of stride 1 with zero padding; each channel has its own taps:
//!
//! ```text
//! y[p, c]     = Σ_t taps[t, c]·x[p + offset(t), c]          x, y [grid, channels]
//! dx[p, c]    = Σ_t taps[t, c]·dy[p − offset(t), c]
//! dtaps[t, c] = Σ_p x[p + offset(t), c]·dy[p, c]            taps [kernel, kernel, channels]
//! ```
//!
//! The functions here are the default bodies of the operations in [`Primitives`], based on patches. A device
//! may override them.

use crate::expr::input;
use crate::primitives::{Primitives, Strided, View, ViewMut, holds};
use crate::shape::Grid;

/// Shape of a depthwise convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depthwise {
    /// The pixels.
    pub grid: Grid,
    /// Number of channels.
    pub channels: usize,
    /// Height and width of the window, odd.
    pub kernel: usize,
}

impl Depthwise {
    /// Number of elements of the activations.
    pub fn len(self) -> usize {
        self.grid.rows() * self.channels
    }

    /// Returns whether there are no activations.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Number of elements of the taps.
    pub fn taps_len(self) -> usize {
        self.taps() * self.channels
    }

    fn taps(self) -> usize {
        self.kernel * self.kernel
    }

    /// Axes of a pass over the patches: pixels, taps, channels.
    fn shape(self) -> [usize; 3] {
        [self.grid.rows(), self.taps(), self.channels]
    }

    fn patches(self) -> Strided {
        Strided { start: 0, strides: [self.taps_len(), self.channels, 1] }
    }

    fn pixels(self) -> Strided {
        Strided { start: 0, strides: [self.channels, 0, 1] }
    }

    fn taps_from(self, start: usize) -> Strided {
        Strided { start, strides: [0, self.channels, 1] }
    }

    /// Checks the lengths of activations, and of the taps from `start` on.
    ///
    /// # Panics
    /// If one is too short.
    #[track_caller]
    pub(crate) fn check(self, activations: &[(&str, usize)], (taps, start): (usize, usize)) {
        activations.iter().for_each(|&(name, len)| holds(name, len, self.len()));
        holds("taps", taps, start + self.taps_len());
    }
}

/// The body of [`Primitives::depthwise`].
pub(crate) fn forward<D: Primitives>(
    device: &D,
    conv: Depthwise,
    x: &D::Buffer,
    (taps, start): (&D::Buffer, usize),
    y: &mut D::Buffer,
) {
    let patches = patches(device, conv, x);
    let inputs =
        [View { buffer: &patches, at: conv.patches() }, View { buffer: taps, at: conv.taps_from(start) }];
    let to = ViewMut { buffer: y, at: conv.pixels() };
    device.reduce(&(input(0) * input(1)), conv.shape(), &inputs, to, false);
}

/// The body of [`Primitives::depthwise_backward_input`].
pub(crate) fn backward_input<D: Primitives>(
    device: &D,
    conv: Depthwise,
    (taps, start): (&D::Buffer, usize),
    dy: &D::Buffer,
    dx: &mut D::Buffer,
) {
    let mut patches = device.scratch(conv.grid.rows() * conv.taps_len());
    let inputs = [View { buffer: dy, at: conv.pixels() }, View { buffer: taps, at: conv.taps_from(start) }];
    let to = ViewMut { buffer: &mut patches, at: conv.patches() };
    device.map(&(input(0) * input(1)), conv.shape(), &inputs, to);
    device.col2im(conv.grid, conv.channels, conv.kernel, &patches, dx, true);
}

/// The body of [`Primitives::depthwise_backward_taps`].
pub(crate) fn backward_taps<D: Primitives>(
    device: &D,
    conv: Depthwise,
    x: &D::Buffer,
    dy: &D::Buffer,
    (dtaps, start): (&mut D::Buffer, usize),
) {
    let patches = patches(device, conv, x);
    let inputs = [View { buffer: &patches, at: conv.patches() }, View { buffer: dy, at: conv.pixels() }];
    let to = ViewMut { buffer: dtaps, at: conv.taps_from(start) };
    device.reduce(&(input(0) * input(1)), conv.shape(), &inputs, to, true);
}

fn patches<D: Primitives>(device: &D, conv: Depthwise, x: &D::Buffer) -> D::Buffer {
    let mut patches = device.scratch(conv.grid.rows() * conv.taps_len());
    device.im2col(conv.grid, conv.channels, conv.kernel, x, &mut patches);
    patches
}
