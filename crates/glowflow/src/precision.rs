//! Precision of the products in coupling networks.

use glowflow_kernels::{Cpu, Cuda, DeviceError, cpu, cuda};
use serde::{Deserialize, Serialize};

/// Precision of the products in coupling networks, which are nearly all of a model's arithmetic. Flow
/// variables, log-determinants, priors, weight gradients and the weights themselves are always `f32`.
///
/// A model may be used in a precision other than that of its training. For exact reconstruction, encode and
/// decode in `f32`: in bf16 the last bits of a flow variable, which differ in the inverse direction, may
/// decide how a network's input is rounded, and pixels are then reconstructed with errors of some
/// thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Automatic: `f32` on CPUs, bf16 on GPUs.
    #[default]
    Auto,
    /// 32-bit floating point.
    F32,
    /// 32-bit numbers rounded to 19 bits for multiplication; only on GPUs.
    Tf32,
    /// 16-bit "brain" floating point, accumulated in `f32`.
    Bf16,
}

impl Precision {
    /// The CPU in this precision.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] if it lacks the instructions.
    pub fn cpu(self) -> Result<Cpu<f32>, DeviceError> {
        Cpu::with_precision(match self {
            Self::Auto | Self::F32 => cpu::Precision::F32,
            Self::Bf16 => cpu::Precision::Bf16,
            Self::Tf32 => {
                return Err(DeviceError::Unavailable {
                    device: "cpu with tf32".into(),
                    reason: "only NVIDIA GPUs support it".into(),
                });
            }
        })
    }

    /// Like [`cpu`](Self::cpu), but products of bf16 use AMX.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] if it lacks the instructions.
    pub fn cpu_with_amx(self) -> Result<Cpu<f32>, DeviceError> {
        match self {
            Self::Bf16 => Cpu::with_amx(),
            other => other.cpu(),
        }
    }

    /// Returns whether this CPU has instructions for bf16. They make training about 1.5 times as fast on AMD's
    /// Zen 5, and slower than [`F32`](Self::F32) on Intel's Xeons.
    pub fn cpu_has_bf16() -> bool {
        Self::Bf16.cpu().is_ok()
    }

    /// Returns whether this CPU has AMX, and the operating system permits it. Training with
    /// [`cpu_with_amx`](Self::cpu_with_amx) is then faster than in [`F32`](Self::F32): 1.3 to 2.7 times with networks
    /// of 64 to 512 channels.
    pub fn cpu_has_amx() -> bool {
        Self::Bf16.cpu_with_amx().is_ok()
    }

    /// An NVIDIA GPU, by its index, in this precision, with settings for experiments on speed.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] if the GPU does not exist or a requirement is missing.
    pub fn cuda(self, index: usize, tuning: cuda::Tuning) -> Result<Cuda, DeviceError> {
        let precision = match self {
            Self::Auto => cuda::Precision::Auto,
            Self::Bf16 => cuda::Precision::Bf16,
            Self::F32 => cuda::Precision::F32,
            Self::Tf32 => cuda::Precision::Tf32,
        };
        Cuda::with_tuning(index, precision, &[], tuning)
    }
}
