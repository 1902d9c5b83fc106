//! A coupling network with a head: a second output for each pixel, computed by a 1×1 convolution of the last
//! hidden activations.
//!
//! ```text
//! h1, h2 = the hidden layers of a coupling network
//! o      = ZeroConv(h2)                            [rows, outputs]
//! head   = (W h2 + bias) ⊙ exp(3·logs)             [rows, head outputs]
//! ```
//!
//! The CPU has a fused form; GPUs run the reference body.

use super::NetworkParams;
use crate::ops::{HeadParams, NetworkOutputs, Parameters, ZeroConv};
use crate::shape::{Grid, Span};

/// Parameters of a coupling network with a head.
#[derive(Clone, Copy, Debug)]
pub struct HeadedNetworkParams {
    /// The network.
    pub network: NetworkParams,
    /// The head; its `inputs` are `hidden`.
    pub head: HeadParams,
}

impl Parameters for HeadedNetworkParams {
    fn spans(&self) -> Vec<(Span, usize)> {
        let mut spans = self.network.spans();
        spans.extend(self.head.spans());
        spans
    }
}

/// A coupling network with a head. Its actnorms are initialised like those of the network without one.
#[allow(clippy::too_many_arguments)]
pub trait HeadedNetwork: ZeroConv {
    /// The weights in the device's form.
    type HeadedWeights: Send + Sync;
    /// Saved activations, for the gradient.
    type HeadedHidden: Send + Sync;

    /// Converts a network's weights to the device's form.
    fn prepare_headed_network(&self, at: &HeadedNetworkParams, params: &Self::Buffer) -> Self::HeadedWeights;

    /// Runs the network on the first half of the channels of `x` `[rows, 2·inputs]`. `params` must be those
    /// from which the weights were prepared.
    fn headed_network(
        &self,
        at: &HeadedNetworkParams,
        weights: &Self::HeadedWeights,
        params: &Self::Buffer,
        grid: Grid,
        x: &Self::Buffer,
        outputs: &mut NetworkOutputs<Self::Buffer>,
    );

    /// Like [`headed_network`](Self::headed_network), and returns the hidden activations.
    fn headed_network_saving(
        &self,
        at: &HeadedNetworkParams,
        weights: &Self::HeadedWeights,
        params: &Self::Buffer,
        grid: Grid,
        x: &Self::Buffer,
        outputs: &mut NetworkOutputs<Self::Buffer>,
    ) -> Self::HeadedHidden;

    /// Adds the input gradient to the first half of the channels of `dx` `[rows, 2·inputs]`, given the output
    /// gradients.
    fn headed_network_backward(
        &self,
        at: &HeadedNetworkParams,
        params: &Self::Buffer,
        grid: Grid,
        x: &Self::Buffer,
        hidden: &Self::HeadedHidden,
        d_outputs: &NetworkOutputs<Self::Buffer>,
        dx: &mut Self::Buffer,
        gradient: &mut Self::Buffer,
    );
}
