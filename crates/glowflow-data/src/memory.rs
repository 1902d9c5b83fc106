//! Images held in memory as bytes, as the single-file formats and callers with arrays provide them.

use crate::fit::fit;
use crate::{Dataset, Error, ImageShape};

/// Images of equal shape, with their labels.
pub struct RawImages {
    /// Shape of each image.
    pub shape: ImageShape,
    /// HWC, one image after another; a whole number of images.
    pub pixels: Vec<u8>,
    /// One per image, or none at all.
    pub labels: Vec<usize>,
}

/// Training images and, if the data has its own, test images.
pub(crate) type Halves = (RawImages, Option<RawImages>);

/// A [`Dataset`] over [`RawImages`]. Images are fitted to the requested shape on read, so a shape larger than
/// the stored one costs no memory.
pub struct InMemory {
    images: RawImages,
    shape: ImageShape,
    classes: Vec<String>,
}

impl InMemory {
    /// A dataset of these images in the requested `shape`; `classes` names every label that occurs.
    pub fn new(images: RawImages, shape: ImageShape, classes: Vec<String>) -> Self {
        Self { images, shape, classes }
    }
}

impl Dataset for InMemory {
    fn len(&self) -> usize {
        self.images.pixels.len() / self.images.shape.len()
    }

    fn shape(&self) -> ImageShape {
        self.shape
    }

    fn name(&self, index: usize) -> String {
        index.to_string()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.images.labels.get(index).copied()
    }

    fn content(&self, index: usize) -> u64 {
        let size = self.images.shape.len();
        u64::from(crc32fast::hash(&self.images.pixels[index * size..][..size]))
    }

    fn stored_shape(&self, _index: usize) -> Option<ImageShape> {
        Some(self.images.shape)
    }

    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<(), Error> {
        if pixels.len() != self.shape.len() {
            return Err(Error::PixelCount { shape: self.shape, found: pixels.len() });
        }
        let (from, size) = (self.images.shape, self.images.shape.len());
        let stored = &self.images.pixels[index * size..][..size];
        fit(stored, from, self.shape, pixels)
            .map_err(|reason| Error::BrokenImage { name: self.name(index), reason })
    }
}
