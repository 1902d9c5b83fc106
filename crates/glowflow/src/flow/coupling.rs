//! Coupling: the first half of the channels passes unchanged, and a network of it transforms the last half.
//!
//! ```text
//! affine     o = NN(x_a), s = scale(o[C/2..])   y_b = (x_b + o[..C/2]) ⊙ s     log|det| = Σ log s
//! additive   o = NN(x_a)                        y_b = x_b + o                  log|det| = 0
//! mixture    o, head = NN(x_a)                  y_b = t(x_b)·exp(a) + b        log|det| = Σ (log t' + a)
//! ```
//!
//! The scale of `r` is `sigmoid(r + 2)`, or `exp(2·tanh(r/2))`, which is 1 for a new network. For the
//! mixture's t, a and b see [`ops::Mixture`].
//!
//! `NN` is a [network](super::NetworkKind). The layer does not change its input, so one run of it gives both
//! the inverse and the values that the gradient needs (Dinh, Krueger and Bengio 2014; Dinh, Sohl-Dickstein
//! and Bengio 2016).

use glowflow_kernels::ops::{self, Mixture};
use glowflow_kernels::{
    CouplingKind, Device, Direction, Grid, MixtureShape, NetworkOutputs, ResidualNetworkParams,
};

use super::network::{Activations, Network, Networks, OutputChannels, Weights};
use super::{BackwardPass, Context, Layer, NetworkKind, Prepared, Save, Saved, Shape, Shapes, State, Tensor};
use crate::params::ParamBuilder;

/// Element-wise map of the last half of the channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    /// An affine or additive map.
    Linear(CouplingKind),
    /// A bounded mixture of logistic distribution functions.
    Mixture {
        /// Number of components.
        components: usize,
    },
}

impl From<CouplingKind> for Transform {
    fn from(kind: CouplingKind) -> Self {
        Self::Linear(kind)
    }
}

impl Transform {
    /// Network outputs required for a flow of `channels` channels.
    fn outputs(self, channels: usize) -> OutputChannels {
        match self {
            Self::Linear(kind) => OutputChannels { conv: kind.network_outputs(channels), head: 0 },
            Self::Mixture { components } => {
                OutputChannels { conv: channels, head: MixtureShape::head_outputs(channels, components) }
            }
        }
    }
}

/// A coupling.
#[derive(Clone, Debug)]
pub struct Coupling {
    transform: Transform,
    network: Network,
}

impl Coupling {
    /// Declares a convolutional network's tensors for a flow of `channels` channels.
    pub fn new(p: &mut ParamBuilder<'_>, channels: usize, hidden: usize, kind: CouplingKind) -> Self {
        Self::with_network(p, channels, NetworkKind::Convolutions { hidden }, kind.into())
    }

    /// Declares the tensors of any network with the outputs that `transform` requires, for a flow of
    /// `channels` channels.
    pub fn with_network(
        p: &mut ParamBuilder<'_>,
        channels: usize,
        network: NetworkKind,
        transform: Transform,
    ) -> Self {
        Self { transform, network: Network::new(p, channels, network, transform.outputs(channels)) }
    }
}

impl<D: Networks + ops::Coupling + Mixture> Layer<D> for Coupling {
    fn shapes(&self, input: Shape) -> Shapes {
        Shapes::same(input)
    }

    fn activations(&self, input: Shape) -> usize {
        // A head's output is as large as a hidden layer, and so is its gradient.
        let head = self.transform.outputs(input.channels).head;
        (self.network.activations() + 2 * head) * input.pixels()
    }

    fn full_activations(&self, input: Shape) -> usize {
        let head = self.transform.outputs(input.channels).head;
        let network = match &self.network {
            // All except the inputs of `project`.
            Network::Residual(at) => {
                at.activations() - at.blocks.len() * ResidualNetworkParams::expanded(at.width)
            }
            Network::Convolutions(_) | Network::Headed(_) => 0,
        };
        (network + 2 * head) * input.pixels()
    }

    fn multiply_adds(&self, input: Shape) -> u128 {
        self.network.multiply_adds(input)
    }

    fn prepare(&self, cx: &Context<'_, D>, direction: Direction) -> Box<dyn Prepared<D>> {
        let weights = match direction {
            Direction::Forward | Direction::Inverse => Some(self.network.prepare(cx)),
            // With saved activations, the network is not run again.
            Direction::Backward => None,
        };
        Box::new(Ready::<D> { layer: self.clone(), weights })
    }

