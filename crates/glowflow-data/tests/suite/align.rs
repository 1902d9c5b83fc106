//! Compares aligned images with a float64 computation from a drawing whose value is known at every point.

use glowflow_data::{Error, Eyes, ImageShape, align, fit_image, place_after_fit};

const WIDE: ImageShape = ImageShape { height: 90, width: 140, channels: 3 };

/// The drawing: brightness of a channel at a position in pixels, in waves of `length` pixels.
fn drawing([x, y]: [f64; 2], channel: usize, length: f64) -> f64 {
    let wave = |along: f64, phase: f64| (along / length * std::f64::consts::TAU + phase).sin();
    127.5 + 60.0 * wave(x + 0.3 * y, channel as f64) + 50.0 * wave(y - 0.2 * x, 2.0 * channel as f64)
}

fn drawn(shape: ImageShape, length: f64) -> Vec<u8> {
    let value = |i: usize| {
        let (pixel, channel) = (i / shape.channels, i % shape.channels);
        let place = [(pixel % shape.width) as f64 + 0.5, (pixel / shape.width) as f64 + 0.5];
        drawing(place, channel, length).round() as u8
    };
    (0..shape.len()).map(value).collect()
}

/// A position in an image that is reflected beyond its edges.
fn reflected(place: f64, side: usize) -> f64 {
    let side = side as f64;
    let place = place.rem_euclid(2.0 * side);
    if place < side { place } else { 2.0 * side - place }
}

/// The largest difference between an aligned image and the drawing, with complex numbers as `(re, im)`.
fn largest_difference(found: [[f64; 2]; 2], eyes: Eyes, to: ImageShape, length: f64) -> f64 {
    let mut out = vec![0; to.len()];
    align(&drawn(WIDE, length), WIDE, found, eyes, to, &mut out).unwrap();
    let pixels = |[x, y]: [f64; 2], shape: ImageShape| (x * shape.width as f64, y * shape.height as f64);
    let minus = |a: (f64, f64), b: (f64, f64)| (a.0 - b.0, a.1 - b.1);
    let times = |a: (f64, f64), b: (f64, f64)| (a.0 * b.0 - a.1 * b.1, a.0 * b.1 + a.1 * b.0);
    let [from, target] = [(found, WIDE), ([eyes.left(), eyes.right()], to)]
        .map(|(places, shape)| places.map(|place| pixels(place, shape)));
    let (p, r) = (minus(from[1], from[0]), minus(target[1], target[0]));
    let square = r.0 * r.0 + r.1 * r.1;
    let turn = times(p, (r.0 / square, -r.1 / square));
    let mut largest = 0.0_f64;
    for (i, &value) in out.iter().enumerate() {
        let (pixel, channel) = (i / 3, i % 3);
        let place = ((pixel % to.width) as f64 + 0.5, (pixel / to.width) as f64 + 0.5);
        let moved = times(turn, minus(place, target[0]));
        let (x, y) = (moved.0 + from[0].0, moved.1 + from[0].1);
        let expected = drawing([reflected(x, WIDE.width), reflected(y, WIDE.height)], channel, length);
        // The drawing has a kink where it is reflected.
        let margin = 2.0 * (turn.0.hypot(turn.1)).max(1.0);
        let inside = |place: f64, side: usize| {
            let place = place.rem_euclid(side as f64);
            place > margin && place < side as f64 - margin
        };
        if inside(x, WIDE.width) && inside(y, WIDE.height) {
            largest = largest.max((f64::from(value) - expected).abs());
        }
    }
    largest
}

#[test]
fn positions_match_a_float64_program() {
    let square = |side| ImageShape { height: side, width: side, channels: 3 };
    let tilted = Eyes::new([0.3, 0.4], [0.65, 0.5]).unwrap();
    for (found, eyes, to, length) in [
        // About the same size, rotated.
        ([[0.4, 0.5], [0.55, 0.45]], Eyes::CELEBA, square(80), 60.0),
        ([[0.3, 0.3], [0.6, 0.9]], tilted, square(64), 60.0),
        // Enlarged.
        ([[0.45, 0.5], [0.5, 0.52]], Eyes::CELEBA, square(100), 60.0),
        // Reduced, and rotated further.
        ([[0.3, 0.7], [0.7, 0.3]], Eyes::CELEBA, square(64), 60.0),
        // Reduced to a twelfth: the waves keep their length in the result.
        ([[0.3, 0.7], [0.7, 0.3]], Eyes::CELEBA, square(24), 200.0),
        // Mostly outside.
        ([[0.02, 0.05], [0.2, 0.0]], Eyes::CELEBA, square(90), 60.0),
        ([[0.1, 0.5], [0.9, 0.5]], Eyes::CELEBA, ImageShape { height: 30, width: 50, channels: 3 }, 120.0),
    ] {
        let difference = largest_difference(found, eyes, to, length);
        assert!(difference <= 2.5, "{found:?} to {to}: off by {difference}");
    }
}

