//! Strided views of activations and parameters, for reference bodies.

use crate::primitives::{Strided, View, ViewMut};

/// Activations `[rows, channels]`, as an array of the shape `[1, rows, channels]`.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub rows: usize,
    pub channels: usize,
}

impl Rows {
    pub fn shape(self) -> [usize; 3] {
        [1, self.rows, self.channels]
    }

    pub fn len(self) -> usize {
        self.rows * self.channels
    }

    /// A view of every number.
    pub fn each(self) -> Strided {
        self.part(self.channels, 0)
    }

    /// A view of the channels from `first` on, of activations with `channels` channels.
    pub fn part(self, channels: usize, first: usize) -> Strided {
        Strided { start: first, strides: [0, channels, 1] }
    }
}

/// A view of one number per channel, from `start` on.
pub(super) fn per_channel(start: usize) -> Strided {
    Strided { start, strides: [0, 0, 1] }
}

pub(super) fn read<B>(buffer: &B, at: Strided) -> View<'_, B> {
    View { buffer, at }
}

pub(super) fn write<B>(buffer: &mut B, at: Strided) -> ViewMut<'_, B> {
    ViewMut { buffer, at }
}
