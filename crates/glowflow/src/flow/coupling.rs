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

use super::{Backward, Kept, Layer, Prepared, State, Tensor};

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
            // Where activations were kept, the network does not run again.
            Direction::Backward => Box::new(Ready::<D> { kind, at, network: None }),
        }
    }

    fn initialize(&self, device: &D, params: &mut D::Buffer, input: &State<D>) {
        device.initialize_network(&self.network, input.x.grid, &input.x.data, params);
    }
}

struct Ready<D: Device> {
    kind: CouplingKind,
    at: NetworkParams,
    /// Absent on the way back.
    network: Option<D::Network>,
}

impl<D: Device> Ready<D> {
    fn network(&self) -> &D::Network {
        match &self.network {
            Some(network) => network,
            None => panic!("a coupling made ready for the way back does not run its network"),
        }
    }

    /// Room for the network's output on `x`.
    fn output(&self, device: &D, x: &Tensor<D>) -> D::Buffer {
        device.scratch(x.grid.rows() * self.at.conv3.outputs)
    }

    fn run(&self, device: &D, x: &Tensor<D>) -> D::Buffer {
        let mut o = self.output(device, x);
        device.network(self.network(), x.grid, &x.data, &mut o);
        o
    }

    fn run_keeping(&self, device: &D, network: &D::Network, x: &Tensor<D>) -> Kept<D> {
        let mut o = self.output(device, x);
        let hidden = device.network_keeping(network, x.grid, &x.data, &mut o);
        Kept { hidden, o }
    }
}

impl<D: Device> Prepared<D> for Ready<D> {
    fn forward(&self, device: &D, state: &mut State<D>) {
        let x = &mut state.x;
        let o = self.run(device, x);
        device.couple(self.kind, x.grid, x.channels, &o, &mut x.data, &mut state.logp);
    }

    fn inverse(&self, device: &D, state: &mut State<D>) {
        let x = &mut state.x;
        let o = self.run(device, x);
        device.uncouple(self.kind, x.channels, &o, &mut x.data);
    }

    fn forward_keeping(&self, device: &D, state: &mut State<D>) -> Option<Kept<D>> {
        let x = &mut state.x;
        let kept = self.run_keeping(device, self.network(), x);
        device.couple(self.kind, x.grid, x.channels, &kept.o, &mut x.data, &mut state.logp);
        Some(kept)
    }

    fn backward(&self, pass: &mut Backward<'_, D>, kept: Option<Kept<D>>) {
        let Backward { device, params, state, dx, dlogp, gradient } = pass;
        let x = &mut state.x;
        let Kept { hidden, o } = kept.unwrap_or_else(|| {
            let network = device.prepare_network(&self.at, params);
            self.run_keeping(device, &network, x)
        });
        let mut d_o = self.output(device, x);
        device.couple_backward(self.kind, x.channels, &o, &mut x.data, dx, *dlogp, &mut d_o);
        device.network_backward(&self.at, params, x.grid, &x.data, &hidden, &d_o, dx, gradient);
    }
}
