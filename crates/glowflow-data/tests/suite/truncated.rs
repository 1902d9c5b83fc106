//! Every truncated file is broken or yields the pixels of the whole file.

use std::io::Cursor;

use crate::common::{pattern, shape};
use glowflow_data::{ImageShape, image_of_bytes};
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder, ImageFormat, RgbImage, metadata::Orientation};

const SMALL: ImageShape = shape(20, 24, 3);

fn decoded(bytes: &[u8]) -> Option<Vec<u8>> {
    image_of_bytes(bytes, SMALL, u64::MAX).ok()
}

fn encoded(format: ImageFormat) -> Vec<u8> {
    let image = RgbImage::from_raw(24, 20, pattern(SMALL, 1)).unwrap();
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A PNG whose orientation follows its pixels, as the standard allows.
fn turned_png() -> Vec<u8> {
    let tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0";
    let mut png = vec![];
    PngEncoder::new(&mut png).write_image(&pattern(SMALL, 1), 24, 20, ExtendedColorType::Rgb8).unwrap();
    let end = png.split_off(png.len() - 12);
    let chunk = [b"eXIf", &tiff[..]].concat();
    png.extend((tiff.len() as u32).to_be_bytes());
    png.extend(&chunk);
    png.extend(crc32fast::hash(&chunk).to_be_bytes());
    png.extend(end);
    assert_eq!(Orientation::from_exif_chunk(tiff), Some(Orientation::Rotate180));
    png
}

/// A run-length encoded BMP of 256 greys: 24 columns and 20 rows of one run each.
fn run_length_bmp() -> Vec<u8> {
    let palette: Vec<u8> = (0..=255).flat_map(|grey| [grey, grey, grey, 0]).collect();
    let rows: Vec<u8> = (0..20).flat_map(|row| [24, 10 * row, 0, 0]).chain([0, 1]).collect();
    let offset = 14 + 40 + palette.len();
    let mut bmp = b"BM".to_vec();
    for word in [offset + rows.len(), 0, offset, 40, 24, 20] {
        bmp.extend((word as u32).to_le_bytes());
    }
    bmp.extend([1, 0, 8, 0]);
    for word in [1, rows.len() as u32, 0, 0, 256, 0] {
        bmp.extend(word.to_le_bytes());
    }
    [bmp, palette, rows].concat()
}

/// A JPEG with three scans, one per component, of constant blocks.
fn progressive_jpeg() -> Vec<u8> {
    let segment = |marker: u8, data: &[u8]| {
        [&[0xFF, marker], &(data.len() as u16 + 2).to_be_bytes()[..], data].concat()
    };
    let quantisation = [&[0][..], &[1; 64]].concat();
    let frame = [8, 0, 8, 0, 8, 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0];
    // The codes 0, 10 and 110 for differences of 0, 7 and 8 bits.
    let codes = [&[0, 1, 1, 1][..], &[0; 13], &[0, 7, 8]].concat();
    // First scans of the DC coefficients: a code, the difference, and ones to the end of the byte.
    let scan =
        |component: u8, data: &[u8]| [segment(0xDA, &[1, component, 0, 0, 0, 0]), data.to_vec()].concat();
    [
        vec![0xFF, 0xD8],
        segment(0xDB, &quantisation),
        segment(0xC2, &frame),
        segment(0xC4, &codes),
        scan(1, &[0b1010_1101, 0b0111_1111]),
        scan(2, &[0b1011_0010, 0b1111_1111, 0]),
        scan(3, &[0b1101_0110, 0b1001_1111]),
        vec![0xFF, 0xD9],
    ]
    .concat()
}

#[test]
fn every_prefix_is_broken_or_complete() {
    for (name, whole) in [
        ("PNG", encoded(ImageFormat::Png)),
        ("PNG with orientation at its end", turned_png()),
        ("JPEG", encoded(ImageFormat::Jpeg)),
        ("progressive JPEG", progressive_jpeg()),
        ("BMP", encoded(ImageFormat::Bmp)),
        ("BMP by run lengths", run_length_bmp()),
        ("WebP", encoded(ImageFormat::WebP)),
    ] {
        let pixels = decoded(&whole).unwrap_or_else(|| panic!("{name} should be readable"));
        for length in 0..whole.len() {
            let prefix = decoded(&whole[..length]);
            assert!(
                prefix.is_none_or(|prefix| prefix == pixels),
                "{name}: {length} of {} bytes",
                whole.len()
            );
        }
        let with_garbage = [&whole[..], b"garbage\xFF\xD8\xFF"].concat();
        assert_eq!(decoded(&with_garbage), Some(pixels), "{name} with garbage after it");
    }
}

/// A truncated photograph is not complete just because another one, or its thumbnail, follows.
#[test]
fn an_image_does_not_end_where_another_begins() {
    let (whole, other) = (encoded(ImageFormat::Jpeg), progressive_jpeg());
    for length in [whole.len() / 2, whole.len() - 3] {
        assert_eq!(decoded(&[&whole[..length], &other].concat()), None, "{length} of {} bytes", whole.len());
    }
    assert_eq!(decoded(&[&whole[..], &other].concat()), decoded(&whole));
}
