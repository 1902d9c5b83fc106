//! Aligns a picture by the eyes of a face: the similarity transform that takes one pair of points to another.
//!
//! The part of the picture that is needed is reduced to the scale of the result (Lanczos3, so there is no aliasing),
//! then sampled with a bicubic kernel. Beyond its edges a picture is reflected.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::fit::fit;
use crate::{Error, Eyes, ImageShape};

/// Pixels of the reduced picture around the needed part: the reach of both kernels.
const MARGIN: f64 = 6.0;

/// Writes into `out`, in the shape `to`, the picture (HWC, of shape `from`) whose eyes at `found` (fractions of width
/// and height, left and right) have moved to `eyes`. Turning, scaling and moving are the same everywhere, so that
/// nothing is distorted.
///
/// ```
/// use glowflow_data::{Eyes, ImageShape, align};
///
/// let photograph = ImageShape { height: 60, width: 80, channels: 1 };
/// let square = ImageShape { height: 32, width: 32, channels: 1 };
/// let mut out = vec![0; square.len()];
/// align(&[7; 60 * 80], photograph, [[0.4, 0.5], [0.6, 0.45]], Eyes::CELEBA, square, &mut out)?;
/// assert_eq!(out, [7; 32 * 32]);
/// # Ok::<(), glowflow_data::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] for impossible shapes; [`Error::PixelCount`] if the pixels are not images of these shapes;
/// [`Error::SamePlace`] if both eyes are at the same place.
pub fn align(
    pixels: &[u8],
    from: ImageShape,
    found: [[f64; 2]; 2],
    eyes: Eyes,
    to: ImageShape,
    out: &mut [u8],
) -> Result<(), Error> {
    for (shape, found) in [(from, pixels.len()), (to, out.len())] {
        shape.check()?;
        if found != shape.len() {
            return Err(Error::PixelCount { shape, found });
        }
    }
    let transform = Similarity::between(places(found, from), places([eyes.left(), eyes.right()], to))
        .ok_or(Error::SamePlace(found))?;
    let part = Part::of(pixels, from, &transform, to)?;
    let sampled = ImageShape { channels: from.channels, ..to };
    if sampled == to {
        part.sample(&transform, to, out);
        return Ok(());
    }
    let mut picture = vec![0; sampled.len()];
    part.sample(&transform, sampled, &mut picture);
    fit(&picture, sampled, to, out).map_err(|reason| Error::NoImage { reason })
}

/// Fractions of a picture's sides, in pixels.
fn places(fractions: [[f64; 2]; 2], shape: ImageShape) -> [[f64; 2]; 2] {
    fractions.map(|[x, y]| [x * shape.width as f64, y * shape.height as f64])
}

/// From places in the result to places in the picture, in pixels.
struct Similarity {
    /// `[[cos, -sin], [sin, cos]]`, scaled: the first column.
    turn: [f64; 2],
    from: [f64; 2],
    to: [f64; 2],
}

impl Similarity {
    /// The transform that takes the second pair of places to the first.
    fn between(picture: [[f64; 2]; 2], result: [[f64; 2]; 2]) -> Option<Self> {
        let difference = |[a, b]: [[f64; 2]; 2]| [b[0] - a[0], b[1] - a[1]];
        let ([px, py], [rx, ry]) = (difference(picture), difference(result));
        let square = rx * rx + ry * ry;
        let turn = [(px * rx + py * ry) / square, (py * rx - px * ry) / square];
        let possible = turn.iter().all(|x| x.is_finite()) && turn != [0.0, 0.0];
        possible.then_some(Self { turn, from: result[0], to: picture[0] })
    }

    /// Pixels of the picture in one of the result, along a line.
    fn scale(&self) -> f64 {
        self.turn[0].hypot(self.turn[1])
    }

    fn of(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let [cos, sin] = self.turn;
        let (x, y) = (x - self.from[0], y - self.from[1]);
        [self.to[0] + cos * x - sin * y, self.to[1] + sin * x + cos * y]
    }
}

/// The part of a picture that a transform needs, at most as fine as the result.
struct Part<'a> {
    pixels: std::borrow::Cow<'a, [u8]>,
    width: usize,
    height: usize,
    /// Its top left corner in the picture, and the size of its pixels there.
    corner: [f64; 2],
    pixel: [f64; 2],
}

