//! Faces in uploaded photographs, detected by a function that the program provides.

use glowflow_data::ImageShape;

/// A face in a photograph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Face {
    /// Positions `[x, y]` of the eyes as fractions of the photograph's width and height: first the one on the
    /// left of the photograph, then the one on the right.
    pub eyes: [[f64; 2]; 2],
    /// Left, top, right and bottom edges of the face, as fractions too. They may be outside the photograph.
    pub bounds: [f64; 4],
    /// Confidence of the detector, from 0 to 1.
    pub score: f64,
}

/// Detects the faces in a photograph `[H, W, C]`, the largest first; the error states the reason for a
/// failure.
pub(crate) type Detector = Box<dyn Fn(&[u8], ImageShape) -> Result<Vec<Face>, String> + Send + Sync>;
