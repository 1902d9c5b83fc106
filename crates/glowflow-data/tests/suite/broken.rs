//! Broken images are not fatal and are reported once, with a reason.

use std::fs;
use std::path::Path;

use crate::common::{open_as, open_default, open_error, pattern, read, shape};
use glowflow_data::{Error, batches_in_order, save_png};
use image::{ExtendedColorType, ImageFormat};

const SMALL: glowflow_data::ImageShape = shape(16, 16, 3);

fn encoded(format: ImageFormat) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let pixels = pattern(SMALL, 1);
    image::save_buffer_with_format(&path, &pixels, 16, 16, ExtendedColorType::Rgb8, format).unwrap();
    fs::read(path).unwrap()
}

/// A PNG whose header declares the given size, without matching pixels.
fn bomb_png(side: u32) -> Vec<u8> {
    let mut png = encoded(ImageFormat::Png);
    png[16..20].copy_from_slice(&side.to_be_bytes());
    png[20..24].copy_from_slice(&side.to_be_bytes());
    let mut crc = flate2::Crc::new();
    crc.update(&png[12..29]);
    png[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    png
}

/// A JPEG whose frame header declares 65,500×65,500 pixels.
fn bomb_jpeg() -> Vec<u8> {
    let mut jpeg = encoded(ImageFormat::Jpeg);
    let frame = jpeg.windows(2).position(|marker| marker == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xFF, 0xDC, 0xFF, 0xDC]);
    jpeg
}

fn is_broken(path: &Path) -> String {
    let data = open_as(path, SMALL).train;
    match data.read(0, &mut vec![0; SMALL.len()]) {
        Err(Error::BrokenImage { name, reason }) => {
            assert_eq!(data.broken().len(), 1);
            assert_eq!((&data.broken()[0].name, &data.broken()[0].reason), (&name, &reason));
            reason
        }
        other => panic!("{} should be broken: {other:?}", path.display()),
    }
}

/// A BMP file whose height is 0.
fn bmp_without_rows() -> Vec<u8> {
    let mut bytes = encoded(ImageFormat::Bmp);
    bytes[22..26].fill(0);
    bytes
}

#[test]
fn no_content_is_fatal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.png");
    for (contents, reason) in [
        (b"just text".to_vec(), "not a PNG"),
        (Vec::new(), "empty"),
        (b"\x89PNG\r\n\x1a\n".to_vec(), ""),
        (b"RIFF\x10\0\0\0WEBPVP8L".to_vec(), ""),
        (b"BM".to_vec(), ""),
        (b"\xFF\xD8\xFF".to_vec(), "cut short"),
        (b"\xFF\xD8\xFF\xD9".to_vec(), ""),
        (bomb_png(1 << 16), ""),
        (bomb_png(1 << 14), ""),
        (bomb_png(u32::MAX), ""),
        (bomb_jpeg(), ""),
        (bmp_without_rows(), ""),
    ] {
        fs::write(&path, &contents).unwrap();
        let found = is_broken(&path);
        assert!(found.contains(reason) && !found.is_empty(), "{found}");
    }
}

#[test]
fn every_truncation_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.png");
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Bmp, ImageFormat::WebP] {
        let whole = encoded(format);
        for kept in [whole.len() / 2, whole.len() * 9 / 10] {
            fs::write(&path, &whole[..kept]).unwrap();
            assert!(!is_broken(&path).is_empty(), "{format:?} of {kept} bytes");
        }
    }
}

#[test]
fn damaged_bytes_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.png");
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Bmp, ImageFormat::WebP] {
        let whole = encoded(format);
        for at in (0..whole.len()).step_by(whole.len() / 100 + 1) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xFF;
            fs::write(&path, &damaged).unwrap();
            // Either result is acceptable.
            let _ = open_as(&path, SMALL).train.read(0, &mut vec![0; SMALL.len()]);
        }
    }
}

#[test]
fn broken_images_are_listed_once_and_the_others_read() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..5 {
        save_png(&folder.path().join(format!("{i}.png")), SMALL, &pattern(SMALL, i)).unwrap();
    }
    fs::write(folder.path().join("1.png"), "text").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("nowhere", folder.path().join("5.png")).unwrap();
    #[cfg(not(unix))]
    fs::write(folder.path().join("5.png"), "").unwrap();

    let data = open_as(folder.path(), SMALL).train;
    assert_eq!((data.len(), data.broken().len()), (6, 0));
    for _ in 0..2 {
        let batches = batches_in_order(data.clone(), 2, 2).unwrap();
        let indices: Vec<Vec<usize>> = batches.map(|batch| batch.unwrap().indices).collect();
        assert_eq!(indices, [vec![0], vec![2, 3], vec![4]]);
    }
    let broken: Vec<(usize, String)> = data.broken().into_iter().map(|b| (b.index, b.name)).collect();
    assert_eq!(broken, [(1, "1.png".to_owned()), (5, "5.png".to_owned())]);
    assert_eq!(read(&*data, 4), pattern(SMALL, 4));
}

#[test]
fn a_shape_is_taken_from_the_first_readable_image() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("0.png"), "text").unwrap();
    let error = open_error(folder.path());
    assert!(error.contains("all 1 images are broken") && error.contains("0.png"), "{error}");
    save_png(&folder.path().join("1.png"), SMALL, &pattern(SMALL, 0)).unwrap();
    assert_eq!(open_default(folder.path()).train.shape(), SMALL);
}
