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

use super::{Backward, Kept, Layer, Prepared, State};

/// An affine or additive coupling.
#[derive(Clone, Copy, Debug)]
pub struct Coupling {
    /// How the network's output is used.
    pub kind: CouplingKind,
    /// Where the network's parameters are.
    pub network: NetworkParams,
}

impl<D: Device> Layer<D> for Coupling {
    fn prepare(&self, device: &D, params: &D::Buffer, _: Direction) -> Box<dyn Prepared<D>> {
        Box::new(Ready::<D> {
            kind: self.kind,
            outputs: self.network.conv3.outputs,
            network: device.prepare_network(&self.network, params),
        })
    }

    fn backward(&self, pass: &mut Backward<'_, D>, kept: Option<Kept<D>>) {
        let Backward { device, params, state, dx, dlogp, gradient } = pass;
        let x = &mut state.x;
        let outputs = x.grid.rows() * self.network.conv3.outputs;
        let Kept { hidden, o } = kept.unwrap_or_else(|| {
            let network = device.prepare_network(&self.network, params);
            let mut o = device.scratch(outputs);
            let hidden = device.network_keeping(&network, x.grid, &x.data, &mut o);
            Kept { hidden, o }
        });
        let mut d_o = device.scratch(outputs);
        device.couple_backward(self.kind, x.channels, &o, &mut x.data, dx, *dlogp, &mut d_o);
        device.network_backward(&self.network, params, x.grid, &x.data, &hidden, &d_o, dx, gradient);
    }

    fn initialize(&self, device: &D, params: &mut D::Buffer, input: &State<D>) {
        device.initialize_network(&self.network, input.x.grid, &input.x.data, params);
    }
}

struct Ready<D: Device> {
    kind: CouplingKind,
    outputs: usize,
    network: D::Network,
}

impl<D: Device> Prepared<D> for Ready<D> {
    fn forward(&self, device: &D, state: &mut State<D>) {
        let x = &mut state.x;
        let mut o = device.scratch(x.grid.rows() * self.outputs);
        device.network(&self.network, x.grid, &x.data, &mut o);
        device.couple(self.kind, x.grid, x.channels, &o, &mut x.data, &mut state.logp);
    }

    fn inverse(&self, device: &D, state: &mut State<D>) {
        let x = &mut state.x;
        let mut o = device.scratch(x.grid.rows() * self.outputs);
        device.network(&self.network, x.grid, &x.data, &mut o);
        device.uncouple(self.kind, x.channels, &o, &mut x.data);
    }

    fn forward_keeping(&self, device: &D, state: &mut State<D>) -> Option<Kept<D>> {
        let x = &mut state.x;
        let mut o = device.scratch(x.grid.rows() * self.outputs);
        let hidden = device.network_keeping(&self.network, x.grid, &x.data, &mut o);
        device.couple(self.kind, x.grid, x.channels, &o, &mut x.data, &mut state.logp);
        Some(Kept { hidden, o })
    }
}
