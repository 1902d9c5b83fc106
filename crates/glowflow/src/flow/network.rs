//! Coupling networks: they read the first half of the channels, and their outputs parameterise the coupling's
//! transformation of the last half.
//!
//! | | |
//! | --- | --- |
//! | [`NetworkKind::Convolutions`] | three convolutions, with actnorms and ReLUs ([`ops::CouplingNetwork`]) |
//! | [`NetworkKind::Residual`] | residual blocks, and possibly an attention ([`ops::ResidualNetwork`]) |
//!
//! A network may have a head, a second output for each pixel: a 1×1 convolution with scale of the last hidden
//! activations.

use glowflow_kernels::ops::{self, CouplingNetwork, HeadedNetwork};
use glowflow_kernels::{
    Grid, HeadParams, HeadedNetworkParams, NetworkOutputs, NetworkParams, ResidualAttentionParams,
    ResidualBlockParams, ResidualNetworkParams, Span, ZeroConvParams,
};

use super::channel_map::actnorm;
use super::{Context, Shape, State, Tensor};
use crate::params::{Init, ParamBuilder};

/// Standard deviation of a new convolutional network's inner convolutions.
const DEVIATION: f64 = 0.05;

/// Height and width of a residual network's depthwise convolutions.
const KERNEL: usize = 7;

/// Standard deviation of new taps, around those that copy the input.
const TAPS_DEVIATION: f64 = 0.02;

/// Factor of a new block's output, which keeps it small compared with its input at any depth.
const BLOCK_SCALE: f64 = 0.1;

/// Standard deviation of a new position embedding.
const POSITION_DEVIATION: f64 = 0.02;

/// Self-attention of a residual network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfAttention {
    /// Number of heads, a divisor of the network's width.
    pub heads: usize,
    /// Number of pixels at this level, each of which has a learned position embedding.
    pub pixels: usize,
}

/// Architecture of a coupling network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkKind {
    /// Three convolutions.
    Convolutions {
        /// Width of both hidden layers.
        hidden: usize,
    },
    /// Residual blocks.
    Residual {
        /// Number of channels of the residual activations.
        width: usize,
        /// Number of blocks.
        blocks: usize,
        /// Attention after the blocks.
        attention: Option<SelfAttention>,
    },
}

/// Number of output channels of a network.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutputChannels {
    /// Channels of the last convolution.
    pub conv: usize,
    /// Channels of the head; 0 for none.
    pub head: usize,
}

/// Device operations required to run every network.
pub trait Networks: CouplingNetwork + HeadedNetwork + ops::ResidualNetwork {}

impl<D: CouplingNetwork + HeadedNetwork + ops::ResidualNetwork> Networks for D {}

/// Spans of a network's tensors.
#[derive(Clone, Debug)]
pub(super) enum Network {
    Convolutions(NetworkParams),
    Headed(HeadedNetworkParams),
    Residual(ResidualNetworkParams),
}

/// Weights of a network in the device's layout.
pub(super) enum Weights<D: Networks> {
    Convolutions(D::Network),
    Headed(D::HeadedWeights),
    Residual(D::ResidualWeights),
}

/// Saved activations of a network.
pub(super) enum Activations<D: Networks> {
    Convolutions(D::Hidden),
    Headed(D::HeadedHidden),
    Residual(D::ResidualActivations),
}

impl Network {
    /// Declares the tensors of a network for a flow of `channels` channels.
    pub fn new(
        p: &mut ParamBuilder<'_>,
        channels: usize,
        kind: NetworkKind,
        outputs: OutputChannels,
    ) -> Self {
        match kind {
            NetworkKind::Convolutions { hidden } => {
                let network =
                    convolutions(p, ParamBuilder::hidden_weight, channels / 2, hidden, outputs.conv);
                if outputs.head == 0 {
                    return Self::Convolutions(network);
                }
                let head = p.scope("head", |p| head(p, hidden, outputs.head));
                Self::Headed(HeadedNetworkParams { network, head })
            }
            NetworkKind::Residual { width, blocks, attention } => {
                Self::Residual(residual(p, channels / 2, [width, blocks], attention, outputs))
            }
        }
    }

