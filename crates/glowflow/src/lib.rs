//! Glow: reversible generative flows with exact likelihoods (Kingma and Dhariwal 2018).
mod error;
pub mod flow;
pub mod model;
mod random;
pub mod tensor_file;

pub use error::Error;
pub use model::{
    Backprop, CouplingType, Dequantization, Encoded, Glow, Latents, ModelConfig, ModelFile, PermutationType,
};
