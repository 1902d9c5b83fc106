//! Crops an image.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use crate::{Error, ImageShape};

/// A rectangle in an image, with edges as fractions of width and height.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CropBox {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

/// Invalid edges of a crop box.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "invalid part {0}: expected four numbers from 0 to 1 (left, top, right, bottom), with left < right and \
     top < bottom, such as 0.1,0,0.9,0.8"
)]
pub struct InvalidCrop(String);

impl CropBox {
    /// # Errors
    /// [`InvalidCrop`] unless all edges are from 0 to 1 and the part has an area.
    pub fn new(left: f64, top: f64, right: f64, bottom: f64) -> Result<Self, InvalidCrop> {
        let part = Self { left, top, right, bottom };
        let inside = [left, top, right, bottom].iter().all(|edge| (0.0..=1.0).contains(edge));
        if inside && left < right && top < bottom { Ok(part) } else { Err(InvalidCrop(part.to_string())) }
    }
}

impl Display for CropBox {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{},{}", self.left, self.top, self.right, self.bottom)
    }
}

impl FromStr for CropBox {
    type Err = InvalidCrop;

    /// Reads `left,top,right,bottom`, separated by commas or blanks.
    fn from_str(text: &str) -> Result<Self, InvalidCrop> {
        let invalid = || InvalidCrop(format!("{text:?}"));
        let fields = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|field| !field.is_empty());
        let numbers: Vec<f64> = fields.map(str::parse).collect::<Result<_, _>>().map_err(|_| invalid())?;
        match numbers[..] {
            [left, top, right, bottom] => Self::new(left, top, right, bottom),
            _ => Err(invalid()),
        }
    }
}

/// Crops an image (HWC) to `part`, rounded to whole pixels and at least one, or to the central square by
/// default.
///
/// # Errors
/// [`Error::Shape`] and [`Error::PixelCount`] if the pixels do not match the shape.
pub fn crop(pixels: &[u8], shape: ImageShape, part: Option<CropBox>) -> Result<(Vec<u8>, ImageShape), Error> {
    shape.check()?;
    if pixels.len() != shape.len() {
        return Err(Error::PixelCount { shape, found: pixels.len() });
    }
    let side = shape.width.min(shape.height);
    let along = |length: usize, edges: Option<(f64, f64)>| match edges {
        None => ((length - side) / 2, side),
        Some((start, end)) => {
            let start = ((start * length as f64).round() as usize).min(length - 1);
            let end = ((end * length as f64).round() as usize).clamp(start + 1, length);
            (start, end - start)
        }
    };
    let (left, width) = along(shape.width, part.map(|part| (part.left, part.right)));
    let (top, height) = along(shape.height, part.map(|part| (part.top, part.bottom)));
    let channels = shape.channels;
    let rows = pixels.chunks_exact(shape.width * channels).skip(top).take(height);
    let cut = rows.flat_map(|row| &row[left * channels..(left + width) * channels]).copied().collect();
    Ok((cut, ImageShape { height, width, channels }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ImageShape = ImageShape { height: 2, width: 4, channels: 1 };

    #[test]
    fn parts_are_cut_to_whole_pixels() {
        let pixels = [0, 1, 2, 3, 10, 11, 12, 13];
        let cut = |part: Option<&str>| crop(&pixels, SHAPE, part.map(|part| part.parse().unwrap())).unwrap();
        assert_eq!(cut(None), (vec![1, 2, 11, 12], ImageShape { width: 2, ..SHAPE }));
        assert_eq!(cut(Some("0,0,1,1")), (pixels.to_vec(), SHAPE));
        assert_eq!(cut(Some("0.5,0.5,1,1")), (vec![12, 13], ImageShape { height: 1, width: 2, channels: 1 }));
        assert_eq!(cut(Some("0.99,0.99,1,1")).0, [13]);
    }

    #[test]
    fn invalid_crop_boxes_are_refused() {
        for text in ["", "0,0,1", "0.5,0,0.5,1", "0,0,1.2,1", "0,NaN,1,1", "0,1,1,0", "a,0,1,1"] {
            let message = text.parse::<CropBox>().unwrap_err().to_string();
            assert!(message.contains("0.1,0,0.9,0.8"), "{message}");
        }
    }
}