    /// Numbers per pixel that are saved for the backward pass.
    pub fn activations(&self) -> usize {
        match self {
            Self::Convolutions(at) => 2 * at.hidden,
            Self::Headed(at) => 2 * at.network.hidden,
            Self::Residual(at) => at.activations(),
        }
    }

    /// Multiply-adds per image of the shape's height and width.
    pub fn multiply_adds(&self, image: Shape) -> u128 {
        match self {
            Self::Convolutions(at) => convolutions_multiply_adds(at, image),
            Self::Headed(at) => {
                convolutions_multiply_adds(&at.network, image) + head_multiply_adds(&at.head, image)
            }
            Self::Residual(at) => {
                let (width, expanded) = (at.width as u128, ResidualNetworkParams::expanded(at.width) as u128);
                let block = (at.kernel as u128).pow(2) * width + 3 * width * expanded;
                let first = 9 * (at.inputs as u128 + 1) * width;
                let blocks = at.blocks.len() as u128 * block;
                let attention = at.attention.map_or(0, |_| attention_multiply_adds(width, image));
                image.pixels() as u128 * (first + blocks)
                    + attention
                    + zero_conv_multiply_adds(&at.conv_out, image)
                    + at.head.map_or(0, |head| head_multiply_adds(&head, image))
            }
        }
    }

    /// Converts the weights to the device's layout.
    pub fn prepare<D: Networks>(&self, cx: &Context<'_, D>) -> Weights<D> {
        match self {
            Self::Convolutions(at) => Weights::Convolutions(cx.device.prepare_network(at, cx.params)),
            Self::Headed(at) => Weights::Headed(cx.device.prepare_headed_network(at, cx.params)),
            Self::Residual(at) => Weights::Residual(cx.device.prepare_residual_network(at, cx.params)),
        }
    }

    /// Uninitialised buffers for the outputs or their gradients.
    pub fn outputs<D: Networks>(&self, device: &D, grid: Grid) -> NetworkOutputs<D::Buffer> {
        match self {
            Self::Convolutions(at) => NetworkOutputs::scratch(device, grid, at.conv3.outputs, None),
            Self::Headed(at) => {
                NetworkOutputs::scratch(device, grid, at.network.conv3.outputs, Some(at.head))
            }
            Self::Residual(at) => NetworkOutputs::scratch(device, grid, at.conv_out.outputs, at.head),
        }
    }

    /// Runs the network on the first half of the channels of `x`.
    ///
    /// # Panics
    /// If the weights belong to another kind of network.
    pub fn run<D: Networks>(
        &self,
        cx: &Context<'_, D>,
        weights: &Weights<D>,
        x: &Tensor<D>,
    ) -> NetworkOutputs<D::Buffer> {
        let (device, grid) = (cx.device, x.grid);
        let mut outputs = self.outputs(device, grid);
        match (self, weights) {
            (Self::Convolutions(_), Weights::Convolutions(weights)) => {
                device.network(weights, grid, &x.data, &mut outputs.o);
            }
            (Self::Headed(at), Weights::Headed(weights)) => {
                device.headed_network(at, weights, cx.params, grid, &x.data, &mut outputs);
            }
            (Self::Residual(at), Weights::Residual(weights)) => {
                device.residual_network(at, weights, cx.params, grid, &x.data, &mut outputs);
            }
            _ => panic!("weights of another network"),
        }
        outputs
    }

    /// Like [`run`](Self::run), and returns the activations.
    ///
    /// # Panics
    /// If the weights belong to another kind of network.
    pub fn run_saving<D: Networks>(
        &self,
        cx: &Context<'_, D>,
        weights: &Weights<D>,
        x: &Tensor<D>,
    ) -> (NetworkOutputs<D::Buffer>, Activations<D>) {
        let (device, grid) = (cx.device, x.grid);
        let mut outputs = self.outputs(device, grid);
        let activations = match (self, weights) {
            (Self::Convolutions(_), Weights::Convolutions(weights)) => {
                Activations::Convolutions(device.network_saving(weights, grid, &x.data, &mut outputs.o))
            }
            (Self::Headed(at), Weights::Headed(weights)) => Activations::Headed(
                device.headed_network_saving(at, weights, cx.params, grid, &x.data, &mut outputs),
            ),
            (Self::Residual(at), Weights::Residual(weights)) => Activations::Residual(
                device.residual_network_saving(at, weights, cx.params, grid, &x.data, &mut outputs),
            ),
            _ => panic!("weights of another network"),
        };
        (outputs, activations)
    }

