//! In what precision coupling networks multiply.

use glowflow_kernels::{Cpu, Cuda, DeviceError, cpu, cuda};
use serde::{Deserialize, Serialize};

/// Precision of the products in coupling networks, where nearly all of a model's arithmetic is. Flow variables,
/// log-determinants, priors, gradients of weights and the weights themselves are in `f32` always.
///
/// A model may be used in another precision than it was trained in. What has to come back exactly is encoded and decoded in
/// `f32`: in bf16 the last bits of a flow variable, which are not the same on the way back, may decide how a network's
/// input is rounded, and pixels come back with errors of some thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// The program chooses: `f32` on processors, bf16 on GPUs.
    #[default]
    Auto,
    /// 32-bit floating point.
    F32,
    /// 32-bit numbers that are rounded to 19 bits where they are multiplied: GPUs alone have that.
    Tf32,
    /// 16-bit "brain" floating point, summed in `f32`.
    Bf16,
}

impl Precision {
    /// The processor in this precision.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] where it has no instructions for it.
    pub fn cpu(self) -> Result<Cpu<f32>, DeviceError> {
        Cpu::with_precision(match self {
            Self::Auto | Self::F32 => cpu::Precision::F32,
            Self::Bf16 => cpu::Precision::Bf16,
            Self::Tf32 => {
                return Err(DeviceError::Unavailable {
                    device: "cpu with tf32".into(),
                    reason: "only NVIDIA GPUs compute in it".into(),
                });
            }
        })
    }

    /// Whether this processor has instructions for bf16. Training on it is then about 1.5 times as fast in
    /// [`Bf16`](Self::Bf16) as in [`F32`](Self::F32).
    pub fn cpu_has_bf16() -> bool {
        Self::Bf16.cpu().is_ok()
    }

    /// An NVIDIA GPU, by its number, in this precision.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] where there is no such GPU, or something that it needs is missing.
    pub fn cuda(self, index: usize) -> Result<Cuda, DeviceError> {
        let precision = match self {
            Self::Auto => cuda::Precision::Auto,
            Self::Bf16 => cuda::Precision::Bf16,
            Self::F32 => cuda::Precision::F32,
            Self::Tf32 => cuda::Precision::Tf32,
        };
        Cuda::new(index, precision)
    }
}
