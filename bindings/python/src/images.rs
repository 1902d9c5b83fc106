//! Images in a numpy array as a dataset.

use std::sync::Arc;

use glowflow_data::{Dataset, Error, ImageShape};
use numpy::{PyReadonlyArray1, PyReadonlyArray4};
use pyo3::prelude::*;

use crate::arrays;

/// Images and labels passed as arguments.
pub type Given<'py> = (PyReadonlyArray4<'py, u8>, Option<PyReadonlyArray1<'py, i64>>);

/// A copy of an array's images, because training may outlive the array, and the array may change.
pub struct ArrayImages {
    /// `[images, H, W, C]`.
    pixels: Vec<u8>,
    shape: ImageShape,
    labels: Vec<usize>,
    classes: Vec<String>,
}

impl ArrayImages {
    /// The images with their labels, with `classes` classes.
    pub fn dataset(given: &Given<'_>, classes: usize) -> PyResult<Arc<dyn Dataset>> {
        let (images, labels) = given;
        let view = images.as_array();
        let pixels = match view.as_slice() {
            Some(pixels) => pixels.to_vec(),
            None => view.iter().copied().collect(),
        };
        let (_, height, width, channels) = view.dim();
        Ok(Arc::new(Self {
            pixels,
            shape: ImageShape { height, width, channels },
            labels: arrays::labels(labels.as_ref())?,
            classes: (0..classes).map(|class| class.to_string()).collect(),
        }))
    }

    fn image(&self, index: usize) -> &[u8] {
        &self.pixels[index * self.shape.len()..][..self.shape.len()]
    }
}

impl Dataset for ArrayImages {
    fn len(&self) -> usize {
        self.pixels.len() / self.shape.len()
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
        self.labels.get(index).copied()
    }

    fn content(&self, index: usize) -> u64 {
        u64::from(crc32fast::hash(self.image(index)))
    }

    fn stored_shape(&self, _index: usize) -> Option<ImageShape> {
        Some(self.shape)
    }

    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<(), Error> {
        if pixels.len() != self.shape.len() {
            return Err(Error::PixelCount { shape: self.shape, found: pixels.len() });
        }
        pixels.copy_from_slice(self.image(index));
        Ok(())
    }
}
