//! Transparent images.

use crate::common::shape;
use glowflow_data::image_of_bytes;
use image::{ImageFormat, Rgba, RgbaImage};
use std::io::Cursor;

const COLORS: [[u8; 3]; 4] = [[200, 10, 20], [30, 190, 40], [50, 60, 210], [120, 130, 140]];

fn decoded(bytes: &[u8]) -> Result<Vec<u8>, String> {
    image_of_bytes(bytes, shape(2, 2, 3), u64::MAX).map_err(|error| error.to_string())
}

fn encoded(format: ImageFormat, alpha: [u8; 4]) -> Vec<u8> {
    let pixel = |x, y| {
        let at = (2 * y + x) as usize;
        let [r, g, b] = COLORS[at];
        Rgba([r, g, b, alpha[at]])
    };
    let mut bytes = Cursor::new(Vec::new());
    RgbaImage::from_fn(2, 2, pixel).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A 32-bit BMP whose second header has `header` bytes, with an alpha mask if the header has a field for it.
fn bmp(header: u32, compression: u32, alpha: [u8; 4]) -> Vec<u8> {
    // Masks that follow a header of 40 bytes.
    let masks = if header == 40 && compression == 3 { 12 } else { 0 };
    let offset = 14 + header + masks;
    let mut bmp = [&b"BM"[..], &(offset + 16).to_le_bytes(), &[0; 4], &offset.to_le_bytes()].concat();
    for word in [header, 2, 2, 32 << 16 | 1, compression, 16, 0, 0, 0, 0] {
        bmp.extend(word.to_le_bytes());
    }
    for mask in [0x00FF_0000_u32, 0x0000_FF00, 0x0000_00FF, 0xFF00_0000] {
        bmp.extend(mask.to_le_bytes());
    }
    if header > 56 {
        bmp.extend(0x7352_4742_u32.to_le_bytes());
    }
    bmp.resize(offset as usize, 0);
    for at in [2, 3, 0, 1] {
        let [r, g, b] = COLORS[at];
        bmp.extend([b, g, r, alpha[at]]);
    }
    bmp
}

#[test]
fn colours_are_kept_if_alpha_is_unused() {
    for (header, compression) in [(40, 0), (40, 3), (56, 3), (108, 3), (124, 3), (108, 0), (124, 0)] {
        let file = bmp(header, compression, [0; 4]);
        assert_eq!(decoded(&file).unwrap(), COLORS.concat(), "header {header}, compression {compression}");
    }
}

#[test]
fn alpha_in_use_is_composited_over_white() {
    for file in [bmp(108, 3, [255, 0, 255, 255]), encoded(ImageFormat::Png, [255, 0, 255, 255])] {
        let expected = [COLORS[0], [255; 3], COLORS[2], COLORS[3]].concat();
        assert_eq!(decoded(&file).unwrap(), expected);
    }
    let half = decoded(&encoded(ImageFormat::WebP, [128; 4])).unwrap();
    assert_eq!(half[0], ((200 * 128 + 255 * 127 + 127) / 255) as u8);
}

#[test]
fn a_wholly_transparent_picture_is_broken() {
    for format in [ImageFormat::Png, ImageFormat::WebP] {
        let error = decoded(&encoded(format, [0; 4])).unwrap_err();
        assert!(error.contains("fully transparent"), "{error}");
    }
}