impl<'a> Part<'a> {
    fn of(pixels: &'a [u8], from: ImageShape, transform: &Similarity, to: ImageShape) -> Result<Self, Error> {
        let scale = transform.scale();
        if scale <= 1.0 {
            let (corner, pixel) = ([0.0; 2], [1.0; 2]);
            return Ok(Self { pixels: pixels.into(), width: from.width, height: from.height, corner, pixel });
        }
        let (width, height) = (to.width as f64, to.height as f64);
        let corners = [[0.0, 0.0], [width, 0.0], [0.0, height], [width, height]].map(|p| transform.of(p));
        let [columns, rows] = [(0, from.width), (1, from.height)]
            .map(|(axis, side)| needed(corners.map(|corner| corner[axis]), MARGIN * scale, side as f64));
        let reduced = |(start, end): (f64, f64)| ((end - start) / scale).round().max(1.0);
        let (width, height) = (reduced(columns), reduced(rows));
        let extent = [columns.1 - columns.0, rows.1 - rows.0];
        let kind = if from.channels == 1 { PixelType::U8 } else { PixelType::U8x3 };
        let failed = |reason: String| Error::NoImage { reason };
        let source = ImageRef::new(from.width as u32, from.height as u32, pixels, kind)
            .map_err(|error| failed(error.to_string()))?;
        let mut target = Image::new(width as u32, height as u32, kind);
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3))
            .crop(columns.0, rows.0, extent[0], extent[1]);
        Resizer::new().resize(&source, &mut target, &options).map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            pixels: target.into_vec().into(),
            width: width as usize,
            height: height as usize,
            corner: [columns.0, rows.0],
            pixel: [extent[0] / width, extent[1] / height],
        })
    }

    /// Samples the result, whose channels are the picture's.
    fn sample(&self, transform: &Similarity, to: ImageShape, out: &mut [u8]) {
        let channels = to.channels;
        for (index, out) in out.chunks_exact_mut(channels).enumerate() {
            let (row, column) = (index / to.width, index % to.width);
            let [x, y] = transform.of([column as f64 + 0.5, row as f64 + 0.5]);
            let (columns, across) = taps((x - self.corner[0]) / self.pixel[0], self.width);
            let (rows, down) = taps((y - self.corner[1]) / self.pixel[1], self.height);
            for (channel, out) in out.iter_mut().enumerate() {
                let mut sum = 0.0;
                for (row, down) in rows.into_iter().zip(down) {
                    let start = row * self.width;
                    let line = columns.into_iter().zip(across).map(|(column, across)| {
                        across * f32::from(self.pixels[(start + column) * channels + channel])
                    });
                    sum += down * line.sum::<f32>();
                }
                *out = sum.round() as u8;
            }
        }
    }
}

/// Start and end, along one side of a picture, of all that lies between these places and of what is reflected there.
fn needed(places: [f64; 4], margin: f64, side: f64) -> (f64, f64) {
    let start = places.into_iter().fold(f64::INFINITY, f64::min) - margin;
    let end = places.into_iter().fold(f64::NEG_INFINITY, f64::max) + margin;
    let (before, after) = ((-start).max(0.0), (end - side).max(0.0));
    let start = start.min(side - after).floor().clamp(0.0, side - 1.0);
    let end = end.max(before).ceil().clamp(start + 1.0, side);
    (start, end)
}

/// The four pixels around a place along one side, and their weights by the Catmull-Rom kernel.
fn taps(place: f64, side: usize) -> ([usize; 4], [f32; 4]) {
    let first = (place - 0.5).floor();
    let t = (place - 0.5 - first) as f32;
    let (t2, t3) = (t * t, t * t * t);
    let weights = [
        (2.0 * t2 - t3 - t) / 2.0,
        (3.0 * t3 - 5.0 * t2 + 2.0) / 2.0,
        (4.0 * t2 - 3.0 * t3 + t) / 2.0,
        (t3 - t2) / 2.0,
    ];
    ([-1, 0, 1, 2].map(|offset| reflected(first as i64 + offset, side)), weights)
}

/// The pixel that a place beyond the edges reflects.
fn reflected(index: i64, side: usize) -> usize {
    let index = index.rem_euclid(2 * side as i64) as usize;
    if index < side { index } else { 2 * side - 1 - index }
}
