//! Coupling: the first half of the channels passes, and a network of it changes the last half.
//!
//! ```text
//! affine     o = NN(x_a), s = scale(o[C/2..])   y_b = (x_b + o[..C/2]) ⊙ s   log|det| = Σ log s
//! additive   o = NN(x_a)                        y_b = x_b + o                log|det| = 0
//! ```
//!
//! The scale of `r` is `sigmoid(r + 2)`, or `exp(2·tanh(r/2))`, which is 1 for a new network.
//!
//! `NN` is a [network](super::NetworkKind). Its input is not changed by the layer, so one run of it gives both the inverse
//! and what the gradient needs (Dinh, Krueger and Bengio 2014; Dinh, Sohl-Dickstein and Bengio 2016).

use glowflow_kernels::ops::{self, CouplingNetwork, ResidualNetwork};
use glowflow_kernels::{CouplingKind, Direction, NetworkOutputs};

use super::network::{Activations, Network, OutputChannels, Weights};
use super::{BackwardPass, Context, Layer, NetworkKind, Prepared, Save, Saved, Shape, Shapes, State, Tensor};
use crate::params::ParamBuilder;

/// An affine or additive coupling.
#[derive(Clone, Debug)]
pub struct Coupling {
    kind: CouplingKind,
    network: Network,
}

impl Coupling {
    /// Declares a convolutional network's tensors for a flow of `channels` channels.
    pub fn new(p: &mut ParamBuilder<'_>, channels: usize, hidden: usize, kind: CouplingKind) -> Self {
        Self::with_network(p, channels, NetworkKind::Convolutions { hidden }, kind)
    }

    /// Declares the tensors of any network for a flow of `channels` channels.
    pub fn with_network(
        p: &mut ParamBuilder<'_>,
        channels: usize,
        network: NetworkKind,
        kind: CouplingKind,
    ) -> Self {
        let outputs = OutputChannels { conv: kind.network_outputs(channels), head: 0 };
        Self { kind, network: Network::new(p, channels, network, outputs) }
    }
}

impl<D: CouplingNetwork + ResidualNetwork + ops::Coupling> Layer<D> for Coupling {
    fn shapes(&self, input: Shape) -> Shapes {
        Shapes::same(input)
    }

    fn activations(&self, input: Shape) -> usize {
        self.network.activations() * input.pixels()
    }

    fn multiply_adds(&self, input: Shape) -> u128 {
        self.network.multiply_adds(input)
    }

    fn prepare(&self, cx: &Context<'_, D>, direction: Direction) -> Box<dyn Prepared<D>> {
        let weights = match direction {
            Direction::Forward | Direction::Inverse => Some(self.network.prepare(cx)),
            // With saved activations, the network does not run again.
            Direction::Backward => None,
        };
        Box::new(Ready::<D> { layer: self.clone(), weights })
    }

    fn initialize(&self, device: &D, params: &mut D::Buffer, input: &State<D>) {
        self.network.initialize(device, params, &input.x);
    }
}

struct Ready<D: CouplingNetwork + ResidualNetwork> {
    layer: Coupling,
    /// Absent in the backward pass.
    weights: Option<Weights<D>>,
}

/// Outputs and activations of the network, saved so that the backward pass need not run it again.
type SavedNetwork<D> = (NetworkOutputs<<D as glowflow_kernels::Device>::Buffer>, Activations<D>);

impl<D: CouplingNetwork + ResidualNetwork + ops::Coupling> Ready<D> {
    fn weights(&self) -> &Weights<D> {
        match &self.weights {
            Some(weights) => weights,
            None => panic!("a coupling prepared for the backward pass does not run its network"),
        }
    }

    fn couple(&self, device: &D, outputs: &NetworkOutputs<D::Buffer>, state: &mut State<D>) {
        let x = &mut state.x;
        device.couple(self.layer.kind, x.grid, x.channels, &outputs.o, &mut x.data, &mut state.logp);
    }

    fn uncouple(&self, device: &D, outputs: &NetworkOutputs<D::Buffer>, x: &mut Tensor<D>) {
        device.uncouple(self.layer.kind, x.channels, &outputs.o, &mut x.data);
    }

    /// Turns the output into the input and `dx` likewise, but for what flows through the network; returns the gradient by
    /// the network's outputs.
    fn couple_backward(
        &self,
        device: &D,
        outputs: &NetworkOutputs<D::Buffer>,
        x: &mut Tensor<D>,
        dx: &mut D::Buffer,
        dlogp: f64,
    ) -> NetworkOutputs<D::Buffer> {
        let mut d_outputs = self.layer.network.outputs(device, x.grid);
        let (kind, d_o) = (self.layer.kind, &mut d_outputs.o);
        device.couple_backward(kind, x.channels, &outputs.o, &mut x.data, dx, dlogp, d_o);
        d_outputs
    }
}

impl<D: CouplingNetwork + ResidualNetwork + ops::Coupling> Prepared<D> for Ready<D> {
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
