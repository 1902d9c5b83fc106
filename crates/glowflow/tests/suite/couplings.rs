//! Glow with residual networks, with attention in them, and with mixture couplings: training, files,
//! resuming, and exactness.

use std::path::Path;

use crate::common::NEVER;
use crate::common::training::{batches, trained};
use glowflow::flow::FlowBuilder;
use glowflow::params::Source;
use glowflow::train::{Changes, Limits, Options, RunConfig, Trainer, observers, resume, train};
use glowflow::{
    Backprop, CouplingType, Dequantization, Draws, GlowConfig, Model, ModelConfig, ModelFile, NetworkType,
};
use glowflow_kernels::Precision;
use glowflow_kernels::{Cpu, Cuda, Reference, RngStream};
use glowflow_report::progress::Display;
use ndarray::{Array4, Axis, Slice};

const BATCH: usize = 8;

/// Network, coupling and attention of the models under test.
const KINDS: [[&str; 3]; 4] = [
    ["residual", "affine", "0"],
    ["convolutions", "mixture", "0"],
    ["residual", "mixture", "0"],
    ["residual", "affine", "2"],
];

/// A model that trains in milliseconds, with configuration `overrides`.
fn config([network, coupling, attention]: [&str; 3], overrides: &[&str]) -> RunConfig {
    let base = [
        "model.image=[16,16,3]",
        "model.levels=2",
        "model.steps=2",
        "model.hidden=8",
        "train.batch=8",
        "train.warmup=1",
        "train.lr=4e-3",
        "train.ema=0.5",
        "train.eval_images=8",
        "train.log_every=2",
        "train.checkpoint_every=3",
        "data.path=portraits",
    ];
    let kind = [
        format!("model.network={network}"),
        format!("model.coupling={coupling}"),
        format!("model.attention={attention}"),
    ];
    let overrides: Vec<String> =
        base.iter().chain(overrides).map(|text| text.to_string()).chain(kind).collect();
    RunConfig::resolve(None, None, &overrides).unwrap()
}

#[test]
fn models_train_save_and_load() {
    for kind in KINDS {
        let (trainer, bits) = trained(Cpu::new(), config(kind, &[]), 60);
        let mean = |bits: &[f64]| bits.iter().sum::<f64>() / bits.len() as f64;
        assert!(mean(&bits[50..]) < mean(&bits[..10]) - 0.3, "{kind:?}: {bits:?}");

        let file = trainer.model().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        file.write(&path).unwrap();
        let read = ModelFile::read(&path).unwrap();
        assert!(read == file, "{kind:?}: the model changes in its file");
        assert_eq!(read.fingerprint(), file.fingerprint());
    }
}

/// Noise images and portraits with 8 bits: every pixel is reconstructed, and a score does not depend on the
/// batch.
#[test]
fn every_image_is_reconstructed() {
    const NOISE: usize = 250;
    const IMAGES: usize = NOISE + 6 * BATCH;
    let noise = RngStream { seed: 5, id: 0 };
    let mut pixels: Vec<u8> = (0..NOISE * 16 * 16 * 3 / 4)
        .flat_map(|i| noise.uniform(i as u64).map(|u| (256.0 * u) as u8))
        .collect();
    pixels.extend(batches(BATCH).skip(3).take(6).flatten());
    let images = Array4::from_shape_vec((IMAGES, 16, 16, 3), pixels).unwrap();
    for kind in KINDS {
        let (trainer, _) = trained(Cpu::new(), config(kind, &["train.lr=0.01"]), 40);
        let model = Model::on(Cpu::<f32>::new(), &trainer.model().unwrap());
        let encoded = model.encode(images.view(), &[], Dequantization::Midpoint).unwrap();
        let decoded = model.decode(&encoded.latents, &[]).unwrap().pixels;
        let exact = images.outer_iter().zip(decoded.outer_iter()).filter(|(a, b)| a == b).count();
        assert_eq!(exact, IMAGES, "{kind:?}");

        let bits = model.bits_per_dim(images.view(), &[], Draws::Midpoint).unwrap();
        for i in [0, 7, IMAGES - 1] {
            let image = images.slice_axis(Axis(0), Slice::from(i..i + 1));
            let alone = model.bits_per_dim(image, &[], Draws::Midpoint).unwrap()[0];
            assert_eq!(alone.to_bits(), bits[i].to_bits(), "{kind:?}, image {i}");
        }
    }
}

#[test]
fn both_backprop_modes_give_the_same_gradient() {
    for kind in KINDS {
        // With `beta1` = 0, the first moment is the gradient.
        let config = config(kind, &["train.beta1=0", "train.accumulate=2"]);
        let state = trained(Cpu::new(), config.clone(), 10).0.state().unwrap();
        let pixels = batches(BATCH).nth(10).unwrap();
        let [stored, reversible] = [Backprop::Stored, Backprop::Reversible].map(|backprop| {
            let mut config = config.clone();
            config.train.backprop = backprop;
            let mut trainer = Trainer::resume(Cpu::<f32>::new(), config, state.clone());
            assert!(trainer.step(&pixels, &[]).unwrap().applied);
            trainer.state().unwrap()
        });
        let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
        let difference = norm(&mut stored.first.iter().zip(&reversible.first).map(|(a, b)| a - b));
        let size = norm(&mut stored.first.iter().copied());
        assert!(size > 0.0 && difference <= 1e-3 * size, "{kind:?}: {difference} of {size}");
    }
}

