//! Views of activations `[batch, pixels, channels]` for the general operations.

use glowflow_kernels::{Grid, Span, Strided, View, ViewMut};

/// Shape of activations, or of some of their channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Images.
    pub batch: usize,
    /// Pixels of one image.
    pub pixels: usize,
    /// Channels.
    pub channels: usize,
}

impl Dims {
    /// Of `channels` channels on a grid.
    pub fn of(grid: Grid, channels: usize) -> Self {
        Self { batch: grid.batch, pixels: grid.pixels(), channels }
    }

    /// The shape as operations take it.
    pub fn shape(self) -> [usize; 3] {
        [self.batch, self.pixels, self.channels]
    }

    /// Rows of the activations: pixels of the batch.
    pub fn rows(self) -> usize {
        self.batch * self.pixels
    }

    /// Numbers of the activations.
    pub fn len(self) -> usize {
        self.rows() * self.channels
    }

    /// A buffer that holds these activations alone.
    pub fn each(self) -> Strided {
        self.part(self.channels, 0)
    }

    /// The channels from `first` on in a buffer of activations with `of` channels.
    pub fn part(self, of: usize, first: usize) -> Strided {
        Strided { start: first, strides: [self.pixels * of, of, 1] }
    }
}

/// One number a channel, from element `start` on.
pub fn per_channel(start: usize) -> Strided {
    Strided { start, strides: [0, 0, 1] }
}

/// One number an image.
pub const PER_IMAGE: Strided = Strided { start: 0, strides: [1, 0, 0] };

/// A single number.
pub fn scalar(start: usize) -> Strided {
    Strided { start, strides: [0, 0, 0] }
}

/// The elements of a parameter in a flat buffer, one a channel.
pub fn of_span<B>(buffer: &B, span: Span) -> View<'_, B> {
    View { buffer, at: per_channel(span.start) }
}

/// Elements to read.
pub fn read<B>(buffer: &B, at: Strided) -> View<'_, B> {
    View { buffer, at }
}

/// Elements to write.
pub fn write<B>(buffer: &mut B, at: Strided) -> ViewMut<'_, B> {
    ViewMut { buffer, at }
}
