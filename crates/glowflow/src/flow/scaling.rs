//! NICE's diagonal scaling (Dinh, Krueger and Bengio 2014, section 3.3): `h_j = exp(log_s_j)·x_j` for each
//! dimension, `log|det| = Σ_j log_s_j`.

use glowflow_kernels::expr::{constant, input, old};
use glowflow_kernels::{Direction, Primitives, Span};

use super::views::{Dims, PER_IMAGE, of_span, per_channel, read, scalar, write};
use super::{BackwardPass, Context, Layer, Prepared, Save, Saved, Shape, Shapes, State, Tensor};
use crate::params::{Init, ParamBuilder};

/// A scale for each dimension.
#[derive(Clone, Copy, Debug)]
pub struct Scaling {
    log_s: Span,
}

impl Scaling {
    /// Declares `log_s`, 0, for images of `dimensions` numbers.
    pub fn new(p: &mut ParamBuilder<'_>, dimensions: usize) -> Self {
        Self { log_s: p.parameter("log_s", &[dimensions], Init::Zeros) }
    }

    /// Images as rows of numbers.
    fn dims(&self, batch: usize) -> Dims {
        Dims { batch, pixels: 1, channels: self.log_s.len }
    }
}

impl<D: Primitives> Layer<D> for Scaling {
    fn shapes(&self, input: Shape) -> Shapes {
        Shapes::same(input)
    }

    fn prepare(&self, _: &Context<'_, D>, _: Direction) -> Box<dyn Prepared<D>> {
        Box::new(*self)
    }
}

impl<D: Primitives> Prepared<D> for Scaling {
    fn forward(&self, cx: &Context<'_, D>, state: &mut State<D>, _: Save) -> Saved {
        let State { x, logp, .. } = state;
        let (device, dims, log_s) = (cx.device, self.dims(x.grid.batch), of_span(cx.params, self.log_s));
        device.map(&(old() * input(0).exp()), dims.shape(), &[log_s], write(&mut x.data, dims.each()));
        let mut log_det = device.scratch(1);
        device.reduce(&input(0), [1, 1, dims.channels], &[log_s], write(&mut log_det, scalar(0)), false);
        let log_det = read(&log_det, scalar(0));
        device.map(&(old() + input(0)), [dims.batch, 1, 1], &[log_det], write(logp, PER_IMAGE));
        Saved::NOTHING
    }

    fn inverse(&self, cx: &Context<'_, D>, state: &mut State<D>) {
        let Tensor { grid, data, .. } = &mut state.x;
        let (dims, log_s) = (self.dims(grid.batch), of_span(cx.params, self.log_s));
        cx.device.map(&(old() * (-input(0)).exp()), dims.shape(), &[log_s], write(data, dims.each()));
    }

    fn backward(&self, pass: &mut BackwardPass<'_, D>, _: Saved) {
        let BackwardPass { cx, state, dx, dlogp, gradient, .. } = pass;
        let (device, dims) = (cx.device, self.dims(state.x.grid.batch));
        let log_s = of_span(cx.params, self.log_s);
        // d log_s_j = Σ dh_j·h_j + dlogp, over the samples.
        let (dh, h) = (read(&*dx, dims.each()), read(&state.x.data, dims.each()));
        let by_log_s = input(0) * input(1) + constant(*dlogp);
        let to = write(&mut **gradient, per_channel(self.log_s.start));
        device.reduce(&by_log_s, dims.shape(), &[dh, h], to, true);
        device.map(&(old() * input(0).exp()), dims.shape(), &[log_s], write(dx, dims.each()));
        self.inverse(cx, state);
    }
}
