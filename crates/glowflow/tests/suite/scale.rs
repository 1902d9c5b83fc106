//! Affine couplings with the bounded scale `exp(2·tanh(r/2))`: configuration, initialisation, training,
//! files.

use crate::common::training::{batches, trained};
use glowflow::train::{RunConfig, Trainer};
use glowflow::{Backprop, Dequantization, GlowConfig, Model, ModelConfig, ModelFile, ScaleType};
use glowflow_kernels::Precision;
use glowflow_kernels::{Cpu, Cuda};
use ndarray::Array4;

const BATCH: usize = 8;

/// A model that trains in milliseconds, with configuration `overrides`.
fn config(overrides: &[&str]) -> RunConfig {
    let base = [
        "model.image=[16,16,3]",
        "model.levels=2",
        "model.steps=2",
        "model.hidden=8",
        "model.scale=exp2tanh",
        "train.batch=8",
        "train.warmup=1",
        "train.lr=4e-3",
        "train.ema=0.5",
    ];
    let overrides: Vec<String> = base.iter().chain(overrides).map(|text| text.to_string()).collect();
    RunConfig::resolve(None, None, &overrides).unwrap()
}

#[test]
fn the_key_is_written_only_for_another_scale() {
    let json = |scale| {
        let config = ModelConfig::from(GlowConfig { scale, ..GlowConfig::default() });
        serde_json::to_string(&config).unwrap()
    };
    assert!(!json(ScaleType::Sigmoid).contains("scale"));
    assert!(json(ScaleType::Exp2Tanh).contains(r#""coupling":"affine","scale":"exp2tanh","permutation""#));
    assert!(!config(&["model.scale=sigmoid"]).to_toml().unwrap().contains("scale"));
    assert!(config(&[]).to_toml().unwrap().contains("scale = \"exp2tanh\""));
}

#[test]
fn additive_couplings_have_no_scale() {
    let overrides = ["model.coupling=additive", "model.scale=exp2tanh"].map(String::from);
    let message = RunConfig::resolve(None, None, &overrides).unwrap_err().to_string();
    for part in ["model.scale is exp2tanh", "additive", "model.coupling"] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

/// The scale of a preset is a default of its affine couplings.
#[test]
fn other_couplings_remove_the_scale_of_a_preset() {
    for preset in ["tiny32", "faces32", "faces64"] {
        let resolved = |overrides: &[&str]| {
            let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
            RunConfig::resolve(Some(preset), None, &overrides).map(|config| match config.model {
                ModelConfig::Glow(glow) => glow.scale,
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(resolved(&[]).unwrap(), ScaleType::Exp2Tanh);
        assert_eq!(resolved(&["model.coupling=affine"]).unwrap(), ScaleType::Exp2Tanh);
        assert_eq!(resolved(&["model.scale=sigmoid"]).unwrap(), ScaleType::Sigmoid);
        for coupling in ["model.coupling=additive", "model.coupling=mixture"] {
            assert_eq!(resolved(&[coupling]).unwrap(), ScaleType::Sigmoid);
            assert!(resolved(&[coupling, "model.scale=exp2tanh"]).is_err());
        }
    }
}

/// The initial scale is 1: with any permutations and actnorms, the model equals one with additive couplings.
#[test]
fn a_new_model_is_that_of_additive_couplings() {
    let images = Array4::from_shape_vec((BATCH, 16, 16, 3), batches(BATCH).next().unwrap()).unwrap();
    let densities = |coupling: &str, scale: &str| {
        let keys = [format!("model.coupling={coupling}"), format!("model.scale={scale}")];
        let config = config(&keys.each_ref().map(String::as_str));
        let file = ModelFile::of(config.model, 0).unwrap();
        let model = Model::on(Cpu::<f64>::new(), &file);
        model.encode(images.view(), &[], Dequantization::Midpoint).unwrap().log_density
    };
    let (affine, additive) = (densities("affine", "exp2tanh"), densities("additive", "sigmoid"));
    for (have, want) in affine.iter().zip(&additive) {
        assert!((have - want).abs() <= 1e-9 * want.abs(), "{have} for {want}");
    }
    assert!(densities("affine", "sigmoid")[0] != affine[0]);
}

#[test]
fn a_model_trains_saves_and_reconstructs_every_image() {
    let (trainer, bits) = trained(Cpu::<f32>::new(), config(&[]), 60);
    let mean = |bits: &[f64]| bits.iter().sum::<f64>() / bits.len() as f64;
    assert!(mean(&bits[50..]) < mean(&bits[..10]) - 0.3, "{bits:?}");

    let file = trainer.model().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    file.write(&path).unwrap();
    let read = ModelFile::read(&path).unwrap();
    assert!(read == file, "the model changes in its file");

    let model = Model::on(Cpu::<f32>::new(), &read);
    for pixels in batches(BATCH).take(16) {
        let images = Array4::from_shape_vec((BATCH, 16, 16, 3), pixels).unwrap();
        let encoded = model.encode(images.view(), &[], Dequantization::Midpoint).unwrap();
        assert_eq!(model.decode(&encoded.latents, &[]).unwrap().pixels, images);
    }
}

#[test]
fn both_backprop_modes_give_the_same_gradient() {
    // With `beta1` = 0, the first moment is the gradient.
    let config = config(&["train.beta1=0", "train.accumulate=2"]);
    let state = trained(Cpu::<f32>::new(), config.clone(), 10).0.state().unwrap();
    let pixels = batches(BATCH).nth(10).unwrap();
    let [stored, reversible] = [Backprop::Stored, Backprop::Reversible].map(|backprop| {
        let mut config = config.clone();
        config.train.backprop = backprop;
        let mut trainer = Trainer::resume(Cpu::<f32>::new(), config, state.clone());
        assert!(trainer.step(&pixels, &[]).unwrap().applied);
        trainer.state().unwrap().first
    });
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
    let difference = norm(&mut stored.iter().zip(&reversible).map(|(a, b)| a - b));
    let size = norm(&mut stored.iter().copied());
    assert!(size > 0.0 && difference <= 1e-4 * size, "{difference} of {size}");
}

/// A GPU captures the second step, and replays it in later ones.
#[test]
fn training_on_a_gpu_agrees() {
    for precision in [Precision::F32, Precision::Bf16] {
        let gpu = cuda_emulator::gpu(|folders| Cuda::with_libraries(0, precision, folders));
        let Some(gpu) = gpu else { return };
        let config = config(&["model.levels=1", "model.steps=1", "model.hidden=4"]);
        let (_, have) = trained(gpu, config.clone(), 4);
        let (_, want) = trained(Cpu::<f32>::new(), config, 4);
        let tolerance = if precision == Precision::F32 { 1e-3 } else { 1e-2 };
        for (have, want) in have.iter().zip(&want) {
            assert!((have - want).abs() < tolerance * want, "{have} for {want}");
        }
    }
}
