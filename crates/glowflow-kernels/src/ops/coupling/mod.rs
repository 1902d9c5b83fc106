//! The element-wise part of a coupling, which changes the last half of the channels of `x`
//! `[rows, channels]`.
//!
//! ```text
//! affine     y = (x + shift) ⊙ s, shift = o[..C/2], s a function of r = o[C/2..]   log|det| = Σ log s
//! additive   y = x + o                                                             log|det| = 0
//! ```
//!
//! | scale | `log s` | `∂ log s/∂r` | s |
//! | --- | --- | --- | --- |
//! | [`AffineScale::Sigmoid`] | `log sigmoid(r + 2)` | `1 − s` | in (0, 1), 0.88 at r = 0 |
//! | [`AffineScale::Exp2Tanh`] | `a = 2·tanh(r/2)` | `1 − (a/2)²` | in (e⁻², e²), 1 at r = 0 |
//!
//! The gradient of `r` is `(dy·y + dlogp)·∂ log s/∂r`: no division.

mod cpu;
mod cuda;
mod reference;

use crate::primitives::Primitives;
use crate::shape::Grid;

/// The scale of an affine coupling, a function of the network's output `r`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AffineScale {
    /// `sigmoid(r + 2)`: less than 1, and 0.88 for a network output of 0.
    #[default]
    Sigmoid,
    /// `exp(2·tanh(r/2))`: between e⁻² and e², and 1 for a network output of 0.
    Exp2Tanh,
}

/// The change of the second half of the channels, given the network's output `o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CouplingKind {
    /// `y = (x + shift) ⊙ scale`, with `shift = o[..C/2]` and a scale computed from `o[C/2..]`.
    Affine(AffineScale),
    /// `y = x + o`.
    Additive,
}

impl CouplingKind {
    /// Number of network outputs required for a flow of `channels` channels.
    pub fn network_outputs(self, channels: usize) -> usize {
        match self {
            Self::Affine(_) => channels,
            Self::Additive => channels / 2,
        }
    }
}

/// The element-wise part of a coupling.
#[allow(clippy::too_many_arguments)]
pub trait Coupling: Primitives {
    /// Transforms the last half of the channels of `x` `[rows, channels]` according to `kind`, and adds the
    /// log-determinant to `logp` `[batch]`.
    fn couple(
        &self,
        kind: CouplingKind,
        grid: Grid,
        channels: usize,
        o: &Self::Buffer,
        x: &mut Self::Buffer,
        logp: &mut Self::Buffer,
    ) {
        reference::couple(self, kind, grid, channels, o, x, logp);
    }

    /// Inverts [`couple`](Self::couple).
    fn uncouple(&self, kind: CouplingKind, channels: usize, o: &Self::Buffer, x: &mut Self::Buffer) {
        reference::uncouple(self, kind, channels, o, x);
    }

    /// Replaces the output `x` by the input, and likewise `dx` (except for the part through the network), and
    /// writes the gradient of the network's output to `d_o`.
    fn couple_backward(
        &self,
        kind: CouplingKind,
        channels: usize,
        o: &Self::Buffer,
        x: &mut Self::Buffer,
        dx: &mut Self::Buffer,
        dlogp: f64,
        d_o: &mut Self::Buffer,
    ) {
        reference::backward(self, kind, channels, o, x, dx, dlogp, d_o);
    }
}
