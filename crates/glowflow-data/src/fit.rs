//! Fits an image of any size and colour to a target shape.
//!
//! The steps, in this order:
//!
//! 1. RGB to grey if the target is grey: Rec. 601 luma of the stored (gamma-encoded) values, (299 R + 587 G +
//!    114 B) / 1000, rounded;
//! 2. centre crop to the target aspect ratio, in whole pixels;
//! 3. Lanczos3 resampling, whose kernel widens when downscaling (which prevents aliasing);
//! 4. grey to RGB if the target is RGB: the grey value three times.
//!
//! Steps that change nothing are skipped, so an image of the target shape passes through unchanged.

use fast_image_resize::{
    FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer,
    images::{Image, ImageRef},
};

use crate::ImageShape;

/// A decoded image: its shape and its pixels (HWC).
pub(crate) struct Picture {
    pub shape: ImageShape,
    pub pixels: Vec<u8>,
}

/// Writes `pixels` (HWC, of shape `from`) to `out` in the shape `to`. Both shapes are valid and match the
/// lengths; the error is the message of the resampler.
pub(crate) fn fit(pixels: &[u8], from: ImageShape, to: ImageShape, out: &mut [u8]) -> Result<(), String> {
    let grey;
    let (pixels, channels) = if from.channels == 3 && to.channels == 1 {
        grey = to_grey(pixels);
        (grey.as_slice(), 1)
    } else {
        (pixels, from.channels)
    };

    let resized;
    let pixels = if (from.height, from.width) == (to.height, to.width) {
        pixels
    } else {
        resized = crop_and_resize(pixels, ImageShape { channels, ..from }, to)?;
        resized.as_slice()
    };

    if channels == to.channels {
        out.copy_from_slice(pixels);
    } else {
        for (rgb, &grey) in out.chunks_exact_mut(3).zip(pixels) {
            rgb.fill(grey);
        }
    }
    Ok(())
}

fn to_grey(rgb: &[u8]) -> Vec<u8> {
    let luma =
        |p: &[u8]| (299 * u32::from(p[0]) + 587 * u32::from(p[1]) + 114 * u32::from(p[2]) + 500) / 1000;
    rgb.chunks_exact(3).map(|p| luma(p) as u8).collect()
}

/// Centre crop and Lanczos3; ignores `to.channels`.
fn crop_and_resize(pixels: &[u8], from: ImageShape, to: ImageShape) -> Result<Vec<u8>, String> {
    let kind = match from.channels {
        1 => PixelType::U8,
        _ => PixelType::U8x3,
    };
    // Sides fit `u32`: the shapes are valid.
    let source =
        ImageRef::new(from.width as u32, from.height as u32, pixels, kind).map_err(|e| e.to_string())?;
    let mut target = Image::new(to.width as u32, to.height as u32, kind);
    let (height, width) = centre_crop(from, to);
    // Whole-pixel edges: a crop without scaling then copies pixels instead of blurring them.
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3)).crop(
        ((from.width - width) / 2) as f64,
        ((from.height - height) / 2) as f64,
        width as f64,
        height as f64,
    );
    Resizer::new().resize(&source, &mut target, &options).map_err(|e| e.to_string())?;
    Ok(target.into_vec())
}

/// The position of a point of an image of shape `from` after the image is fitted to the shape `to`. Points
/// are `[x, y]` as fractions of width and height; those cropped off are outside 0 to 1.
pub fn place_after_fit([x, y]: [f64; 2], from: ImageShape, to: ImageShape) -> [f64; 2] {
    let (height, width) = centre_crop(from, to);
    let along = |place: f64, side: usize, kept: usize| {
        (place * side as f64 - ((side - kept) / 2) as f64) / kept as f64
    };
    [along(x, from.width, width), along(y, from.height, height)]
}

/// Height and width of the largest rectangle in `from` with the aspect ratio of `to`.
fn centre_crop(from: ImageShape, to: ImageShape) -> (usize, usize) {
    let rounded = |numerator: usize, denominator: usize| (numerator + denominator / 2) / denominator;
    if from.width * to.height > from.height * to.width {
        let width = rounded(from.height * to.width, to.height);
        (from.height, width.clamp(1, from.width))
    } else {
        let height = rounded(from.width * to.height, to.width);
        (height.clamp(1, from.height), from.width)
    }
}
