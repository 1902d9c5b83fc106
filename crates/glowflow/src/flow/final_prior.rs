//! The end of the flow: all remaining channels become the last latents.
//!
//! The final prior is a Gaussian with a learned mean and log standard deviation per channel, plus
//! `one_hot(y) @ class_weight` if the model has classes. With an edge term both also depend on the distance
//! to the border: a 3×3 convolution `edge` `[2·channels, 1, 3, 3]` of the edge channel is added to
//! `(mean, logs)`.

use glowflow_kernels::ops::{self, Gaussian};
use glowflow_kernels::{Direction, FinalPriorParams};

use super::edge_prior::EdgePrior;
use super::{BackwardPass, Base, Context, Layer, Prepared, Save, Saved, Shape, Shapes, State, Tensor};
use crate::params::{Init, ParamBuilder};

/// Factors out all channels.
#[derive(Clone, Copy, Debug)]
pub struct FinalPrior {
    prior: FinalPriorParams,
    edge: Option<EdgePrior>,
}

impl FinalPrior {
    /// Declares `mean` and `logs`, and `class_weight` if there are classes, all 0, for a flow of `channels`
    /// channels.
    pub fn new(p: &mut ParamBuilder<'_>, channels: usize, classes: usize) -> Self {
        let mean = p.parameter("mean", &[channels], Init::Zeros);
        let logs = p.parameter("logs", &[channels], Init::Zeros);
        let class_weight =
            (classes > 0).then(|| p.parameter("class_weight", &[classes, 2 * channels], Init::Zeros));
        Self { prior: FinalPriorParams { channels, mean, logs, class_weight }, edge: None }
    }

    /// Declares the edge term `edge`, 0.
    pub fn with_edge(self, p: &mut ParamBuilder<'_>) -> Self {
        let outputs = 2 * self.prior.channels;
        let edge = p.parameter("edge", &[outputs, 1, 3, 3], Init::Zeros);
        Self { edge: Some(EdgePrior { outputs, edge }), ..self }
    }
}

impl<D: ops::FinalPrior + Gaussian> Layer<D> for FinalPrior {
    fn shapes(&self, input: Shape) -> Shapes {
        Shapes::end(input, Base::Normal)
    }

    fn prepare(&self, cx: &Context<'_, D>, _: Direction) -> Box<dyn Prepared<D>> {
        let top = cx.device.prepare_final_prior(&self.prior, cx.params);
        Box::new(Ready::<D> { at: self.prior, top, edge: self.edge })
    }
}

struct Ready<D: ops::FinalPrior> {
    at: FinalPriorParams,
    top: D::Prior,
    edge: Option<EdgePrior>,
}

impl<D: ops::FinalPrior> Ready<D> {
    /// Mean and log standard deviation `[rows, 2·channels]` for latents with the shape of `like`.
    fn prior(&self, cx: &Context<'_, D>, like: &Tensor<D>, labels: &D::Buffer) -> D::Buffer {
        let mut prior = cx.device.scratch(like.grid.rows() * 2 * like.channels);
        cx.device.final_prior(&self.top, like.grid, labels, &mut prior);
        if let Some(edge) = &self.edge {
            edge.add(cx.device, cx.params, like.grid, &mut prior);
        }
        prior
    }
}

impl<D: ops::FinalPrior + Gaussian> Prepared<D> for Ready<D> {
    fn forward(&self, cx: &Context<'_, D>, state: &mut State<D>, _: Save) -> Saved {
        let device = cx.device;
        let nothing = Tensor { grid: state.x.grid, channels: 0, data: device.scratch(0) };
        let mut z = std::mem::replace(&mut state.x, nothing);
        let prior = self.prior(cx, &z, &state.labels);
        device.standardize(z.grid, z.channels, &prior, &mut z.data, &mut state.logp);
        state.latents.push(z);
        Saved::NOTHING
    }

    fn inverse(&self, cx: &Context<'_, D>, state: &mut State<D>) {
        let device = cx.device;
        let mut eps = state.pop_latents();
        let prior = self.prior(cx, &eps, &state.labels);
        device.unstandardize(eps.channels, &prior, &mut eps.data);
        state.x = eps;
    }

    fn backward(&self, pass: &mut BackwardPass<'_, D>, _: Saved) {
        let BackwardPass { cx, state, dx, dlogp, gradient, .. } = pass;
        let device = cx.device;
        let mut eps = state.pop_latents();
        let prior = self.prior(cx, &eps, &state.labels);
        let mut d_prior = device.scratch(eps.grid.rows() * 2 * eps.channels);
        *dx = device.scratch(eps.grid.rows() * eps.channels);
        device.standardize_backward(eps.channels, &prior, &eps.data, *dlogp, dx, &mut d_prior);
        device.final_prior_backward(&self.at, eps.grid, &state.labels, &d_prior, gradient);
        if let Some(edge) = &self.edge {
            edge.backward(device, eps.grid, &d_prior, gradient);
        }
        device.unstandardize(eps.channels, &prior, &mut eps.data);
        state.x = eps;
    }
}
