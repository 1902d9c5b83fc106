//! Inputs of a layer in addition to the state: device, parameters, buffers and mode.

use glowflow_kernels::Device;

/// Selects between batch statistics and running statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Statistics of the batch: training steps.
    Train,
    /// Running statistics: scoring, encoding, decoding, sampling. The result for an image does not depend on
    /// its batch.
    Eval,
}

/// Context of a layer.
#[derive(Debug)]
pub struct Context<'a, D: Device> {
    /// The device.
    pub device: &'a D,
    /// The flat buffer of parameters.
    pub params: &'a D::Buffer,
    /// The flat buffer of non-trained state, such as running statistics.
    pub buffers: &'a D::Buffer,
    /// Training or evaluation.
    pub mode: Mode,
}

impl<D: Device> Clone for Context<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D: Device> Copy for Context<'_, D> {}
