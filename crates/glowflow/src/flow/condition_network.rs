//! The network that computes the condition of a dequantiser from the bins: `c = ReLU(actnorm(conv3×3(x)))`.
//!
//! `x` is `[grid, inputs]`, `c` `[grid, outputs]`, `actnorm(h) = (h + bias) ⊙ exp(3·logs)`. Products are in
//! the device's `Real`.

use glowflow_kernels::expr::{constant, input, old};
use glowflow_kernels::ops::ActNorm;
use glowflow_kernels::{ActNormParams, Conv, Grid, Span, Strided};

use super::Context;
use super::channel_map::actnorm;
use super::views::{Dims, of_span, per_channel, read, write};
use crate::params::{Init, ParamBuilder};

/// Standard deviation of a new network's weights.
const DEVIATION: f64 = 0.05;
/// Height times width of the kernel.
const TAPS: usize = 9;

/// Spans of the tensors.
#[derive(Clone, Copy, Debug)]
pub struct ConditionNetwork {
    inputs: usize,
    outputs: usize,
    /// `[outputs, inputs, 3, 3]`
    weight: Span,
    norm: ActNormParams,
}

impl ConditionNetwork {
    /// Declares `conv.weight` and `actnorm.*`.
    pub fn new(p: &mut ParamBuilder<'_>, inputs: usize, outputs: usize) -> Self {
        let shape = [outputs, inputs, 3, 3];
        Self {
            inputs,
            outputs,
            weight: p.scope("conv", |p| p.weight("weight", &shape, Init::Normal(DEVIATION))),
            norm: p.scope("actnorm", |p| actnorm(p, outputs)),
        }
    }

    /// Multiply-adds per image with this number of pixels.
    pub fn multiply_adds(self, pixels: usize) -> u128 {
        (pixels * TAPS) as u128 * (self.inputs * self.outputs) as u128
    }

    fn conv(self, grid: Grid) -> Conv {
        Conv { grid, inputs: self.inputs, outputs: self.outputs, kernel: 3 }
    }

    /// Axes of a pass over the weight: outputs, taps, inputs.
    fn axes(self) -> [usize; 3] {
        [self.outputs, TAPS, self.inputs]
    }

    /// The stored weight along those axes.
    fn stored(self) -> Strided {
        Strided { start: self.weight.start, strides: [self.inputs * TAPS, 1, TAPS] }
    }

    /// The weight in the layout of a convolution, along those axes.
    fn matrix(self) -> Strided {
        Strided { start: 0, strides: [TAPS * self.inputs, self.inputs, 1] }
    }

    fn convolved<D: ActNorm>(self, device: &D, params: &D::Buffer, grid: Grid, x: &D::Buffer) -> D::Buffer {
        let mut matrix = device.scratch(self.weight.len);
        let stored = read(params, self.stored());
        device.map(&input(0), self.axes(), &[stored], write(&mut matrix, self.matrix()));
        let mut h = device.scratch(grid.rows() * self.outputs);
        device.conv(self.conv(grid), x, &matrix, &mut h, false);
        h
    }

    /// The condition.
    pub fn run<D: ActNorm>(self, cx: &Context<'_, D>, grid: Grid, x: &D::Buffer) -> D::Buffer {
        let mut c = self.convolved(cx.device, cx.params, grid, x);
        let dims = Dims::of(grid, self.outputs);
        let f = ((old() + input(0)) * (constant(3.0) * input(1)).exp()).relu();
        let inputs = [self.norm.bias, self.norm.logs].map(|span| of_span(cx.params, span));
        cx.device.map(&f, dims.shape(), &inputs, write(&mut c, dims.each()));
        c
    }

    /// Data-dependent initialisation of the actnorm from the parts of a batch.
    pub fn initialize<D: ActNorm>(self, device: &D, params: &mut D::Buffer, parts: &[(Grid, &D::Buffer)]) {
        let h: Vec<_> = parts.iter().map(|(grid, x)| self.convolved(device, params, *grid, x)).collect();
        device.initialize_actnorm_from(&self.norm, &h.iter().collect::<Vec<_>>(), params);
    }

    /// Adds the parameter gradients, given the input, the condition, and the gradient with respect to it.
    pub fn backward<D: ActNorm>(
        self,
        cx: &Context<'_, D>,
        grid: Grid,
        x: &D::Buffer,
        c: &D::Buffer,
        mut dc: D::Buffer,
        gradient: &mut D::Buffer,
    ) {
        let (device, dims) = (cx.device, Dims::of(grid, self.outputs));
        let c = read(c, dims.each());
        // A positive output of the ReLU equals its input.
        let logs = write(&mut *gradient, per_channel(self.norm.logs.start));
        let f = constant(3.0) * input(0) * input(1);
        device.reduce(&f, dims.shape(), &[read(&dc, dims.each()), c], logs, true);
        let f = old() * input(0).step() * (constant(3.0) * input(1)).exp();
        let inputs = [c, of_span(cx.params, self.norm.logs)];
        device.map(&f, dims.shape(), &inputs, write(&mut dc, dims.each()));
        let bias = write(&mut *gradient, per_channel(self.norm.bias.start));
        device.reduce(&input(0), dims.shape(), &[read(&dc, dims.each())], bias, true);
        let mut d_matrix = device.scratch(self.weight.len);
        device.conv_backward_weight(self.conv(grid), x, &dc, &mut d_matrix, false);
        let d_matrix = read(&d_matrix, self.matrix());
        device.map(&(old() + input(0)), self.axes(), &[d_matrix], write(gradient, self.stored()));
    }
}
