//! Checkpoints of other Glow programs.
//!
//! [`Checkpoint::read`] reads the tensors of a file: PyTorch's zip format and the older one, safetensors, and `.npz`. No
//! code of the file is executed.

mod array;
mod checkpoint;
mod element;
mod error;
mod legacy_format;
mod npz;
mod pickle;
mod safetensors_format;
mod settings;
mod state_dict;
mod zip_format;

pub use array::Array;
pub use checkpoint::Checkpoint;
pub use error::Error;
pub use settings::{Setting, Settings};
