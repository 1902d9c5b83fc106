//! Batch normalisation of the flow variable (Dinh, Sohl-Dickstein and Bengio 2016, section 3.7).
//!
//! ```text
//! y = (x − μ)/√(σ² + ε)          log|det| = −½·H·W·Σ log(σ² + ε)
//! ```
//!
//! with mean μ and variance σ² per channel: those of the batch in training mode, running averages in
//! evaluation mode. The batch statistics are saved for the backward pass in either backprop mode, 2 numbers
//! per channel.

use glowflow_kernels::expr::{constant, input, old};
use glowflow_kernels::{Device, Direction, Primitives};

use super::norm::{Running, Statistics};
use super::views::{Dims, PER_IMAGE, per_channel, read, scalar, write};
use super::{BackwardPass, Context, Layer, Mode, Prepared, Save, Saved, Shape, Shapes, State, Tensor};
use crate::params::ParamBuilder;

/// Batch normalisation of every channel.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm {
    running: Running,
}

impl BatchNorm {
    /// Declares `running_mean` and `running_var` for a flow of `channels` channels.
    pub fn new(p: &mut ParamBuilder<'_>, channels: usize) -> Self {
        Self { running: Running::new(p, channels) }
    }
}

impl<D: Primitives> Layer<D> for BatchNorm {
    fn shapes(&self, input: Shape) -> Shapes {
        Shapes::same(input)
    }

    fn prepare(&self, cx: &Context<'_, D>, _: Direction) -> Box<dyn Prepared<D>> {
        let running = (cx.mode == Mode::Eval).then(|| self.running.running(cx));
        Box::new(Ready::<D> { layer: *self, running })
    }
}

struct Ready<D: Device> {
    layer: BatchNorm,
    /// The running statistics, in evaluation mode.
    running: Option<Statistics<D>>,
}

/// `x = y·√(σ² + ε) + μ`.
fn undo<D: Primitives>(cx: &Context<'_, D>, norm: &Statistics<D>, x: &mut Tensor<D>) {
    let dims = Dims::of(x.grid, x.channels);
    let f = old() / input(1) + input(0);
    let inputs = [norm.mean(), norm.inverse_deviation()];
    cx.device.map(&f, dims.shape(), &inputs, write(&mut x.data, dims.each()));
}

impl<D: Primitives> Prepared<D> for Ready<D> {
    fn forward(&self, cx: &Context<'_, D>, state: &mut State<D>, _: Save) -> Saved {
        let State { x, logp, statistics: batch, .. } = state;
        let (device, dims) = (cx.device, Dims::of(x.grid, x.channels));
        let statistics = || self.layer.running.statistics_of(cx, dims, &x.data, Some(batch));
        let own = self.running.is_none().then(statistics);
        let Some(norm) = own.as_ref().or(self.running.as_ref()) else {
            panic!("batch normalisation has running statistics or those of its batch")
        };

        let inputs = [norm.mean(), norm.inverse_deviation()];
        let f = (old() - input(0)) * input(1);
        device.map(&f, dims.shape(), &inputs, write(&mut x.data, dims.each()));

        let mut log_det = device.scratch(1);
        let f = constant(dims.pixels as f64) * input(0).ln();
        device.reduce(&f, [1, 1, dims.channels], &inputs[1..], write(&mut log_det, scalar(0)), false);
        let log_det = read(&log_det, scalar(0));
        device.map(&(old() + input(0)), [dims.batch, 1, 1], &[log_det], write(logp, PER_IMAGE));
        own.map_or(Saved::NOTHING, Saved::new)
    }

    fn inverse(&self, cx: &Context<'_, D>, state: &mut State<D>) {
        let Some(running) = &self.running else {
            panic!("batch normalisation is inverted in evaluation mode only")
        };
        undo(cx, running, &mut state.x);
    }

    fn backward(&self, pass: &mut BackwardPass<'_, D>, saved: Saved) {
        let BackwardPass { cx, state, dx, dlogp, .. } = pass;
        let (device, dims) = (cx.device, Dims::of(state.x.grid, state.x.channels));
        let own = saved.take::<Statistics<D>>();
        let Some(norm) = own.as_ref().or(self.running.as_ref()) else {
            panic!("batch normalisation needs the statistics that its forward pass saved")
        };
        match cx.mode {
            // The statistics are constants.
            Mode::Eval => {
                let scale = norm.inverse_deviation();
                device.map(&(old() * input(0)), dims.shape(), &[scale], write(dx, dims.each()));
            }
            // dx = (dy − (Σ dy + y·(Σ dy·y + dlogp·rows))/rows)/√(σ² + ε)
            Mode::Train => {
                let mut sums = device.scratch(2 * dims.channels);
                let (sum, product) = (per_channel(0), per_channel(dims.channels));
                let (dy, y) = (read(&*dx, dims.each()), read(&state.x.data, dims.each()));
                device.reduce(&input(0), dims.shape(), &[dy], write(&mut sums, sum), false);
                let f = input(0) * input(1);
                device.reduce(&f, dims.shape(), &[dy, y], write(&mut sums, product), false);
                let share = 1.0 / dims.rows() as f64;
                let by_variance = constant(share) * input(3) + constant(*dlogp);
                let f = input(1) * (old() - constant(share) * input(2) - input(0) * by_variance);
                let inputs = [y, norm.inverse_deviation(), read(&sums, sum), read(&sums, product)];
                device.map(&f, dims.shape(), &inputs, write(dx, dims.each()));
            }
        }
        undo(cx, norm, &mut state.x);
    }
}
