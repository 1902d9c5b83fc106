//! One image file in memory and out: PNG, JPEG, WebP and BMP to pixels, pixels to PNG.
//!
//! The format is recognised by content, not by name. EXIF orientation is applied, 16-bit images are
//! reduced to 8, transparent ones are laid over white, and of an animation the first frame counts.
//! Colour profiles are not applied.

use std::fs::File;
use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::codecs::png::PngEncoder;
use image::{DynamicImage, ImageDecoder, ImageEncoder, ImageFormat, ImageReader, Limits};

use crate::dataset::LARGEST_SIDE;
use crate::fit::{Picture, fit};
use crate::{Error, ImageShape};

/// More than any photograph; what asks for more is broken or meant to exhaust the memory.
const LARGEST_FILE: u64 = 1 << 29;
const LARGEST_DECODED: u64 = 1 << 29;

/// Reads one image file and fits it to a shape as [`open`](crate::open) fits a folder's: cropped to the middle, resized,
/// and turned from grey to RGB or back.
///
/// # Errors
/// [`Error::BrokenImage`] where the file cannot be read or is no whole image; [`Error::Shape`] where there is no
/// such shape.
pub fn load_image(path: &Path, shape: ImageShape) -> Result<Vec<u8>, Error> {
    shape.check()?;
    let mut pixels = vec![0; shape.len()];
    load_fitted(path, shape, &mut pixels)
        .map_err(|reason| Error::BrokenImage { name: path.display().to_string(), reason })?;
    Ok(pixels)
}

/// As [`load_image`], of a file that is in memory already. Larger pictures than `most_pixels` are refused before they are
/// decoded, so that no small file can ask for much memory or time.
///
/// # Errors
/// [`Error::NoImage`] where it is no whole image or too large; [`Error::Shape`] where there is no such shape.
pub fn image_of_bytes(bytes: &[u8], shape: ImageShape, most_pixels: u64) -> Result<Vec<u8>, Error> {
    shape.check()?;
    let mut pixels = vec![0; shape.len()];
    decode_guarded(bytes, most_pixels)
        .and_then(|picture| fit(&picture.pixels, picture.shape, shape, &mut pixels))
        .map_err(|reason| Error::NoImage { reason })?;
    Ok(pixels)
}

/// As [`load_image`], into `pixels`, for a shape that has been checked; a failure says why in words.
pub(crate) fn load_fitted(path: &Path, shape: ImageShape, pixels: &mut [u8]) -> Result<(), String> {
    let picture = load(path)?;
    fit(&picture.pixels, picture.shape, shape, pixels)
}

/// Reads and decodes an image file; a failure says why in words, for the list of broken images.
pub(crate) fn load(path: &Path) -> Result<Picture, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes))
        .map_err(|e| e.to_string())?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(format!("the file has more than {LARGEST_FILE} bytes"));
    }
    decode_guarded(&bytes, u64::MAX)
}

fn decode_guarded(bytes: &[u8], most_pixels: u64) -> Result<Picture, String> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    // Whatever a file holds, it must not end the program: should a decoder panic on it, that
    // file is broken like any other. Nothing outside the closure can be left half-changed.
    catch_unwind(AssertUnwindSafe(|| decode(bytes, most_pixels)))
        .unwrap_or_else(|_| Err("the decoder panicked".into()))
}

fn decode(bytes: &[u8], most_pixels: u64) -> Result<Picture, String> {
    let format = format_of(bytes).ok_or("not a PNG, JPEG, WebP or BMP image")?;
    if format == ImageFormat::Jpeg && !jpeg_is_complete(bytes) {
        return Err("the JPEG is cut short".into());
    }
    let reader = || ImageReader::with_format(Cursor::new(bytes), format);
    let (width, height) = reader().into_dimensions().map_err(|e| e.to_string())?;
    if width.max(height) as usize > LARGEST_SIDE {
        return Err(format!(
            "the image has {width}×{height} pixels; at most {LARGEST_SIDE} a side are possible"
        ));
    }
    if u64::from(width) * u64::from(height) > most_pixels {
        return Err(format!(
            "the image has {width}×{height} pixels; at most {most_pixels} in all are possible"
        ));
    }
    let image = decode_limited(reader()).map_err(|e| e.to_string())?;
    Ok(picture(image))
}

