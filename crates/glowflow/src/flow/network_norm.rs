//! Batch normalisation inside a network: `(x − μ)/√(σ² + ε) + bias` (RealNVP's program), alone or followed by
//! a ReLU.

use glowflow_kernels::expr::{Expr, constant, input, old};
use glowflow_kernels::{BatchNorm, Normalizer, Primitives, Span, Strided, View};

use super::norm::{Running, Statistics};
use super::views::{Dims, of_span, per_channel, read, write};
use super::{Context, Mode};
use crate::params::{Init, ParamBuilder};

/// Batch normalisation of activations, with a bias.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    bias: Span,
    /// Its running statistics.
    pub running: Running,
}

impl Norm {
    /// Declares `bias` and the running statistics under `name`.
    pub fn new(p: &mut ParamBuilder<'_>, name: &str, channels: usize) -> Self {
        p.scope(name, |p| Self {
            bias: p.parameter("bias", &[channels], Init::Zeros),
            running: Running::new(p, channels),
        })
    }

    /// `ReLU(norm(x))`.
    pub fn relu<D: Primitives>(
        &self,
        cx: &Context<'_, D>,
        dims: Dims,
        x: &D::Buffer,
        statistics: &Statistics<D>,
    ) -> D::Buffer {
        let mut y = cx.device.scratch(dims.len());
        cx.device.norm_relu(Self::norm(dims), self.normalizer(cx, statistics), x, &mut y);
        y
    }

    fn norm(dims: Dims) -> BatchNorm {
        BatchNorm { rows: dims.rows(), channels: dims.channels }
    }

    /// Statistics and bias.
    fn normalizer<'a, D: Primitives>(
        &self,
        cx: &'a Context<'_, D>,
        statistics: &'a Statistics<D>,
    ) -> Normalizer<'a, D::Buffer> {
        Normalizer { statistics: statistics.values(), bias: cx.params, bias_start: self.bias.start }
    }

    /// The inputs x, μ, r and bias of an expression.
    pub fn inputs<'a, D: Primitives>(
        &self,
        cx: &'a Context<'_, D>,
        x: View<'a, D::Buffer>,
        statistics: &'a Statistics<D>,
    ) -> [View<'a, D::Buffer>; 4] {
        [x, statistics.mean(), statistics.inverse_deviation(), of_span(cx.params, self.bias)]
    }

    /// Adds the bias gradient, and adds the input gradient times `mask` to `dx`. `f` is the gradient of the
    /// norm's output, as an expression of [`Norm::inputs`] and `others`.
    #[allow(clippy::too_many_arguments)]
    pub fn backward<D: Primitives>(
        &self,
        cx: &Context<'_, D>,
        dims: Dims,
        x: View<'_, D::Buffer>,
        statistics: &Statistics<D>,
        others: &[View<'_, D::Buffer>],
        f: &Gradient,
        dx: (&mut D::Buffer, Strided),
        gradient: &mut D::Buffer,
    ) {
        let device = cx.device;
        let inputs: Vec<_> =
            self.inputs(cx, x, statistics).into_iter().chain(others.iter().copied()).collect();
        let (channels, shape) = (dims.channels, dims.shape());
        let mut sums = device.scratch(2 * channels);
        let standardized = || (f.x.clone() - input(1)) * input(2);
        device.reduce(&f.by_output, shape, &inputs, write(&mut sums, per_channel(0)), false);
        self.add_by_bias(device, &sums, gradient);
        let by_input = match cx.mode {
            Mode::Eval => input(2) * f.by_output.clone(),
            Mode::Train => {
                let product = f.by_output.clone() * standardized();
                device.reduce(&product, shape, &inputs, write(&mut sums, per_channel(channels)), false);
                let share = 1.0 / dims.rows() as f64;
                let n = inputs.len();
                let correction = constant(share) * (input(n) + standardized() * input(n + 1));
                input(2) * (f.by_output.clone() - correction)
            }
        };
        let sums = [read(&sums, per_channel(0)), read(&sums, per_channel(channels))];
        let inputs: Vec<_> = inputs.into_iter().chain(sums).collect();
        let by_input = match &f.mask {
            Some(mask) => mask.clone() * by_input,
            None => by_input,
        };
        let (dx, at) = dx;
        device.map(&(old() + by_input), shape, &inputs, write(dx, at));
    }

    /// The backward pass of [`relu`](Self::relu), given the output gradient: adds the bias gradient, and
    /// writes the input gradient to `dx` or adds it.
    #[allow(clippy::too_many_arguments)]
    pub fn backward_relu<D: Primitives>(
        &self,
        cx: &Context<'_, D>,
        dims: Dims,
        x: &D::Buffer,
        statistics: &Statistics<D>,
        dy: &D::Buffer,
        (dx, accumulate): (&mut D::Buffer, bool),
        gradient: &mut D::Buffer,
    ) {
        let (device, constants) = (cx.device, cx.mode == Mode::Eval);
        let (norm, by) = (Self::norm(dims), self.normalizer(cx, statistics));
        let mut sums = device.scratch(2 * dims.channels);
        device.norm_relu_backward(norm, by, constants, x, dy, &mut sums, dx, accumulate);
        self.add_by_bias(device, &sums, gradient);
    }

    /// Adds the bias gradient, the first of `sums`.
    fn add_by_bias<D: Primitives>(&self, device: &D, sums: &D::Buffer, gradient: &mut D::Buffer) {
        let bias = write(gradient, per_channel(self.bias.start));
        let by_bias = read(sums, per_channel(0));
        device.map(&(old() + input(0)), [1, 1, self.bias.len], &[by_bias], bias);
    }
}

/// Expressions for a norm's backward pass.
pub struct Gradient {
    /// The gradient of the norm's output.
    pub by_output: Expr,
    /// The norm's input.
    pub x: Expr,
    /// Factor of the input gradient.
    pub mask: Option<Expr>,
}
