//! Operations on latents, with untrained models: exactness does not require training.

use std::sync::Arc;

use glowflow::latent::{
    About, Direction, Interpolation, at_temperatures, between, interpolate, level_weights, nearest,
    redraw_details, sweep,
};
use glowflow::{AnyDevice, Cpu, Dequantization, Error, GlowConfig, Latents, Model, ModelConfig, ModelFile};
use glowflow_data::portraits::Portraits;
use glowflow_data::{Dataset, ImageShape, Subset};
use ndarray::{Array4, Axis, s};

fn config() -> GlowConfig {
    GlowConfig { image: [16, 16, 3], levels: 2, steps: 2, hidden: 8, bits: 5, ..GlowConfig::default() }
}

/// Distinct images that a model of 5 bits can reproduce.
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
    let glow = Model::new(config(), 1).unwrap();
    let images = images(3);
    for walk in [Interpolation::Linear, Interpolation::Spherical] {
        let frames = interpolate(&glow, images.view(), &[], 5, walk).unwrap().pixels;
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
    let glow = Model::new(config(), 1).unwrap();
    let (a, b) = (glow.draw(1, 1.0, 1).unwrap(), glow.draw(1, 1.0, 2).unwrap());
    let longest = norm(&a).max(norm(&b));
    let shortest = norm(&a).min(norm(&b));
    for t in [0.25, 0.5, 0.75] {
        let distance = norm(&between(&a, &b, t, Interpolation::Spherical));
        assert!((0.95 * shortest..1.05 * longest).contains(&distance), "{distance} at {t}");
        assert!(
            norm(&between(&a, &b, t, Interpolation::Linear)) < 0.9 * shortest,
            "the straight line dips below"
        );
    }
}

#[test]
fn a_great_circle_between_equal_or_empty_latents_is_a_straight_line() {
    let glow = Model::new(config(), 1).unwrap();
    let a = glow.draw(1, 1.0, 1).unwrap();
    let origin = glow.draw(1, 0.0, 1).unwrap();
    for (from, to) in [(&a, &a), (&origin, &a), (&origin, &origin)] {
        assert_eq!(
            between(from, to, 0.5, Interpolation::Spherical),
            between(from, to, 0.5, Interpolation::Linear)
        );
    }
}

#[test]
fn a_walk_needs_two_images_and_two_frames() {
    let glow = Model::new(config(), 1).unwrap();
    for (count, frames) in [(1, 5), (2, 1), (2, 0)] {
        let error = interpolate(&glow, images(count).view(), &[], frames, Interpolation::Linear).unwrap_err();
        assert!(
            matches!(&error, Error::Input(message) if message.contains("at least 2 images and 2 frames")),
            "{error}"
        );
    }
}

#[test]
fn redrawing_details_does_not_change_coarser_levels() {
    let glow = Model::new(config(), 1).unwrap();
    let images = images(2);
    let latents =
        glow.encode(images.slice(s![..1, .., .., ..]), &[], Dequantization::Midpoint).unwrap().latents;
    // Nothing is redrawn: the image is reproduced exactly.
    let same = redraw_details(&glow, &latents, 0, 3, 0.7, 5).unwrap();
    for image in glow.decode(&same, &[]).unwrap().pixels.axis_iter(Axis(0)) {
        assert_eq!(image, images.index_axis(Axis(0), 0));
    }
    let variants = redraw_details(&glow, &latents, 1, 3, 0.7, 5).unwrap();
    for i in 0..3 {
        let variant = variants.slice(i..i + 1);
        assert_eq!(variant.0[1], latents.0[1]);
        assert_ne!(variant.0[0], latents.0[0]);
        assert_ne!(variant.0[0], variants.slice((i + 1) % 3..(i + 1) % 3 + 1).0[0], "each its own details");
    }
    // Everything is redrawn: samples.
    assert_eq!(redraw_details(&glow, &latents, 2, 3, 0.7, 5).unwrap(), glow.draw(3, 0.7, 5).unwrap());

    let two = glow.draw(2, 0.7, 5).unwrap();
    for (latents, levels) in [(&latents, 3), (&two, 1)] {
        let error = redraw_details(&glow, latents, levels, 3, 0.7, 5).unwrap_err();
        assert!(error.to_string().contains("give one image"), "{error}");
    }
}

