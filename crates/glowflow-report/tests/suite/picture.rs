//! Pictures are read back from their files and compared pixel by pixel.

use glowflow_report::Error;
use glowflow_report::picture::{grid, rows, save};
use image::{Rgb, RgbImage};

const WHITE: Rgb<u8> = Rgb([255; 3]);

fn saved_and_read_again(picture: &RgbImage) -> RgbImage {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("picture.png");
    // Twice, like a refreshed picture.
    save(&path, &RgbImage::new(3, 3)).unwrap();
    save(&path, picture).unwrap();
    let files: Vec<_> = folder.path().read_dir().unwrap().collect();
    assert_eq!(files.len(), 1, "no temporary file is left");
    image::open(&path).unwrap().to_rgb8()
}

#[test]
fn a_grid_puts_every_pixel_in_its_place() {
    // Five images of 40 × 50 pixels: 128 / 50 gives a scale of 2.
    let (height, width, columns, scale, gap) = (40, 50, 3, 2, 2);
    let pixels: Vec<u8> = (0..5 * height * width * 3).map(|i| (i % 251) as u8).collect();
    let picture = saved_and_read_again(&grid(&pixels, [height, width, 3], columns));
    assert_eq!(picture.dimensions(), (3 * 100 + 2 * 2, 2 * 80 + 2));

    let mut covered = RgbImage::new(picture.width(), picture.height());
    for image in 0..5 {
        let (left, top) = (image % columns * (width * scale + gap), image / columns * (height * scale + gap));
        for y in 0..height * scale {
            for x in 0..width * scale {
                let at = ((image * height + y / scale) * width + x / scale) * 3;
                let (px, py) = ((left + x) as u32, (top + y) as u32);
                assert_eq!(picture.get_pixel(px, py).0, pixels[at..at + 3]);
                covered.put_pixel(px, py, WHITE);
            }
        }
    }
    for (x, y, seen) in covered.enumerate_pixels() {
        if *seen != WHITE {
            assert_eq!(*picture.get_pixel(x, y), WHITE, "gap at {x}, {y}");
        }
    }
}

#[test]
fn rows_may_differ_in_length_and_be_grey() {
    let (first, second) = ([10, 20, 30], [40]);
    let picture = saved_and_read_again(&rows(&[&first, &second], [1, 1, 1]));
    // Single pixels, four times as large.
    assert_eq!(picture.dimensions(), (3 * 4 + 2 * 2, 2 * 4 + 2));
    assert_eq!(*picture.get_pixel(13, 0), Rgb([30; 3]));
    assert_eq!(*picture.get_pixel(3, 9), Rgb([40; 3]));
    assert_eq!(*picture.get_pixel(13, 9), WHITE);
}

#[test]
fn an_error_names_the_file() {
    let error = save("/no/such/folder/a.png".as_ref(), &RgbImage::new(1, 1)).unwrap_err();
    assert!(matches!(error, Error::Write { .. }));
    assert!(error.to_string().contains("/no/such/folder/"));
    let folder = tempfile::tempdir().unwrap();
    let empty = save(&folder.path().join("a.png"), &RgbImage::new(0, 0)).unwrap_err();
    assert!(empty.to_string().contains("a.png"));
}
