//! What [`dequantize`](crate::Primitives::dequantize) takes and [`quantize`](crate::Primitives::quantize)
//! returns.

use crate::random::Stream;

/// Where the noise of dequantisation comes from.
#[derive(Clone, Copy, Debug)]
pub enum Noise<'a, R> {
    /// The middle of every bin: deterministic.
    Midpoint,
    /// Uniform over every bin, from a random stream.
    Uniform(Stream),
    /// Given, in `[0, 1/bins)`, one number for each byte.
    Given(&'a [R]),
}

/// Result of [`Primitives::quantize`](crate::Primitives::quantize).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantized {
    /// The pixels.
    pub pixels: Vec<u8>,
    /// Whether all numbers were finite: pixels of those that were not mean nothing.
    pub finite: bool,
}
