//! Finds faces and their eyes in photographs.
//!
//! The detector is YuNet, a small convolutional network; its weights are embedded.

mod detector;
mod error;
mod fit;
mod network;
mod view;

pub use detector::Detector;
pub use error::Error;
pub use fit::{Fitting, is_in_place};

/// A face in an image. Positions are fractions of the image's width and height, from its top left corner.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Face {
    /// Centres of the eyes `[x, y]`: the one on the left of the image, then the one on the right.
    pub eyes: [[f64; 2]; 2],
    /// The left, top, right and bottom edges of the face. They may be outside the image.
    pub box_: [f64; 4],
    /// Confidence of the detector, from 0 to 1.
    pub score: f64,
}
