//! Faces are found in a photograph at many sizes and rotations, and nowhere else.

use std::path::Path;
use std::sync::OnceLock;

use glowflow_data::{Eyes, ImageShape, align, fit_image, load_picture};
use glowflow_faces::{Detector, Error, Face, Fitting, is_in_place};

/// Eye positions in the photograph, measured by hand.
const EYES: [[f64; 2]; 2] = [[0.4, 0.46], [0.605, 0.47]];

fn detector() -> &'static Detector {
    static DETECTOR: OnceLock<Detector> = OnceLock::new();
    DETECTOR.get_or_init(|| Detector::new().unwrap())
}

fn photograph() -> (Vec<u8>, ImageShape) {
    load_picture(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures/astronaut.jpg")).unwrap()
}

fn square(side: usize) -> ImageShape {
    ImageShape { height: side, width: side, channels: 3 }
}

/// The photograph in a square of a given size, with its eyes at `eyes`.
fn placed(eyes: Eyes, side: usize) -> Vec<u8> {
    let (pixels, shape) = photograph();
    let mut out = vec![0; square(side).len()];
    align(&pixels, shape, EYES, eyes, square(side), &mut out).unwrap();
    out
}

/// The eyes of the only face.
#[track_caller]
fn only(pixels: &[u8], shape: ImageShape) -> [[f64; 2]; 2] {
    let faces = detector().detect(pixels, shape).unwrap();
    assert_eq!(faces.len(), 1, "{faces:?}");
    faces[0].eyes
}

/// Compares positions; `tolerance` is a fraction of the sides.
#[track_caller]
fn assert_near(found: [[f64; 2]; 2], expected: [[f64; 2]; 2], tolerance: f64) {
    for (found, expected) in found.as_flattened().iter().zip(expected.as_flattened()) {
        assert!((found - expected).abs() <= tolerance, "{found} is not {expected}");
    }
}

#[test]
fn faces_are_found_at_any_size() {
    let (pixels, shape) = photograph();
    for side in [32, 64, 89, 200, 700, 1500] {
        let resized = fit_image(&pixels, shape, square(side)).unwrap();
        assert_near(only(&resized, square(side)), EYES, 0.03);
    }
    let grey = ImageShape { channels: 1, ..square(128) };
    assert_near(only(&fit_image(&pixels, shape, grey).unwrap(), grey), EYES, 0.03);
}

#[test]
fn rotated_faces_are_found() {
    for degrees in [-30.0_f64, -15.0, 15.0, 30.0] {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let eyes = Eyes::new([0.5 - 0.1 * cos, 0.5 - 0.1 * sin], [0.5 + 0.1 * cos, 0.5 + 0.1 * sin]).unwrap();
        assert_near(only(&placed(eyes, 256), square(256)), [eyes.left(), eyes.right()], 0.03);
    }
}

#[test]
fn faces_that_fill_the_picture_or_are_small_are_found() {
    for (half, side) in [(0.2, 160), (0.02, 640)] {
        let eyes = Eyes::new([0.5 - half, 0.45], [0.5 + half, 0.45]).unwrap();
        let faces = detector().detect(&placed(eyes, side), square(side)).unwrap();
        let near = |face: &Face| {
            let off = |[x, y]: [f64; 2], eye: [f64; 2]| (x - eye[0]).hypot(y - eye[1]);
            off(face.eyes[0], eyes.left()).max(off(face.eyes[1], eyes.right())) < 0.2 * half
        };
        assert!(faces.iter().any(near), "{half}: {faces:?}");
    }
}

#[test]
fn the_most_prominent_face_comes_first() {
    let (pixels, shape) = photograph();
    let canvas = ImageShape { height: 200, width: 300, channels: 3 };
    let mut drawn = vec![90; canvas.len()];
    for (side, left) in [(100, 0), (200, 100)] {
        let face = fit_image(&pixels, shape, square(side)).unwrap();
        for (row, line) in face.chunks_exact(3 * side).enumerate() {
            let start = 3 * (row * canvas.width + left);
            drawn[start..start + line.len()].copy_from_slice(line);
        }
    }
    let faces = detector().detect(&drawn, canvas).unwrap();
    assert_eq!(faces.len(), 2, "{faces:?}");
    // The larger one.
    assert!(faces[0].eyes[0][0] > 0.33 && faces[1].eyes[0][0] < 0.33, "{faces:?}");
    assert!(faces.iter().all(|face| (0.7..=1.0).contains(&face.score)), "{faces:?}");

    // Of three equal faces, the one in the middle.
    let canvas = ImageShape { height: 100, width: 300, channels: 3 };
    let face = fit_image(&pixels, shape, square(100)).unwrap();
    let row = |row: &[u8]| row.repeat(3);
    let drawn: Vec<u8> = face.chunks_exact(300).flat_map(row).collect();
    let faces = detector().detect(&drawn, canvas).unwrap();
    assert_eq!(faces.len(), 3, "{faces:?}");
    assert!((0.34..0.66).contains(&faces[0].eyes[0][0]), "{faces:?}");
}

#[test]
fn pictures_without_faces_have_none() {
    for shape in [square(1), square(64), ImageShape { height: 3, width: 1000, channels: 1 }] {
        let slope: Vec<u8> = (0..shape.len()).map(|i| (i / 7 % 251) as u8).collect();
        for pixels in [vec![128; shape.len()], slope] {
            assert_eq!(detector().detect(&pixels, shape).unwrap(), vec![], "{shape}");
        }
    }
}

#[test]
fn pixels_must_match_the_shape() {
    let error = detector().detect(&[0; 5], square(64)).unwrap_err();
    assert!(matches!(error, Error::PixelCount { found: 5, .. }), "{error}");
    assert!(detector().detect(&[], ImageShape { height: 0, ..square(1) }).is_err());
}

#[test]
fn photographs_are_fitted_by_their_faces() {
    let (pixels, shape) = photograph();
    let to = square(64);
    let (fitted, fitting) = detector().fit(&pixels, shape, Eyes::CELEBA, to).unwrap();
    assert!(matches!(fitting, Fitting::Aligned(_)), "{fitting:?}");
    assert_near(only(&fitted, to), [Eyes::CELEBA.left(), Eyes::CELEBA.right()], 0.03);

    let aligned = placed(Eyes::CELEBA, 100);
    let (fitted, fitting) = detector().fit(&aligned, square(100), Eyes::CELEBA, to).unwrap();
    let Fitting::InPlace(face) = fitting else { panic!("{fitting:?}") };
    assert!(is_in_place(&face, square(100), Eyes::CELEBA, to));
    assert_eq!(fitted, fit_image(&aligned, square(100), to).unwrap());

    let (fitted, fitting) = detector().fit(&[9; 300], square(10), Eyes::CELEBA, to).unwrap();
    assert_eq!((fitted, fitting), (vec![9; to.len()], Fitting::NoFace));
}

#[test]
fn a_detector_is_shared_between_threads() {
    let (pixels, shape) = photograph();
    let alone = detector().detect(&pixels, shape).unwrap();
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| detector().detect(&pixels, shape).unwrap())).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), alone);
        }
    });
}
