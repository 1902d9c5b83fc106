//! Fits a photograph to a model of aligned faces.

use glowflow_data::{Eyes, ImageShape, align, fit_image, place_after_fit};

use crate::{Detector, Error, Face};

/// Maximum distance of the eyes from their target after the plain crop, as a fraction of the width, at which
/// a photograph counts as already aligned.
const ALIGNED: f64 = 0.04;

/// The way in which a photograph was fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fitting {
    /// This face was aligned.
    Aligned(Face),
    /// This face is in place after the centre crop.
    InPlace(Face),
    /// No face was found; the photograph was centre-cropped.
    NoFace,
}

impl Detector {
    /// Fits an image (HWC) to the shape `to` so that the eyes of its most prominent face are at `eyes`.
    ///
    /// # Errors
    /// Like [`detect`](Self::detect).
    pub fn fit(
        &self,
        pixels: &[u8],
        from: ImageShape,
        eyes: Eyes,
        to: ImageShape,
    ) -> Result<(Vec<u8>, Fitting), Error> {
        to.check()?;
        let fitting = match self.detect(pixels, from)?.first() {
            None => Fitting::NoFace,
            Some(&face) if is_in_place(&face, from, eyes, to) => Fitting::InPlace(face),
            Some(&face) => Fitting::Aligned(face),
        };
        let Fitting::Aligned(face) = fitting else {
            return Ok((fit_image(pixels, from, to)?, fitting));
        };
        let mut out = vec![0; to.len()];
        align(pixels, from, face.eyes, eyes, to, &mut out)?;
        Ok((out, fitting))
    }
}

/// Returns whether the centre crop puts a face's eyes at `eyes`.
pub fn is_in_place(face: &Face, from: ImageShape, eyes: Eyes, to: ImageShape) -> bool {
    let aspect = to.height as f64 / to.width as f64;
    face.eyes.into_iter().zip([eyes.left(), eyes.right()]).all(|(found, target)| {
        let [x, y] = place_after_fit(found, from, to);
        (x - target[0]).hypot((y - target[1]) * aspect) <= ALIGNED
    })
}