/// Runs on the reference implementations of all operations, and on a GPU, which captures the second step and
/// replays it.
#[test]
fn training_agrees_on_all_devices() {
    let small = ["model.levels=1", "model.steps=1", "model.hidden=4", "model.network_blocks=1"];
    for kind in KINDS {
        let config = config(kind, &small);
        let (_, want) = trained(Cpu::new(), config.clone(), 4);
        let agree = |device: &str, have: Vec<f64>, tolerance: f64| {
            for (have, want) in have.iter().zip(&want) {
                assert!(
                    (have - want).abs() < tolerance * want,
                    "{kind:?} on the {device}: {have} for {want}"
                );
            }
        };
        agree("reference", trained(Reference(Cpu::<f32>::new()), config.clone(), 4).1, 1e-3);
        for (precision, tolerance) in [(Precision::F32, 1e-3), (Precision::Bf16, 1e-2)] {
            let gpu = cuda_emulator::gpu(|folders| Cuda::with_libraries(0, precision, folders));
            if let Some(gpu) = gpu {
                agree("GPU", trained(gpu, config.clone(), 4).1, tolerance);
            }
        }
    }
}

fn go_on(run: &Path, steps: u64) {
    let device = |_: &RunConfig| Ok(Cpu::<f32>::new());
    resume(device, run, Changes::default(), options(steps)).map(drop).unwrap();
}

fn options(steps: u64) -> Options<'static> {
    let limits = Limits { steps: Some(steps), ..Limits::default() };
    Options { limits, observers: observers::standard(Display::Quiet), faces: None, stop: &NEVER }
}

#[test]
fn a_resumed_run_has_the_bytes_of_one_without_a_stop() {
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, steps) in [("whole", 8), ("parts", 5)] {
            train(Cpu::<f32>::new(), config(kind, &[]), &at(name), options(steps)).unwrap();
        }
        go_on(&at("parts"), 8);
        for file in ["model.safetensors", "checkpoint.safetensors"] {
            let read = |run: &str| std::fs::read(at(run).join(file)).unwrap();
            assert!(read("parts") == read("whole"), "{kind:?}: {file} has other bytes");
        }
    }
}

#[test]
fn keys_are_written_only_if_they_differ_from_their_defaults() {
    let json = |config: GlowConfig| serde_json::to_string(&ModelConfig::from(config)).unwrap();
    let plain = json(GlowConfig::default());
    for key in ["network", "network_blocks", "attention", "mixture_components"] {
        assert!(!plain.contains(key), "{plain}");
    }
    let config = GlowConfig {
        network: NetworkType::Residual,
        network_blocks: 3,
        attention: 4,
        coupling: CouplingType::Mixture,
        mixture_components: 5,
        ..GlowConfig::default()
    };
    let text = json(config.clone());
    for key in [
        r#""network":"residual""#,
        r#""network_blocks":3"#,
        r#""attention":4"#,
        r#""coupling":"mixture""#,
        r#""mixture_components":5"#,
    ] {
        assert!(text.contains(key), "{key} is not in {text}");
    }
    assert_eq!(serde_json::from_str::<ModelConfig>(&text).unwrap(), config.into());
}

#[test]
fn impossible_values_are_refused_by_name() {
    for key in ["network_blocks", "mixture_components"] {
        let overrides = [format!("model.{key}=0")];
        let message = RunConfig::resolve(None, None, &overrides).unwrap_err().to_string();
        assert!(message.contains(&format!("model.{key} is 0")), "{message}");
    }
}

#[test]
fn attention_that_no_layer_has_is_refused() {
    let refused = |overrides: &[&str], words: &str| {
        let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
        let message = RunConfig::resolve(None, None, &overrides).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    };
    refused(&["model.attention=2"], "model.attention is 2, but only residual networks");
    let residual = "model.network=residual";
    refused(
        &[residual, "model.hidden=9", "model.attention=2"],
        "2 heads do not divide model.hidden, which is 9",
    );
    refused(&[residual, "model.levels=1", "model.attention=2"], "the last level has 256 pixels");
}

/// For 32×32 images, attention is applied at 8×8 and 4×4.
#[test]
fn attention_is_counted_at_small_levels() {
    let network = NetworkType::Residual;
    let without = GlowConfig { steps: 2, hidden: 8, network, ..GlowConfig::default() };
    let with = GlowConfig { attention: 4, ..without.clone() };
    let build = |config: &GlowConfig| FlowBuilder::<Cpu<f32>>::build(config, Source::Layout);
    let of_level = |pixels: u128| 2 * (4 * pixels * 8 * 8 + 2 * pixels * pixels * 8);
    let more = build(&with).multiply_adds() - build(&without).multiply_adds();
    assert_eq!(more, of_level(64) + of_level(16));

    let (params, ..) = build(&with).into_parts();
    let parameters = params.into_layout().parameters;
    let positions: Vec<_> =
        parameters.iter().filter(|parameter| parameter.name.ends_with("attention.position")).collect();
    assert_eq!(positions.len(), 2 * 2);
    assert!(positions.iter().all(|position| !position.name.starts_with("levels.0.")));
    assert_eq!(positions[0].shape, [64, 8]);
}
