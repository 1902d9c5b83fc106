//! Statistics of a batch for batch normalisation (Ioffe and Szegedy 2015), and their running averages.
//!
//! Mean μ and variance σ² (divided by the count) of each channel over batch and pixels; `(x − μ)/√(σ² + ε)`
//! with ε = 1e-4. In evaluation mode the running averages are used instead.

use glowflow_kernels::expr::{Expr, constant, input, old};
use glowflow_kernels::{BatchNorm, Device, Primitives, Span, View};

use super::views::{Dims, of_span, per_channel, read, write};
use super::{Context, Mode};
use crate::params::ParamBuilder;

/// Added to a variance.
pub const EPSILON: f64 = 1e-4;

/// Spans of running mean and variance, `[channels]` each.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    mean: Span,
    var: Span,
}

impl Running {
    /// Declares `running_mean` and `running_var`, 0 and 1.
    pub fn new(p: &mut ParamBuilder<'_>, channels: usize) -> Self {
        Self {
            mean: p.buffer("running_mean", &[channels], 0.0),
            var: p.buffer("running_var", &[channels], 1.0),
        }
    }

    fn channels(self) -> usize {
        self.mean.len
    }

    /// The statistics for the context's mode: those of the batch, or the running ones. `f` computes an
    /// element from `inputs`; `batch` receives the statistics of the batch in training mode.
    pub fn statistics<D: Primitives>(
        self,
        cx: &Context<'_, D>,
        dims: Dims,
        f: &Expr,
        inputs: &[View<'_, D::Buffer>],
        batch: Option<&mut D::Buffer>,
    ) -> Statistics<D> {
        match cx.mode {
            Mode::Eval => self.running(cx),
            Mode::Train => self.of_batch(cx, dims, f, inputs, batch),
        }
    }

    /// The running statistics.
    pub fn running<D: Primitives>(self, cx: &Context<'_, D>) -> Statistics<D> {
        let (device, c) = (cx.device, self.channels());
        let mut values = device.scratch(2 * c);
        let shape = [1, 1, c];
        device.map(&input(0), shape, &[of_span(cx.buffers, self.mean)], write(&mut values, per_channel(0)));
        let inverse = constant(1.0) / (input(0) + constant(EPSILON)).sqrt();
        device.map(&inverse, shape, &[of_span(cx.buffers, self.var)], write(&mut values, per_channel(c)));
        Statistics { values, channels: c }
    }

    fn of_batch<D: Primitives>(
        self,
        cx: &Context<'_, D>,
        dims: Dims,
        f: &Expr,
        inputs: &[View<'_, D::Buffer>],
        batch: Option<&mut D::Buffer>,
    ) -> Statistics<D> {
        let (device, c) = (cx.device, self.channels());
        let mut mean = device.scratch(c);
        let mut values = device.scratch(2 * c);
        let share = || constant(1.0 / dims.rows() as f64);
        device.reduce(&(share() * f.clone()), dims.shape(), inputs, write(&mut mean, per_channel(0)), false);
        let from_mean = f.clone() - input(inputs.len());
        let square = share() * from_mean.clone() * from_mean;
        let with_mean: Vec<_> = inputs.iter().copied().chain([read(&mean, per_channel(0))]).collect();
        device.reduce(&square, dims.shape(), &with_mean, write(&mut values, per_channel(c)), false);
        device.map(&input(0), [1, 1, c], &[read(&mean, per_channel(0))], write(&mut values, per_channel(0)));
        self.finish(cx, values, batch)
    }

    /// Like [`statistics`](Self::statistics), over all elements of `x`.
    pub fn statistics_of<D: Primitives>(
        self,
        cx: &Context<'_, D>,
        dims: Dims,
        x: &D::Buffer,
        batch: Option<&mut D::Buffer>,
    ) -> Statistics<D> {
        match cx.mode {
            Mode::Eval => self.running(cx),
            Mode::Train => {
                let mut values = cx.device.scratch(2 * self.channels());
                let norm = BatchNorm { rows: dims.rows(), channels: dims.channels };
                cx.device.moments(norm, x, &mut values);
                self.finish(cx, values, batch)
            }
        }
    }

    /// Records mean and variance, and converts the variance to an inverse standard deviation.
    fn finish<D: Primitives>(
        self,
        cx: &Context<'_, D>,
        mut values: D::Buffer,
        batch: Option<&mut D::Buffer>,
    ) -> Statistics<D> {
        let (device, c) = (cx.device, self.channels());
        let shape = [1, 1, c];
        if let Some(batch) = batch {
            for (from, to) in [(0, self.mean.start), (c, self.var.start)] {
                let from = [read(&values, per_channel(from))];
                device.map(&input(0), shape, &from, write(batch, per_channel(to)));
            }
        }
        let inverse = constant(1.0) / (old() + constant(EPSILON)).sqrt();
        device.map(&inverse, shape, &[], write(&mut values, per_channel(c)));
        Statistics { values, channels: c }
    }
}

/// Mean and inverse standard deviation of each channel.
pub struct Statistics<D: Device> {
    /// `[2, channels]`: μ, then `1/√(σ² + ε)`.
    values: D::Buffer,
    channels: usize,
}

impl<D: Device> Statistics<D> {
    /// The means.
    pub fn mean(&self) -> View<'_, D::Buffer> {
        read(&self.values, per_channel(0))
    }

    /// Both, `[2, channels]`.
    pub fn values(&self) -> &D::Buffer {
        &self.values
    }

    /// The inverse standard deviations.
    pub fn inverse_deviation(&self) -> View<'_, D::Buffer> {
        read(&self.values, per_channel(self.channels))
    }
}