#[test]
fn a_series_of_temperatures_is_of_the_same_samples() {
    let glow = Model::new(config(), 1).unwrap();
    let series = at_temperatures(&glow, 2, &[0.0, 0.5, 1.0], &[], 7).unwrap().pixels;
    assert_eq!(series.shape(), [6, 16, 16, 3]);
    for (t, temperature) in [0.0, 0.5, 1.0].into_iter().enumerate() {
        let samples = glow.sample(2, temperature, &[], 7).unwrap().pixels;
        for i in 0..2 {
            assert_eq!(
                series.index_axis(Axis(0), 3 * i + t),
                samples.index_axis(Axis(0), i),
                "{temperature}"
            );
        }
    }
    assert!(at_temperatures(&glow, 2, &[], &[], 7).is_err());
    assert!(at_temperatures(&glow, 2, &[-1.0], &[], 7).is_err());
}

#[test]
fn numbers_that_memory_cannot_hold_are_refused() {
    let glow = Model::new(config(), 1).unwrap();
    let one = glow.draw(1, 0.7, 5).unwrap();
    let direction = Direction {
        about: About { name: "Hat".into(), positives: 10, negatives: 10, auc: None },
        latents: one.clone(),
    };
    for count in [0, 100_000_000, 1 << 60, usize::MAX] {
        let errors = [
            glow.sample(count.max(1 << 30), 0.7, &[], 1).map(drop),
            glow.draw(count.max(1 << 30), 0.7, 1).map(drop),
            redraw_details(&glow, &one, 1, count, 0.7, 1).map(drop),
            at_temperatures(&glow, count, &[0.5, 1.0], &[], 1).map(drop),
            interpolate(&glow, images(2).view(), &[], count, Interpolation::Linear).map(drop),
            sweep(&one, &direction, count).map(drop),
        ];
        for error in errors {
            let error = error.unwrap_err().to_string();
            assert!(error.contains("at most") || error.contains("at least"), "{count}: {error}");
            assert!(!error.contains("different models"), "{error}");
        }
    }
}

/// One-hot rows of all images at once might not fit into memory.
#[test]
fn many_classes_are_sampled_a_few_images_at_a_time() {
    let config = GlowConfig { image: [2, 2, 1], levels: 1, steps: 1, hidden: 1, bits: 8, ..config() };
    let glow = Model::new(GlowConfig { classes: 1 << 20, ..config }, 1).unwrap();
    let labels = vec![7; 20];
    let samples = glow.sample(20, 0.7, &labels, 1).unwrap().pixels;
    let fewer = glow.sample(3, 0.7, &labels[..3], 1).unwrap().pixels;
    assert_eq!(samples.slice(s![..3, .., .., ..]), fewer);
}

/// Portraits, or noise if some images have low contrast.
struct Photographs {
    portraits: Portraits,
    /// Number of high-contrast images, which come first.
    vivid: usize,
}

impl Photographs {
    fn pixels(&self) -> Array4<u8> {
        let mut pixels = Array4::<u8>::zeros((self.len(), 16, 16, 3));
        for (i, mut image) in pixels.axis_iter_mut(Axis(0)).enumerate() {
            self.read(i, image.as_slice_mut().unwrap()).unwrap();
        }
        pixels
    }
}

impl Dataset for Photographs {
    fn len(&self) -> usize {
        self.portraits.len()
    }

    fn shape(&self) -> ImageShape {
        self.portraits.shape()
    }

    fn name(&self, index: usize) -> String {
        self.portraits.name(index)
    }

    fn classes(&self) -> &[String] {
        &[]
    }

    fn label(&self, _: usize) -> Option<usize> {
        None
    }

