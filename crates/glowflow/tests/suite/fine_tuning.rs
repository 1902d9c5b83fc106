//! Fine-tuning: runs that start from the weights of another model.

use std::path::Path;

use crate::common::NEVER;
use glowflow::card::README;
use glowflow::train::{Changes, EdgeType, Limits, Options, RunConfig, Summary, observers, resume, train};
use glowflow::{Architecture, Error, ModelFile, NiceConfig};
use glowflow_data::{ImageShape, save_png};
use glowflow_kernels::Cpu;
use glowflow_report::progress::Display;

fn options(steps: u64) -> Options<'static> {
    let limits = Limits { steps: Some(steps), ..Limits::default() };
    Options { limits, observers: observers::standard(Display::Quiet), faces: None, stop: &NEVER }
}

fn texts(overrides: &[&str]) -> Vec<String> {
    overrides.iter().map(|text| text.to_string()).collect()
}

/// Trains a small model on portraits.
fn source(run: &Path) {
    let overrides = texts(&[
        "model.image=[16,16,3]",
        "model.levels=2",
        "model.steps=2",
        "model.hidden=8",
        "train.batch=4",
        "train.lr=4e-3",
        "train.schedule=cosine",
        "train.muon=true",
        "train.muon_lr=0.016",
        "train.steps=20",
        "train.eval_images=8",
        "data.path=portraits",
        "data.flip=true",
        "data.shift=0.1",
        "data.edge=reflect",
    ]);
    let config = RunConfig::resolve(None, None, &overrides).unwrap();
    train(Cpu::<f32>::new(), config, run, options(20)).unwrap();
}

/// Saves dark images, unlike portraits.
fn save_images(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    for i in 0..12u8 {
        let pixels: Vec<u8> = (0..16 * 16 * 3).map(|j| ((j * 7 + 13 * usize::from(i)) % 40) as u8).collect();
        let shape = ImageShape { height: 16, width: 16, channels: 3 };
        save_png(&folder.join(format!("{i:02}.png")), shape, &pixels).unwrap();
    }
}

fn config(from: &Path, data: &Path, overrides: &[&str]) -> RunConfig {
    let mut config = RunConfig::fine_tune(from, None, None, &texts(overrides)).unwrap();
    config.data.path = Some(data.to_owned());
    config
}

fn fine_tune(config: &RunConfig, run: &Path, steps: u64) -> Result<Summary, Error> {
    train(Cpu::<f32>::new(), config.clone(), run, options(steps))
}

fn go_on(run: &Path, steps: u64) -> Result<Summary, Error> {
    resume(|_| Ok(Cpu::<f32>::new()), run, Changes::default(), options(steps))
}

#[test]
fn a_model_is_trained_further_from_its_own_weights() {
    let folder = tempfile::tempdir().unwrap();
    let [from, data, out] = ["source", "images", "out"].map(|name| folder.path().join(name));
    source(&from);
    save_images(&data);
    let config = config(&from, &data, &["train.warmup=0", "train.lr=1e-9", "train.muon_lr=1e-9"]);
    fine_tune(&config, &out, 1).unwrap();
    let (old, new) = (ModelFile::read(&from).unwrap(), ModelFile::read(&out).unwrap());
    assert_eq!(new.constants, old.constants);
    // A data-dependent initialisation from images this dark would change every actnorm.
    let difference = old.weights.iter().zip(&new.weights).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference < 1e-6, "weights differ by {difference}");

    let written = RunConfig::read(&out.join("config.toml")).unwrap();
    assert_eq!(written.train.from.as_deref(), Some(&*from.join("model.safetensors")));
    let fingerprint = format!("{:08x}", old.fingerprint());
    assert_eq!(written.train.from_fingerprint.as_ref(), Some(&fingerprint));

    // The command in the card requires the source.
    let readme = std::fs::read_to_string(out.join(README)).unwrap();
    assert!(readme.contains("train --config FILE --from MODEL --data DATA --steps 1"), "{readme}");
    assert!(readme.contains(&format!("the model with the fingerprint {fingerprint}")), "{readme}");
    assert!(!readme.contains("from = "), "{readme}");
    let toml = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let file = folder.path().join("card.toml");
    std::fs::write(&file, toml).unwrap();
    let error = RunConfig::resolve(None, Some(&file), &[]).unwrap_err().to_string();
    assert!(error.contains(&format!("train.from_fingerprint is {fingerprint}")), "{error}");
    let again = RunConfig::fine_tune(&from, None, Some(&file), &[]).unwrap();
    assert_eq!(again.train, written.train);
    // The fine-tuned model is not the source.
    let error = RunConfig::fine_tune(&out, None, Some(&file), &[]).unwrap_err().to_string();
    assert!(error.contains("another model") && error.contains(&fingerprint), "{error}");
}

