//! Argument of [`dequantize`](crate::Primitives::dequantize) and result of
//! [`quantize`](crate::Primitives::quantize).

use crate::random::RngStream;

/// Source of the dequantisation noise.
#[derive(Clone, Copy, Debug)]
pub enum Noise<'a, R> {
    /// The middle of every bin: deterministic.
    Midpoint,
    /// Uniform over every bin: the numbers of a random stream from this one on.
    Uniform(RngStream, u64),
    /// Given, in `[0, 1/bins)`, one number for each byte.
    Given(&'a [R]),
}

/// Result of [`Primitives::quantize`](crate::Primitives::quantize).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantized {
    /// The pixels.
    pub pixels: Vec<u8>,
    /// True if all numbers were finite: pixels of other numbers are meaningless.
    pub finite: bool,
}
