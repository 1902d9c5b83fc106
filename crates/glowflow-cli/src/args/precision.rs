//! In what precision to compute.

use clap::ValueEnum;
use glowflow::Precision;

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PrecisionArg {
    /// f32, today, on every processor.
    Auto,
    F32,
    /// Needs a processor with AVX-512 BF16.
    Bf16,
}

impl From<PrecisionArg> for Precision {
    fn from(arg: PrecisionArg) -> Self {
        match arg {
            PrecisionArg::Auto => Self::Auto,
            PrecisionArg::F32 => Self::F32,
            PrecisionArg::Bf16 => Self::Bf16,
        }
    }
}
