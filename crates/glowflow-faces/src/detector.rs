//! Faces in a picture of any size.
//!
//! The network finds faces of some tens to hundreds of pixels, more or less upright. So it looks at a picture in
//! several views until there is a face: resized to a moderate and to a larger size, with a border for faces that
//! fill the picture, turned to both sides, and last at its full detail. Each face is then seen again upright and at
//! one size, which is where its eyes are measured.

use glowflow_data::ImageShape;

use crate::network::Network;
use crate::view::View;
use crate::{Error, Face};

/// Longer sides of a picture's views.
const SIDE: usize = 320;
const LARGE: usize = 640;
const LARGEST: usize = 1280;
/// Longer side and margin of a view for faces that fill the picture.
const BORDERED: (usize, usize) = (160, 48);
/// Turns of a picture in which faces are searched for that are found in no other way, in degrees.
const TURNS: [f64; 2] = [-35.0, 35.0];
/// Faces of less confidence are not reported.
const MIN_SCORE: f64 = 0.7;
/// Faces that overlap more (intersection over union) are the same.
const MAX_OVERLAP: f64 = 0.3;
/// Side of the views in which a face's eyes are measured, and the height of the eyes there, as a fraction.
const CLOSE_UP: (usize, f64) = (160, 0.42);
/// Distances of the eyes in these views: the mean of several measurements is more exact.
const EYES_APART: [f64; 3] = [38.0, 44.0, 50.0];

/// Finds faces. It can be shared between threads and kept.
pub struct Detector {
    network: Network,
}

impl Detector {
    /// Loads the network, to run in as many threads as Rayon's current pool has.
    ///
    /// # Errors
    /// [`Error::Network`] if the weights are damaged.
    pub fn new() -> Result<Self, Error> {
        Ok(Self { network: Network::load()? })
    }

    /// The faces in a picture (HWC, grey or RGB), the most prominent first: large, and near the middle.
    ///
    /// # Errors
    /// [`Error::PixelCount`] and [`Error::Picture`] if the pixels are not an image of that shape; [`Error::Network`].
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
            let views = TURNS.map(|degrees| look(turned(pixels, shape, degrees)?));
            let both: Result<Vec<_>, _> = views.into_iter().collect();
            faces = distinct(both?.concat(), shape);
        }
        if faces.is_empty() && longer > LARGE {
            faces = distinct(look(View::whole(pixels, shape, LARGEST, 0)?)?, shape);
        }
        let mut measured =
            faces.iter().map(|face| self.measure(pixels, shape, face)).collect::<Result<Vec<_>, _>>()?;
        measured.sort_by(|a, b| prominence(b, shape).total_cmp(&prominence(a, shape)));
        Ok(measured)
    }

    /// The same face, its eyes measured in close-ups. A close-up that does not show it counts for nothing.
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

/// The whole picture, turned.
fn turned(pixels: &[u8], shape: ImageShape, degrees: f64) -> Result<View, Error> {
    let (height, width) = (shape.height as f64, shape.width as f64);
    let (sin, cos) = degrees.to_radians().sin_cos();
    // The diagonal fits the canvas.
    let half = height.hypot(width) / 4.0;
    let place = |side: f64| [width / 2.0 + side * half * cos, height / 2.0 + side * half * sin];
    View::turned(pixels, shape, [place(-1.0), place(1.0)], SIDE, SIDE as f64 / 2.0, 0.5)
}

/// The surest of faces that overlap.
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

/// Area of a face, reduced with the distance of its centre from the picture's: to 37 % at the middle of an edge.
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