    /// Adds the input gradient to the first half of the channels of `dx`, and the parameter gradient to
    /// `gradient`.
    ///
    /// # Panics
    /// If the activations belong to another kind of network.
    pub fn backward<D: Networks>(
        &self,
        cx: &Context<'_, D>,
        x: &Tensor<D>,
        activations: &Activations<D>,
        d_outputs: &NetworkOutputs<D::Buffer>,
        dx: &mut D::Buffer,
        gradient: &mut D::Buffer,
    ) {
        let Context { device, params, .. } = *cx;
        match (self, activations) {
            (Self::Convolutions(at), Activations::Convolutions(hidden)) => {
                device.network_backward(at, params, x.grid, &x.data, hidden, &d_outputs.o, dx, gradient);
            }
            (Self::Headed(at), Activations::Headed(hidden)) => {
                device.headed_network_backward(at, params, x.grid, &x.data, hidden, d_outputs, dx, gradient);
            }
            (Self::Residual(at), Activations::Residual(saved)) => {
                device.residual_network_backward(at, params, x.grid, &x.data, saved, d_outputs, dx, gradient);
            }
            _ => panic!("activations of another network"),
        }
    }

    /// Data-dependent initialisation. A residual network has norms instead of actnorms, and needs none.
    pub fn initialize<D: Networks>(&self, device: &D, params: &mut D::Buffer, parts: &[State<D>]) {
        if let Self::Convolutions(at) | Self::Headed(HeadedNetworkParams { network: at, .. }) = self {
            let parts: Vec<_> = parts.iter().map(|state| (state.x.grid, &state.x.data)).collect();
            device.initialize_network_from(at, &parts, params);
        }
    }
}

/// Declares `conv1.*`, `actnorm1.*`, `conv2.*`, `actnorm2.*` and `conv3.*`, the first two weights with `weight`.
pub(super) fn convolutions<'a>(
    p: &mut ParamBuilder<'a>,
    weight: fn(&mut ParamBuilder<'a>, &str, &[usize], Init) -> Span,
    inputs: usize,
    hidden: usize,
    outputs: usize,
) -> NetworkParams {
    let conv = |p: &mut ParamBuilder<'a>, name: &str, shape: &[usize]| {
        p.scope(name, |p| weight(p, "weight", shape, Init::Normal(DEVIATION)))
    };
    NetworkParams {
        inputs,
        hidden,
        conv1: conv(p, "conv1", &[hidden, inputs + 1, 3, 3]),
        actnorm1: p.scope("actnorm1", |p| actnorm(p, hidden)),
        conv2: conv(p, "conv2", &[hidden, hidden, 1, 1]),
        actnorm2: p.scope("actnorm2", |p| actnorm(p, hidden)),
        conv3: p.scope("conv3", |p| zero_conv(p, hidden, outputs)),
    }
}

/// Declares `conv_in.*`, `blocks.*`, `norm_out`, `conv_out.*` and, if present, `attention.*` and `head.*`.
fn residual(
    p: &mut ParamBuilder<'_>,
    inputs: usize,
    [width, blocks]: [usize; 2],
    attention: Option<SelfAttention>,
    outputs: OutputChannels,
) -> ResidualNetworkParams {
    let first = Init::Normal(1.0 / (9.0 * (inputs + 1) as f64).sqrt());
    let (conv_in, bias_in) = p.scope("conv_in", |p| {
        (
            p.hidden_weight("weight", &[width, inputs + 1, 3, 3], first),
            p.parameter("bias", &[width], Init::Zeros),
        )
    });
    ResidualNetworkParams {
        inputs,
        width,
        kernel: KERNEL,
        conv_in,
        bias_in,
        blocks: (0..blocks).map(|b| p.scope(format!("blocks.{b}"), |p| block(p, width))).collect(),
        attention: attention.map(|kind| p.scope("attention", |p| self_attention(p, width, kind))),
        norm_out: p.parameter("norm_out", &[width], Init::Constant(1.0)),
        conv_out: p.scope("conv_out", |p| zero_conv(p, width, outputs.conv)),
        head: (outputs.head > 0).then(|| p.scope("head", |p| head(p, width, outputs.head))),
    }
}

