//! Colour profiles: pixels are converted to sRGB.

use crate::common::shape;
use glowflow_data::{ImageShape, image_of_bytes};
use image::codecs::{jpeg::JpegEncoder, png::PngEncoder, webp::WebPEncoder};
use image::{ExtendedColorType, ImageEncoder};
use moxcms::{ColorProfile, ToneReprCurve};

/// A wide variety of colours, as an image of 8×8.
fn colors() -> Vec<u8> {
    (0..64).flat_map(|i| [i / 16 * 85, i / 4 % 4 * 85, i % 4 * 85]).collect()
}

const SHAPE: ImageShape = shape(8, 8, 3);

fn decoded(file: &[u8]) -> Vec<u8> {
    image_of_bytes(file, SHAPE, u64::MAX).unwrap()
}

fn png(pixels: &[u8], color: ExtendedColorType, icc: Option<Vec<u8>>) -> Vec<u8> {
    let mut file = vec![];
    let mut encoder = PngEncoder::new(&mut file);
    if let Some(icc) = icc {
        encoder.set_icc_profile(icc).unwrap();
    }
    encoder.write_image(pixels, 8, 8, color).unwrap();
    file
}

fn rgb_png(profile: &ColorProfile) -> Vec<u8> {
    png(&colors(), ExtendedColorType::Rgb8, Some(profile.encode().unwrap()))
}

