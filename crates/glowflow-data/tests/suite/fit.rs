//! Fitting images to the target shape: crop, resize, colour, transparency, depth, orientation.

use std::fs;
use std::path::Path;

use crate::common::{open_as, open_default, pattern, read, shape};
use glowflow_data::{ImageShape, save_png};
use image::{ExtendedColorType, ImageEncoder, ImageFormat};

/// Fits an image (HWC).
fn fitted(from: ImageShape, pixels: &[u8], to: ImageShape) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.png");
    save_png(&path, from, pixels).unwrap();
    read(&*open_as(&path, to).train, 0)
}

#[test]
fn the_right_shape_comes_through_unchanged() {
    for same in [shape(5, 7, 3), shape(5, 7, 1)] {
        assert_eq!(fitted(same, &pattern(same, 3), same), pattern(same, 3));
    }
}

#[test]
fn a_crop_without_scaling_copies_the_middle() {
    let (from, to) = (shape(7, 4, 3), shape(4, 4, 3));
    let pixels = pattern(from, 2);
    assert_eq!(fitted(from, &pixels, to), pixels[4 * 3..5 * 4 * 3]);
    let (from, to) = (shape(2, 5, 1), shape(2, 2, 1));
    assert_eq!(fitted(from, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], to), [1, 2, 6, 7]);
}

#[test]
fn shrinking_averages_and_does_not_alias() {
    // Stripes one pixel wide: nearest-neighbour would give all black or all white.
    let from = shape(64, 64, 1);
    let stripes: Vec<u8> = (0..from.len()).map(|i| if i % 2 == 0 { 0 } else { 255 }).collect();
    let middle = &fitted(from, &stripes, shape(8, 8, 1))[9..15];
    assert!(middle.iter().all(|&v| (118..=137).contains(&v)), "{middle:?}");
}

#[test]
fn constant_images_stay_constant() {
    for (from, to) in [
        (shape(109, 89, 3), shape(64, 64, 3)),
        (shape(3, 200, 3), shape(32, 32, 3)),
        (shape(1, 1, 3), shape(32, 16, 3)),
        (shape(1000, 1, 3), shape(1, 50, 3)),
    ] {
        let pixels = [10, 100, 200].repeat(from.height * from.width);
        assert_eq!(fitted(from, &pixels, to), [10, 100, 200].repeat(to.height * to.width));
    }
}

#[test]
fn grey_and_rgb_become_each_other() {
    let rgb = [255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255];
    assert_eq!(fitted(shape(2, 2, 3), &rgb, shape(2, 2, 1)), [76, 150, 29, 255]);
    assert_eq!(fitted(shape(1, 2, 1), &[7, 200], shape(1, 2, 3)), [7, 7, 7, 200, 200, 200]);
    assert_eq!(fitted(shape(1, 1, 1), &[9], shape(2, 2, 3)), [9; 12]);
}

fn save(path: &Path, pixels: &[u8], width: u32, color: ExtendedColorType) {
    image::save_buffer_with_format(path, pixels, width, 1, color, ImageFormat::Png).unwrap();
}

#[test]
fn transparent_images_are_composited_and_16_bits_become_8() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.png");
    let sixteen: Vec<u8> = [0u16, 0x8080, 0xFFFF].iter().flat_map(|v| v.to_ne_bytes()).collect();
    for (pixels, width, color, expected, channels) in [
        (
            vec![10, 20, 30, 255, 10, 20, 30, 0],
            2,
            ExtendedColorType::Rgba8,
            vec![10, 20, 30, 255, 255, 255],
            3,
        ),
        (vec![0, 0, 0, 128], 1, ExtendedColorType::Rgba8, vec![127; 3], 3),
        (vec![50, 255, 50, 0], 2, ExtendedColorType::La8, vec![50, 255], 1),
        (sixteen, 3, ExtendedColorType::L16, vec![0, 128, 255], 1),
    ] {
        save(&path, &pixels, width, color);
        let data = open_default(&path).train;
        assert_eq!((data.shape().channels, read(&*data, 0)), (channels, expected));
    }
}

#[test]
fn exif_orientation_is_applied() {
    // Little-endian TIFF with the single entry Orientation = 6 (rotate right).
    let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0".to_vec();
    let mut jpeg = Vec::new();
    let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 100);
    encoder.set_exif_metadata(exif).unwrap();
    // Left half black, right half white.
    let pixels: Vec<u8> = (0..16 * 32).map(|i| if i % 32 < 16 { 0 } else { 255 }).collect();
    encoder.write_image(&pixels, 32, 16, ExtendedColorType::L8).unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.jpg"), jpeg).unwrap();

    let data = open_default(folder.path()).train;
    assert_eq!(data.shape(), shape(32, 16, 1));
    let turned = read(&*data, 0);
    assert!(turned[..16 * 16].iter().all(|&v| v < 20) && turned[16 * 16..].iter().all(|&v| v > 235));
}
