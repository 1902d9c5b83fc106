//! Imports checkpoints of other Glow programs as glowflow models.
//!
//! [`Checkpoint::read`] reads the tensors of a file: PyTorch's zip format and its predecessor, safetensors,
//! and `.npz`. No code in the file is executed. [`import`] converts the tensors of one of the programs in
//! [`Source`] to a model with the same likelihoods and latents.
//!
//! ```no_run
//! use glowflow_import::{Checkpoint, Settings, Source, import};
//!
//! let checkpoint = Checkpoint::read("glow_model_250.pth".as_ref())?;
//! let imported = import(checkpoint, Source::Y0ast, &Settings::default())?;
//! imported.model()?.write("model.safetensors".as_ref())?;
//! # Ok::<(), glowflow_import::Error>(())
//! ```

mod array;
mod assemble;
mod chaiyujin;
mod checkpoint;
mod element;
mod error;
mod flownet;
mod legacy_format;
mod matrix;
mod normflows;
mod npz;
mod openai;
mod parts;
mod pickle;
mod reader;
mod rosinality;
mod safetensors_format;
mod settings;
mod source;
mod state_dict;
mod y0ast;
mod zip_format;

pub use array::Array;
pub use assemble::Imported;
pub use checkpoint::Checkpoint;
pub use error::Error;
pub use settings::{Setting, Settings};
pub use source::{Source, import};
