//! Changed state dictionaries, imported and compared.

use std::path::Path;

use glowflow_import::{Checkpoint, Error, Imported, Settings, Source, import};
use glowflow_kernels::Cpu;
use zip::CompressionMethod;

use super::torch::{self, Type};
use super::{Run, State, error, state};

/// Imports a state dictionary saved in double precision.
pub fn import_state(state: &State, source: Source, settings: &Settings) -> Result<Imported, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.npz");
    let bytes = match source {
        Source::Openai => torch::npz(state, CompressionMethod::Stored),
        _ => torch::parameters(state, Type::F64),
    };
    std::fs::write(&path, bytes).unwrap();
    import(Checkpoint::read(&path).unwrap(), source, settings)
}

pub fn same_model(have: &Imported, want: &Imported, tolerance: f64) {
    let cpu = Cpu::<f64>::new();
    let pixels: Vec<u8> = (0..2 * 16 * 16 * 3_usize).map(|i| (i * i % 253) as u8).collect();
    let noise = vec![0.5 / 256.0; pixels.len()];
    let labels = if want.config.classes > 0 { vec![1.0, 0.0] } else { vec![] };
    let [have, want] = [have, want].map(|imported| Run::new(&cpu, imported).encode(&pixels, &labels, &noise));
    let error_of = error(&have.log_likelihood, &want.log_likelihood);
    assert!(error_of < tolerance, "log-likelihood {error_of:e}");
    for (have, want) in have.eps.iter().zip(&want.eps) {
        assert!(error(have, want) < tolerance);
    }
}

pub fn weights(folder: &Path) -> State {
    let mut state = state(&folder.join("weights.safetensors"));
    state.retain(|name, _| !name.ends_with("initialized"));
    state
}

/// The prefixes of names with this suffix.
pub fn places(state: &State, end: &str) -> Vec<String> {
    state.keys().filter_map(|name| Some(name.strip_suffix(end)?.to_owned())).collect()
}

/// `P·L·U` in C order.
pub fn product(p: &[f64], lower: &[f64], upper: &[f64], sign: &[f64], log_s: &[f64]) -> Vec<f64> {
    let n = sign.len();
    let l = |i: usize, k: usize| if k < i { lower[i * n + k] } else { f64::from(k == i) };
    let u = |k: usize, j: usize| match k {
        _ if k < j => upper[k * n + j],
        _ if k == j => sign[j] * log_s[j].exp(),
        _ => 0.0,
    };
    let entry = |i: usize, j: usize| {
        let row = (0..n).find(|&row| p[i * n + row] == 1.0).unwrap();
        (0..n).map(|k| l(row, k) * u(k, j)).sum()
    };
    (0..n * n).map(|at| entry(at / n, at % n)).collect()
}

/// The variables of the TensorFlow checkpoint.
pub fn variables(folder: &Path) -> State {
    let checkpoint = Checkpoint::read(&folder.join("variables.npz")).unwrap();
    checkpoint
        .tensors
        .iter()
        .map(|(name, array)| (name.clone(), (array.shape.clone(), array.numbers())))
        .collect()
}
