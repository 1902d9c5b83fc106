//! Faces in uploaded photographs, found by a detector that the program provides.

use glowflow_data::ImageShape;

/// A face in a photograph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Face {
    /// Positions `[x, y]` of the eyes as fractions of the photograph's width and height: the left one of the
    /// photograph, then the right one.
    pub eyes: [[f64; 2]; 2],
    /// Left, top, right and bottom edge of the face, as fractions as well. They may lie outside the photograph.
    pub bounds: [f64; 4],
    /// Confidence of the detector, from 0 to 1.
    pub score: f64,
}

/// Finds the faces in a photograph `[H, W, C]`, the largest first, or explains its failure.
pub(crate) type Detector = Box<dyn Fn(&[u8], ImageShape) -> Result<Vec<Face>, String> + Send + Sync>;
