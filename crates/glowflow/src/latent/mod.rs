//! The latent space at hand: what can be done with images once they are latents.
//!
//! Latents here are standardised and of all levels (see [`Latents`](crate::Latents)), so that every operation that
//! changes nothing gives back every pixel.

pub mod interpolation;

pub use interpolation::{Walk, between, interpolate};
