//! Operations of flows that devices can fuse, one per folder.
//!
//! | folder | operation |
//! | --- | --- |
//! | [`squeeze`](Squeeze) | trades height and width for channels |
//! | [`split`](Split) | splits the channels into two halves |
//! | [`actnorm`](ActNorm) | data-dependent initialisation of an actnorm |
//! | [`channel_map`](ChannelMap) | actnorm and permutation as one affine map |
//! | [`coupling_network`](CouplingNetwork) | the network of a coupling, also with a [head](HeadedNetwork) |
//! | [`residual_network`](ResidualNetwork) | a residual network of a coupling |
//! | [`attention`](Attention) | attention among the pixels of an image |
//! | [`coupling`](Coupling) | the element-wise part of a coupling |
//! | [`mixture`](Mixture) | the same, as a mixture of logistic distribution functions |
//! | [`zero_conv`](ZeroConv) | the convolution of a split's prior |
//! | [`gaussian`](Gaussian) | latents standardised by mean and standard deviation |
//! | [`final_prior`](FinalPrior) | mean and standard deviation of the last latents |
//!
//! Contents of a folder:
//!
//! - `mod.rs`: the specification, formula and shapes, and a trait;
//! - `reference.rs`: the reference body, in [`Primitives`](crate::Primitives) alone;
//! - `cpu.rs`, `cuda.rs`: device-specific forms, called fused below.
//!
//! [`Reference`] is a device that runs every operation with its reference body. `tests/operations.rs`
//! compares the fused forms with it, and it runs Glow on a device that has [`Primitives`](crate::Primitives)
//! but no operations yet.
//!
//! In backward functions `dlogp` is the derivative of the loss with respect to the log-likelihood of one
//! sample: the same for every sample, and known in advance. Gradients are added to `gradient`, a buffer laid
//! out as the parameters are.

mod actnorm;
mod attention;
mod channel_map;
mod coupling;
mod coupling_network;
mod direction;
mod final_prior;
mod gaussian;
mod mixture;
mod network_outputs;
mod parameters;
mod reference;
mod residual_network;
mod scaled;
mod split;
mod squeeze;
mod views;
mod zero_conv;

pub use actnorm::{ActNorm, ActNormParams};
pub use attention::{Attention, AttentionShape};
pub use channel_map::{ChannelMap, ChannelMapParams, PermutationParams};
pub use coupling::{AffineScale, Coupling, CouplingKind};
pub use coupling_network::{CouplingNetwork, HeadedNetwork, HeadedNetworkParams, NetworkParams};
pub use direction::Direction;
pub use final_prior::{FinalPrior, FinalPriorParams};
pub use gaussian::Gaussian;
pub use mixture::{Mixture, MixtureShape};
pub use network_outputs::{HeadParams, NetworkOutputs};
pub use reference::Reference;
pub use residual_network::{
    ResidualAttentionParams, ResidualBlockParams, ResidualNetwork, ResidualNetworkParams,
};
pub use split::Split;
pub use squeeze::Squeeze;
pub use zero_conv::{ZeroConv, ZeroConvParams};

pub(crate) use parameters::Parameters;

/// All operations: the requirements on a device that runs all layers.
pub trait Operations:
    Squeeze
    + Split
    + ActNorm
    + ChannelMap
    + CouplingNetwork
    + HeadedNetwork
    + ResidualNetwork
    + Attention
    + Coupling
    + Mixture
    + ZeroConv
    + Gaussian
    + FinalPrior
{
}

impl<D> Operations for D where
    D: Squeeze
        + Split
        + ActNorm
        + ChannelMap
        + CouplingNetwork
        + HeadedNetwork
        + ResidualNetwork
        + Attention
        + Coupling
        + Mixture
        + ZeroConv
        + Gaussian
        + FinalPrior
{
}
