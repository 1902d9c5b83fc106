//! Environment variables. An empty variable counts as unset, because compose files and scripts often leave
//! one.

use std::env;

use anyhow::{Context, anyhow, bail};
use glowflow::{CudaTuning, DeviceChoice, HiddenKernels};

/// Default of `--device`.
pub const DEVICE: &str = "GLOWFLOW_DEVICE";
/// Default of `--threads`.
pub const THREADS: &str = "RAYON_NUM_THREADS";

/// Number of rows of hidden activations that a network computes at a time on a GPU, for experiments on speed.
pub const CUDA_ROWS: &str = "GLOWFLOW_CUDA_ROWS";
/// Implementation of hidden layers on a GPU, for experiments on speed.
pub const CUDA_HIDDEN: &str = "GLOWFLOW_CUDA_HIDDEN";

/// The device given by the environment.
pub fn device() -> anyhow::Result<Option<DeviceChoice>> {
    let Some(text) = variable(DEVICE) else { return Ok(None) };
    let choice = text.parse().map_err(|reason: String| anyhow!(reason));
    Ok(Some(choice.with_context(|| format!("the environment variable {DEVICE}"))?))
}

/// The number of threads given by the environment. 0 means all cores.
pub fn threads() -> anyhow::Result<Option<usize>> {
    let Some(text) = variable(THREADS) else { return Ok(None) };
    let threads = text.trim().parse().map_err(|_| {
        anyhow!("the environment variable {THREADS} is {text:?}; it must be a number of threads, or unset for all cores")
    });
    Ok(Some(threads?))
}

/// The settings of GPUs given by the environment.
pub fn tuning() -> anyhow::Result<CudaTuning> {
    let mut tuning = CudaTuning::default();
    if let Some(text) = variable(CUDA_ROWS) {
        tuning.rows_at_once = text.parse::<usize>().ok().filter(|&rows| rows > 0).ok_or_else(|| {
            anyhow!(
                "the environment variable {CUDA_ROWS} is {text:?}; it must be a number of rows, 1 or more"
            )
        })?;
    }
    if let Some(text) = variable(CUDA_HIDDEN) {
        tuning.hidden = match text.as_str() {
            "on" => HiddenKernels::Networks,
            "layers" => HiddenKernels::Layers,
            "off" => HiddenKernels::Off,
            _ => bail!("the environment variable {CUDA_HIDDEN} is {text:?}; it must be on, layers or off"),
        };
    }
    Ok(tuning)
}

fn variable(name: &str) -> Option<String> {
    env::var_os(name).filter(|value| !value.is_empty()).map(|value| value.to_string_lossy().into_owned())
}
