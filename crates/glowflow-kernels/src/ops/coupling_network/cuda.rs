//! Coupling networks on a GPU: as products over parts of a batch ([`network`]), or in one kernel if the GPU
//! supports it ([`fused`]).

mod back;
mod fused;
mod hidden;
mod network;
mod weights;

use self::back::Hidden;
use self::network::Network;
use super::{CouplingNetwork, NetworkParams};
use crate::cuda::lengths::{holds, holds_parameters};
use crate::cuda::{Buffer, Cuda};
use crate::shape::Grid;

impl CouplingNetwork for Cuda {
    type Network = Option<Network>;
    type Hidden = Option<Hidden>;

    fn prepare_network(&self, at: &NetworkParams, params: &Buffer) -> Option<Network> {
        holds_parameters(params, at);
        self.make_ready(|queue| Network::prepare(queue, at, params)).flatten()
    }

    fn network(&self, network: &Option<Network>, grid: Grid, x: &Buffer, o: &mut Buffer) {
        let Some(network) = network else { return };
        let (inputs, outputs) = network.ends();
        holds("x", x, grid.rows() * 2 * inputs);
        holds("o", o, grid.rows() * outputs);
        self.attempt(|queue| network.run(queue, grid, x.address(), o.address()));
    }

    fn network_saving(
        &self,
        network: &Option<Network>,
        grid: Grid,
        x: &Buffer,
        o: &mut Buffer,
    ) -> Option<Hidden> {
        let network = network.as_ref()?;
        let (inputs, outputs) = network.ends();
        holds("x", x, grid.rows() * 2 * inputs);
        holds("o", o, grid.rows() * outputs);
        self.attempt(|queue| network.run_saving(queue, grid, x.address(), o.address()))
    }

    fn network_backward(
        &self,
        at: &NetworkParams,
        params: &Buffer,
        grid: Grid,
        _: &Buffer,
        hidden: &Option<Hidden>,
        d_o: &Buffer,
        dx: &mut Buffer,
        gradient: &mut Buffer,
    ) {
        holds_parameters(params, at);
        holds_parameters(gradient, at);
        holds("d_o", d_o, grid.rows() * at.conv3.outputs);
        holds("dx", dx, grid.rows() * 2 * at.inputs);
        let Some(hidden) = hidden else { return };
        assert!(hidden.are_of(at, grid), "hidden activations of another network, or on another grid");
        self.attempt(|queue| hidden.backward(queue, at, params, grid, d_o, dx.address(), gradient));
    }

    fn initialize_network(&self, at: &NetworkParams, grid: Grid, x: &Buffer, params: &mut Buffer) {
        holds_parameters(params, at);
        holds("x", x, grid.rows() * 2 * at.inputs);
        self.attempt(|queue| network::initialize(queue, at, grid, x.address(), params.address()));
    }
}
