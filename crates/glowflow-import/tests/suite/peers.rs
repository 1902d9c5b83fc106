//! Compares imported models with results computed by the programs themselves.

use std::path::Path;

use crate::common::torch::{self, Type};
use crate::common::{FIXTURES, Npy, Run, error, fixture, imported, settings, state};
use glowflow_import::{Checkpoint, Imported, Source, import};
use glowflow_kernels::{Cpu, Operations};
use zip::CompressionMethod;

/// Tolerances of log-likelihoods, latents and decoded images.
struct Tolerances {
    log_likelihood: f64,
    eps: f64,
    decoded: f64,
}

const F32: Tolerances = Tolerances { log_likelihood: 1e-6, eps: 1e-4, decoded: 1e-4 };
const F64: Tolerances = Tolerances { log_likelihood: 1e-10, eps: 1e-9, decoded: 1e-9 };
/// TensorFlow's results are in single precision.
const TENSORFLOW: Tolerances = Tolerances { log_likelihood: 1e-6, eps: 1e-4, decoded: 1e-4 };

/// Noise for every number of `images`.
fn noises(folder: &Path, bits: u32, count: usize) -> [(&'static str, Vec<f64>); 3] {
    let bins = f64::from(1 << bits);
    [
        ("midpoint", vec![0.5 / bins; count]),
        ("noise", Npy::read(&folder.join("noise.npy")).numbers),
        ("zero", vec![0.0; count]),
    ]
}

fn agrees<D: Operations>(device: &D, imported: &Imported, folder: &Path, tolerances: &Tolerances) {
    let run = Run::new(device, imported);
    let name = folder.display();
    let pixels = Npy::read(&folder.join("images.npy")).pixels();
    let labels = folder.join("labels.npy");
    let labels = if labels.is_file() { Npy::read(&labels).numbers } else { vec![] };
    let dimensions = (pixels.len() / 4) as f64;
    for (noise, numbers) in noises(folder, imported.config.bits, pixels.len()) {
        let path = folder.join(format!("bits_per_dim_{noise}.npy"));
        if !path.is_file() {
            continue;
        }
        let coded = run.encode(&pixels, &labels, &numbers);
        let nats = -std::f64::consts::LN_2 * dimensions;
        let want: Vec<f64> = Npy::read(&path).numbers.iter().map(|bits| bits * nats).collect();
        let error_of = error(&coded.log_likelihood, &want);
        assert!(error_of < tolerances.log_likelihood, "{name}: log-likelihood, {noise}: {error_of:e}");
        if noise == "noise" {
            for (level, eps) in coded.eps.iter().enumerate() {
                let want = Npy::read(&folder.join(format!("eps_{level}.npy")));
                let error = error(eps, &want.numbers);
                assert!(error < tolerances.eps, "{name}: eps {level}: {error:e}");
            }
        }
    }
    let levels = imported.config.levels;
    let eps = (0..levels).map(|level| Npy::read(&folder.join(format!("decode_eps_{level}.npy"))).numbers);
    let eps: Vec<_> = eps.collect();
    let decoded = run.decode(&eps, &labels);
    if folder.join("decoded.npy").is_file() {
        let error = error(&decoded, &Npy::read(&folder.join("decoded.npy")).numbers);
        assert!(error < tolerances.decoded, "{name}: decoded: {error:e}");
    } else {
        let have: Vec<f64> = decoded.iter().map(|v| ((v + 0.5) * 256.0).floor().clamp(0.0, 255.0)).collect();
        let want = Npy::read(&folder.join("decoded_pixels.npy")).numbers;
        let differ = have.iter().zip(&want).filter(|(have, want)| have != want).count();
        assert!(differ <= 3, "{name}: {differ} of {} decoded pixels differ", want.len());
    }
    let path = folder.join("decoded_temperature_0.npy");
    if path.is_file() {
        let zeros: Vec<_> = eps.iter().map(|eps| vec![0.0; eps.len()]).collect();
        let error = error(&run.decode(&zeros, &labels), &Npy::read(&path).numbers);
        assert!(error < tolerances.decoded, "{name}: decoded at temperature 0: {error:e}");
    }
}

#[test]
fn every_format_reproduces_the_results_of_the_program() {
    for (source, folder, files) in FIXTURES {
        let Some(folder) = fixture(folder) else { return };
        let mut first: Option<Imported> = None;
        for file in files {
            let imported = imported(source, &folder.join(file));
            if let Some(first) = &first {
                assert_eq!(imported.weights, first.weights, "{file}");
                assert_eq!(imported.constants, first.constants, "{file}");
                continue;
            }
            let tolerances = if source == Source::Openai { &TENSORFLOW } else { &F64 };
            agrees(&Cpu::<f64>::new(), &imported, &folder, tolerances);
            let rounded: Vec<f64> = imported.model().unwrap().weights.iter().map(|&x| x.into()).collect();
            agrees(&Cpu::<f32>::new(), &Imported { weights: rounded, ..imported.clone() }, &folder, &F32);
            first = Some(imported);
        }
    }
}

#[test]
fn the_final_prior_of_convolutions_depends_on_the_border() {
    for (source, folder, files) in FIXTURES {
        let Some(folder) = fixture(folder) else { return };
        let imported = imported(source, &folder.join(files[0]));
        let edge = folder.join("top_edge.npy");
        let layout = imported.layout();
        let have = layout.parameters.iter().find(|parameter| parameter.name == "prior.edge");
        assert_eq!(have.is_some(), edge.is_file(), "{source}");
        if let Some(have) = have {
            let mut want = Npy::read(&edge);
            assert_eq!(have.shape, want.shape);
            // Never outside the image.
            want.numbers.chunks_exact_mut(9).for_each(|taps| taps[4] = 0.0);
            let error = error(&imported.weights[have.span.range()], &want.numbers);
            assert!(error < 1e-6, "{source}: {error:e}");
        }
    }
}

#[test]
fn state_dictionaries_of_modules_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for (source, fixtures, _) in &FIXTURES[..3] {
        let Some(fixtures) = fixture(fixtures) else { return };
        let weights = fixtures.join("weights.safetensors");
        let want = imported(*source, &weights);
        let mut state = state(&weights);
        state.retain(|name, _| !name.ends_with("initialized"));
        let path = folder.path().join("file");
        for bytes in [
            torch::parameters(&state, Type::F32),
            torch::parameters(&state, Type::F64),
            torch::npz(&state, CompressionMethod::Stored),
            torch::npz(&state, CompressionMethod::Deflated),
        ] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(imported(*source, &path).weights, want.weights, "{source}");
        }
        for (kind, tolerance) in [(Type::F16, 1e-2), (Type::BF16, 1e-1)] {
            std::fs::write(&path, torch::parameters(&state, kind)).unwrap();
            let have = import(Checkpoint::read(&path).unwrap(), *source, &settings(*source)).unwrap();
            let error = error(&have.weights, &want.weights);
            assert!(error > 0.0 && error < tolerance, "{source} {kind:?}: {error:e}");
        }
    }
}

#[test]
fn unused_parts_are_reported() {
    let Some(folder) = fixture("y0ast/additive_plain_ycond") else { return };
    let unused = imported(Source::Y0ast, &folder.join("glow_checkpoint_1.pt")).unused;
    assert!(unused.contains(&"optimizer".to_owned()), "{unused:?}");
    assert!(unused.contains(&"project_class.linear.weight".to_owned()), "{unused:?}");
}
