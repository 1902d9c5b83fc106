//! The end of the flow: all channels that are left become the last latents.
//!
//! Their prior is a Gaussian with a learned mean and log standard deviation for each channel, plus
//! `one_hot(y) @ class_weight` where the model has classes.

use glowflow_kernels::ops::{Gaussian, TopPrior};
use glowflow_kernels::{Direction, TopPriorParams};

use super::{BackwardPass, Base, Context, Layer, Prepared, Save, Saved, Shape, Shapes, State, Tensor};
use crate::params::{Init, ParamBuilder};

/// Factors out everything.
#[derive(Clone, Copy, Debug)]
pub struct Top {
    prior: TopPriorParams,
}

impl Top {
    /// Declares `mean` and `logs`, and `class_weight` if there are classes, all 0, for a flow of `channels` channels.
    pub fn new(p: &mut ParamBuilder<'_>, channels: usize, classes: usize) -> Self {
        let mean = p.parameter("mean", &[channels], Init::Zeros);
        let logs = p.parameter("logs", &[channels], Init::Zeros);
        let class_weight =
            (classes > 0).then(|| p.parameter("class_weight", &[classes, 2 * channels], Init::Zeros));
        Self { prior: TopPriorParams { channels, mean, logs, class_weight } }
    }
}

/// Mean and log standard deviation `[rows, 2·channels]` for latents like `like`.
fn prior<D: TopPrior>(device: &D, top: &D::Prior, like: &Tensor<D>, labels: &D::Buffer) -> D::Buffer {
    let mut prior = device.scratch(like.grid.rows() * 2 * like.channels);
    device.top_prior(top, like.grid, labels, &mut prior);
    prior
}

impl<D: TopPrior + Gaussian> Layer<D> for Top {
    fn shapes(&self, input: Shape) -> Shapes {
        Shapes::end(input, Base::Normal)
    }

    fn prepare(&self, cx: &Context<'_, D>, _: Direction) -> Box<dyn Prepared<D>> {
        Box::new(Ready::<D> { at: self.prior, top: cx.device.prepare_top_prior(&self.prior, cx.params) })
    }
}

struct Ready<D: TopPrior> {
    at: TopPriorParams,
    top: D::Prior,
}

impl<D: TopPrior + Gaussian> Prepared<D> for Ready<D> {
    fn forward(&self, cx: &Context<'_, D>, state: &mut State<D>, _: Save) -> Saved {
        let device = cx.device;
        let nothing = Tensor { grid: state.x.grid, channels: 0, data: device.scratch(0) };
        let mut z = std::mem::replace(&mut state.x, nothing);
        let prior = prior(device, &self.top, &z, &state.labels);
        device.standardize(z.grid, z.channels, &prior, &mut z.data, &mut state.logp);
        state.latents.push(z);
        Saved::NOTHING
    }

    fn inverse(&self, cx: &Context<'_, D>, state: &mut State<D>) {
        let device = cx.device;
        let mut eps = state.pop_latents();
        let prior = prior(device, &self.top, &eps, &state.labels);
        device.unstandardize(eps.channels, &prior, &mut eps.data);
        state.x = eps;
    }

    fn backward(&self, pass: &mut BackwardPass<'_, D>, _: Saved) {
        let BackwardPass { cx: Context { device, .. }, state, dx, dlogp, gradient, .. } = pass;
        let mut eps = state.pop_latents();
        let prior = prior(*device, &self.top, &eps, &state.labels);
        let mut d_prior = device.scratch(eps.grid.rows() * 2 * eps.channels);
        *dx = device.scratch(eps.grid.rows() * eps.channels);
        device.standardize_backward(eps.channels, &prior, &eps.data, *dlogp, dx, &mut d_prior);
        device.top_prior_backward(&self.at, eps.grid, &state.labels, &d_prior, gradient);
        device.unstandardize(eps.channels, &prior, &mut eps.data);
        state.x = eps;
    }
}
