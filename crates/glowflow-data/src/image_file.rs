//! Decodes image files (PNG, JPEG, WebP, BMP) to pixels and encodes pixels as PNG.
//!
//! The format is detected by content, not by name. EXIF orientation is applied, 16-bit images are reduced to
//! 8 bits, colours are converted to sRGB, transparent images are composited over white, and only the first
//! frame of an animation is read.

use std::fs::{self, File};
use std::io::{self, Cursor, ErrorKind, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::codecs::png::PngEncoder;
use image::{DynamicImage, ImageDecoder, ImageEncoder, ImageFormat, ImageReader, Limits};

use crate::color::{Channels, to_srgb};
use crate::complete::is_complete;
use crate::dataset::MAX_SIDE;
use crate::file_kind::FileKind;
use crate::fit::{Picture, fit};
use crate::png_chunks::PngChunks;
use crate::retry::{is_transient, with_retries};
use crate::{Error, ImageShape, impostor};

/// Larger than any photograph; a larger file is broken or meant to exhaust memory.
const MAX_FILE: u64 = 1 << 29;
const MAX_DECODED: u64 = 1 << 29;

/// The reason why an image file cannot be read.
pub(crate) enum Failure {
    /// It is not a complete image or is not accessible; the reason in words.
    Broken(String),
    /// The system failed to read it, which implies nothing about the file.
    System(io::Error),
}

impl Failure {
    /// The error for the file at `path`.
    fn of(self, path: &Path) -> Error {
        match self {
            Self::Broken(reason) => Error::BrokenImage { name: path.display().to_string(), reason },
            Self::System(source) => Error::System { path: path.to_owned(), source },
        }
    }
}

/// Reads an image file and fits it to a shape as [`open`](crate::open) does for a folder: centre-cropped,
/// resized, and converted between grey and RGB.
///
/// # Errors
/// [`Error::BrokenImage`] if the file cannot be read or is not a complete image; [`Error::System`] if the
/// operating system failed to read it this time; [`Error::Shape`] if the shape is invalid.
pub fn load_image(path: &Path, shape: ImageShape) -> Result<Vec<u8>, Error> {
    shape.check()?;
    let mut pixels = vec![0; shape.len()];
    load_fitted(path, shape, &mut pixels).map_err(|failure| failure.of(path))?;
    Ok(pixels)
}

/// Like [`load_image`], for a file in memory. Images of more than `most_pixels` are refused before they are
/// decoded, so a small file cannot consume much memory or time.
///
/// # Errors
/// [`Error::NoImage`] if it is not a complete image or is too large; [`Error::Shape`] if the shape is
/// invalid.
pub fn image_of_bytes(bytes: &[u8], shape: ImageShape, most_pixels: u64) -> Result<Vec<u8>, Error> {
    shape.check()?;
    let mut pixels = vec![0; shape.len()];
    decode_guarded(bytes, most_pixels)
        .and_then(|picture| fit(&picture.pixels, picture.shape, shape, &mut pixels))
        .map_err(|reason| Error::NoImage { reason })?;
    Ok(pixels)
}

/// Reads an image file at its own size, in grey or RGB as stored.
///
/// # Errors
/// [`Error::BrokenImage`] if the file cannot be read or is not a complete image; [`Error::System`] if the
/// operating system failed to read it this time.
pub fn load_picture(path: &Path) -> Result<(Vec<u8>, ImageShape), Error> {
    let missing = match fs::metadata(path) {
        Err(reason) if reason.kind() == ErrorKind::NotFound => Some(reason),
        Ok(found) if found.is_dir() => Some(ErrorKind::IsADirectory.into()),
        _ => None,
    };
    if let Some(reason) = missing {
        return Err(Error::Read { path: path.to_owned(), reason });
    }
    let picture = load(path).map_err(|failure| failure.of(path))?;
    Ok((picture.pixels, picture.shape))
}

/// Like [`load_picture`], for a file in memory. Images of more than `most_pixels` are refused before they are
/// decoded.
///
/// # Errors
/// [`Error::NoImage`] if it is not a complete image or too large.
pub fn picture_of_bytes(bytes: &[u8], most_pixels: u64) -> Result<(Vec<u8>, ImageShape), Error> {
    let picture = decode_guarded(bytes, most_pixels).map_err(|reason| Error::NoImage { reason })?;
    Ok((picture.pixels, picture.shape))
}

/// Fits pixels (HWC) to a shape, as [`load_image`] does for a file.
///
/// # Errors
/// [`Error::Shape`] for an invalid shape; [`Error::PixelCount`] if the pixels do not match the shape `from`.
pub fn fit_image(pixels: &[u8], from: ImageShape, to: ImageShape) -> Result<Vec<u8>, Error> {
    from.check()?;
    to.check()?;
    if pixels.len() != from.len() {
        return Err(Error::PixelCount { shape: from, found: pixels.len() });
    }
    let mut out = vec![0; to.len()];
    fit(pixels, from, to, &mut out).map_err(|reason| Error::NoImage { reason })?;
    Ok(out)
}

/// Like [`load_image`], into `pixels`, for a valid shape.
pub(crate) fn load_fitted(path: &Path, shape: ImageShape, pixels: &mut [u8]) -> Result<(), Failure> {
    let picture = load(path)?;
    fit(&picture.pixels, picture.shape, shape, pixels).map_err(Failure::Broken)
}

/// Reads and decodes an image file.
pub(crate) fn load(path: &Path) -> Result<Picture, Failure> {
    let bytes = with_retries(is_transient, || {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    let bytes = bytes.map_err(|error| match is_transient(&error) {
        true => Failure::System(error),
        false => Failure::Broken(error.to_string()),
    })?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Failure::Broken(format!("the file has more than {MAX_FILE} bytes")));
    }
    decode_guarded(&bytes, u64::MAX).map_err(Failure::Broken)
}

fn decode_guarded(bytes: &[u8], most_pixels: u64) -> Result<Picture, String> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    // No file may end the program: if a decoder panics on a file, the file counts as broken. Nothing outside
    // the closure can be left half-changed.
    catch_unwind(AssertUnwindSafe(|| decode(bytes, most_pixels)))
        .unwrap_or_else(|_| Err("the decoder panicked".into()))
}

