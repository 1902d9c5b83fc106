//! The element-wise part of a coupling whose map is a mixture of logistic distribution functions (Ho et al.
//! 2019), with bounds: it changes the last half of the channels of `x` `[rows, channels]`.
//!
//! ```text
//! b, s = o[..C/2], o[C/2..]                 a = 2·tanh(s/2)
//! l_m, m_m, w_m = head, of component m      log π = log softmax(l),  μ_m = m_m + δ_m,  ζ_m = B·tanh(w_m/B)
//! z_m = (x − μ_m)·exp(−ζ_m)                 F = Σ π_m·σ(z_m),  G = Σ π_m·σ(−z_m),  f = dF/dx
//! t = (1 − κ)·log(F/G) + κ·x                S = dt/dx = (1 − κ)·f/(F·G) + κ
//! y = t·exp(a) + b                          log|det| = Σ (log S + a)
//! ```
//!
//! Here σ is the logistic function, κ = 0.1 and B = 2.5, so S is between 0.1 and 11 and the condition number
//! of the inverse is bounded. The offsets `δ_m = 1.5·(2m − M − 1)/(M − 1)`, m from 1 to M, separate the
//! components of a new network.
//!
//! The inverse solves `t(x) = (y − b)·exp(−a)` by Newton's method within a bracket: the root is between those
//! of the components, `(t + (1 − κ)·μ_m·exp(−ζ_m))/((1 − κ)·exp(−ζ_m) + κ)`. Each number converges
//! independently, after at most [`ITERATIONS`], so its bits do not depend on its neighbours.
//!
//! Gradients, with `A = dy·exp(a)`, `λ = dlogp`, `ρ = (S − κ)/S`, `α = (1 − κ)·A − ρλ`,
//! `β = −(1 − κ)·A − ρλ`, `γ = ρλ`:
//!
//! ```text
//! p_m = π_m·σ(z_m)/F    q_m = π_m·σ(−z_m)/G    r_m = π_m·exp(−ζ_m)·σ(z_m)·σ(−z_m)/f
//! T_m = α·p_m + β·q_m + γ·r_m
//! D_m = α·p_m·σ(−z_m) − β·q_m·σ(z_m) + γ·r_m·(1 − 2·σ(z_m))
//! dl_m = T_m − π_m·Σ T    dμ_m = −exp(−ζ_m)·D_m    dζ_m = −z_m·D_m − γ·r_m
//! dx = Σ exp(−ζ_m)·D_m + κ·A    da = dy·t·exp(a) + λ    db = dy
//! dw_m = dζ_m·(1 − (ζ_m/B)²)    ds = da·(1 − (a/2)²)
//! ```

mod cpu;
mod cuda;
mod reference;

use super::NetworkOutputs;
use crate::primitives::Primitives;
use crate::shape::Grid;

/// κ, the minimum slope of t.
const FLOOR: f64 = 0.1;

/// B, the bound of ζ.
const BOUND: f64 = 2.5;

/// The offset of the last component.
const SPREAD: f64 = 1.5;

/// Maximum number of Newton steps.
const ITERATIONS: usize = 16;

/// Shape of a mixture coupling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MixtureShape {
    /// The pixels.
    pub grid: Grid,
    /// Channels of the flow.
    pub channels: usize,
    /// Components M.
    pub components: usize,
}

impl MixtureShape {
    /// Number of channels of the network's head: `[3, components, C/2]`, for `l`, `m` and `w`.
    pub fn head_outputs(channels: usize, components: usize) -> usize {
        3 * components * (channels / 2)
    }

    fn half(self) -> usize {
        self.channels / 2
    }

    /// Channels of the head.
    fn head(self) -> usize {
        Self::head_outputs(self.channels, self.components)
    }

    /// Position of a parameter (0 for `l`, 1 for `m`, 2 for `w`) of a component in a row of the head.
    fn place(self, parameter: usize, component: usize) -> usize {
        (parameter * self.components + component) * self.half()
    }

    /// δ of a component, counted from 0.
    fn offset(self, component: usize) -> f64 {
        match self.components {
            1 => 0.0,
            m => SPREAD * (2.0 * component as f64 + 1.0 - m as f64) / (m as f64 - 1.0),
        }
    }
}

/// The element-wise part of a mixture coupling.
#[allow(clippy::too_many_arguments)]
pub trait Mixture: Primitives {
    /// Transforms the last half of the channels of `x` `[rows, channels]`, and adds the log-determinant to
    /// `logp` `[batch]`.
    fn mix(
        &self,
        shape: MixtureShape,
        outputs: &NetworkOutputs<Self::Buffer>,
        x: &mut Self::Buffer,
        logp: &mut Self::Buffer,
    ) {
        reference::mix(self, shape, outputs, x, logp);
    }

    /// Inverts [`mix`](Self::mix).
    fn unmix(&self, shape: MixtureShape, outputs: &NetworkOutputs<Self::Buffer>, x: &mut Self::Buffer) {
        reference::unmix(self, shape, outputs, x);
    }

    /// Replaces the output `x` by the input, and likewise `dx` (except for the part through the network), and
    /// writes the gradients of the network's outputs to `d_outputs`.
    fn mix_backward(
        &self,
        shape: MixtureShape,
        outputs: &NetworkOutputs<Self::Buffer>,
        x: &mut Self::Buffer,
        dx: &mut Self::Buffer,
        dlogp: f64,
        d_outputs: &mut NetworkOutputs<Self::Buffer>,
    ) {
        reference::backward(self, shape, outputs, x, dx, dlogp, d_outputs);
    }
}
