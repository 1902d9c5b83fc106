//! The network of a coupling: conv3×3 → actnorm → ReLU → conv1×1 → actnorm → ReLU → ZeroConv.
//!
//! ```text
//! h1 = ReLU((conv3×3(x_a) + bias1) ⊙ exp(3·logs1))   [rows, hidden], edge channel as in ZeroConv
//! h2 = ReLU((conv1×1(h1) + bias2) ⊙ exp(3·logs2))    [rows, hidden]
//! o  = ZeroConv(h2)                                  [rows, outputs]
//! ```
//!
//! Its input `x_a` is the first half of the channels of `x` `[rows, 2·inputs]`. Equal inputs give equal bits
//! on every run, because a coupling is inverted by running its network again. The precision of hidden
//! activations is backend-defined.

mod cpu;
mod cuda;
mod headed;
mod headed_reference;
mod parts;
mod reference;

pub use headed::{HeadedNetwork, HeadedNetworkParams};

use super::{ActNormParams, Parameters, ZeroConvParams};
use crate::primitives::Primitives;
use crate::shape::{Grid, Span};

/// Parameters of a coupling network:
/// conv3×3 → actnorm → ReLU → conv1×1 → actnorm → ReLU → ZeroConv.
#[derive(Clone, Copy, Debug)]
pub struct NetworkParams {
    /// Number of input channels without the edge channel: half of the flow's.
    pub inputs: usize,
    /// Width of both hidden layers.
    pub hidden: usize,
    /// `[hidden, inputs + 1, 3, 3]`
    pub conv1: Span,
    /// After the first convolution.
    pub actnorm1: ActNormParams,
    /// `[hidden, hidden, 1, 1]`
    pub conv2: Span,
    /// After the second convolution.
    pub actnorm2: ActNormParams,
    /// The last convolution; its `inputs` are `hidden`.
    pub conv3: ZeroConvParams,
}

impl Parameters for NetworkParams {
    fn spans(&self) -> Vec<(Span, usize)> {
        let hidden = self.hidden;
        assert!(self.conv3.inputs == hidden, "{} inputs after {hidden} channels", self.conv3.inputs);
        let mut spans = self.conv3.spans();
        spans.extend([(self.conv1, hidden * (self.inputs + 1) * 9), (self.conv2, hidden * hidden)]);
        spans.extend(self.actnorm1.spans_of(hidden).into_iter().chain(self.actnorm2.spans_of(hidden)));
        spans
    }
}

/// The network of a coupling.
#[allow(clippy::too_many_arguments)]
pub trait CouplingNetwork: Primitives {
    /// The weights in the device's form.
    type Network: Send + Sync;
    /// Saved activations, for the gradient.
    type Hidden: Send + Sync;

    /// Converts a network's weights to the device's form; a device may defer this as for channel maps.
    fn prepare_network(&self, at: &NetworkParams, params: &Self::Buffer) -> Self::Network;

    /// Runs the network on the first half of the channels of `x` `[rows, 2·inputs]`, into `o`
    /// `[rows, outputs]`.
    fn network(&self, network: &Self::Network, grid: Grid, x: &Self::Buffer, o: &mut Self::Buffer);

    /// Like [`network`](Self::network), and returns the hidden activations.
    fn network_saving(
        &self,
        network: &Self::Network,
        grid: Grid,
        x: &Self::Buffer,
        o: &mut Self::Buffer,
    ) -> Self::Hidden;

    /// Adds the input gradient to the first half of the channels of `dx` `[rows, 2·inputs]`, given the output
    /// gradient `d_o`.
    fn network_backward(
        &self,
        at: &NetworkParams,
        params: &Self::Buffer,
        grid: Grid,
        x: &Self::Buffer,
        hidden: &Self::Hidden,
        d_o: &Self::Buffer,
        dx: &mut Self::Buffer,
        gradient: &mut Self::Buffer,
    );

    /// Data-dependent initialisation of both actnorms inside the network, the second on the output of the
    /// first, initialised.
    fn initialize_network(&self, at: &NetworkParams, grid: Grid, x: &Self::Buffer, params: &mut Self::Buffer);

    /// Data-dependent initialisation from the parts of a batch. A single part gives the bits of
    /// [`initialize_network`](Self::initialize_network).
    fn initialize_network_from(
        &self,
        at: &NetworkParams,
        parts: &[(Grid, &Self::Buffer)],
        params: &mut Self::Buffer,
    ) {
        match parts {
            [(grid, x)] => self.initialize_network(at, *grid, x, params),
            parts => parts::initialize(self, at, parts, params),
        }
    }
}