#[test]
fn a_picture_in_place_comes_through_as_it_is() {
    let pixels = drawn(WIDE, 7.0);
    let mut out = vec![0; WIDE.len()];
    let places = [Eyes::CELEBA.left(), Eyes::CELEBA.right()];
    align(&pixels, WIDE, places, Eyes::CELEBA, WIDE, &mut out).unwrap();
    let off = pixels.iter().zip(&out).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(off <= Some(1), "{off:?}");
}

#[test]
fn details_finer_than_the_result_are_averaged() {
    let shape = ImageShape { height: 400, width: 400, channels: 1 };
    let board: Vec<u8> =
        (0..shape.len()).map(|i| if (i / 400 + i % 400) % 2 == 0 { 255 } else { 0 }).collect();
    let to = ImageShape { height: 50, width: 50, channels: 1 };
    let mut out = vec![0; to.len()];
    align(&board, shape, [[0.35, 0.55], [0.65, 0.45]], Eyes::CELEBA, to, &mut out).unwrap();
    assert!(out.iter().all(|&value| (120..=135).contains(&value)), "{out:?}");
}

#[test]
fn colours_are_those_of_the_result() {
    let grey = ImageShape { height: 20, width: 20, channels: 1 };
    let colour = ImageShape { channels: 3, ..grey };
    let places = [[0.3, 0.5], [0.7, 0.5]];
    let (mut one, mut three) = (vec![0; grey.len()], vec![0; colour.len()]);
    align(&vec![50; grey.len()], grey, places, Eyes::CELEBA, colour, &mut three).unwrap();
    assert!(three.iter().all(|&value| value == 50));
    let red: Vec<u8> = [200, 0, 0].repeat(400);
    align(&red, colour, places, Eyes::CELEBA, grey, &mut one).unwrap();
    assert!(one.iter().all(|&value| value == 60), "{one:?}");
}

#[test]
fn impossible_alignments_are_refused() {
    let shape = ImageShape { height: 4, width: 4, channels: 1 };
    let aligned = |found, out: &mut [u8]| align(&[0; 16], shape, found, Eyes::CELEBA, shape, out);
    let places = [[0.3, 0.5], [0.7, 0.5]];
    assert!(matches!(aligned([[0.5, 0.5]; 2], &mut [0; 16]), Err(Error::SamePlace(_))));
    assert!(matches!(aligned([[f64::NAN, 0.5], [0.7, 0.5]], &mut [0; 16]), Err(Error::SamePlace(_))));
    assert!(matches!(aligned(places, &mut [0; 15]), Err(Error::PixelCount { found: 15, .. })));
    let nothing = ImageShape { height: 0, ..shape };
    assert!(matches!(align(&[], nothing, places, Eyes::CELEBA, shape, &mut [0; 16]), Err(Error::Shape(_))));
}

#[test]
fn places_follow_the_crop() {
    let tall = ImageShape { height: 109, width: 89, channels: 3 };
    let square = ImageShape { height: 32, width: 32, channels: 3 };
    let [x, y] = place_after_fit([0.5, 54.5 / 109.0], tall, square);
    assert!((x - 0.5).abs() < 1e-12 && (y - 0.5).abs() < 1e-12, "{x} {y}");
    let [_, y] = place_after_fit([0.5, 0.0], tall, square);
    assert!((y + 10.0 / 89.0).abs() < 1e-12, "{y}");
    // The position that a marked pixel maps to.
    let mut pixels = vec![0; tall.len()];
    pixels[3 * (54 * 89 + 20)..][..3].fill(255);
    let fitted = fit_image(&pixels, tall, square).unwrap();
    let brightest = (0..32 * 32).max_by_key(|i| fitted[3 * i]).unwrap();
    let place = place_after_fit([20.5 / 89.0, 54.5 / 109.0], tall, square).map(|p| (p * 32.0) as usize);
    assert_eq!([brightest % 32, brightest / 32], place);
}
