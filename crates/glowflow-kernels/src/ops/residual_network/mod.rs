//! A residual network for couplings: depthwise convolutions between pairs of pointwise ones.
//!
//! ```text
//! h  = conv3×3(x_a) + bias_in                         [rows, width], edge channel as in a zero convolution
//! for each block:
//!   c      = depthwise(h)                             zero padding
//!   n      = c·r ⊙ norm,  r = (mean_channels c² + ε)^(−1/2) at each pixel,  ε = 10⁻⁵
//!   u      = ReLU(expand n + bias)                    [rows, 3·width]
//!   (p, g) = project u + bias                         [rows, 2·width]
//!   h      = h + p ⊙ sigmoid(g)
//! if there is an attention:
//!   n       = h·r ⊙ norm + position                   [pixels, width], the same for every image
//!   Q, K, V = query n, key n, value n                 [rows, width] each
//!   h       = h + out attention(Q, K, V)              see `Attention`
//! o    = ZeroConv(n_out),  n_out = h·r ⊙ norm_out     [rows, outputs]
//! head = (W n_out + bias) ⊙ exp(3·logs)               if there is a head
//! ```
//!
//! The depthwise and pointwise pairs follow ConvNeXt (Liu et al. 2022). The gate follows Flow++ (Ho et al.
//! 2019), with the root mean square in place of layer normalisation. All wide products are plain matrix
//! products.
//!
//! The input `x_a` is the first half of the channels of `x` `[rows, 2·inputs]`. As for
//! [`CouplingNetwork`](super::CouplingNetwork), equal inputs give bit-identical results in any batch. Hidden
//! activations have the CPU's precision for networks only inside products. Attention, and all networks on GPUs,
//! use the device's scalars.

mod attention;
mod cpu;
mod reference;

use super::{AttentionShape, HeadParams, NetworkOutputs, Parameters, ZeroConv, ZeroConvParams};
use crate::depthwise::Depthwise;
use crate::shape::{Grid, Span};

/// Width of a block's hidden layer, as a multiple of the network's width.
const EXPANSION: usize = 3;

/// Added to the mean of squares.
const EPSILON: f64 = 1e-5;

/// Parameters of a block.
#[derive(Clone, Copy, Debug)]
pub struct ResidualBlockParams {
    /// `[kernel, kernel, width]`
    pub taps: Span,
    /// `[width]`
    pub norm: Span,
    /// `[3·width, width, 1, 1]`
    pub expand: Span,
    /// `[3·width]`
    pub expand_bias: Span,
    /// `[2·width, 3·width, 1, 1]`
    pub project: Span,
    /// `[2·width]`
    pub project_bias: Span,
}

/// Parameters of the attention after the blocks.
#[derive(Clone, Copy, Debug)]
pub struct ResidualAttentionParams {
    /// Number of heads, a divisor of the network's width.
    pub heads: usize,
    /// Number of pixels of an image.
    pub pixels: usize,
    /// `[width]`
    pub norm: Span,
    /// `[pixels, width]`
    pub position: Span,
    /// `[width, width, 1, 1]`
    pub query: Span,
    /// `[width, width, 1, 1]`
    pub key: Span,
    /// `[width, width, 1, 1]`
    pub value: Span,
    /// `[width, width, 1, 1]`
    pub out: Span,
}

impl ResidualAttentionParams {
    /// Saved values per pixel: queries, keys, values, the output of the heads, and `h`.
    fn activations(width: usize) -> usize {
        5 * width
    }

    /// Shape of the attention in a network of this width.
    ///
    /// # Panics
    /// If the images do not have the number of pixels of the position embedding.
    #[track_caller]
    fn shape(&self, grid: Grid, width: usize) -> AttentionShape {
        let (have, want) = (grid.pixels(), self.pixels);
        assert!(have == want, "images of {have} pixels, and positions of {want}");
        AttentionShape { grid, width, heads: self.heads }
    }
}

