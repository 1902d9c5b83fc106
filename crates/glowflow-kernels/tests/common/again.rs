//! Tests that run once more with other settings.

use std::process::Command;

use glowflow_kernels::cuda::Tuning;
use glowflow_kernels::{Cuda, Precision};

/// Runs the tests of this program whose names contain `tests` in a process with these environment variables.
/// Without a GPU, and in such a process itself, does nothing.
pub fn again(tests: &str, variables: &[(&str, &str)]) {
    const ONCE: &str = "GLOWFLOW_TESTS_RUN_AGAIN";
    let gpu =
        || cuda_emulator::gpu(|folders| Cuda::with_tuning(0, Precision::F32, folders, Tuning::default()));
    if std::env::var_os(ONCE).is_some() || gpu().is_none() {
        return;
    }
    let tests = Command::new(std::env::current_exe().unwrap())
        .args([tests, "--test-threads=2"])
        .envs(variables.iter().copied().chain([(ONCE, "")]))
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&tests.stdout);
    assert!(tests.status.success() && !printed.contains(" 0 passed"), "{variables:?}: {printed}");
}
