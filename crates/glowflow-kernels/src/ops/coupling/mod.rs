//! The element-wise part of a coupling, which changes the last half of the channels of `x` `[rows,
//! channels]`.
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
//! The gradient by `r` is `(dy·y + dlogp)·∂ log s/∂r`: no division.

mod cpu;
mod cuda;
mod reference;

use crate::primitives::Primitives;
use crate::shape::Grid;

/// The scale of an affine coupling, a function of the network's output `r`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AffineScale {
    /// `sigmoid(r + 2)`: below 1, and 0.88 for a network that is 0.
    #[default]
    Sigmoid,
    /// `exp(2·tanh(r/2))`: between e⁻² and e², and 1 for a network that is 0.
    Exp2Tanh,
}

/// How a coupling changes the second half of the channels, given the network's output `o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CouplingKind {
    /// `y = (x + shift) ⊙ scale`, with `shift = o[..C/2]` and a scale of `o[C/2..]`.
    Affine(AffineScale),
    /// `y = x + o`.
    Additive,
}

impl CouplingKind {
    /// Outputs that the network must have for a flow of `channels` channels.
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
    /// Changes the last half of the channels of `x` `[rows, channels]` as `kind` says, and adds the
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

    /// Undoes [`couple`](Self::couple).
    fn uncouple(&self, kind: CouplingKind, channels: usize, o: &Self::Buffer, x: &mut Self::Buffer) {
        reference::uncouple(self, kind, channels, o, x);
    }

    /// Turns the output `x` into the input and `dx` likewise (but for what flows through the network), and
    /// writes the gradient by the network's output into `d_o`.
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
