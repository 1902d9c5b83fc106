//! Coupling networks in the device's precision: that of its scalars, or with matrices in a shorter format.
//!
//! Weights, biases, gradients, inputs and outputs are in the device's scalars in both cases. Equal inputs
//! give equal bits, so a coupling is as invertible in one precision as in the other.

mod network;

use self::network::{Hidden as HiddenIn, Network as NetworkIn};
use super::{CouplingNetwork, HeadedNetwork, HeadedNetworkParams, NetworkParams};
use crate::cpu::{Buffer, Cpu, Scalar};
use crate::ops::network_outputs::head;
use crate::ops::{HeadParams, NetworkOutputs};
use crate::shape::Grid;

/// A coupling network, ready to run.
pub enum Network<T: Scalar> {
    /// In the device's scalars.
    Full(NetworkIn<T>),
    /// In the shorter format.
    Narrow(NetworkIn<T::Narrow>),
}

/// The hidden activations of a network.
pub enum Hidden<T: Scalar> {
    /// In the device's scalars.
    Full(HiddenIn<T>),
    /// In the shorter format.
    Narrow(HiddenIn<T::Narrow>),
}

impl<T: Scalar> Network<T> {
    fn prepare(cpu: &Cpu<T>, at: &NetworkParams, head: Option<HeadParams>, params: &[T]) -> Self {
        match &cpu.narrow {
            None => Self::Full(NetworkIn::prepare(&cpu.work, at, head, params)),
            Some(narrow) => Self::Narrow(NetworkIn::prepare(narrow, at, head, params)),
        }
    }

    fn run(&self, grid: Grid, x: &[T], o: &mut [T], head: &mut [T]) {
        match self {
            Self::Full(network) => network.run(grid, x, o, head),
            Self::Narrow(network) => network.run(grid, x, o, head),
        }
    }

    fn run_saving(&self, grid: Grid, x: &[T], o: &mut [T], head: &mut [T]) -> Hidden<T> {
        match self {
            Self::Full(network) => Hidden::Full(network.run_saving(grid, x, o, head)),
            Self::Narrow(network) => Hidden::Narrow(network.run_saving(grid, x, o, head)),
        }
    }
}

impl<T: Scalar> Hidden<T> {
    #[allow(clippy::too_many_arguments)]
    fn backward(
        &self,
        at: &NetworkParams,
        head: Option<HeadParams>,
        params: &[T],
        grid: Grid,
        x: &[T],
        d_o: &[T],
        d_head: &[T],
        dx: &mut [T],
        gradient: &mut [T],
    ) {
        match self {
            Self::Full(hidden) => {
                network::backward(at, head, params, grid, x, hidden, d_o, d_head, dx, gradient);
            }
            Self::Narrow(hidden) => {
                network::backward(at, head, params, grid, x, hidden, d_o, d_head, dx, gradient);
            }
        }
    }
}

impl<T: Scalar> CouplingNetwork for Cpu<T> {
    type Network = Network<T>;
    type Hidden = Hidden<T>;

    fn prepare_network(&self, at: &NetworkParams, params: &Buffer<T>) -> Network<T> {
        Network::prepare(self, at, None, params)
    }

    fn network(&self, network: &Network<T>, grid: Grid, x: &Buffer<T>, o: &mut Buffer<T>) {
        network.run(grid, x, o, &mut []);
    }

    fn network_saving(
        &self,
        network: &Network<T>,
        grid: Grid,
        x: &Buffer<T>,
        o: &mut Buffer<T>,
    ) -> Hidden<T> {
        network.run_saving(grid, x, o, &mut [])
    }

    fn network_backward(
        &self,
        at: &NetworkParams,
        params: &Buffer<T>,
        grid: Grid,
        x: &Buffer<T>,
        hidden: &Hidden<T>,
        d_o: &Buffer<T>,
        dx: &mut Buffer<T>,
        gradient: &mut Buffer<T>,
    ) {
        hidden.backward(at, None, params, grid, x, d_o, &[], dx, gradient);
    }

    fn initialize_network(&self, at: &NetworkParams, grid: Grid, x: &Buffer<T>, params: &mut Buffer<T>) {
        network::initialize(&self.work, at, grid, x, params);
    }
}

/// Both outputs of a network.
///
/// # Panics
/// If it has no head.
fn both<B>(outputs: &mut NetworkOutputs<B>) -> (&mut B, &mut B) {
    match outputs {
        NetworkOutputs { o, head: Some(head) } => (o, head),
        NetworkOutputs { head: None, .. } => panic!("the network has no head"),
    }
}

impl<T: Scalar> HeadedNetwork for Cpu<T> {
    type HeadedWeights = Network<T>;
    type HeadedHidden = Hidden<T>;

    fn prepare_headed_network(&self, at: &HeadedNetworkParams, params: &Buffer<T>) -> Network<T> {
        Network::prepare(self, &at.network, Some(at.head), params)
    }

    fn headed_network(
        &self,
        _: &HeadedNetworkParams,
        weights: &Network<T>,
        _: &Buffer<T>,
        grid: Grid,
        x: &Buffer<T>,
        outputs: &mut NetworkOutputs<Buffer<T>>,
    ) {
        let (o, head) = both(outputs);
        weights.run(grid, x, o, head);
    }

    fn headed_network_saving(
        &self,
        _: &HeadedNetworkParams,
        weights: &Network<T>,
        _: &Buffer<T>,
        grid: Grid,
        x: &Buffer<T>,
        outputs: &mut NetworkOutputs<Buffer<T>>,
    ) -> Hidden<T> {
        let (o, head) = both(outputs);
        weights.run_saving(grid, x, o, head)
    }

    fn headed_network_backward(
        &self,
        at: &HeadedNetworkParams,
        params: &Buffer<T>,
        grid: Grid,
        x: &Buffer<T>,
        hidden: &Hidden<T>,
        d_outputs: &NetworkOutputs<Buffer<T>>,
        dx: &mut Buffer<T>,
        gradient: &mut Buffer<T>,
    ) {
        let (o, d_head) = (&d_outputs.o, head(d_outputs));
        hidden.backward(&at.network, Some(at.head), params, grid, x, o, d_head, dx, gradient);
    }
}