/// The format of a file that begins with `head` (16 bytes are enough), if it is one of ours.
pub(crate) fn format_of(head: &[u8]) -> Option<ImageFormat> {
    use ImageFormat::{Bmp, Jpeg, Png, WebP};
    let format = image::guess_format(head).ok()?;
    [Png, Jpeg, WebP, Bmp].contains(&format).then_some(format)
}

fn decode_limited(mut reader: ImageReader<Cursor<&[u8]>>) -> image::ImageResult<DynamicImage> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(LARGEST_DECODED);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    // `DynamicImage::from_decoder` allocates the output itself, without asking the limits.
    limits.reserve(decoder.total_bytes())?;
    decoder.set_limits(limits)?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// Whether a JPEG goes on to its end-of-image marker.
///
/// The decoder fills what is missing with grey and reports success, and a half-grey picture is
/// worse than none. Segments are stepped over, so that the end of an embedded thumbnail does not
/// pass for the end of the image.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    let mut at = 2; // behind the start-of-image marker
    while at + 1 < bytes.len() {
        if bytes[at] != 0xFF {
            at += 1; // entropy-coded data
            continue;
        }
        match bytes[at + 1] {
            0xD9 => return true,
            // A stuffed zero, a stand-alone marker, or a fill byte.
            0x00 | 0x01 | 0xD0..=0xD8 => at += 2,
            0xFF => at += 1,
            _ => match bytes.get(at + 2..at + 4) {
                Some(length) => at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]])),
                None => return false,
            },
        }
    }
    false
}

/// To 8-bit grey or RGB without transparency.
fn picture(image: DynamicImage) -> Picture {
    let (height, width) = (image.height() as usize, image.width() as usize);
    let color = image.color();
    let (channels, pixels) = match (color.has_color(), color.has_alpha()) {
        (false, false) => (1, image.into_luma8().into_raw()),
        (false, true) => (1, over_white::<2>(image.into_luma_alpha8().into_raw())),
        (true, false) => (3, image.into_rgb8().into_raw()),
        (true, true) => (3, over_white::<4>(image.into_rgba8().into_raw())),
    };
    let shape = ImageShape { height, width, channels };
    Picture { shape, pixels }
}

/// Lays pixels of `N` channels, the last of them alpha, over white and drops the alpha.
fn over_white<const N: usize>(pixels: Vec<u8>) -> Vec<u8> {
    let over = |value: u8, alpha: u8| {
        let (value, alpha) = (u32::from(value), u32::from(alpha));
        ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    let mut opaque = Vec::with_capacity(pixels.len() / N * (N - 1));
    for pixel in pixels.chunks_exact(N) {
        opaque.extend(pixel[..N - 1].iter().map(|&value| over(value, pixel[N - 1])));
    }
    opaque
}

/// Writes an image (HWC, grey or RGB) as a PNG file, replacing what is there.
///
/// ```
/// use glowflow_data::{ImageShape, save_png};
///
/// let folder = tempfile::tempdir()?;
/// let shape = ImageShape { height: 1, width: 2, channels: 3 };
/// save_png(&folder.path().join("two.png"), shape, &[255, 0, 0, 0, 0, 255])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn save_png(path: &Path, shape: ImageShape, pixels: &[u8]) -> Result<(), Error> {
    std::fs::write(path, encode_png(shape, pixels)?)
        .map_err(|e| Error::Write { path: path.to_owned(), reason: e.to_string() })
}

/// The file that [`save_png`] writes.
///
/// # Errors
/// [`Error::PixelCount`] or [`Error::Shape`] where pixels and shape are no image.
pub fn encode_png(shape: ImageShape, pixels: &[u8]) -> Result<Vec<u8>, Error> {
    shape.check()?;
    if pixels.len() != shape.len() {
        let found = pixels.len();
        return Err(Error::PixelCount { shape, found });
    }
    let color = match shape.channels {
        1 => image::ExtendedColorType::L8,
        _ => image::ExtendedColorType::Rgb8,
    };
    let (width, height) = (shape.width as u32, shape.height as u32);
    let mut png = vec![];
    // Nothing can go wrong in memory but what was checked.
    PngEncoder::new(&mut png).write_image(pixels, width, height, color).map_err(|_| Error::Shape(shape))?;
    Ok(png)
}
