//! Aligns an image by the eyes of a face, with the similarity transform that maps one pair of points to
//! another.
//!
//! The required region of the source is first reduced to the scale of the result (Lanczos3, which prevents
//! aliasing), then sampled with a bicubic kernel. Beyond its edges the source is reflected.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::fit::fit;
use crate::{Error, Eyes, ImageShape};

/// Margin around the required region, in pixels of the reduced image: the support of both kernels.
const MARGIN: f64 = 6.0;

/// Aligns `pixels` (HWC, of shape `from`): writes to `out`, in the shape `to`, the image whose eyes have
/// moved from `found` to `eyes`. Positions are fractions of width and height, the left eye first. The
/// transform consists of rotation, uniform scaling and translation, so it does not distort.
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
/// [`Error::Shape`] for impossible shapes; [`Error::PixelCount`] if the pixels are not images of these
/// shapes; [`Error::SamePlace`] if both eyes have the same position.
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

/// Converts fractions of an image's sides to pixels.
fn places(fractions: [[f64; 2]; 2], shape: ImageShape) -> [[f64; 2]; 2] {
    fractions.map(|[x, y]| [x * shape.width as f64, y * shape.height as f64])
}

/// Maps positions in the result to positions in the source, in pixels.
struct Similarity {
    /// First column of the scaled rotation matrix: `scale · [cos, sin]`.
    turn: [f64; 2],
    from: [f64; 2],
    to: [f64; 2],
}

impl Similarity {
    /// The transform that maps the second pair of points to the first.
    fn between(picture: [[f64; 2]; 2], result: [[f64; 2]; 2]) -> Option<Self> {
        let difference = |[a, b]: [[f64; 2]; 2]| [b[0] - a[0], b[1] - a[1]];
        let ([px, py], [rx, ry]) = (difference(picture), difference(result));
        let square = rx * rx + ry * ry;
        let turn = [(px * rx + py * ry) / square, (py * rx - px * ry) / square];
        let possible = turn.iter().all(|x| x.is_finite()) && turn != [0.0, 0.0];
        possible.then_some(Self { turn, from: result[0], to: picture[0] })
    }

    /// Source pixels per result pixel, along a line.
    fn scale(&self) -> f64 {
        self.turn[0].hypot(self.turn[1])
    }

    fn of(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let [cos, sin] = self.turn;
        let (x, y) = (x - self.from[0], y - self.from[1]);
        [self.to[0] + cos * x - sin * y, self.to[1] + sin * x + cos * y]
    }
}

/// The region of the source that a transform requires, at no higher resolution than the result.
struct Part<'a> {
    pixels: std::borrow::Cow<'a, [u8]>,
    width: usize,
    height: usize,
    /// Top left corner in the source, and the size of a region pixel there.
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

    /// Samples the result, which has the channels of the source.
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

/// Start and end along one side of the range that covers these positions and the pixels reflected into it.
fn needed(places: [f64; 4], margin: f64, side: f64) -> (f64, f64) {
    let start = places.into_iter().fold(f64::INFINITY, f64::min) - margin;
    let end = places.into_iter().fold(f64::NEG_INFINITY, f64::max) + margin;
    let (before, after) = ((-start).max(0.0), (end - side).max(0.0));
    let start = start.min(side - after).floor().clamp(0.0, side - 1.0);
    let end = end.max(before).ceil().clamp(start + 1.0, side);
    (start, end)
}

/// The four pixels around a position along one side, with their Catmull-Rom weights.
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

/// The pixel index that an index beyond the edges reflects to.
fn reflected(index: i64, side: usize) -> usize {
    let index = index.rem_euclid(2 * side as i64) as usize;
    if index < side { index } else { 2 * side - 1 - index }
}
