//! Precision of the computation.

use glowflow::Precision;

use super::choice::Choice;

/// Values of `--precision`.
pub const PRECISIONS: &[Choice<Precision>] = &[
    ("auto", "f32 on CPUs, bf16 on GPUs", Precision::Auto),
    ("f32", "", Precision::F32),
    ("tf32", "f32 with factors rounded to 19 bits in matrix products; GPUs only", Precision::Tf32),
    ("bf16", "Needs a GPU, or a CPU with AVX-512 BF16; --device cpu:amx uses AMX", Precision::Bf16),
];
