//! The multi-scale model: what it is, its weights, and its files.

mod file;
mod flow;
mod glow;
mod init;
mod latents;
mod layout;
pub(crate) mod memory;
mod score;

pub use file::{MODEL, ModelFile};
pub(crate) use file::{put_flat, put_permutations, take_flat, take_permutations};
pub use flow::{Backprop, Flow, Forward, Range};
pub use glow::{Dequantization, Glow, check_count, largest};
pub(crate) use glow::{check_labels, in_bits, one_hot};
pub use init::{Initial, initial};
pub use latents::{Encoded, Latents, RoundTrip};
pub use layout::{FixedPermutation, Layout, Parameter, Triangle};
pub use score::Draws;
