//! Detects faces in a photograph of any size.
//!
//! The network finds roughly upright faces of tens to hundreds of pixels. The photograph is therefore
//! searched in several views until a face is found: resized to a moderate and to a larger size, with a border
//! for faces that fill the frame, rotated to both sides, and finally at full detail. Each face is then viewed
//! again, upright and at a normalised size, to measure its eyes.

use glowflow_data::ImageShape;

use crate::network::Network;
use crate::view::View;
use crate::{Error, Face};

/// Longer sides of the views of a photograph.
const SIDE: usize = 320;
const LARGE: usize = 640;
const MAX_SIDE: usize = 1280;
/// Longer side and margin of a view for faces that fill the picture.
const BORDERED: (usize, usize) = (160, 48);
/// Rotations, in degrees, in which faces are searched for if the other views show none.
const ROTATIONS: [f64; 2] = [-35.0, 35.0];
/// Faces with lower confidence are not reported.
const MIN_SCORE: f64 = 0.7;
/// Faces that overlap more (intersection over union) count as the same.
const MAX_OVERLAP: f64 = 0.3;
/// Side of the views in which eyes are measured, and the height of the eyes in them, as a fraction.
const CLOSE_UP: (usize, f64) = (160, 0.42);
/// Distances between the eyes in these views, in pixels: averaging several measurements improves accuracy.
const EYES_APART: [f64; 3] = [38.0, 44.0, 50.0];

/// A face detector. It is reusable and can be shared between threads.
pub struct Detector {
    network: Network,
}

impl Detector {
    /// Loads the network, which runs on the threads of Rayon's current pool.
    ///
    /// # Errors
    /// [`Error::Network`] if the weights are damaged.
    pub fn new() -> Result<Self, Error> {
        Ok(Self { network: Network::load()? })
    }

    /// Returns the faces in an image (HWC, grey or RGB), the most prominent (large and central) first.
    ///
    /// # Errors
    /// [`Error::PixelCount`] and [`Error::Picture`] if the pixels do not match the shape; [`Error::Network`].
    pub fn detect(&self, pixels: &[u8], shape: ImageShape) -> Result<Vec<Face>, Error> {
        shape.check()?;
        if pixels.len() != shape.len() {
            return Err(Error::PixelCount { shape, found: pixels.len() });
        }
        let longer = shape.height.max(shape.width);
        let look = |view: View| view.faces(&self.network);
        let mut faces = look(View::whole(pixels, shape, SIDE, 0)?)?;
        if longer > SIDE {
            faces.extend(look(View::whole(pixels, shape, LARGE, 0)?)?);
        }
        let mut faces = distinct(faces, shape);
        let (side, margin) = BORDERED;
        if faces.is_empty() {
            faces = distinct(look(View::whole(pixels, shape, side, margin)?)?, shape);
        }
        if faces.is_empty() {
            let views = ROTATIONS.map(|degrees| look(turned(pixels, shape, degrees)?));
            let both: Result<Vec<_>, _> = views.into_iter().collect();
            faces = distinct(both?.concat(), shape);
        }
        if faces.is_empty() && longer > LARGE {
            faces = distinct(look(View::whole(pixels, shape, MAX_SIDE, 0)?)?, shape);
        }
        let mut measured =
            faces.iter().map(|face| self.measure(pixels, shape, face)).collect::<Result<Vec<_>, _>>()?;
        measured.sort_by(|a, b| prominence(b, shape).total_cmp(&prominence(a, shape)));
        Ok(measured)
    }

    /// Measures the eyes of a face in close-ups. Close-ups in which the face is not found are ignored.
    fn measure(&self, pixels: &[u8], shape: ImageShape, face: &Face) -> Result<Face, Error> {
        let (side, down) = CLOSE_UP;
        let places = face.eyes.map(|[x, y]| [x * shape.width as f64, y * shape.height as f64]);
        let mut measured: Vec<[[f64; 2]; 2]> = vec![];
        for apart in EYES_APART {
            let seen = View::turned(pixels, shape, places, side, apart, down)?.faces(&self.network)?;
            let best = seen.into_iter().max_by(|a, b| a.score.total_cmp(&b.score));
            measured
                .extend(best.filter(|seen| overlap(seen, face, shape) > MAX_OVERLAP).map(|seen| seen.eyes));
        }
        if measured.is_empty() {
            return Ok(*face);
        }
        let mean = |eye: usize, axis: usize| {
            measured.iter().map(|eyes| eyes[eye][axis]).sum::<f64>() / measured.len() as f64
        };
        Ok(Face { eyes: [0, 1].map(|eye| [0, 1].map(|axis| mean(eye, axis))), ..*face })
    }
}

/// The whole photograph, rotated.
fn turned(pixels: &[u8], shape: ImageShape, degrees: f64) -> Result<View, Error> {
    let (height, width) = (shape.height as f64, shape.width as f64);
    let (sin, cos) = degrees.to_radians().sin_cos();
    // The diagonal fits on the canvas.
    let half = height.hypot(width) / 4.0;
    let place = |side: f64| [width / 2.0 + side * half * cos, height / 2.0 + side * half * sin];
    View::turned(pixels, shape, [place(-1.0), place(1.0)], SIDE, SIDE as f64 / 2.0, 0.5)
}

/// Keeps the most confident of overlapping faces.
fn distinct(mut faces: Vec<Face>, shape: ImageShape) -> Vec<Face> {
    faces.retain(|face| face.score >= MIN_SCORE);
    faces.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Face> = vec![];
    for face in faces {
        if kept.iter().all(|other| overlap(other, &face, shape) <= MAX_OVERLAP) {
            kept.push(face);
        }
    }
    kept
}

/// Width and height in pixels.
fn extent(face: &Face, shape: ImageShape) -> [f64; 2] {
    let [left, top, right, bottom] = face.box_;
    [(right - left) * shape.width as f64, (bottom - top) * shape.height as f64]
}

/// Area of a face, reduced by the distance of its centre from the image's: to 37 % at the middle of an edge.
fn prominence(face: &Face, shape: ImageShape) -> f64 {
    let [left, top, right, bottom] = face.box_;
    let off_centre = (left + right - 1.0).powi(2) + (top + bottom - 1.0).powi(2);
    extent(face, shape).iter().product::<f64>() * (-off_centre).exp()
}

/// Intersection over union.
fn overlap(a: &Face, b: &Face, shape: ImageShape) -> f64 {
    let along = |axis: usize| {
        let (start, end) = (a.box_[axis].max(b.box_[axis]), a.box_[axis + 2].min(b.box_[axis + 2]));
        (end - start).max(0.0)
    };
    let common = along(0) * along(1) * (shape.width * shape.height) as f64;
    let area = |face: &Face| extent(face, shape).iter().product::<f64>();
    common / (area(a) + area(b) - common)
}
