//! A multilayer perceptron: `layers` times (linear, ReLU), then linear. Activations are `[batch, width]`; a
//! layer computes `y = x·Wᵀ + bias` with W `[outputs, inputs]`.

use glowflow_kernels::expr::{input, old};
use glowflow_kernels::{Gemm, Matrix, MatrixMut, Primitives, Span};

use super::Context;
use super::views::{Dims, of_span, per_channel, read, write};
use crate::params::{Init, ParamBuilder};

/// Bound of a new network's weights.
const BOUND: f64 = 0.01;

/// Spans of a perceptron's tensors.
#[derive(Clone, Debug)]
pub struct Mlp {
    layers: Vec<Linear>,
}

#[derive(Clone, Copy, Debug)]
struct Linear {
    inputs: usize,
    outputs: usize,
    weight: Span,
    bias: Span,
}

impl Mlp {
    /// Declares `layers.{i}.weight`, uniform on ±0.01, and `layers.{i}.bias`, 0; the last is the linear
    /// output.
    pub fn new(
        p: &mut ParamBuilder<'_>,
        inputs: usize,
        outputs: usize,
        hidden: usize,
        layers: usize,
    ) -> Self {
        let linear = |i: usize| {
            let inputs = if i == 0 { inputs } else { hidden };
            let outputs = if i == layers { outputs } else { hidden };
            p.scope(format!("layers.{i}"), |p| Linear {
                inputs,
                outputs,
                weight: p.weight("weight", &[outputs, inputs], Init::Uniform(BOUND)),
                bias: p.parameter("bias", &[outputs], Init::Zeros),
            })
        };
        Self { layers: (0..=layers).map(linear).collect() }
    }

    /// Hidden activations per image.
    pub fn activations(&self) -> usize {
        self.layers.iter().map(|layer| layer.inputs).sum()
    }

    /// Multiply-adds per image.
    pub fn multiply_adds(&self) -> u128 {
        self.layers.iter().map(|layer| layer.inputs as u128 * layer.outputs as u128).sum()
    }

    /// The input of each layer, the first of which is `x` `[batch, inputs]`, and the output.
    pub fn run<D: Primitives>(
        &self,
        cx: &Context<'_, D>,
        batch: usize,
        x: D::Buffer,
    ) -> (Vec<D::Buffer>, D::Buffer) {
        let (device, mut inputs, mut y) = (cx.device, vec![], x);
        for (i, layer) in self.layers.iter().enumerate() {
            let x = y;
            let dims = Dims { batch, pixels: 1, channels: layer.outputs };
            y = device.scratch(dims.len());
            let bias = of_span(cx.params, layer.bias);
            device.map(&input(0), dims.shape(), &[bias], write(&mut y, dims.each()));
            let Linear { inputs: k, outputs: n, weight, .. } = *layer;
            device.gemm(
                Gemm { m: batch, n, k, a_transposed: false, b_transposed: true, accumulate: true },
                Matrix { buffer: &x, start: 0, stride: k },
                Matrix { buffer: cx.params, start: weight.start, stride: k },
                MatrixMut { buffer: &mut y, start: 0, stride: n },
            );
            if i + 1 < self.layers.len() {
                device.map(&old().relu(), dims.shape(), &[], write(&mut y, dims.each()));
            }
            inputs.push(x);
        }
        (inputs, y)
    }

    /// Adds the weight and bias gradients, and returns the input gradient, given the output gradient.
    pub fn backward<D: Primitives>(
        &self,
        cx: &Context<'_, D>,
        batch: usize,
        inputs: Vec<D::Buffer>,
        mut dy: D::Buffer,
        gradient: &mut D::Buffer,
    ) -> D::Buffer {
        let device = cx.device;
        for (i, (layer, x)) in self.layers.iter().zip(inputs).enumerate().rev() {
            let Linear { inputs: n, outputs: m, weight, bias } = *layer;
            let dims = Dims { batch, pixels: 1, channels: m };
            let each = read(&dy, dims.each());
            device.reduce(&input(0), dims.shape(), &[each], write(gradient, per_channel(bias.start)), true);
            device.gemm(
                Gemm { m, n, k: batch, a_transposed: true, b_transposed: false, accumulate: true },
                Matrix { buffer: &dy, start: 0, stride: m },
                Matrix { buffer: &x, start: 0, stride: n },
                MatrixMut { buffer: gradient, start: weight.start, stride: n },
            );
            let mut dx = device.scratch(batch * n);
            device.gemm(
                Gemm { m: batch, n, k: m, a_transposed: false, b_transposed: false, accumulate: false },
                Matrix { buffer: &dy, start: 0, stride: m },
                Matrix { buffer: cx.params, start: weight.start, stride: n },
                MatrixMut { buffer: &mut dx, start: 0, stride: n },
            );
            if i > 0 {
                // The input is the preceding layer's ReLU output.
                let dims = Dims { batch, pixels: 1, channels: n };
                let f = old() * input(0).step();
                device.map(&f, dims.shape(), &[read(&x, dims.each())], write(&mut dx, dims.each()));
            }
            dy = dx;
        }
        dy
    }
}
