//! A coupling network with a head: a second output for each pixel, a convolution 1×1 of the last hidden activations.
//!
//! ```text
//! h1, h2 = the hidden layers of a coupling network
//! o      = ZeroConv(h2)                            [rows, outputs]
//! head   = (W h2 + bias) ⊙ exp(3·logs)             [rows, head outputs]
//! ```
//!
//! The processor has a fused form; GPUs run the reference body.

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

/// A coupling network with a head. Its actnorms are initialised as those of the network without one.
#[allow(clippy::too_many_arguments)]
pub trait HeadedNetwork: ZeroConv {
    /// The weights in the device's form.
    type HeadedWeights: Send + Sync;
    /// Saved activations, for the gradient.
    type HeadedHidden: Send + Sync;

    /// Brings a network's weights into the device's form.
    fn prepare_headed_network(&self, at: &HeadedNetworkParams, params: &Self::Buffer) -> Self::HeadedWeights;

    /// Runs the network on the first half of the channels of `x` `[rows, 2·inputs]`. `params` are those that the
    /// weights were prepared from.
    fn headed_network(
        &self,
        at: &HeadedNetworkParams,
        weights: &Self::HeadedWeights,
        params: &Self::Buffer,
        grid: Grid,
        x: &Self::Buffer,
        outputs: &mut NetworkOutputs<Self::Buffer>,
    );

    /// As [`headed_network`](Self::headed_network), and returns the hidden activations.
    fn headed_network_saving(
        &self,
        at: &HeadedNetworkParams,
        weights: &Self::HeadedWeights,
        params: &Self::Buffer,
        grid: Grid,
        x: &Self::Buffer,
        outputs: &mut NetworkOutputs<Self::Buffer>,
    ) -> Self::HeadedHidden;

    /// Adds the gradient by the input to the first half of the channels of `dx` `[rows, 2·inputs]`, given that by the
    /// outputs.
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
