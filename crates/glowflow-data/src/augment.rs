//! Random augmentation of training images that preserves their content.

use crate::random::RngStream;
use crate::{Error, ImageShape};

/// The random changes to apply; none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Augment {
    /// Maximum shift in each direction as a fraction of the image's height or width (0 to 0.5). Shifts are
    /// whole pixels up to the maximum, uniformly distributed, drawn independently for the vertical and the
    /// horizontal direction.
    pub shift: f64,
    /// Fill for the area that a shift uncovers.
    pub edge: Edge,
    /// Mirrors half of the images, chosen at random, left to right.
    pub flip: bool,
}

/// Content beyond the edge of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edge {
    /// The outermost pixel, repeated.
    #[default]
    Replicate,
    /// The image mirrored at its outermost pixel, which is not repeated.
    Reflect,
}

impl Augment {
    /// Fails unless the shift is a fraction from 0 to 0.5.
    pub fn check(&self) -> Result<(), Error> {
        match (0.0..=0.5).contains(&self.shift) {
            true => Ok(()),
            false => Err(Error::Shift(self.shift)),
        }
    }

    /// Augments one image (HWC) in place.
    pub(crate) fn apply(&self, pixels: &mut [u8], shape: ImageShape, stream: &mut RngStream) {
        if self.flip && stream.below(2) == 1 {
            mirror(pixels, shape);
        }
        let mut draw = |size: usize| {
            let largest = ((self.shift * size as f64).round() as usize).min(size - 1);
            stream.below(2 * largest + 1) as isize - largest as isize
        };
        let (down, right) = (draw(shape.height), draw(shape.width));
        if (down, right) != (0, 0) {
            self.edge.shift(pixels, shape, down, right);
        }
    }
}

fn mirror(pixels: &mut [u8], shape: ImageShape) {
    for row in pixels.chunks_exact_mut(shape.width * shape.channels) {
        // Reversing the bytes reverses the pixels and also the channels of each pixel.
        row.reverse();
        row.chunks_exact_mut(shape.channels).for_each(<[u8]>::reverse);
    }
}

impl Edge {
    /// Shifts the image; each shift is less than the size.
    fn shift(self, pixels: &mut [u8], shape: ImageShape, down: isize, right: isize) {
        let source = pixels.to_vec();
        let rows = self.origins(shape.height, down);
        let columns = self.origins(shape.width, right);
        let mut targets = pixels.chunks_exact_mut(shape.channels);
        for row in rows {
            for (column, target) in columns.iter().zip(&mut targets) {
                let at = (row * shape.width + column) * shape.channels;
                target.copy_from_slice(&source[at..at + shape.channels]);
            }
        }
    }

    /// For each position along one axis, the position that its pixel comes from.
    fn origins(self, size: usize, shift: isize) -> Vec<usize> {
        let last = size as isize - 1;
        let inside = |at: isize| match self {
            Edge::Replicate => at.clamp(0, last),
            Edge::Reflect => last - (last - at.abs()).abs(),
        };
        (0..=last).map(|at| inside(at - shift) as usize).collect()
    }
}
