//! What can be done with latents, on models with weights that are not trained: exactness does not need training.

use glowflow::latent::{Walk, between, interpolate};
use glowflow::{Error, Glow, Latents, ModelConfig};
use ndarray::{Array4, Axis, s};

fn config() -> ModelConfig {
    ModelConfig { image: [16, 16, 3], levels: 2, steps: 2, hidden: 8, bits: 5, ..ModelConfig::default() }
}

/// Images that a model of 5 bits can give back, all different.
fn images(count: usize) -> Array4<u8> {
    Array4::from_shape_fn((count, 16, 16, 3), |(i, y, x, c)| {
        ((i * 71 + y * 13 + x * 7 + c * 29) % 32 * 8) as u8
    })
}

fn norm(latents: &Latents) -> f64 {
    latents.0.iter().flatten().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn a_walk_begins_and_ends_at_its_images_and_passes_through_those_between() {
    let glow = Glow::new(config(), 1).unwrap();
    let images = images(3);
    for walk in [Walk::Linear, Walk::Spherical] {
        let frames = interpolate(&glow, images.view(), &[], 5, walk).unwrap();
        assert_eq!(frames.shape(), [10, 16, 16, 3]);
        for (frame, image) in [(0, 0), (4, 1), (5, 1), (9, 2)] {
            assert_eq!(
                frames.index_axis(Axis(0), frame),
                images.index_axis(Axis(0), image),
                "{walk:?} {frame}"
            );
        }
        assert_ne!(
            frames.slice(s![2, .., .., ..]),
            images.slice(s![0, .., .., ..]),
            "the middle is somewhere else"
        );
    }
}

#[test]
fn the_great_circle_keeps_its_distance_from_the_origin() {
    let glow = Glow::new(config(), 1).unwrap();
    let (a, b) = (glow.draw(1, 1.0, 1).unwrap(), glow.draw(1, 1.0, 2).unwrap());
    let longest = norm(&a).max(norm(&b));
    let shortest = norm(&a).min(norm(&b));
    for t in [0.25, 0.5, 0.75] {
        let distance = norm(&between(&a, &b, t, Walk::Spherical));
        assert!((0.95 * shortest..1.05 * longest).contains(&distance), "{distance} at {t}");
        assert!(norm(&between(&a, &b, t, Walk::Linear)) < 0.9 * shortest, "the straight line dips below");
    }
}

#[test]
fn a_great_circle_between_equal_or_empty_latents_is_a_straight_line() {
    let glow = Glow::new(config(), 1).unwrap();
    let a = glow.draw(1, 1.0, 1).unwrap();
    let origin = glow.draw(1, 0.0, 1).unwrap();
    for (from, to) in [(&a, &a), (&origin, &a), (&origin, &origin)] {
        assert_eq!(between(from, to, 0.5, Walk::Spherical), between(from, to, 0.5, Walk::Linear));
    }
}

#[test]
fn a_walk_needs_two_images_and_two_frames() {
    let glow = Glow::new(config(), 1).unwrap();
    for (count, frames) in [(1, 5), (2, 1), (2, 0)] {
        let error = interpolate(&glow, images(count).view(), &[], frames, Walk::Linear).unwrap_err();
        assert!(matches!(&error, Error::Input(message) if message.contains("2 of each")), "{error}");
    }
}