/// A PNG with additional chunks before its pixels.
fn png_with(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    const HEADER: usize = 8 + 25;
    let plain = png(&colors(), ExtendedColorType::Rgb8, None);
    let mut file = plain[..HEADER].to_vec();
    for (kind, data) in chunks {
        let chunk = [&kind[..], data].concat();
        file.extend((data.len() as u32).to_be_bytes());
        file.extend(&chunk);
        file.extend(crc32fast::hash(&chunk).to_be_bytes());
    }
    file.extend(&plain[HEADER..]);
    file
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn srgb_curve(linear: f64) -> f64 {
    if linear <= 0.0031308 { 12.92 * linear } else { 1.055 * linear.powf(1.0 / 2.4) - 0.055 }
}

fn srgb_curve_inverse(value: f64) -> f64 {
    if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
}

/// The colours, linearised by `curve`, multiplied by `matrix` and encoded as sRGB.
fn converted(matrix: [[f64; 3]; 3], curve: impl Fn(f64) -> f64) -> Vec<u8> {
    let pixel = |pixel: &[u8]| {
        let linear: Vec<f64> = pixel.iter().map(|&value| curve(f64::from(value) / 255.0)).collect();
        matrix.map(|row| {
            let sum: f64 = row.iter().zip(&linear).map(|(a, b)| a * b).sum();
            (255.0 * srgb_curve(sum.clamp(0.0, 1.0))).round() as u8
        })
    };
    colors().chunks(3).flat_map(pixel).collect()
}

fn distance(a: &[u8], b: &[u8]) -> u8 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

const P3: [[f64; 3]; 3] = [[1.22494, -0.22494, 0.0], [-0.04206, 1.04206, 0.0], [-0.01964, -0.07864, 1.09828]];
const ADOBE: [[f64; 3]; 3] = [[1.39836, -0.39836, 0.0], [0.0, 1.0, 0.0], [0.0, -0.04293, 1.04293]];
const PROPHOTO: [[f64; 3]; 3] =
    [[2.03422, -0.72738, -0.30684], [-0.22882, 1.23176, -0.00294], [-0.00856, -0.15327, 1.16183]];

#[test]
fn matrix_profiles_are_converted() {
    let p3 = ColorProfile::new_display_p3();
    let expected = converted(P3, srgb_curve_inverse);
    assert!(distance(&expected, &colors()) > 10);
    assert!(distance(&decoded(&rgb_png(&p3)), &expected) <= 2);

    let expected = converted(ADOBE, |value| value.powf(2.19921875));
    assert!(distance(&decoded(&rgb_png(&ColorProfile::new_adobe_rgb())), &expected) <= 2);

    let prophoto = ColorProfile::new_pro_photo_rgb();
    let expected =
        converted(PROPHOTO, |value| if value < 1.0 / 32.0 { value / 16.0 } else { value.powf(1.8) });
    assert!(distance(&decoded(&rgb_png(&prophoto)), &expected) <= 3);
}

#[test]
fn every_format_has_profiles() {
    let icc = ColorProfile::new_display_p3().encode().unwrap();
    let expected = converted(P3, srgb_curve_inverse);
    let mut webp = vec![];
    let mut encoder = WebPEncoder::new_lossless(&mut webp);
    encoder.set_icc_profile(icc.clone()).unwrap();
    encoder.write_image(&colors(), 8, 8, ExtendedColorType::Rgb8).unwrap();
    assert!(distance(&decoded(&webp), &expected) <= 2);

    // A single colour, which a JPEG preserves.
    let [mut with, mut without] = [vec![], vec![]];
    let pixels = [200, 60, 40].repeat(64);
    let mut encoder = JpegEncoder::new_with_quality(&mut with, 100);
    encoder.set_icc_profile(icc).unwrap();
    encoder.write_image(&pixels, 8, 8, ExtendedColorType::Rgb8).unwrap();
    let encoder = JpegEncoder::new_with_quality(&mut without, 100);
    encoder.write_image(&pixels, 8, 8, ExtendedColorType::Rgb8).unwrap();
    assert!(distance(&decoded(&without), &pixels) <= 2);
    let red = i32::from(decoded(&with)[0]) - i32::from(decoded(&without)[0]);
    assert!((10..30).contains(&red), "{red}");
}

#[test]
fn srgb_itself_changes_nothing() {
    let srgb = ColorProfile::new_srgb();
    assert_eq!(decoded(&rgb_png(&srgb)), colors());
    // As a table of 1,024 numbers, like Hewlett-Packard's profile.
    let mut table = srgb.clone();
    let curve: Vec<u16> =
        (0..1024).map(|i| (65535.0 * srgb_curve_inverse(f64::from(i) / 1023.0)).round() as u16).collect();
    for trc in [&mut table.red_trc, &mut table.green_trc, &mut table.blue_trc] {
        *trc = Some(ToneReprCurve::Lut(curve.clone()));
    }
    assert_eq!(decoded(&rgb_png(&table)), colors());
}

#[test]
fn transparency_and_depth_go_with_profiles() {
    let icc = ColorProfile::new_display_p3().encode().unwrap();
    let expected = converted(P3, srgb_curve_inverse);
    let rgba: Vec<u8> = colors().chunks(3).flat_map(|pixel| [pixel, &[255]].concat()).collect();
    let file = png(&rgba, ExtendedColorType::Rgba8, Some(icc.clone()));
    assert!(distance(&decoded(&file), &expected) <= 2);
    let deep: Vec<u8> = colors().iter().flat_map(|&value| (u16::from(value) * 257).to_ne_bytes()).collect();
    let file = png(&deep, ExtendedColorType::Rgb16, Some(icc));
    assert!(distance(&decoded(&file), &expected) <= 2);
}

#[test]
fn gray_profiles_are_converted() {
    let greys: Vec<u8> = (0..64).map(|i| i * 4).collect();
    let expected: Vec<u8> = greys
        .iter()
        .map(|&grey| (255.0 * srgb_curve((f64::from(grey) / 255.0).powf(1.8))).round() as u8)
        .flat_map(|grey| [grey; 3])
        .collect();
    let icc = ColorProfile::new_gray_with_gamma(1.8).encode().unwrap();
    let file = png(&greys, ExtendedColorType::L8, Some(icc.clone()));
    assert!(distance(&decoded(&file), &expected) <= 2);
    let with_alpha: Vec<u8> = greys.iter().flat_map(|&grey| [grey, 255]).collect();
    let file = png(&with_alpha, ExtendedColorType::La8, Some(icc.clone()));
    assert!(distance(&decoded(&file), &expected) <= 2);
    // A profile for a different number of channels than the pixels have.
    assert_eq!(decoded(&png(&colors(), ExtendedColorType::Rgb8, Some(icc))), colors());
}

#[test]
fn damaged_profiles_are_ignored() {
    let icc = ColorProfile::new_display_p3().encode().unwrap();
    for length in 0..icc.len() {
        let file = png(&colors(), ExtendedColorType::Rgb8, Some(icc[..length].to_vec()));
        assert_eq!(decoded(&file).len(), SHAPE.len());
    }
    for at in 0..icc.len() {
        for change in [1, 0x80, 0xFF] {
            let mut icc = icc.clone();
            icc[at] ^= change;
            assert_eq!(decoded(&png(&colors(), ExtendedColorType::Rgb8, Some(icc))).len(), SHAPE.len());
        }
    }
    assert_eq!(decoded(&png(&colors(), ExtendedColorType::Rgb8, Some(b"no profile".to_vec()))), colors());
}

#[test]
fn png_chunks_without_profile_are_as_in_browsers() {
    let srgb_chromaticities = words(&[31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000]);
    let p3_chromaticities = words(&[31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000]);
    let (srgb_gamma, linear) = (words(&[45455]), words(&[100_000]));
    for chunks in [
        &[(b"gAMA", &srgb_gamma[..])][..],
        &[(b"gAMA", &srgb_gamma), (b"cHRM", &srgb_chromaticities)],
        &[(b"sRGB", &[0]), (b"gAMA", &linear), (b"cHRM", &p3_chromaticities)],
        &[(b"cICP", &[1, 13, 0, 1])],
        &[(b"gAMA", &[0; 4]), (b"cHRM", &[0; 32])],
        &[(b"gAMA", &[0xFF; 4]), (b"cHRM", &[0xFF; 32])],
        &[(b"cICP", &[9, 16, 0, 1])],
        &[(b"cICP", &[250, 250, 0, 1])],
    ] {
        let kinds: Vec<_> = chunks.iter().map(|(kind, _)| kind.escape_ascii().to_string()).collect();
        let found = image_of_bytes(&png_with(chunks), SHAPE, u64::MAX);
        assert_eq!(found.unwrap_or_else(|error| panic!("{kinds:?}: {error}")), colors(), "{kinds:?}");
    }
    let p3 = converted(P3, srgb_curve_inverse);
    assert!(
        distance(&decoded(&png_with(&[(b"cHRM", &p3_chromaticities), (b"gAMA", &srgb_gamma)])), &p3) <= 2
    );
    assert!(distance(&decoded(&png_with(&[(b"cICP", &[12, 13, 0, 1])])), &p3) <= 2);
    let identity = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    let expected = converted(identity, |value| value);
    assert!(distance(&decoded(&png_with(&[(b"gAMA", &linear)])), &expected) <= 2);
}
