//! Purposes of the random streams of a model and a run.
//!
//! A stream's id is one of these constants plus a number below 2⁵⁶, such as that of a tensor, step or sample.

/// Inner convolutions of a new model, by tensor.
pub const WEIGHTS: u64 = 1 << 56;
/// Permutations of a new model, by step of flow.
pub const PERMUTATION: u64 = 2 << 56;
/// Dequantisation noise in training, by step.
pub const TRAINING_NOISE: u64 = 3 << 56;
/// Dequantisation noise of encoded images, by the index of a chunk's first image in its call. Draws and
/// batches of an evaluation have separate seeds, from `EVALUATION_SEEDS`.
pub const EVALUATION_NOISE: u64 = 4 << 56;
/// Latents of samples, by level.
pub const SAMPLES: u64 = 5 << 56;
/// Seeds of an evaluation's draws and batches.
pub const EVALUATION_SEEDS: u64 = 6 << 56;
