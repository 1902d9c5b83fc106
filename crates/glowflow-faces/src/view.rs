//! A view of an image for the network: resized, optionally rotated, on a canvas.

use glowflow_data::{Eyes, ImageShape, align, fit_image};

use crate::network::{Candidate, Network};
use crate::{Error, Face};

/// Grey of the canvas around the image.
const BACKGROUND: u8 = 114;

/// An image on a canvas.
pub(crate) struct View {
    canvas: ImageShape,
    /// RGB.
    pixels: Vec<u8>,
    /// From the canvas to the image, in pixels: `x' = turn[0] x - turn[1] y + shift[0]` and so on.
    turn: [f64; 2],
    shift: [f64; 2],
    picture: ImageShape,
}

impl View {
    /// The whole image, its longer side resized to `side` pixels, in the middle of a canvas with a `margin`
    /// of pixels around it.
    pub fn whole(pixels: &[u8], picture: ImageShape, side: usize, margin: usize) -> Result<Self, Error> {
        let longer = picture.height.max(picture.width) as f64;
        let resized = |length: usize| ((length as f64 * side as f64 / longer).round() as usize).max(1);
        let (height, width) = (resized(picture.height), resized(picture.width));
        let fitted = fit_image(pixels, picture, ImageShape { height, width, channels: 3 })?;
        let rounded = |length: usize| (length + 2 * margin).next_multiple_of(Network::MULTIPLE);
        let canvas = ImageShape { height: rounded(height), width: rounded(width), channels: 3 };
        let (top, left) = ((canvas.height - height) / 2, (canvas.width - width) / 2);
        let mut drawn = vec![BACKGROUND; canvas.len()];
        for (row, line) in fitted.chunks_exact(3 * width).enumerate() {
            let start = 3 * ((top + row) * canvas.width + left);
            drawn[start..start + line.len()].copy_from_slice(line);
        }
        let scale = longer / side as f64;
        let shift = [-(left as f64) * scale, -(top as f64) * scale];
        Ok(Self { canvas, pixels: drawn, turn: [scale, 0.0], shift, picture })
    }

    /// A square of `side` pixels in which two points of the image (in pixels) are level at the height `down`
    /// (a fraction) and `apart` pixels from each other around the middle.
    pub fn turned(
        pixels: &[u8],
        picture: ImageShape,
        [a, b]: [[f64; 2]; 2],
        side: usize,
        apart: f64,
        down: f64,
    ) -> Result<Self, Error> {
        let canvas = ImageShape { height: side, width: side, channels: 3 };
        let (half, side) = (apart / 2.0 / side as f64, side as f64);
        let places = Eyes::new([0.5 - half, down], [0.5 + half, down])
            .map_err(|error| Error::Network(error.to_string()))?;
        let fraction = |[x, y]: [f64; 2]| [x / picture.width as f64, y / picture.height as f64];
        let mut drawn = vec![0; canvas.len()];
        align(pixels, picture, [fraction(a), fraction(b)], places, canvas, &mut drawn)?;
        let turn = [(b[0] - a[0]) / apart, (b[1] - a[1]) / apart];
        let (x, y) = ((0.5 - half) * side, down * side);
        let shift = [a[0] - turn[0] * x + turn[1] * y, a[1] - turn[1] * x - turn[0] * y];
        Ok(Self { canvas, pixels: drawn, turn, shift, picture })
    }

    /// The faces in the view with their centre inside the image.
    pub fn faces(&self, network: &Network) -> Result<Vec<Face>, Error> {
        let plane = self.canvas.height * self.canvas.width;
        let mut planes = vec![0.0; 3 * plane];
        for (i, pixel) in self.pixels.chunks_exact(3).enumerate() {
            for (channel, &value) in pixel.iter().rev().enumerate() {
                planes[channel * plane + i] = f32::from(value);
            }
        }
        let candidates = network.run(&planes, self.canvas.height, self.canvas.width)?;
        let faces = candidates.iter().map(|candidate| self.face(candidate));
        Ok(faces
            .filter(|face| {
                let [left, top, right, bottom] = face.box_;
                [left + right, top + bottom].iter().all(|sum| (0.0..=2.0).contains(sum))
            })
            .collect())
    }

    /// Converts a candidate to a face of the image.
    fn face(&self, candidate: &Candidate) -> Face {
        let [left, top, right, bottom] = candidate.bounds;
        let [x, y] = self.place([(left + right) / 2.0, (top + bottom) / 2.0]);
        let scale = self.turn[0].hypot(self.turn[1]) / 2.0;
        let (width, height) = (self.picture.width as f64, self.picture.height as f64);
        let (across, down) = ((right - left) * scale / width, (bottom - top) * scale / height);
        let mut eyes = candidate.eyes.map(|eye| self.place(eye));
        if eyes[0][0] > eyes[1][0] {
            eyes.reverse();
        }
        Face { eyes, box_: [x - across, y - down, x + across, y + down], score: candidate.score }
    }

    /// Converts a position on the canvas to fractions of the image.
    fn place(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let [cos, sin] = self.turn;
        [
            (cos * x - sin * y + self.shift[0]) / self.picture.width as f64,
            (sin * x + cos * y + self.shift[1]) / self.picture.height as f64,
        ]
    }
}
