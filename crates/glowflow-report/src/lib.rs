//! Reports of a run for people to look at.
//!
//! - [`picture`]: images side by side in a PNG file.
//! - [`animation`]: images in sequence, as a GIF or an animated PNG.
//! - [`curve`]: the learning curve as a PNG file.
//! - [`comparison`]: curves of several configurations, with bands, as a PNG file.
//! - [`metrics`]: one JSON record per line, truncated when a run resumes.
//! - [`events`]: the same scalars and images for TensorBoard.
//! - [`progress`]: the progress of a long task, on a terminal or in a log.
//! - [`mod@file`]: atomic replacement of files.
//!
//! This crate does not depend on a model: its inputs are image bytes and numbers. Images are refreshed while
//! somebody may be viewing them, so each is written to a temporary file that then replaces the old one.

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
