//! Environment variables. An empty variable counts as unset, because compose files and scripts often leave
//! one.

use std::env;

use anyhow::{Context, anyhow};
use glowflow::DeviceChoice;

/// Default of `--device`.
pub const DEVICE: &str = "GLOWFLOW_DEVICE";
/// Default of `--threads`.
pub const THREADS: &str = "RAYON_NUM_THREADS";

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

fn variable(name: &str) -> Option<String> {
    env::var_os(name).filter(|value| !value.is_empty()).map(|value| value.to_string_lossy().into_owned())
}
