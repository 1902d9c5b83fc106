//! Coupling networks in the precision of the device: in that of its scalars, or with matrices in a shorter format.
//!
//! Weights, biases, gradients, and what goes in and out, are in the device's scalars either way. A network gives the same bits
//! whenever it is given the same, so that a coupling is as invertible in one precision as in the other.

use super::Cpu;
use super::network::{self, Hidden as HiddenIn, Network as NetworkIn};
use crate::real::Real;
use crate::shape::{Grid, NetworkParams};

/// Precision of the products in coupling networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// That of the scalars.
    #[default]
    F32,
    /// Matrices in bf16, sums in `f32`.
    Bf16,
}

/// A coupling network, ready to run.
pub enum Network<T: Real> {
    /// In the device's scalars.
    Full(NetworkIn<T>),
    /// In the shorter format.
    Narrow(NetworkIn<T::Narrow>),
}

/// The hidden activations of a network.
pub enum Hidden<T: Real> {
    /// In the device's scalars.
    Full(HiddenIn<T>),
    /// In the shorter format.
    Narrow(HiddenIn<T::Narrow>),
}

impl<T: Real> Network<T> {
    pub(super) fn prepare(cpu: &Cpu<T>, at: &NetworkParams, params: &[T]) -> Self {
        match &cpu.narrow {
            None => Self::Full(NetworkIn::prepare(&cpu.work, at, params)),
            Some(narrow) => Self::Narrow(NetworkIn::prepare(narrow, at, params)),
        }
    }

    pub(super) fn run(&self, grid: Grid, x: &[T], o: &mut [T]) {
        match self {
            Self::Full(network) => network.run(grid, x, o),
            Self::Narrow(network) => network.run(grid, x, o),
        }
    }

    pub(super) fn run_keeping(&self, grid: Grid, x: &[T], o: &mut [T]) -> Hidden<T> {
        match self {
            Self::Full(network) => Hidden::Full(network.run_keeping(grid, x, o)),
            Self::Narrow(network) => Hidden::Narrow(network.run_keeping(grid, x, o)),
        }
    }
}

impl<T: Real> Hidden<T> {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn backward(
        &self,
        at: &NetworkParams,
        params: &[T],
        grid: Grid,
        x: &[T],
        d_o: &[T],
        dx: &mut [T],
        gradient: &mut [T],
    ) {
        match self {
            Self::Full(hidden) => network::backward(at, params, grid, x, hidden, d_o, dx, gradient),
            Self::Narrow(hidden) => network::backward(at, params, grid, x, hidden, d_o, dx, gradient),
        }
    }
}
