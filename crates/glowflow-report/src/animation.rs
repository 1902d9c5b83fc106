//! Encodes a sequence of images as an animation: GIF, which is widely supported but limited to 256 colours,
//! or APNG with full colour.
//!
//! Frames are bytes, one image after another, and are enlarged as in [`picture`](crate::picture). The
//! animation loops.

use std::io::Cursor;
use std::path::Path;

use image::codecs::gif::{GifEncoder, Repeat};
use image::{Delay, Frame, RgbImage, RgbaImage};

use crate::picture::{Shape, grid};
use crate::{Error, file};

/// Usual display time of a frame, in milliseconds.
pub const FRAME_MILLISECONDS: u16 = 80;

/// File format of an animation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Animated PNG.
    Apng,
    /// GIF.
    Gif,
}

impl Format {
    /// The format implied by a file name ending in `.apng` or `.gif`; `None` for any other name.
    pub fn of(path: &Path) -> Option<Self> {
        let ending = path.extension().unwrap_or_default();
        [("apng", Self::Apng), ("gif", Self::Gif)]
            .into_iter()
            .find_map(|(name, format)| ending.eq_ignore_ascii_case(name).then_some(format))
    }
}

/// Encodes an animation that shows each frame for `milliseconds`.
///
/// # Errors
/// The reason, if there are no frames or encoding fails.
///
/// # Panics
/// As [`grid`] does.
pub fn encode(format: Format, pixels: &[u8], shape: Shape, milliseconds: u16) -> Result<Vec<u8>, String> {
    let image_len = shape.iter().product::<usize>().max(1);
    let frames: Vec<RgbImage> = pixels.chunks(image_len).map(|image| grid(image, shape, 1)).collect();
    match format {
        Format::Apng => apng(&frames, milliseconds).map_err(|error| error.to_string()),
        Format::Gif => gif(&frames, milliseconds).map_err(|error| error.to_string()),
    }
}

/// Saves an animation; see [`encode`].
///
/// # Errors
/// [`Error::Draw`] if there are no frames or encoding fails; [`Error::Write`] if the file cannot be written.
///
/// # Panics
/// As [`grid`] does.
pub fn save(
    path: &Path,
    format: Format,
    pixels: &[u8],
    shape: Shape,
    milliseconds: u16,
) -> Result<(), Error> {
    let bytes = encode(format, pixels, shape, milliseconds)
        .map_err(|reason| Error::Draw { path: path.to_path_buf(), reason })?;
    file::replace(path, &bytes)
}

fn gif(frames: &[RgbImage], milliseconds: u16) -> image::ImageResult<Vec<u8>> {
    /// The encoder's best palette; frames are small.
    const SPEED: i32 = 1;
    let mut bytes = vec![];
    let mut encoder = GifEncoder::new_with_speed(&mut bytes, SPEED);
    encoder.set_repeat(Repeat::Infinite)?;
    for frame in frames {
        let mut opaque = RgbaImage::new(frame.width(), frame.height());
        for (to, from) in opaque.pixels_mut().zip(frame.pixels()) {
            to.0 = [from[0], from[1], from[2], 255];
        }
        let delay = Delay::from_numer_denom_ms(milliseconds.into(), 1);
        encoder.encode_frame(Frame::from_parts(opaque, 0, 0, delay))?;
    }
    drop(encoder);
    Ok(bytes)
}

fn apng(frames: &[RgbImage], milliseconds: u16) -> Result<Vec<u8>, png::EncodingError> {
    let (width, height) = frames.first().map_or((0, 0), RgbImage::dimensions);
    let mut bytes = Cursor::new(vec![]);
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_animated(frames.len() as u32, 0)?;
    encoder.set_frame_delay(milliseconds, 1000)?;
    let mut writer = encoder.write_header()?;
    for frame in frames {
        writer.write_image_data(frame)?;
    }
    writer.finish()?;
    Ok(bytes.into_inner())
}
