//! Shapes, and where the parameters of a layer lie.
//!
//! Every activation is a row-major matrix of `rows = batch · height · width` pixels by channels
//! (the layout NHWC). Every trained parameter of a model lies in one flat buffer, so that an
//! optimiser step or an all-reduce is a single pass; a layer knows its own parts as [`Span`]s.

use std::ops::Range;

/// The pixels of a batch of feature maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Images.
    pub batch: usize,
    /// Rows of pixels in one image.
    pub height: usize,
    /// Columns of pixels in one image.
    pub width: usize,
}

impl Grid {
    /// Pixels of the whole batch: the rows of an activation.
    pub fn rows(self) -> usize {
        self.batch * self.pixels()
    }

    /// Pixels of one image.
    pub fn pixels(self) -> usize {
        self.height * self.width
    }

    /// The grid after a squeeze: half as high, half as wide.
    pub fn halved(self) -> Self {
        Self { batch: self.batch, height: self.height / 2, width: self.width / 2 }
    }

    /// The grid before a squeeze: twice as high, twice as wide.
    pub fn doubled(self) -> Self {
        Self { batch: self.batch, height: self.height * 2, width: self.width * 2 }
    }
}

/// A part of the flat parameter buffer (and of the gradient, which has the same layout).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index of the first element.
    pub start: usize,
    /// Number of elements.
    pub len: usize,
}

impl Span {
    /// The indices as a range, to slice with.
    pub fn range(self) -> Range<usize> {
        self.start..self.start + self.len
    }
}
