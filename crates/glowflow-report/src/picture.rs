//! Arranges many small images in one picture.
//!
//! Images are bytes, one image after another, each in the order rows, columns, channels (a batch is NHWC),
//! with 1 channel for grey or 3 for RGB. They are laid out from the top left with a thin white gap between
//! them. Small ones are enlarged by an integer factor, each pixel becoming a square, so nothing is blurred.

use crate::{Error, file};
pub use image::RgbImage;
use image::{ImageFormat, Rgb};
use std::{io::Cursor, path::Path};

const GAP: usize = 2;
const WHITE: Rgb<u8> = Rgb([255; 3]);

/// Small images are enlarged up to this side.
const ENLARGED_SIDE: usize = 128;
const MAX_SCALE: usize = 4;

/// Height, width and channels of each image in a batch.
pub type Shape = [usize; 3];

/// Lays out a batch row by row with `columns` images per row; the last row may be shorter.
///
/// ```
/// use glowflow_report::picture::grid;
///
/// let five_grey_images = vec![128; 5 * 32 * 32];
/// let picture = grid(&five_grey_images, [32, 32, 1], 3);
/// // Three by two images, four times as large, with gaps of two pixels.
/// assert_eq!(picture.dimensions(), (3 * 128 + 2 * 2, 2 * 128 + 2));
/// ```
///
/// # Panics
///
/// If `pixels` is not a whole number of images, or an image has no pixels or neither 1 nor 3 channels, or if
/// `columns` is 0.
pub fn grid(pixels: &[u8], shape: Shape, columns: usize) -> RgbImage {
    assert!(columns > 0, "a grid has columns");
    let [height, width, channels] = shape;
    let row = columns * height * width * channels;
    assert!(row > 0, "images have pixels");
    rows(&pixels.chunks(row).collect::<Vec<_>>(), shape)
}

/// A single image at its own size.
///
/// # Panics
///
/// Like [`grid`], and if there is not exactly one image.
pub fn single(pixels: &[u8], shape: Shape) -> RgbImage {
    let [height, width, channels] = shape;
    assert!(matches!(channels, 1 | 3), "images are grey or RGB");
    assert_eq!(pixels.len(), height * width * channels, "one image");
    RgbImage::from_fn(width as u32, height as u32, |x, y| colour(pixels, shape, x as usize, y as usize))
}

/// Lays out one batch per row: originals above their reconstructions, or one interpolation per row.
///
/// ```
/// use glowflow_report::picture::rows;
///
/// let (originals, reconstructions) = (vec![9; 8 * 64 * 64 * 3], vec![8; 8 * 64 * 64 * 3]);
/// let picture = rows(&[&originals, &reconstructions], [64, 64, 3]);
/// assert_eq!(picture.dimensions(), (8 * 128 + 7 * 2, 2 * 128 + 2));
/// ```
///
/// # Panics
///
/// Like [`grid`], for any of the batches.
pub fn rows(batches: &[&[u8]], shape: Shape) -> RgbImage {
    let [height, width, channels] = shape;
    assert!(matches!(channels, 1 | 3), "images are grey or RGB");
    let image_len = height * width * channels;
    assert!(image_len > 0, "images have pixels");
    assert!(batches.iter().all(|batch| batch.len() % image_len == 0), "a batch holds whole images");
    let longest = batches.iter().map(|batch| batch.len()).max().unwrap_or(0);
    let columns = longest / image_len;

    let scale = scale(shape);
    let extent = |count: usize, side: usize| {
        let pixels = (count * (side * scale + GAP)).saturating_sub(GAP);
        u32::try_from(pixels).expect("a picture of less than four billion pixels a side")
    };
    let mut picture = RgbImage::from_pixel(extent(columns, width), extent(batches.len(), height), WHITE);
    for (row, batch) in batches.iter().enumerate() {
        for (column, image) in batch.chunks_exact(image_len).enumerate() {
            let top = row * (height * scale + GAP);
            let left = column * (width * scale + GAP);
            for y in 0..height * scale {
                for x in 0..width * scale {
                    let colour = colour(image, shape, x / scale, y / scale);
                    picture.put_pixel((left + x) as u32, (top + y) as u32, colour);
                }
            }
        }
    }
    picture
}

/// Bytes that an image occupies in a picture, including its gap.
///
/// ```
/// use glowflow_report::picture::bytes;
///
/// assert_eq!(bytes([32, 32, 3]), (128 + 2) * (128 + 2) * 3);
/// ```
pub fn bytes(shape: Shape) -> usize {
    let [height, width, _] = shape;
    3 * (height * scale(shape) + GAP) * (width * scale(shape) + GAP)
}

/// The factor by which an image is enlarged.
fn scale([height, width, _]: Shape) -> usize {
    (ENLARGED_SIDE / height.max(width).max(1)).clamp(1, MAX_SCALE)
}

/// The colour of a pixel; grey is the same value three times.
fn colour(image: &[u8], [_, width, channels]: Shape, x: usize, y: usize) -> Rgb<u8> {
    let at = (y * width + x) * channels;
    Rgb(std::array::from_fn(|c| image[at + c % channels]))
}

/// Writes a picture as a PNG file, replacing `path` atomically.
///
/// # Errors
///
/// [`Error::Write`] if the file cannot be written; [`Error::Draw`] if the picture has no pixels.
pub fn save(path: &Path, picture: &RgbImage) -> Result<(), Error> {
    let png = encode(picture).map_err(|reason| Error::Draw { path: path.to_path_buf(), reason })?;
    file::replace(path, &png)
}

/// Draws on a white picture of `size`, width and height, and saves it.
pub(crate) fn save_drawn(
    path: &Path,
    size: (u32, u32),
    draw: impl FnOnce(&mut [u8]) -> Result<(), String>,
) -> Result<(), Error> {
    let mut pixels = vec![255; (size.0 * size.1 * 3) as usize];
    draw(&mut pixels).map_err(|reason| Error::Draw { path: path.to_path_buf(), reason })?;
    let image = RgbImage::from_raw(size.0, size.1, pixels).expect("as many bytes as pixels");
    save(path, &image)
}

/// Encodes a picture as PNG.
///
/// # Errors
///
/// The reason, if the picture has no pixels.
pub fn encode(picture: &RgbImage) -> Result<Vec<u8>, String> {
    let mut png = Cursor::new(Vec::new());
    picture.write_to(&mut png, ImageFormat::Png).map_err(|error| error.to_string())?;
    Ok(png.into_inner())
}