fn block(p: &mut ParamBuilder<'_>, width: usize) -> ResidualBlockParams {
    let expanded = ResidualNetworkParams::expanded(width);
    let mut copying = vec![0.0; KERNEL * KERNEL * width];
    copying[KERNEL * KERNEL / 2 * width..][..width].fill(1.0);
    let normal = |inputs: usize, scale: f64| Init::Normal(scale / (inputs as f64).sqrt());
    let mut pointwise = |name: &str, outputs: usize, inputs: usize, init| {
        p.scope(name, |p| {
            let weight = p.hidden_weight("weight", &[outputs, inputs, 1, 1], init);
            (weight, p.parameter("bias", &[outputs], Init::Zeros))
        })
    };
    let (expand, expand_bias) = pointwise("expand", expanded, width, normal(width, 1.0));
    let (project, project_bias) = pointwise("project", 2 * width, expanded, normal(expanded, BLOCK_SCALE));
    let taps = p.parameter("taps", &[KERNEL, KERNEL, width], Init::Around(copying, TAPS_DEVIATION));
    let norm = p.parameter("norm", &[width], Init::Constant(1.0));
    ResidualBlockParams { taps, norm, expand, expand_bias, project, project_bias }
}

/// Declares the tensors of an attention, whose output is initially 0.
fn self_attention(
    p: &mut ParamBuilder<'_>,
    width: usize,
    SelfAttention { heads, pixels }: SelfAttention,
) -> ResidualAttentionParams {
    let normal = Init::Normal(1.0 / (width as f64).sqrt());
    let norm = p.parameter("norm", &[width], Init::Constant(1.0));
    let position = p.parameter("position", &[pixels, width], Init::Normal(POSITION_DEVIATION));
    let mut projection =
        |name: &str, init: Init| p.scope(name, |p| p.hidden_weight("weight", &[width, width, 1, 1], init));
    ResidualAttentionParams {
        heads,
        pixels,
        norm,
        position,
        query: projection("query", normal.clone()),
        key: projection("key", normal.clone()),
        value: projection("value", normal),
        out: projection("out", Init::Zeros),
    }
}

/// Multiply-adds of an attention per image: four products with weight matrices, and two among the pixels.
fn attention_multiply_adds(width: u128, image: Shape) -> u128 {
    let pixels = image.pixels() as u128;
    4 * pixels * width.pow(2) + 2 * pixels.pow(2) * width
}

/// Declares the tensors of a zero convolution, all 0.
pub(super) fn zero_conv(p: &mut ParamBuilder<'_>, inputs: usize, outputs: usize) -> ZeroConvParams {
    ZeroConvParams {
        inputs,
        outputs,
        weight: p.weight("weight", &[outputs, inputs + 1, 3, 3], Init::Zeros),
        bias: p.parameter("bias", &[outputs], Init::Zeros),
        logs: p.parameter("logs", &[outputs], Init::Zeros),
    }
}

/// Multiply-adds of a zero convolution per image of the shape's height and width. The edge channel counts as
/// an input.
pub(super) fn zero_conv_multiply_adds(conv: &ZeroConvParams, image: Shape) -> u128 {
    image.pixels() as u128 * 9 * (conv.inputs as u128 + 1) * conv.outputs as u128
}

/// Multiply-adds of a convolutional network per image of the shape's height and width.
pub(super) fn convolutions_multiply_adds(at: &NetworkParams, image: Shape) -> u128 {
    let (hidden, inputs) = (at.hidden as u128, at.inputs as u128);
    let inner = 9 * (inputs + 1) * hidden + hidden.pow(2);
    image.pixels() as u128 * inner + zero_conv_multiply_adds(&at.conv3, image)
}

fn head_multiply_adds(head: &HeadParams, image: Shape) -> u128 {
    image.pixels() as u128 * head.inputs as u128 * head.outputs as u128
}

/// Declares the tensors of a head, all 0.
fn head(p: &mut ParamBuilder<'_>, inputs: usize, outputs: usize) -> HeadParams {
    HeadParams {
        inputs,
        outputs,
        weight: p.weight("weight", &[outputs, inputs, 1, 1], Init::Zeros),
        bias: p.parameter("bias", &[outputs], Init::Zeros),
        logs: p.parameter("logs", &[outputs], Init::Zeros),
    }
}
