//! What a run leaves for people to look at.
//!
//! - [`picture`]: images side by side in one PNG file.
//! - [`animation`]: images one after the other, as a GIF or an animated PNG.
//! - [`curve`]: the learning curve as a PNG file.
//! - [`comparison`]: curves of several configurations, with bands, as a PNG file.
//! - [`metrics`]: one JSON record a line, cut back when a run resumes.
//! - [`events`]: the same numbers and pictures for TensorBoard.
//! - [`progress`]: how far a long task is, on a terminal or in a log.
//! - [`mod@file`]: files replaced as a whole.
//!
//! Nothing here knows a model: images come as bytes and numbers as numbers. Pictures are refreshed
//! while somebody may be looking at them, so each is written beside the old file and then renamed
//! over it.

pub mod animation;
pub mod comparison;
pub mod curve;
mod error;
pub mod events;
pub mod file;
pub mod metrics;
pub mod picture;
mod printable;
pub mod progress;

pub use error::Error;
pub use printable::printable;
