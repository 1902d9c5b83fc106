//! Coupling: the first half of the channels passes, and a network of it changes the last half.
//!
//! ```text
//! affine     o = NN(x_a), s = sigmoid(o[C/2..] + 2)   y_b = (x_b + o[..C/2]) ⊙ s   log|det| = Σ log s
//! additive   o = NN(x_a)                              y_b = x_b + o                log|det| = 0
//! ```
//!
//! `NN` = conv3×3 → actnorm → ReLU → conv1×1 → actnorm → ReLU → ZeroConv. Its input is not changed by the layer, so
//! one run of it gives both the inverse and what the gradient needs (Dinh, Krueger and Bengio 2014; Dinh,
//! Sohl-Dickstein and Bengio 2016).

use glowflow_kernels::{CouplingKind, Device, Direction, NetworkParams};

use super::{BackwardPass, Layer, Prepared, Save, Saved, State, Tensor};

/// An affine or additive coupling.
#[derive(Clone, Copy, Debug)]
pub struct Coupling {
    /// How the network's output is used.
    pub kind: CouplingKind,
    /// Where the network's parameters are.
    pub network: NetworkParams,
}

impl<D: Device> Layer<D> for Coupling {
    fn prepare(&self, device: &D, params: &D::Buffer, direction: Direction) -> Box<dyn Prepared<D>> {
        let Self { kind, network: at } = *self;
        match direction {
            Direction::Forward | Direction::Inverse => {
                Box::new(Ready::<D> { kind, at, network: Some(device.prepare_network(&at, params)) })
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
struct Activations<D: Device> {
    hidden: D::Hidden,
    /// The network's output.
    o: D::Buffer,
}

struct Ready<D: Device> {
    kind: CouplingKind,
    at: NetworkParams,
    /// Absent in the backward pass.
    network: Option<D::Network>,
}

impl<D: Device> Ready<D> {
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
        let hidden = device.network_keeping(network, x.grid, &x.data, &mut o);
        Activations { hidden, o }
    }
}

impl<D: Device> Prepared<D> for Ready<D> {
    fn forward(&self, device: &D, state: &mut State<D>, save: Save) -> Saved {
        let x = &mut state.x;
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

    fn inverse(&self, device: &D, state: &mut State<D>) {
        let x = &mut state.x;
        let o = self.run(device, x);
        device.uncouple(self.kind, x.channels, &o, &mut x.data);
    }

    fn backward(&self, pass: &mut BackwardPass<'_, D>, saved: Saved) {
        let BackwardPass { device, params, state, dx, dlogp, gradient } = pass;
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
