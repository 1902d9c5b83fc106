//! What every source of images looks like to the rest of the program: numbered images of one shape.

use std::fmt;

use crate::Error;

/// Shape of one image, rows × columns × channels; pixels are stored in that order (HWC), one byte
/// each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageShape {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 for grey, 3 for RGB.
    pub channels: usize,
}

/// The largest height and width this crate handles.
pub(crate) const LARGEST_SIDE: usize = 1 << 15;

impl ImageShape {
    /// Bytes (and dimensions) of one image.
    #[expect(clippy::len_without_is_empty, reason = "a valid shape is never empty")]
    pub fn len(self) -> usize {
        self.height * self.width * self.channels
    }

    /// Fails unless the image is grey or RGB and its sides lie between 1 and 32,768 pixels.
    pub fn check(self) -> Result<(), Error> {
        let sides = 1..=LARGEST_SIDE;
        if matches!(self.channels, 1 | 3) && sides.contains(&self.height) && sides.contains(&self.width) {
            Ok(())
        } else {
            Err(Error::Shape(self))
        }
    }
}

impl fmt::Display for ImageShape {
    /// Height × width × channels, as in `32×32×3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}×{}×{}", self.height, self.width, self.channels)
    }
}

/// An image that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its index in the dataset.
    pub index: usize,
    /// What the dataset calls it.
    pub name: String,
    /// Why it could not be read.
    pub reason: String,
}

/// A numbered collection of images of one shape.
///
/// Reading is by index and from any thread, so that a loader can decode ahead in any order. Methods
/// that take an index may panic where it is not below [`len`](Self::len).
pub trait Dataset: Send + Sync {
    /// Number of images, broken ones included.
    fn len(&self) -> usize;

    /// Whether there are no images at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shape of every image.
    fn shape(&self) -> ImageShape;

    /// What to call image `index` in a report: a path relative to the data's root, or a number.
    fn name(&self, index: usize) -> String;

    /// Names of the classes, in label order; empty where the data has no labels.
    fn classes(&self) -> &[String];

    /// The label of image `index`, a position in [`classes`](Self::classes).
    fn label(&self, index: usize) -> Option<usize>;

    /// Identifies the stored content of image `index`: the size of its file, or the CRC-32 of its
    /// pixels in memory. Names alone do not tell whether a run resumes on the same data. 0 if
    /// unknown.
    fn content(&self, _index: usize) -> u64 {
        0
    }

    /// Shape of image `index` as it is stored, before it is fitted to [`shape`](Self::shape); `None` if it is unknown.
    fn stored_shape(&self, _index: usize) -> Option<ImageShape> {
        None
    }

    /// Writes the pixels (HWC) of image `index` into `pixels`, whose length is `shape().len()`.
    ///
    /// Fails with [`Error::BrokenImage`] if this one image is broken; the others can still be read.
    /// Fails with [`Error::System`] if the operating system could not read it this time.
    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<(), Error>;

    /// The images found broken so far, by index: those that [`read`](Self::read) has failed on.
    fn broken(&self) -> Vec<Broken> {
        Vec::new()
    }
}
