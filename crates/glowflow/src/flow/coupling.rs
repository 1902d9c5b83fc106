//! Coupling: the first half of the channels passes, and a network of it changes the last half.
//!
//! ```text
//! affine     o = NN(x_a), s = scale(o[C/2..])   y_b = (x_b + o[..C/2]) ⊙ s   log|det| = Σ log s
//! additive   o = NN(x_a)                        y_b = x_b + o                log|det| = 0
//! ```
//!
//! The scale of `r` is `sigmoid(r + 2)`, or `exp(2·tanh(r/2))`, which is 1 for a new network.
//!
//! `NN` = conv3×3 → actnorm → ReLU → conv1×1 → actnorm → ReLU → ZeroConv. Its input is not changed by the layer, so
//! one run of it gives both the inverse and what the gradient needs (Dinh, Krueger and Bengio 2014; Dinh,
//! Sohl-Dickstein and Bengio 2016).

use glowflow_kernels::ops::{self, CouplingNetwork};
use glowflow_kernels::{CouplingKind, Direction, NetworkParams, ZeroConvParams};

use super::channel_map::actnorm;
use super::{BackwardPass, Context, Layer, Prepared, Save, Saved, Shape, Shapes, State, Tensor};
use crate::params::{Init, ParamBuilder};

/// Standard deviation of a new network's inner convolutions.
const DEVIATION: f64 = 0.05;

/// An affine or additive coupling.
#[derive(Clone, Copy, Debug)]
pub struct Coupling {
    kind: CouplingKind,
    network: NetworkParams,
}

impl Coupling {
    /// Declares the network's tensors `conv1.*`, `actnorm1.*`, `conv2.*`, `actnorm2.*` and `conv3.*` for a flow of
    /// `channels` channels.
    pub fn new(p: &mut ParamBuilder<'_>, channels: usize, hidden: usize, kind: CouplingKind) -> Self {
        Self { kind, network: network(p, channels / 2, hidden, kind.network_outputs(channels)) }
    }
}

/// Declares the tensors of a coupling network.
pub(super) fn network(
    p: &mut ParamBuilder<'_>,
    inputs: usize,
    hidden: usize,
    outputs: usize,
) -> NetworkParams {
    let conv = |p: &mut ParamBuilder<'_>, name: &str, shape: &[usize]| {
        p.scope(name, |p| p.hidden_weight("weight", shape, Init::Normal(DEVIATION)))
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

/// Multiply-adds of a zero convolution on one image of the shape's height and width. The channel that marks the border counts
/// as an input.
pub(super) fn zero_conv_multiply_adds(conv: &ZeroConvParams, image: Shape) -> u128 {
    image.pixels() as u128 * 9 * (conv.inputs as u128 + 1) * conv.outputs as u128
}

/// Multiply-adds of a coupling network on one image of the shape's height and width.
pub(super) fn network_multiply_adds(network: &NetworkParams, image: Shape) -> u128 {
    let NetworkParams { inputs, hidden, .. } = *network;
    let conv1 = 9 * (inputs as u128 + 1) * hidden as u128;
    let conv2 = (hidden as u128).pow(2);
    image.pixels() as u128 * (conv1 + conv2) + zero_conv_multiply_adds(&network.conv3, image)
}

impl<D: CouplingNetwork + ops::Coupling> Layer<D> for Coupling {
    fn shapes(&self, input: Shape) -> Shapes {
        Shapes::same(input)
    }

    fn activations(&self, input: Shape) -> usize {
        2 * self.network.hidden * input.pixels()
    }

    fn multiply_adds(&self, input: Shape) -> u128 {
        network_multiply_adds(&self.network, input)
    }

    fn prepare(&self, cx: &Context<'_, D>, direction: Direction) -> Box<dyn Prepared<D>> {
        let Self { kind, network: at } = *self;
        match direction {
            Direction::Forward | Direction::Inverse => {
                Box::new(Ready::<D> { kind, at, network: Some(cx.device.prepare_network(&at, cx.params)) })
            }
            // With saved activations, the network does not run again.
            Direction::Backward => Box::new(Ready::<D> { kind, at, network: None }),
        }
    }

    fn initialize(&self, device: &D, params: &mut D::Buffer, input: &State<D>) {
        device.initialize_network(&self.network, input.x.grid, &input.x.data, params);
    }
}

/// Activations of the network, saved so that the backward pass need not run it again.
struct Activations<D: CouplingNetwork> {
    hidden: D::Hidden,
    /// The network's output.
    o: D::Buffer,
}

struct Ready<D: CouplingNetwork> {
    kind: CouplingKind,
    at: NetworkParams,
    /// Absent in the backward pass.
    network: Option<D::Network>,
}

impl<D: CouplingNetwork> Ready<D> {
    fn network(&self) -> &D::Network {
        match &self.network {
            Some(network) => network,
            None => panic!("a coupling prepared for the backward pass does not run its network"),
        }
    }

    /// A buffer for the network's output on `x`.
    fn output(&self, device: &D, x: &Tensor<D>) -> D::Buffer {
        device.scratch(x.grid.rows() * self.at.conv3.outputs)
    }

    fn run(&self, device: &D, x: &Tensor<D>) -> D::Buffer {
        let mut o = self.output(device, x);
        device.network(self.network(), x.grid, &x.data, &mut o);
        o
    }

    fn run_saving(&self, device: &D, network: &D::Network, x: &Tensor<D>) -> Activations<D> {
        let mut o = self.output(device, x);
        let hidden = device.network_saving(network, x.grid, &x.data, &mut o);
        Activations { hidden, o }
    }
}

impl<D: CouplingNetwork + ops::Coupling> Prepared<D> for Ready<D> {
    fn forward(&self, cx: &Context<'_, D>, state: &mut State<D>, save: Save) -> Saved {
        let (device, x) = (cx.device, &mut state.x);
        let couple = |o: &D::Buffer, x: &mut Tensor<D>, logp: &mut D::Buffer| {
            device.couple(self.kind, x.grid, x.channels, o, &mut x.data, logp);
        };
        match save {
            Save::Minimum => {
                couple(&self.run(device, x), x, &mut state.logp);
                Saved::NOTHING
            }
            Save::Activations => {
                let activations = self.run_saving(device, self.network(), x);
                couple(&activations.o, x, &mut state.logp);
                Saved::new(activations)
            }
        }
    }

    fn inverse(&self, cx: &Context<'_, D>, state: &mut State<D>) {
        let x = &mut state.x;
        let o = self.run(cx.device, x);
        cx.device.uncouple(self.kind, x.channels, &o, &mut x.data);
    }

    fn backward(&self, pass: &mut BackwardPass<'_, D>, saved: Saved) {
        let BackwardPass { cx: Context { device, params, .. }, state, dx, dlogp, gradient, .. } = pass;
        let x = &mut state.x;
        let Activations { hidden, o } = saved.take().unwrap_or_else(|| {
            let network = device.prepare_network(&self.at, params);
            self.run_saving(device, &network, x)
        });
        let mut d_o = self.output(device, x);
        device.couple_backward(self.kind, x.channels, &o, &mut x.data, dx, *dlogp, &mut d_o);
        device.network_backward(&self.at, params, x.grid, &x.data, &hidden, &d_o, dx, gradient);
    }
}