    fn content(&self, index: usize) -> u64 {
        self.portraits.content(index)
    }

    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<(), glowflow_data::Error> {
        if self.vivid == self.len() {
            return self.portraits.read(index, pixels);
        }
        // Noise, scaled to an eighth in low-contrast images.
        for (i, x) in pixels.iter_mut().enumerate() {
            let mut bits = (index * 768 + i + 1) as u64;
            for _ in 0..3 {
                bits = (bits ^ (bits >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            }
            let noise = (bits >> 56) as u8;
            *x = if index < self.vivid { noise } else { 112 + noise / 8 };
        }
        Ok(())
    }
}

#[test]
fn the_nearest_image_is_the_image_itself_and_the_others_follow_by_similarity() {
    let glow = Model::new(config(), 1).unwrap();
    let photographs = Photographs { portraits: Portraits::new(100, 16, 3), vivid: 100 };
    let pixels = photographs.pixels();
    let query = || pixels.slice(s![42..43, .., .., ..]);
    let dataset: Arc<dyn Dataset> = Arc::new(photographs);
    for weights in [[0.5, 1.0], [0.0, 1.0]] {
        let found = nearest(&glow, query(), &[], &dataset, 100, &weights, None).unwrap().nearest;
        assert_eq!((found[0].index, found[0].similarity), (42, 1.0));
        assert!(found.windows(2).all(|pair| pair[0].similarity >= pair[1].similarity));
        assert!(found.iter().all(|near| near.similarity >= -1.0 && near.image == dataset.name(near.index)));
        let few = nearest(&glow, query(), &[], &dataset, 5, &weights, None).unwrap().nearest;
        assert_eq!(few, found[..5]);
    }
    // In a dataset of one image, the image has no direction from the mean.
    let alone: Arc<dyn Dataset> = Arc::new(Subset::new(Arc::clone(&dataset), vec![42]));
    assert_eq!(
        nearest(&glow, query(), &[], &alone, 5, &[1.0, 1.0], None).unwrap().nearest[0].similarity,
        1.0
    );
    for weights in [&[0.0, 0.0][..], &[1.0], &[1.0, -1.0], &[1.0, f64::NAN]] {
        let error = nearest(&glow, query(), &[], &dataset, 5, weights, None).unwrap_err();
        assert!(error.to_string().contains("2 levels"), "{error}");
    }
    let two = pixels.slice(s![0..2, .., .., ..]);
    let error = nearest(&glow, two, &[], &dataset, 5, &[1.0, 1.0], None).unwrap_err();
    assert!(error.to_string().contains("need 1 image"), "{error}");
}

#[test]
fn images_without_a_similarity_are_counted() {
    let mut file = ModelFile::new(ModelConfig::from(config()), 1).unwrap();
    // Finite weights whose latents overflow.
    file.weights.fill(1e30);
    let glow = Model::of_file(AnyDevice::Cpu(Cpu::new()), &file);
    let photographs = Photographs { portraits: Portraits::new(20, 16, 3), vivid: 20 };
    let pixels = photographs.pixels();
    let dataset: Arc<dyn Dataset> = Arc::new(photographs);
    let found =
        nearest(&glow, pixels.slice(s![..1, .., .., ..]), &[], &dataset, 5, &[1.0, 1.0], None).unwrap();
    assert_eq!((found.nearest.len(), found.not_finite), (0, 20));
}

/// By Euclidean distance between latents, low-contrast images are nearest to all others.
#[test]
fn low_contrast_images_are_not_nearest_to_all_others() {
    let glow = Model::new(config(), 1).unwrap();
    let photographs = Photographs { portraits: Portraits::new(80, 16, 3), vivid: 70 };
    let pixels = photographs.pixels();
    let dataset: Arc<dyn Dataset> = Arc::new(photographs);
    let latents = glow.encode(pixels.view(), &[], Dequantization::Midpoint).unwrap().latents;
    let (mut by_distance, mut by_similarity, queries) = (0, 0, 30);
    for query in 0..queries {
        let distance =
            |i: usize| norm(&latents.slice(query..query + 1).combine(1.0, &latents.slice(i..i + 1), -1.0));
        let mut all: Vec<usize> = (0..80).collect();
        all.sort_by(|&a, &b| distance(a).total_cmp(&distance(b)));
        by_distance += all[..8].iter().filter(|&&i| i >= 70).count();
        let image = pixels.slice(s![query..query + 1, .., .., ..]);
        let found = nearest(&glow, image, &[], &dataset, 8, &level_weights(2), None).unwrap().nearest;
        by_similarity += found.iter().filter(|near| near.index >= 70).count();
    }
    // One image in eight has low contrast, and so does one answer in eight on average.
    assert!(by_similarity < 2 * queries, "{by_similarity} answers of {} have low contrast", 8 * queries);
    assert!(by_distance > by_similarity, "{by_distance} by distance, {by_similarity} by similarity");
}
