//! Data-dependent initialisation of an activation normalisation (Kingma and Dhariwal 2018, section 3.1).
//!
//! `bias = −mean` and `3·logs = −log(std + 1e-6)` for every channel of `x` `[rows, channels]`, with the
//! population standard deviation. The actnorm itself, `y = (x + bias) ⊙ exp(3·logs)`, is part of the adjacent
//! operation.

mod cpu;
pub(super) mod cuda;
pub(super) mod reference;

pub(super) use cpu::initialize;

use super::Parameters;
use crate::primitives::Primitives;
use crate::shape::Span;

/// Parameters of an actnorm, one bias and one log-scale per channel: `y = (x + bias) ⊙ exp(3·logs)`.
#[derive(Clone, Copy, Debug)]
pub struct ActNormParams {
    /// `[channels]`
    pub bias: Span,
    /// `[channels]`
    pub logs: Span,
}

impl ActNormParams {
    /// The spans, with their lengths for this number of channels.
    pub(super) fn spans_of(&self, channels: usize) -> [(Span, usize); 2] {
        [(self.bias, channels), (self.logs, channels)]
    }
}

impl Parameters for ActNormParams {
    fn spans(&self) -> Vec<(Span, usize)> {
        self.spans_of(self.bias.len).to_vec()
    }
}

/// Initialisation of an actnorm.
pub trait ActNorm: Primitives {
    /// Data-dependent initialisation: sets bias and logs so that the actnorm of `x` `[rows, channels]` has
    /// mean 0 and standard deviation 1 in every channel.
    fn initialize_actnorm(&self, at: &ActNormParams, x: &Self::Buffer, params: &mut Self::Buffer) {
        reference::initialize(self, at, x, params);
    }

    /// Data-dependent initialisation from the parts of a batch, each `[rows, channels]`. A single part gives
    /// the bits of [`initialize_actnorm`](Self::initialize_actnorm).
    fn initialize_actnorm_from(
        &self,
        at: &ActNormParams,
        parts: &[&Self::Buffer],
        params: &mut Self::Buffer,
    ) {
        if let [x] = parts {
            return self.initialize_actnorm(at, x, params);
        }
        let moments: Vec<_> = parts.iter().map(|x| reference::moments(self, at.bias.len, x)).collect();
        reference::initialize_from(self, at, &moments, params);
    }
}
