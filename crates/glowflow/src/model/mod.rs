//! The multi-scale model: what it is, its weights, and its files.

mod decode;
mod file;
mod flow;
mod init;
mod labels;
mod latents;
mod layout;
mod limits;
pub(crate) mod memory;
#[allow(clippy::module_inception)] // The file has the name of its type.
mod model;
mod round_trip;
mod score;

pub use file::{MODEL, ModelFile};
pub(crate) use file::{put_flat, put_permutations, take_flat, take_permutations};
pub use flow::{Backprop, Flow, Forward, Range};
pub use init::{Initial, initial};
pub(crate) use labels::{check_labels, one_hot};
pub use latents::{Decoded, Encoded, Latents, RoundTrip};
pub use layout::{FixedPermutation, Layout, Parameter, Triangle};
pub use limits::check_count;
pub use model::{Dequantization, Model};
pub(crate) use round_trip::in_bits;
pub use round_trip::largest;
pub use score::Draws;
