//! Errors of the detector.

use glowflow_data::ImageShape;

/// An error of the face search.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The number of pixels does not match the shape.
    #[error("got {found} bytes for an image of {shape}, which has {expected}", expected = .shape.len())]
    PixelCount {
        /// The image's shape.
        shape: ImageShape,
        /// Bytes given.
        found: usize,
    },

    /// The image has an invalid shape or cannot be fitted.
    #[error(transparent)]
    Picture(#[from] glowflow_data::Error),

    /// The network failed to load or to run.
    #[error("the face detector failed: {0}")]
    Network(String),
}
