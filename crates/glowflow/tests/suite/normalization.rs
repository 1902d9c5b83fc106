//! Glow with batch normalisation: training, files, resuming, and independence of the batch in evaluation.

use std::path::Path;

use crate::common::NEVER;
use crate::common::training::{self, batches};
use glowflow::train::{Changes, Limits, Options, RunConfig, Trainer, observers, resume, train};
use glowflow::{
    Backprop, Dequantization, Draws, Error, GlowConfig, Model, ModelConfig, ModelFile, NormalizationType,
};
use glowflow_kernels::Precision;
use glowflow_kernels::{Cpu, Cuda};
use glowflow_report::progress::Display;
use ndarray::{Array4, Axis, Slice};

const BATCH: usize = 8;

/// A model that trains in milliseconds, with configuration `overrides`.
fn config(overrides: &[&str]) -> RunConfig {
    let base = [
        "model.image=[16,16,3]",
        "model.levels=2",
        "model.steps=2",
        "model.hidden=8",
        "model.normalization=batchnorm",
        "train.batch=8",
        "train.warmup=1",
        "train.lr=4e-3",
        "train.ema=0.5",
        "train.eval_images=8",
        "train.log_every=2",
        "train.checkpoint_every=3",
        "data.path=portraits",
    ];
    let overrides: Vec<String> = base.iter().chain(overrides).map(|text| text.to_string()).collect();
    RunConfig::resolve(None, None, &overrides).unwrap()
}

/// A trainer after the data-dependent initialisation and `steps` steps, and the bits/dim of each.
fn trained(config: RunConfig, steps: usize) -> (Trainer<Cpu<f32>>, Vec<f64>) {
    training::trained(Cpu::new(), config, steps)
}

fn images() -> Array4<u8> {
    Array4::from_shape_vec((BATCH, 16, 16, 3), batches(BATCH).nth(3).unwrap()).unwrap()
}

/// A tensor of a model's parameters or buffers.
fn tensor<'a>(file: &'a ModelFile, name: &str) -> &'a [f32] {
    let layout = file.layout();
    let find = |list: &[glowflow::params::Parameter]| {
        list.iter().find(|parameter| parameter.name == name).map(|parameter| parameter.span.range())
    };
    let buffer = || find(&layout.buffers).map(|range| &file.buffers[range]);
    find(&layout.parameters).map(|range| &file.weights[range]).or_else(buffer).unwrap()
}

#[test]
fn a_model_trains_saves_and_loads() {
    let (trainer, bits) = trained(config(&[]), 60);
    let mean = |bits: &[f64]| bits.iter().sum::<f64>() / bits.len() as f64;
    assert!(mean(&bits[50..]) < mean(&bits[..10]) - 0.3, "{bits:?}");

    let file = trainer.model().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    file.write(&path).unwrap();
    let read = ModelFile::read(&path).unwrap();
    assert!(read == file, "the model changes in its file");
    assert_eq!(read.fingerprint(), file.fingerprint());
    for (name, start) in [("running_mean", 0.0), ("running_var", 1.0)] {
        let name = format!("levels.1.steps.1.norm.{name}");
        assert!(tensor(&read, &name).iter().all(|&x| x != start), "{name} was not updated");
    }
}

#[test]
fn actnorms_of_steps_start_as_the_identity() {
    let (trainer, _) = trained(config(&[]), 0);
    let file = trainer.model().unwrap();
    for name in ["bias", "logs"] {
        assert!(tensor(&file, &format!("levels.0.steps.1.actnorm.{name}")).iter().all(|&x| x == 0.0));
        // The actnorms of coupling networks are initialised from data.
        let name = format!("levels.0.steps.1.coupling.actnorm1.{name}");
        assert!(tensor(&file, &name).iter().all(|&x| x != 0.0), "{name}");
    }
}

#[test]
fn scores_do_not_depend_on_the_batch_and_images_are_reconstructed() {
    let (trainer, _) = trained(config(&[]), 20);
    let model = Model::on(Cpu::<f32>::new(), &trainer.model().unwrap());
    let images = images();
    let bits = model.bits_per_dim(images.view(), &[], Draws::Midpoint).unwrap();
    for (i, bits) in bits.iter().enumerate() {
        let image = images.slice_axis(Axis(0), Slice::from(i..i + 1));
        let alone = model.bits_per_dim(image, &[], Draws::Midpoint).unwrap()[0];
        assert_eq!(alone.to_bits(), bits.to_bits(), "image {i}");
    }
    let encoded = model.encode(images.view(), &[], Dequantization::Midpoint).unwrap();
    assert_eq!(model.decode(&encoded.latents, &[]).unwrap().pixels, images);
}

