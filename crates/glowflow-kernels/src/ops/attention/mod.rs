//! Scaled dot-product attention over the pixels of an image (Vaswani et al. 2017).
//!
//! ```text
//! qkv [rows, 3·width]: queries Q, keys K and values V, each of `heads` heads of d = width/heads channels
//! for each image and head, with Q, K, V [pixels, d]:
//!   S = softmax(Q·Kᵀ/√d)             [pixels, pixels], over the keys
//!   y = S·V
//! backward, given dy:
//!   dV = Sᵀ·dy    dS = dy·Vᵀ    dZ = S ⊙ (dS − rowsum(dS ⊙ S))/√d    dQ = dZ·K    dK = dZᵀ·Q
//! ```
//!
//! The backward pass recomputes S. Images are independent of each other: on the CPU the results of an image
//! are bit-identical in any batch.

pub(super) mod cpu;
mod cuda;
mod reference;

use crate::primitives::{Primitives, holds};
use crate::shape::Grid;

/// Shape of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// The pixels.
    pub grid: Grid,
    /// Channels of the queries, keys, values and output, each.
    pub width: usize,
    /// Number of heads, a divisor of `width`.
    pub heads: usize,
}

impl AttentionShape {
    /// Number of channels per head.
    pub fn head_width(self) -> usize {
        self.width / self.heads
    }

    /// Number of elements of the output.
    pub(crate) fn len(self) -> usize {
        self.grid.rows() * self.width
    }

    /// Scale of the products of queries and keys.
    pub(crate) fn scale(self) -> f64 {
        1.0 / (self.head_width() as f64).sqrt()
    }

    /// Checks the number of heads, and the lengths of `qkv` and the output or of their gradients.
    ///
    /// # Panics
    /// If the width is not a multiple of the number of heads, or a buffer is too short.
    #[track_caller]
    pub(crate) fn check(self, qkv: &[usize], outputs: &[usize]) {
        let Self { width, heads, .. } = self;
        assert!(heads > 0 && width.is_multiple_of(heads), "{heads} heads do not divide {width} channels");
        qkv.iter().for_each(|&len| holds("qkv", len, 3 * self.len()));
        outputs.iter().for_each(|&len| holds("the output", len, self.len()));
    }
}

/// Attention and its gradient.
pub trait Attention: Primitives {
    /// Writes the attention to `y` `[rows, width]`.
    fn attention(&self, shape: AttentionShape, qkv: &Self::Buffer, y: &mut Self::Buffer);

    /// Writes the gradient of `qkv` to `d_qkv`, given the output gradient.
    fn attention_backward(
        &self,
        shape: AttentionShape,
        qkv: &Self::Buffer,
        dy: &Self::Buffer,
        d_qkv: &mut Self::Buffer,
    );
}
