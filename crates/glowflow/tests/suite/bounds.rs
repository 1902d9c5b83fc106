//! Bounds on bits per dimension, compared with their definition and with a model of known probabilities.

use crate::common::{glow, model_file};
use glowflow::{Architecture, CouplingType, Draws, GlowConfig, Model, ModelFile, NoiseKind, PermutationType};
use glowflow_kernels::Cpu;
use ndarray::Array4;

const DIMENSIONS: f64 = 32.0 * 32.0 * 3.0;

fn importance(draws: u64) -> Draws {
    Draws::Importance { noise: NoiseKind::Uniform, draws, seed: 3 }
}

fn uniform(draws: u64) -> Draws {
    Draws::Uniform { draws, seed: 3 }
}

/// Two chunks of images that contain every pixel value.
fn images() -> Array4<u8> {
    Array4::from_shape_fn((70, 32, 32, 3), |(b, y, x, c)| (b * 31 + y * 7 + x * 13 + c * 101) as u8)
}

#[test]
fn importance_weights_the_draws_of_the_uniform_bound() {
    let glow = glow(&model_file(0.5));
    let nats = |draws| -> Vec<f64> {
        let bits = glow.bits_per_dim(images().view(), &[], draws).unwrap();
        bits.iter().map(|bits| -bits * DIMENSIONS * std::f64::consts::LN_2).collect()
    };
    assert_eq!(nats(importance(1)), nats(uniform(1)));
    assert_eq!(nats(importance(0)), nats(uniform(1)), "0 counts as 1");

    // The n-th draw, from the means of n and n − 1 draws.
    const K: usize = 5;
    let means: Vec<_> = (1..=K as u64).map(|draws| nats(uniform(draws))).collect();
    let bounds = nats(importance(K as u64));
    for (image, bound) in bounds.into_iter().enumerate() {
        let mean = |n: usize| if n == 0 { 0.0 } else { n as f64 * means[n - 1][image] };
        let draws: Vec<f64> = (1..=K).map(|n| mean(n) - mean(n - 1)).collect();
        let largest = draws.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = draws.iter().map(|draw| (draw - largest).exp()).sum();
        let expected = largest + (sum / K as f64).ln();
        assert!((bound - expected).abs() < 1e-7, "{bound} {expected} {draws:?}");
        assert!(bound >= means[K - 1][image], "log of the mean, mean of the logs");
    }
}

#[test]
fn the_importance_weighted_bound_falls_with_k() {
    let mut file = model_file(0.5);
    set_prior(&mut file, 0.1);
    let glow = glow(&file);
    let mean = |draws| {
        let bits = glow.bits_per_dim(images().view(), &[], importance(draws)).unwrap();
        bits.iter().sum::<f64>() / bits.len() as f64
    };
    let [one, four, sixteen] = [1, 4, 16].map(mean);
    assert!(one > four && four > sixteen, "{one} {four} {sixteen}");
}

/// Sets the standard deviation of the final prior.
fn set_prior(file: &mut ModelFile<impl Architecture>, deviation: f32) {
    for parameter in &file.layout().parameters {
        if parameter.name == "prior.logs" {
            file.weights[parameter.span.range()].fill(deviation.ln());
        }
    }
}

/// Standard deviation of the toy model's prior: half a bin.
const SD: f64 = 1.0 / 512.0;

/// A model of four independent Gaussian values with mean 0.
fn toy() -> Model {
    let config = GlowConfig {
        image: [2, 2, 1],
        levels: 1,
        steps: 1,
        hidden: 1,
        coupling: CouplingType::Additive,
        permutation: PermutationType::Reverse,
        ..GlowConfig::default()
    };
    let mut file = ModelFile::new(config, 0).unwrap();
    set_prior(&mut file, SD as f32);
    Model::on(Cpu::new(), &file)
}

/// Probability of a pixel's bin under a Gaussian, by Simpson's rule.
fn probability(pixel: u8) -> f64 {
    const PARTS: usize = 200;
    let (low, width) = (f64::from(pixel) / 256.0 - 0.5, 1.0 / 256.0);
    let density = |i: usize| {
        let z = (low + width * i as f64 / PARTS as f64) / SD;
        (-z * z / 2.0).exp() / (SD * std::f64::consts::TAU.sqrt())
    };
    let weight = |i: usize| {
        if i == 0 || i == PARTS {
            1.0
        } else if i % 2 == 1 {
            4.0
        } else {
            2.0
        }
    };
    (0..=PARTS).map(|i| weight(i) * density(i)).sum::<f64>() * width / PARTS as f64 / 3.0
}

#[test]
fn bounds_approach_a_known_probability() {
    const PIXELS: [u8; 4] = [128, 127, 129, 128];
    let toy = toy();
    let exact = PIXELS.map(|pixel| probability(pixel).ln()).iter().sum::<f64>();
    // Equal images, each with separate noise.
    let images = Array4::from_shape_fn((256, 2, 2, 1), |(_, y, x, _)| PIXELS[2 * y + x]);
    let nats = |draws| {
        let bits = toy.bits_per_dim(images.view(), &[], draws).unwrap();
        -4.0 * std::f64::consts::LN_2 * bits.iter().sum::<f64>() / bits.len() as f64
    };
    let [one, four, sixteen, many] = [1, 4, 16, 1024].map(|draws| nats(importance(draws)));
    assert!(one < four && four < sixteen && sixteen < many, "{one} {four} {sixteen} {many}");
    assert!((many - exact).abs() < 0.02, "{many} {exact}");
    // More draws do not tighten the uniform bound.
    let uniform = nats(uniform(64));
    assert!(exact - uniform > 1.0 && (uniform - one).abs() < 0.5, "{exact} {uniform} {one}");
}
