//! Actnorm and permutation as one affine map of each pixel's channels.
//!
//! ```text
//! actnorm       y = s ⊙ (x + bias), s = exp(3·logs)                        log|det| = H·W·Σ 3·logs
//! permutation   y = W x, W = P·L·(U + diag(sign ⊙ exp(log_s)))             log|det| = H·W·Σ log_s
//!               or y[i] = x[index[i]]                                      log|det| = 0
//! map           y = A x + b, A = W diag(s), b = A bias; x = A⁻¹ y − bias
//! ```
//!
//! Activations are `[rows, channels]`. Given `dA = dyᵀ·x` and `db = Σ dy`, the gradient of W is
//! `dW[i, j] = s[j]·(dA[i, j] + db[i]·bias[j])`; `dbias = Aᵀ db`, and
//! `dlogs[j] = 3·(Σᵢ W[i, j]·dW[i, j] + dlogp·rows)`. The factors' gradients are `d(LU) = Pᵀ dW`,
//! `dL = d(LU)·Uᵀ` and `dU = Lᵀ·d(LU)`.

mod cpu;
mod cuda;
mod reference;

use super::{ActNormParams, Direction, Parameters};
use crate::primitives::Primitives;
use crate::shape::{Grid, Span};

/// The permutation after an actnorm.
#[derive(Clone, Debug)]
pub enum PermutationParams {
    /// `y[i] = x[index[i]]`; not trained.
    Fixed {
        /// The input channel of each output channel.
        index: Vec<usize>,
    },
    /// `y = P·L·(U + diag(sign ⊙ exp(log_s)))·x`, the invertible 1×1 convolution in LU form.
    Lu {
        /// The permutation matrix P, `(P v)[i] = v[index[i]]`.
        index: Vec<usize>,
        /// Signs of U's diagonal, 1 or −1; fixed.
        sign: Vec<f64>,
        /// `[channels, channels]`, read strictly below the diagonal.
        lower: Span,
        /// `[channels, channels]`, read strictly above the diagonal.
        upper: Span,
        /// `[channels]`
        log_s: Span,
    },
}

/// Actnorm followed by a permutation: one invertible affine map of each pixel's channels.
#[derive(Clone, Debug)]
pub struct ChannelMapParams {
    /// Number of input and output channels.
    pub channels: usize,
    /// The actnorm, applied first.
    pub actnorm: ActNormParams,
    /// The permutation, applied to its result.
    pub permutation: PermutationParams,
}

impl Parameters for ChannelMapParams {
    fn spans(&self) -> Vec<(Span, usize)> {
        let channels = self.channels;
        let mut spans = self.actnorm.spans_of(channels).to_vec();
        let index = match &self.permutation {
            PermutationParams::Fixed { index } => index,
            PermutationParams::Lu { index, sign, lower, upper, log_s } => {
                assert!(sign.len() == channels, "{} signs for {channels} channels", sign.len());
                spans.extend([
                    (*lower, channels * channels),
                    (*upper, channels * channels),
                    (*log_s, channels),
                ]);
                index
            }
        };
        let fits = index.len() == channels && index.iter().all(|&i| i < channels);
        assert!(fits, "{index:?} is not a permutation of {channels} channels");
        spans
    }
}

/// Actnorm and permutation as one map.
#[allow(clippy::too_many_arguments)]
pub trait ChannelMap: Primitives {
    /// The map, prepared for one direction.
    type Map: Send + Sync;

    /// Folds an actnorm and its permutation into one affine map. A device may defer the computation until an
    /// operation other than preparation is requested, to compute several maps at once; the result uses the
    /// current parameters.
    fn prepare_channel_map(
        &self,
        at: &ChannelMapParams,
        params: &Self::Buffer,
        direction: Direction,
    ) -> Self::Map;

    /// Applies a map prepared for [`Direction::Forward`] or [`Direction::Inverse`] to `x` in place. The
    /// forward map adds its log-determinant to `logp` `[batch]`; the inverse adds nothing, because densities
    /// are only needed in the forward direction.
    fn channel_map(&self, map: &Self::Map, grid: Grid, x: &mut Self::Buffer, logp: Option<&mut Self::Buffer>);

    /// Replaces the output `x` by the input and the output gradient `dx` by the input gradient, given the map
    /// prepared for [`Direction::Backward`].
    fn channel_map_backward(
        &self,
        map: &Self::Map,
        at: &ChannelMapParams,
        params: &Self::Buffer,
        grid: Grid,
        x: &mut Self::Buffer,
        dx: &mut Self::Buffer,
        dlogp: f64,
        gradient: &mut Self::Buffer,
    );
}