#[test]
fn both_backprop_modes_give_the_same_gradient() {
    // With `beta1` = 0, the first moment is the gradient.
    let config = config(&["train.beta1=0", "train.accumulate=2"]);
    let state = trained(config.clone(), 10).0.state().unwrap();
    let pixels = batches(BATCH).nth(10).unwrap();
    let [stored, reversible] = [Backprop::Stored, Backprop::Reversible].map(|backprop| {
        let mut config = config.clone();
        config.train.backprop = backprop;
        let mut trainer = Trainer::resume(Cpu::<f32>::new(), config, state.clone());
        assert!(trainer.step(&pixels, &[]).unwrap().applied);
        trainer.state().unwrap()
    });
    assert_eq!(stored.buffers, reversible.buffers);
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
    let difference = norm(&mut stored.first.iter().zip(&reversible.first).map(|(a, b)| a - b));
    let size = norm(&mut stored.first.iter().copied());
    assert!(size > 0.0 && difference <= 1e-4 * size, "{difference} of {size}");
}

/// A GPU captures the second step, and replays it in later ones.
#[test]
fn training_on_a_gpu_agrees() {
    let gpu = cuda_emulator::gpu(|folders| Cuda::with_libraries(0, Precision::F32, folders));
    let Some(gpu) = gpu else { return };
    let config = config(&["model.levels=1", "model.steps=1", "model.hidden=4"]);
    let (on_gpu, gpu_bits) = training::trained(gpu, config.clone(), 4);
    let (on_cpu, cpu_bits) = trained(config, 4);
    for (have, want) in gpu_bits.iter().zip(&cpu_bits) {
        assert!((have - want).abs() < 1e-4 * want, "{gpu_bits:?}, not {cpu_bits:?}");
    }
    let (have, want) = (on_gpu.state().unwrap(), on_cpu.state().unwrap());
    for (have, want) in have.buffers.iter().zip(&want.buffers) {
        assert!((have - want).abs() < 1e-3 * want.abs().max(1.0), "{have}, not {want}");
    }
}

fn go_on(run: &Path, steps: u64) -> Result<(), Error> {
    let device = |_: &RunConfig| Ok(Cpu::<f32>::new());
    resume(device, run, Changes::default(), options(steps)).map(drop)
}

fn options(steps: u64) -> Options<'static> {
    let limits = Limits { steps: Some(steps), ..Limits::default() };
    Options { limits, observers: observers::standard(Display::Quiet), faces: None, stop: &NEVER }
}

/// In parts, and from a checkpoint older than the records, as after a kill.
#[test]
fn a_resumed_run_has_the_bytes_of_one_without_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let begin = |name: &str, steps: u64| {
        train(Cpu::<f32>::new(), config(&[]), &at(name), options(steps)).unwrap();
    };
    begin("whole", 12);
    begin("parts", 5);
    go_on(&at("parts"), 12).unwrap();
    // A killed run has records of steps later than its checkpoint.
    begin("killed", 6);
    let checkpoint = std::fs::read(at("killed/checkpoint.safetensors")).unwrap();
    go_on(&at("killed"), 8).unwrap();
    std::fs::write(at("killed/checkpoint.safetensors"), checkpoint).unwrap();
    go_on(&at("killed"), 12).unwrap();
    for run in ["parts", "killed"] {
        // Every part ends with an evaluation, which metrics.jsonl records.
        for file in ["model.safetensors", "checkpoint.safetensors"] {
            let read = |run: &str| std::fs::read(at(run).join(file)).unwrap();
            assert!(read(run) == read("whole"), "{file} of {run} has other bytes");
        }
    }
}

#[test]
fn the_key_is_written_only_for_batch_normalisation() {
    let json = |normalization| {
        let config = ModelConfig::from(GlowConfig { normalization, ..GlowConfig::default() });
        serde_json::to_string(&config).unwrap()
    };
    assert_eq!(
        json(NormalizationType::ActNorm),
        r#"{"image":[32,32,3],"bits":8,"levels":3,"steps":32,"hidden":512,"coupling":"affine","permutation":"conv1x1","classes":0}"#
    );
    assert!(json(NormalizationType::BatchNorm).contains(r#""normalization":"batchnorm""#));
    let toml = config(&["model.normalization=actnorm"]).to_toml().unwrap();
    assert!(!toml.contains("normalization"), "{toml}");
    for (value, want) in
        [("actnorm", NormalizationType::ActNorm), ("batchnorm", NormalizationType::BatchNorm)]
    {
        let ModelConfig::Glow(glow) = config(&[&format!("model.normalization={value}")]).model else {
            panic!("not a Glow")
        };
        assert_eq!(glow.normalization, want);
    }
}

#[test]
fn training_from_a_model_keeps_its_normalisation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let actnorm = config(&["model.normalization=actnorm"]).model;
    ModelFile::new(actnorm, 0).unwrap().write(&path).unwrap();
    let overrides = ["model.normalization=batchnorm".to_owned()];
    let message = RunConfig::fine_tune(&path, None, None, &overrides).unwrap_err().to_string();
    for part in ["model.normalization is \"batchnorm\" here", "not set in"] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}
