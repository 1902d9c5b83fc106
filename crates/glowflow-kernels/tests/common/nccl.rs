//! Emulated GPUs that NCCL connects. NCCL is emulated, too.

use std::path::PathBuf;
use std::process::Command;

use glowflow_kernels::Cuda;
use glowflow_kernels::{Precision, cuda};

/// Runs an ignored test of the current program in a separate process, with four GPUs and these environment
/// variables.
pub fn child(test: &str, variables: &[(&str, &str)]) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--test-threads=1"])
        .env_remove(cuda::LIBRARIES)
        .env_remove(cuda::NCCL)
        .env("CUDA_EMULATOR_DEVICES", "4")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success() && text[0].contains("1 passed"), "{variables:?}: {}{}", text[0], text[1]);
}

/// A GPU; `None` if it cannot be emulated.
pub fn open(number: usize) -> Option<Cuda> {
    let folders: [PathBuf; 2] = [cuda_emulator::libraries()?, cuda_emulator::nccl()?];
    Some(Cuda::with_libraries(number, Precision::F32, &folders).unwrap())
}
