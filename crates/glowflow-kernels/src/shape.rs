//! Shapes, and spans of a layer's parameters.
//!
//! Every activation is a row-major matrix of `rows = batch · height · width` pixels by channels (NHWC). All
//! trained parameters of a model are stored in one flat buffer, so that an optimiser step or an all-reduce is
//! a single pass; a layer refers to its own parameters by [`Span`]s.

use std::ops::Range;

/// The pixels of a batch of feature maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Number of images.
    pub batch: usize,
    /// Pixel rows per image.
    pub height: usize,
    /// Pixel columns per image.
    pub width: usize,
}

impl Grid {
    /// Number of pixels in the batch: the rows of an activation.
    pub fn rows(self) -> usize {
        self.batch * self.pixels()
    }

    /// Number of pixels per image.
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
    /// The indices as a range, for slicing.
    pub fn range(self) -> Range<usize> {
        self.start..self.start + self.len
    }
}
