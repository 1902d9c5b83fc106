//! Outputs of a coupling network with a convolution and optionally a head, and the head's parameters.

use crate::cpu::conv::ScaledAt;
use crate::device::Device;
use crate::primitives::Primitives;
use crate::shape::{Grid, Span};

use super::Parameters;
use super::scaled::ScaledConv;

/// Parameters of a head, a 1×1 convolution of the last hidden activations: `y = (W h + bias) ⊙ exp(3·logs)`.
#[derive(Clone, Copy, Debug)]
pub struct HeadParams {
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// `[outputs, inputs, 1, 1]`
    pub weight: Span,
    /// `[outputs]`
    pub bias: Span,
    /// `[outputs]`
    pub logs: Span,
}

impl HeadParams {
    /// The convolution over a number of rows.
    pub(in crate::ops) fn scaled(&self, rows: usize) -> ScaledConv {
        let Self { inputs, outputs, weight, bias, logs } = *self;
        ScaledConv { rows, columns: inputs, taps: 1, outputs, weight, bias, logs: Some(logs) }
    }
}

impl HeadParams {
    pub(in crate::ops) fn at(&self) -> ScaledAt {
        ScaledAt { weight: self.weight, bias: self.bias, logs: self.logs }
    }
}

impl Parameters for HeadParams {
    fn spans(&self) -> Vec<(Span, usize)> {
        let Self { inputs, outputs, weight, bias, logs } = *self;
        vec![(weight, outputs * inputs), (bias, outputs), (logs, outputs)]
    }
}

/// Outputs of a coupling network, or their gradients.
#[derive(Debug)]
pub struct NetworkOutputs<B> {
    /// Of the last 3×3 convolution, `[rows, outputs]`.
    pub o: B,
    /// Of the head, `[rows, outputs]`.
    pub head: Option<B>,
}

impl<B: Send + Sync> NetworkOutputs<B> {
    /// Outputs with unspecified contents.
    pub fn scratch<D: Primitives + Device<Buffer = B>>(
        device: &D,
        grid: Grid,
        outputs: usize,
        head: Option<HeadParams>,
    ) -> Self {
        let scratch = |channels| device.scratch(grid.rows() * channels);
        Self { o: scratch(outputs), head: head.map(|head| scratch(head.outputs)) }
    }
}

/// The head of a network's outputs.
///
/// # Panics
/// If the network has none.
pub(super) fn head<B>(outputs: &NetworkOutputs<B>) -> &B {
    match &outputs.head {
        Some(head) => head,
        None => panic!("the network has no head"),
    }
}

/// Like [`head`], mutable.
///
/// # Panics
/// If the network has none.
pub(super) fn head_mut<B>(outputs: &mut NetworkOutputs<B>) -> &mut B {
    match &mut outputs.head {
        Some(head) => head,
        None => panic!("the network has no head"),
    }
}
