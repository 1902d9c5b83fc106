//! The multi-scale model: its definition, weights, and files.

mod decode;
mod file;
mod flow;
mod labels;
mod latents;
mod limits;
pub(crate) mod memory;
#[allow(clippy::module_inception)] // The file has the name of its type.
mod model;
mod round_trip;
mod score;

pub(crate) use file::layout;
pub use file::{MODEL, ModelFile};
pub use flow::{Backprop, Flow, Forward, Range};
pub(crate) use labels::{check_labels, class_numbers};
pub use latents::{Decoded, Encoded, Latents, RoundTrip};
pub use limits::check_count;
pub use model::{Dequantization, Model};
pub(crate) use round_trip::in_bits;
pub use round_trip::largest;
pub use score::{Draws, NoiseKind};
