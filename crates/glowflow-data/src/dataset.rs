//! The interface of image sources: numbered images of one shape.

use std::fmt;
use std::path::PathBuf;

use crate::Error;

/// Shape of an image: rows × columns × channels. Pixels are stored in that order (HWC), one byte per channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageShape {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 for grey, 3 for RGB.
    pub channels: usize,
}

/// Maximum height and width.
pub(crate) const MAX_SIDE: usize = 1 << 15;

impl ImageShape {
    /// Size of an image in bytes (its number of dimensions).
    #[expect(clippy::len_without_is_empty, reason = "a valid shape is never empty")]
    pub fn len(self) -> usize {
        self.height * self.width * self.channels
    }

    /// Fails unless the image is grey or RGB and its sides are 1 to 32,768 pixels.
    pub fn check(self) -> Result<(), Error> {
        let sides = 1..=MAX_SIDE;
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
    /// Its name in the dataset.
    pub name: String,
    /// The reason for the failure.
    pub reason: String,
}

/// A numbered collection of images of one shape.
///
/// Images are read by index and from any thread, so a loader can decode ahead in any order. Methods that take
/// an index may panic unless it is less than [`len`](Self::len).
pub trait Dataset: Send + Sync {
    /// Number of images, broken ones included.
    fn len(&self) -> usize;

    /// Returns whether there are no images.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shape of every image.
    fn shape(&self) -> ImageShape;

    /// Name of image `index` in reports: a path relative to the root of the data, or a number.
    fn name(&self, index: usize) -> String;

    /// Names of the classes, in label order; empty if the data has no labels.
    fn classes(&self) -> &[String];

    /// Label of image `index`: an index into [`classes`](Self::classes).
    fn label(&self, index: usize) -> Option<usize>;

    /// Fingerprint of the stored content of image `index`: the size of its file, or the CRC-32 of its pixels
    /// in memory. It detects that a run resumes on different data with the same names. 0 if unknown.
    fn content(&self, _index: usize) -> u64 {
        0
    }

    /// Shape of image `index` as stored, before it is fitted to [`shape`](Self::shape); `None` if unknown.
    fn stored_shape(&self, _index: usize) -> Option<ImageShape> {
        None
    }

    /// The file of image `index`; `None` if it is not a file of its own.
    fn path(&self, _index: usize) -> Option<PathBuf> {
        None
    }

    /// Writes the pixels (HWC) of image `index` to `pixels`, whose length is `shape().len()`.
    ///
    /// Fails with [`Error::BrokenImage`] if this image is broken; the others remain readable. Fails with
    /// [`Error::System`] if the operating system could not read it this time.
    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<(), Error>;

    /// Images found broken so far, by index: those for which [`read`](Self::read) has failed.
    fn broken(&self) -> Vec<Broken> {
        Vec::new()
    }
}
