//! Glow, RealNVP and NICE: reversible generative flows with exact likelihoods.
//!
//! [`Model`] is a model with its weights, on plain arrays: score, encode, decode, sample. [`train`] trains
//! one on images. [`flow`] contains the layers, [`model`] combines them, and `glowflow-kernels` performs the
//! computation.

pub mod bench;
pub mod card;
pub mod data;
mod device;
mod engine;
mod error;
pub mod evaluate;
pub mod faces;
pub mod flow;
mod impostor;
pub mod latent;
pub mod latents_file;
mod memory_use;
pub mod model;
pub mod models;
pub mod params;
pub mod pretrained;
pub mod quickstart;
mod random;
pub mod study;
pub mod tensor_file;
pub mod testing;
mod text_file;
pub mod train;

pub use device::{AnyDevice, DeviceChoice};
pub use error::Error;
pub use model::{
    Backprop, Decoded, Dequantization, Draws, Encoded, Latents, Model, ModelFile, NoiseKind, RoundTrip,
    check_count,
};
pub use models::{
    Architecture, CouplingType, DequantizationType, GlowConfig, ModelConfig, NetworkType, NiceConfig,
    NormalizationType, PermutationType, PriorType, RealNvpConfig, ScaleType,
};

/// Settings of GPUs for experiments on speed.
pub use glowflow_kernels::cuda::{HiddenKernels, Tuning as CudaTuning};
/// Compute backends, their errors, and recovery from memory exhaustion.
pub use glowflow_kernels::{
    Cpu, Cuda, Device, DeviceError, Operations, Precision, Primitives, catch_out_of_memory,
};