#[test]
fn settings_default_to_those_of_the_source() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("source");
    source(&from);
    let config = |model: &Path, overrides: &[&str]| {
        RunConfig::fine_tune(model, None, None, &texts(overrides)).unwrap()
    };
    let tuned = config(&from, &[]);
    assert_eq!((tuned.train.batch, tuned.train.lr, tuned.train.steps), (4, 5e-4, None));
    assert_eq!((tuned.train.muon, tuned.train.muon_lr), (true, 0.002));
    assert!(tuned.data.flip && tuned.data.path.is_none());
    assert_eq!((tuned.data.shift, tuned.data.edge), (0.1, EdgeType::Reflect));
    assert_eq!(config(&from, &["train.batch=2", "train.lr=3e-4"]).train.batch, 2);
    assert_eq!(config(&from, &["train.lr=3e-4"]).train.lr, 3e-4);
    // A model file alone has default settings, and the best one can be used.
    let alone = folder.path().join("alone/model.safetensors");
    std::fs::create_dir(alone.parent().unwrap()).unwrap();
    std::fs::copy(from.join("best.safetensors"), &alone).unwrap();
    let best = config(&from.join("best.safetensors"), &[]);
    assert_eq!(best.train.from_fingerprint, config(&alone, &[]).train.from_fingerprint);
    assert_eq!((best.train.batch, config(&alone, &[]).train.batch), (4, 64));
}

#[test]
fn another_architecture_is_refused_with_both_values() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("source");
    source(&from);
    for (preset, overrides, words) in [
        (None, &["model.steps=3"][..], ["model.steps is 3", "and 2 in"]),
        (None, &["model.bits=5"], ["model.bits is 5", "and 8 in"]),
        (Some("tiny32"), &[], ["here and", "source/model.safetensors"]),
    ] {
        let error = RunConfig::fine_tune(&from, preset, None, &texts(overrides)).unwrap_err();
        let message = error.to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{overrides:?}: {message}");
    }
    // Repeating the same value is not a conflict.
    RunConfig::fine_tune(&from, None, None, &texts(&["model.steps=2"])).unwrap();
}

/// In parts, and from a stop before the first checkpoint, which starts again from the source model.
#[test]
fn a_resumed_run_has_the_bytes_of_one_without_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    source(&at("source"));
    save_images(&at("images"));
    let config = config(&at("source"), &at("images"), &["train.checkpoint_every=3", "train.log_every=2"]);
    fine_tune(&config, &at("whole"), 12).unwrap();
    fine_tune(&config, &at("parts"), 5).unwrap();
    go_on(&at("parts"), 12).unwrap();
    std::fs::create_dir(at("early")).unwrap();
    std::fs::copy(at("whole/config.toml"), at("early/config.toml")).unwrap();
    go_on(&at("early"), 12).unwrap();
    for run in ["parts", "early"] {
        for file in ["model.safetensors", "checkpoint.safetensors", "metrics.jsonl"] {
            let read = |run: &str| std::fs::read(at(run).join(file)).unwrap();
            assert!(read(run) == read("whole"), "{file} of {run} has other bytes");
        }
    }
}

#[test]
fn another_model_in_the_source_s_place_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    source(&at("source"));
    save_images(&at("images"));
    let config = config(&at("source"), &at("images"), &[]);
    go_on(&at("source"), 25).unwrap();
    let message = fine_tune(&config, &at("out"), 2).unwrap_err().to_string();
    assert!(message.contains("another model") && message.contains("fingerprint"), "{message}");
    assert!(!at("out").exists(), "a folder is left");
}

/// Glow's settings do not suit other architectures.
#[test]
fn a_model_file_alone_has_the_settings_of_its_architecture() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nice.safetensors");
    let nice = NiceConfig { image: [8, 8, 3], hidden: 8, ..NiceConfig::default() };
    ModelFile::new(nice.clone(), 0).unwrap().write(&path).unwrap();
    let tuned = RunConfig::fine_tune(&path, None, None, &[]).unwrap().train;
    let want = nice.train_defaults();
    assert_eq!((tuned.optimizer, tuned.warmup, tuned.ema), (want.optimizer, want.warmup, want.ema));
    assert_eq!((tuned.epsilon, tuned.lr), (want.epsilon, want.lr / 8.0));
}