fn decode(bytes: &[u8], most_pixels: u64) -> Result<Picture, String> {
    let format = format_of(bytes).ok_or_else(|| not_an_image(bytes))?;
    if !is_complete(format, bytes) {
        return Err(format!("the {} file is cut short", name(format)));
    }
    let reader = || ImageReader::with_format(Cursor::new(bytes), format);
    let (width, height) = reader().into_dimensions().map_err(|e| e.to_string())?;
    if width == 0 || height == 0 {
        return Err(format!("the {} file has no pixels ({width}×{height})", name(format)));
    }
    if width.max(height) as usize > MAX_SIDE {
        return Err(format!(
            "the image has {width}×{height} pixels; at most {MAX_SIDE} per side are supported"
        ));
    }
    if u64::from(width) * u64::from(height) > most_pixels {
        return Err(format!(
            "the image has {width}×{height} pixels; at most {most_pixels} in total are allowed"
        ));
    }
    let (image, icc) = decode_limited(reader()).map_err(|e| e.to_string())?;
    let png = (format == ImageFormat::Png).then(|| PngChunks::of(bytes));
    picture(image, format, icc.as_deref(), png.as_ref())
}

/// Describes a file that is not an image.
fn not_an_image(bytes: &[u8]) -> String {
    let kind = FileKind::of(Path::new(""), bytes, bytes.len() as u64);
    let known = impostor(bytes).map(str::to_owned).or_else(|| kind.refusal());
    known.map_or("not a PNG, JPEG, WebP or BMP image".into(), |what| format!("the file is {what}"))
}

/// The format of a file that begins with `head` (16 bytes are enough), if it is supported.
pub(crate) fn format_of(head: &[u8]) -> Option<ImageFormat> {
    use ImageFormat::{Bmp, Jpeg, Png, WebP};
    let format = image::guess_format(head).ok()?;
    [Png, Jpeg, WebP, Bmp].contains(&format).then_some(format)
}

/// Usual name of one of the formats of [`format_of`].
fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Bmp => "BMP",
        _ => "PNG",
    }
}

/// An image, upright, and its colour profile.
fn decode_limited(
    mut reader: ImageReader<Cursor<&[u8]>>,
) -> image::ImageResult<(DynamicImage, Option<Vec<u8>>)> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODED);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    // `DynamicImage::from_decoder` allocates the output itself, without checking the limits.
    limits.reserve(decoder.total_bytes())?;
    decoder.set_limits(limits)?;
    let orientation = decoder.orientation()?;
    let icc = decoder.icc_profile().unwrap_or_default();
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok((image, icc))
}

/// Converts to 8-bit grey or RGB in sRGB, without transparency.
fn picture(
    image: DynamicImage,
    format: ImageFormat,
    icc: Option<&[u8]>,
    png: Option<&PngChunks>,
) -> Result<Picture, String> {
    let (height, width) = (image.height() as usize, image.width() as usize);
    let channels = Channels { color: image.color().has_color(), alpha: image.color().has_alpha() };
    let mut pixels = match (channels.color, channels.alpha) {
        (false, false) => image.into_luma8().into_raw(),
        (false, true) => image.into_luma_alpha8().into_raw(),
        (true, false) => image.into_rgb8().into_raw(),
        (true, true) => image.into_rgba8().into_raw(),
    };
    let size = if channels.color { 4 } else { 2 };
    if channels.alpha && pixels.chunks_exact(size).all(|pixel| pixel[size - 1] == 0) {
        // Programs without transparency support leave the fourth byte of a BMP's pixels 0.
        if format != ImageFormat::Bmp {
            return Err("the image is fully transparent".into());
        }
        pixels.chunks_exact_mut(size).for_each(|pixel| pixel[size - 1] = u8::MAX);
    }
    pixels = to_srgb(pixels, channels, icc, png);
    if channels.alpha {
        pixels = if channels.color { over_white::<4>(pixels) } else { over_white::<2>(pixels) };
    }
    let channels = if channels.color { 3 } else { 1 };
    Ok(Picture { shape: ImageShape { height, width, channels }, pixels })
}

/// Composites pixels of `N` channels, the last of them alpha, over white and drops the alpha.
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

/// Writes an image (HWC, grey or RGB) as a PNG file, replacing an existing one.
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

/// Encodes an image as [`save_png`] does, in memory.
///
/// # Errors
/// [`Error::PixelCount`] or [`Error::Shape`] if the pixels do not match the shape or the shape is invalid.
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
    // In memory, encoding can fail only for the reasons already checked.
    PngEncoder::new(&mut png).write_image(pixels, width, height, color).map_err(|_| Error::Shape(shape))?;
    Ok(png)
}
