//! Precision of the computation.

use clap::ValueEnum;
use glowflow::Precision;

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PrecisionArg {
    /// f32 on processors, bf16 on GPUs.
    Auto,
    F32,
    /// f32, rounded to 19 bits where it is multiplied; GPUs only.
    Tf32,
    /// Needs a GPU, or a CPU with AVX-512 BF16; --device cpu:amx uses AMX.
    Bf16,
}

impl PrecisionArg {
    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }
}

impl From<PrecisionArg> for Precision {
    fn from(arg: PrecisionArg) -> Self {
        match arg {
            PrecisionArg::Auto => Self::Auto,
            PrecisionArg::F32 => Self::F32,
            PrecisionArg::Tf32 => Self::Tf32,
            PrecisionArg::Bf16 => Self::Bf16,
        }
    }
}
