//! Zero convolution, whose output parameterises the prior of a split's latents.
//!
//! `y = (conv3×3(x) + bias) ⊙ exp(3·logs)`, with `x` `[rows, inputs]` and `y` `[rows, outputs]`. In addition
//! to its inputs the convolution has an edge channel, which is 1 outside the image and 0 inside (Kingma and
//! Dhariwal 2018, official code); the inputs are 0 outside.

mod cpu;
mod cuda;
pub(super) mod reference;

use super::Parameters;
use crate::primitives::Primitives;
use crate::shape::{Grid, Span};

/// Parameters of `ZeroConv(x) = (conv3×3(x) + bias) ⊙ exp(3·logs)`.
#[derive(Clone, Copy, Debug)]
pub struct ZeroConvParams {
    /// Number of input channels without the edge channel.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// `[outputs, inputs + 1, 3, 3]`; the last input channel is the edge channel.
    pub weight: Span,
    /// `[outputs]`
    pub bias: Span,
    /// `[outputs]`
    pub logs: Span,
}

impl Parameters for ZeroConvParams {
    fn spans(&self) -> Vec<(Span, usize)> {
        let outputs = self.outputs;
        vec![(self.weight, outputs * (self.inputs + 1) * 9), (self.bias, outputs), (self.logs, outputs)]
    }
}

/// 3×3 convolution with bias and scale.
#[allow(clippy::too_many_arguments)]
pub trait ZeroConv: Primitives {
    /// The weights in the device's form.
    type Weights: Send + Sync;

    /// Converts the weights of a zero convolution to the device's form.
    fn prepare_zero_conv(&self, at: &ZeroConvParams, params: &Self::Buffer) -> Self::Weights;

    /// Applies it to `x` `[rows, inputs]`, into `y` `[rows, outputs]`.
    fn zero_conv(&self, weights: &Self::Weights, grid: Grid, x: &Self::Buffer, y: &mut Self::Buffer);

    /// Adds the input gradient to `dx`, given the output gradient `dy`.
    fn zero_conv_backward(
        &self,
        at: &ZeroConvParams,
        params: &Self::Buffer,
        grid: Grid,
        x: &Self::Buffer,
        dy: &Self::Buffer,
        dx: &mut Self::Buffer,
        gradient: &mut Self::Buffer,
    );
}