    fn initialize(&self, device: &D, params: &mut D::Buffer, parts: &[State<D>]) {
        self.network.initialize(device, params, parts);
    }
}

struct Ready<D: Networks> {
    layer: Coupling,
    /// Absent in the backward pass.
    weights: Option<Weights<D>>,
}

/// Outputs and activations of the network, saved so that the backward pass need not run it again.
type SavedNetwork<D> = (NetworkOutputs<<D as Device>::Buffer>, Activations<D>);

impl<D: Networks + ops::Coupling + Mixture> Ready<D> {
    fn weights(&self) -> &Weights<D> {
        match &self.weights {
            Some(weights) => weights,
            None => panic!("a coupling prepared for the backward pass does not run its network"),
        }
    }

    fn couple(&self, device: &D, outputs: &NetworkOutputs<D::Buffer>, state: &mut State<D>) {
        let State { x, logp, .. } = state;
        match self.layer.transform {
            Transform::Linear(kind) => {
                device.couple(kind, x.grid, x.channels, &outputs.o, &mut x.data, logp);
            }
            Transform::Mixture { components } => {
                device.mix(mixture(x.grid, x.channels, components), outputs, &mut x.data, logp);
            }
        }
    }

    fn uncouple(&self, device: &D, outputs: &NetworkOutputs<D::Buffer>, x: &mut Tensor<D>) {
        match self.layer.transform {
            Transform::Linear(kind) => device.uncouple(kind, x.channels, &outputs.o, &mut x.data),
            Transform::Mixture { components } => {
                device.unmix(mixture(x.grid, x.channels, components), outputs, &mut x.data);
            }
        }
    }

    /// Replaces the output by the input, and likewise `dx`, except for the part through the network; returns
    /// the gradients of the network's outputs.
    fn couple_backward(
        &self,
        device: &D,
        outputs: &NetworkOutputs<D::Buffer>,
        x: &mut Tensor<D>,
        dx: &mut D::Buffer,
        dlogp: f64,
    ) -> NetworkOutputs<D::Buffer> {
        let mut d_outputs = self.layer.network.outputs(device, x.grid);
        match self.layer.transform {
            Transform::Linear(kind) => {
                let d_o = &mut d_outputs.o;
                device.couple_backward(kind, x.channels, &outputs.o, &mut x.data, dx, dlogp, d_o);
            }
            Transform::Mixture { components } => {
                let shape = mixture(x.grid, x.channels, components);
                device.mix_backward(shape, outputs, &mut x.data, dx, dlogp, &mut d_outputs);
            }
        }
        d_outputs
    }
}

fn mixture(grid: Grid, channels: usize, components: usize) -> MixtureShape {
    MixtureShape { grid, channels, components }
}

impl<D: Networks + ops::Coupling + Mixture> Prepared<D> for Ready<D> {
    fn forward(&self, cx: &Context<'_, D>, state: &mut State<D>, save: Save) -> Saved {
        let network = &self.layer.network;
        match save {
            Save::Minimum => {
                let outputs = network.run(cx, self.weights(), &state.x);
                self.couple(cx.device, &outputs, state);
                Saved::NOTHING
            }
            Save::Activations => {
                let (outputs, activations) = network.run_saving(cx, self.weights(), &state.x);
                self.couple(cx.device, &outputs, state);
                Saved::new((outputs, activations))
            }
        }
    }

    fn inverse(&self, cx: &Context<'_, D>, state: &mut State<D>) {
        let outputs = self.layer.network.run(cx, self.weights(), &state.x);
        self.uncouple(cx.device, &outputs, &mut state.x);
    }

    fn backward(&self, pass: &mut BackwardPass<'_, D>, saved: Saved) {
        let BackwardPass { cx, state, dx, dlogp, gradient, .. } = pass;
        let (network, x) = (&self.layer.network, &mut state.x);
        let (outputs, activations) = saved
            .take::<SavedNetwork<D>>()
            .unwrap_or_else(|| network.run_saving(cx, &network.prepare(cx), x));
        let d_outputs = self.couple_backward(cx.device, &outputs, x, dx, *dlogp);
        network.backward(cx, x, &activations, &d_outputs, dx, gradient);
    }
}
