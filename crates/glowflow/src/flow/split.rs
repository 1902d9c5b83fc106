//! Split: half of the channels continue, the others become latents.
//!
//! `x = (h, z)`; `(mean, logs) = ZeroConv(h)`; `eps = (z − mean)·exp(−logs)`, and
//! `log N(z; mean, exp(logs)²)` is added to the log-likelihood (Dinh et al. 2016, section 3.6; Kingma and
//! Dhariwal 2018, section 3).

use glowflow_kernels::ops::{self, Gaussian, ZeroConv};
use glowflow_kernels::{Direction, ZeroConvParams};

use super::network::{zero_conv, zero_conv_multiply_adds};
use super::{
    BackwardPass, Base, Context, LatentShape, Layer, Prepared, Save, Saved, Shape, Shapes, State, Tensor,
};
use crate::params::ParamBuilder;

/// Factors out the last half of the channels.
#[derive(Clone, Copy, Debug)]
pub struct Split {
    prior: ZeroConvParams,
}

impl Split {
    /// Declares the prior's tensors for a flow of `channels` channels.
    pub fn new(p: &mut ParamBuilder<'_>, channels: usize) -> Self {
        Self { prior: zero_conv(p, channels / 2, channels) }
    }
}

impl<D: ops::Split + ZeroConv + Gaussian> Layer<D> for Split {
    fn shapes(&self, input: Shape) -> Shapes {
        let half = Shape { channels: input.channels / 2, ..input };
        Shapes { output: half, latents: Some(LatentShape { shape: half, base: Base::Normal }) }
    }

    fn multiply_adds(&self, input: Shape) -> u128 {
        zero_conv_multiply_adds(&self.prior, input)
    }

    fn prepare(&self, cx: &Context<'_, D>, _: Direction) -> Box<dyn Prepared<D>> {
        Box::new(Ready::<D> { at: self.prior, prior: cx.device.prepare_zero_conv(&self.prior, cx.params) })
    }
}

struct Ready<D: ZeroConv> {
    at: ZeroConvParams,
    prior: D::Weights,
}

/// Mean and log standard deviation of the latents, given the channels that continue.
fn conditional<D: ZeroConv>(device: &D, prior: &D::Weights, h: &Tensor<D>) -> D::Buffer {
    let mut out = device.scratch(h.grid.rows() * 2 * h.channels);
    device.zero_conv(prior, h.grid, &h.data, &mut out);
    out
}

fn joined<D: ops::Split>(device: &D, h: &Tensor<D>, z: &D::Buffer) -> Tensor<D> {
    let mut x = device.scratch(h.grid.rows() * 2 * h.channels);
    device.join(2 * h.channels, &h.data, z, &mut x);
    Tensor { grid: h.grid, channels: 2 * h.channels, data: x }
}

impl<D: ops::Split + ZeroConv + Gaussian> Prepared<D> for Ready<D> {
    fn forward(&self, cx: &Context<'_, D>, state: &mut State<D>, _: Save) -> Saved {
        let device = cx.device;
        let Tensor { grid, channels, data } = &state.x;
        let (grid, half) = (*grid, channels / 2);
        let mut h = device.scratch(grid.rows() * half);
        let mut z = device.scratch(grid.rows() * half);
        device.split(*channels, data, &mut h, &mut z);
        state.x = Tensor { grid, channels: half, data: h };
        let prior = conditional(device, &self.prior, &state.x);
        device.standardize(grid, half, &prior, &mut z, &mut state.logp);
        state.latents.push(Tensor { grid, channels: half, data: z });
        Saved::NOTHING
    }

    fn inverse(&self, cx: &Context<'_, D>, state: &mut State<D>) {
        let device = cx.device;
        let mut eps = state.pop_latents();
        let prior = conditional(device, &self.prior, &state.x);
        device.unstandardize(eps.channels, &prior, &mut eps.data);
        state.x = joined(device, &state.x, &eps.data);
    }

    fn backward(&self, pass: &mut BackwardPass<'_, D>, _: Saved) {
        let BackwardPass { cx: Context { device, params, .. }, state, dx, dlogp, gradient, .. } = pass;
        let mut eps = state.pop_latents();
        let (grid, half) = (state.x.grid, state.x.channels);
        let prior = conditional::<D>(device, &self.prior, &state.x);

        let mut dz = device.scratch(grid.rows() * half);
        let mut d_prior = device.scratch(grid.rows() * 2 * half);
        device.standardize_backward(half, &prior, &eps.data, *dlogp, &mut dz, &mut d_prior);
        device.zero_conv_backward(&self.at, params, grid, &state.x.data, &d_prior, dx, gradient);
        device.unstandardize(half, &prior, &mut eps.data);

        state.x = joined(*device, &state.x, &eps.data);
        let mut joined_dx = device.scratch(grid.rows() * 2 * half);
        device.join(2 * half, dx, &dz, &mut joined_dx);
        *dx = joined_dx;
    }
}
