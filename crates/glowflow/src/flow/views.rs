//! Views of activations `[batch, pixels, channels]` for the general operations, for layers in this and other
//! crates.
//!
//! ```
//! use glowflow::flow::views::{Dims, PER_IMAGE, per_channel, read, write};
//! use glowflow::{Cpu, Device, Primitives};
//! use glowflow_kernels::expr::{input, old};
//!
//! // Two images of one pixel and two channels.
//! let (cpu, dims) = (Cpu::<f32>::new(), Dims { batch: 2, pixels: 1, channels: 2 });
//! let (mut x, scale) = (cpu.upload(&[1.0, 2.0, 3.0, 4.0]), cpu.upload(&[10.0, 100.0]));
//! let scale = read(&scale, per_channel(0));
//! cpu.map(&(old() * input(0)), dims.shape(), &[scale], write(&mut x, dims.each()));
//! let mut sums = cpu.scratch(2);
//! cpu.reduce(&input(0), dims.shape(), &[read(&x, dims.each())], write(&mut sums, PER_IMAGE), false);
//! assert_eq!(cpu.download(&sums)?, [210.0, 430.0]);
//! # Ok::<(), glowflow::Error>(())
//! ```

use glowflow_kernels::{Grid, Span, Strided, View, ViewMut};

/// Shape of activations, or of a range of their channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Number of images.
    pub batch: usize,
    /// Pixels per image.
    pub pixels: usize,
    /// Number of channels.
    pub channels: usize,
}

impl Dims {
    /// The dimensions of `channels` channels on a grid.
    pub fn of(grid: Grid, channels: usize) -> Self {
        Self { batch: grid.batch, pixels: grid.pixels(), channels }
    }

    /// The shape, as operations expect it.
    pub fn shape(self) -> [usize; 3] {
        [self.batch, self.pixels, self.channels]
    }

    /// Rows of the activations: pixels of the batch.
    pub fn rows(self) -> usize {
        self.batch * self.pixels
    }

    /// Returns whether there are no elements.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Number of elements.
    pub fn len(self) -> usize {
        self.rows() * self.channels
    }

    /// Strides in a buffer that holds only these activations.
    pub fn each(self) -> Strided {
        self.part(self.channels, 0)
    }

    /// Strides of the channels from `first` on, in a buffer of activations with `of` channels.
    pub fn part(self, of: usize, first: usize) -> Strided {
        Strided { start: first, strides: [self.pixels * of, of, 1] }
    }
}

/// One number per channel, starting at element `start`.
pub fn per_channel(start: usize) -> Strided {
    Strided { start, strides: [0, 0, 1] }
}

/// One number per image.
pub const PER_IMAGE: Strided = Strided { start: 0, strides: [1, 0, 0] };

/// A single number.
pub fn scalar(start: usize) -> Strided {
    Strided { start, strides: [0, 0, 0] }
}

/// The elements of a parameter in a flat buffer, one per channel.
pub fn of_span<B>(buffer: &B, span: Span) -> View<'_, B> {
    View { buffer, at: per_channel(span.start) }
}

/// A view for reading.
pub fn read<B>(buffer: &B, at: Strided) -> View<'_, B> {
    View { buffer, at }
}

/// A view for writing.
pub fn write<B>(buffer: &mut B, at: Strided) -> ViewMut<'_, B> {
    ViewMut { buffer, at }
}
