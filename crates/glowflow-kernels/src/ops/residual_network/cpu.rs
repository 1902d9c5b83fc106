//! Residual networks in the device's precision, like [`CouplingNetwork`](crate::ops::CouplingNetwork): in its
//! scalars, or with the matrices of products in a narrower format. The attention always uses the scalars.

mod attention;
mod backward;
mod network;
mod rows;

use self::network::{Activations as ActivationsIn, Network};
use super::{ResidualNetwork, ResidualNetworkParams};
use crate::cpu::{Buffer, Cpu, Scalar};
use crate::ops::NetworkOutputs;
use crate::shape::Grid;

/// A network with prepared weights.
pub enum Weights<T: Scalar> {
    /// In the device's scalars.
    Full(Network<T>),
    /// In the narrower format.
    Narrow(Network<T::Narrow>),
}

/// Saved activations of a network.
pub enum Activations<T: Scalar> {
    /// With activations inside products in the device's scalars.
    Full(ActivationsIn<T>),
    /// With activations inside products in the narrower format.
    Narrow(ActivationsIn<T::Narrow>),
}

impl<T: Scalar> ResidualNetwork for Cpu<T> {
    type ResidualWeights = Weights<T>;
    type ResidualActivations = Activations<T>;

    fn prepare_residual_network(&self, at: &ResidualNetworkParams, params: &Buffer<T>) -> Weights<T> {
        match &self.narrow {
            None => Weights::Full(Network::prepare(&self.work, &self.work, at, params)),
            Some(narrow) => Weights::Narrow(Network::prepare(narrow, &self.work, at, params)),
        }
    }

    fn residual_network(
        &self,
        at: &ResidualNetworkParams,
        weights: &Weights<T>,
        params: &Buffer<T>,
        grid: Grid,
        x: &Buffer<T>,
        outputs: &mut NetworkOutputs<Buffer<T>>,
    ) {
        match weights {
            Weights::Full(network) => network.run(at, params, grid, x, outputs),
            Weights::Narrow(network) => network.run(at, params, grid, x, outputs),
        }
    }

    fn residual_network_saving(
        &self,
        at: &ResidualNetworkParams,
        weights: &Weights<T>,
        params: &Buffer<T>,
        grid: Grid,
        x: &Buffer<T>,
        outputs: &mut NetworkOutputs<Buffer<T>>,
    ) -> Activations<T> {
        match weights {
            Weights::Full(network) => Activations::Full(network.run_saving(at, params, grid, x, outputs)),
            Weights::Narrow(network) => Activations::Narrow(network.run_saving(at, params, grid, x, outputs)),
        }
    }

    fn residual_network_backward(
        &self,
        at: &ResidualNetworkParams,
        params: &Buffer<T>,
        grid: Grid,
        x: &Buffer<T>,
        activations: &Activations<T>,
        d_outputs: &NetworkOutputs<Buffer<T>>,
        dx: &mut Buffer<T>,
        gradient: &mut Buffer<T>,
    ) {
        match activations {
            Activations::Full(saved) => {
                backward::backward(at, params, grid, x, saved, d_outputs, dx, gradient);
            }
            Activations::Narrow(saved) => {
                backward::backward(at, params, grid, x, saved, d_outputs, dx, gradient);
            }
        }
    }
}