/// Parameters of a residual network.
#[derive(Clone, Debug)]
pub struct ResidualNetworkParams {
    /// Input channels without the edge channel: half of the flow's channels.
    pub inputs: usize,
    /// Channels of the residual activations.
    pub width: usize,
    /// Height and width of the depthwise convolutions, odd.
    pub kernel: usize,
    /// `[width, inputs + 1, 3, 3]`
    pub conv_in: Span,
    /// `[width]`
    pub bias_in: Span,
    /// The blocks, in the order of the forward pass.
    pub blocks: Vec<ResidualBlockParams>,
    /// The attention after the blocks.
    pub attention: Option<ResidualAttentionParams>,
    /// `[width]`
    pub norm_out: Span,
    /// The last convolution; its `inputs` are `width`.
    pub conv_out: ZeroConvParams,
    /// The head; its `inputs` are `width`.
    pub head: Option<HeadParams>,
}

impl ResidualNetworkParams {
    /// Width of a block's hidden layer.
    pub fn expanded(width: usize) -> usize {
        EXPANSION * width
    }

    /// Number of saved values per pixel.
    pub fn activations(&self) -> usize {
        let block = 3 * self.width + Self::expanded(self.width);
        let attention = self.attention.map_or(0, |_| ResidualAttentionParams::activations(self.width));
        (self.blocks.len() + 1) * self.width + self.blocks.len() * block + attention
    }

    fn depthwise(&self, grid: Grid) -> Depthwise {
        Depthwise { grid, channels: self.width, kernel: self.kernel }
    }
}

impl Parameters for ResidualNetworkParams {
    fn spans(&self) -> Vec<(Span, usize)> {
        let (width, expanded) = (self.width, Self::expanded(self.width));
        assert!(self.conv_out.inputs == width, "{} inputs after {width} channels", self.conv_out.inputs);
        let mut spans = self.conv_out.spans();
        spans.extend(self.head.iter().flat_map(Parameters::spans));
        spans.extend([
            (self.conv_in, width * (self.inputs + 1) * 9),
            (self.bias_in, width),
            (self.norm_out, width),
        ]);
        spans.extend(self.blocks.iter().flat_map(|block| {
            [
                (block.taps, self.kernel * self.kernel * width),
                (block.norm, width),
                (block.expand, expanded * width),
                (block.expand_bias, expanded),
                (block.project, 2 * width * expanded),
                (block.project_bias, 2 * width),
            ]
        }));
        spans.extend(self.attention.iter().flat_map(|attention| {
            let square = width * width;
            [
                (attention.norm, width),
                (attention.position, attention.pixels * width),
                (attention.query, square),
                (attention.key, square),
                (attention.value, square),
                (attention.out, square),
            ]
        }));
        spans
    }
}

/// The residual network of a coupling.
#[allow(clippy::too_many_arguments)]
pub trait ResidualNetwork: ZeroConv {
    /// The weights in the device's form.
    type ResidualWeights: Send + Sync;
    /// Saved activations for the backward pass.
    type ResidualActivations: Send + Sync;

    /// Converts a network's weights to the device's form.
    fn prepare_residual_network(
        &self,
        at: &ResidualNetworkParams,
        params: &Self::Buffer,
    ) -> Self::ResidualWeights;

    /// Runs the network on the first half of the channels of `x` `[rows, 2·inputs]`. `params` must be those
    /// of which the weights were prepared.
    fn residual_network(
        &self,
        at: &ResidualNetworkParams,
        weights: &Self::ResidualWeights,
        params: &Self::Buffer,
        grid: Grid,
        x: &Self::Buffer,
        outputs: &mut NetworkOutputs<Self::Buffer>,
    );

    /// Like [`residual_network`](Self::residual_network), and returns the saved activations.
    fn residual_network_saving(
        &self,
        at: &ResidualNetworkParams,
        weights: &Self::ResidualWeights,
        params: &Self::Buffer,
        grid: Grid,
        x: &Self::Buffer,
        outputs: &mut NetworkOutputs<Self::Buffer>,
    ) -> Self::ResidualActivations;

    /// Adds the input gradient to the first half of the channels of `dx` `[rows, 2·inputs]`, given the output
    /// gradients.
    fn residual_network_backward(
        &self,
        at: &ResidualNetworkParams,
        params: &Self::Buffer,
        grid: Grid,
        x: &Self::Buffer,
        activations: &Self::ResidualActivations,
        d_outputs: &NetworkOutputs<Self::Buffer>,
        dx: &mut Self::Buffer,
        gradient: &mut Self::Buffer,
    );
}
