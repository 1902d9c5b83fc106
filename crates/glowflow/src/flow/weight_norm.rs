//! Convolutions with weight normalisation (Salimans and Kingma 2016).
//!
//! Output j uses `magnitude_j·weight_j/‖weight_j‖₂`, the norm over inputs and window; without a magnitude it
//! is 1. `weight` `[outputs, inputs, k, k]` is stored and trained unnormalised.

use glowflow_kernels::expr::{constant, input, old};
use glowflow_kernels::{Conv, Device, Grid, Primitives, Span, Strided};

use super::Context;
use super::views::{read, write};
use crate::params::{Init, ParamBuilder};

/// A weight-normalised convolution of stride 1 with zero padding.
#[derive(Clone, Copy, Debug)]
pub struct NormalizedConv {
    inputs: usize,
    outputs: usize,
    kernel: usize,
    weight: Span,
    magnitude: Option<Span>,
}

/// The normalised weight, ready for [`Primitives::conv`].
pub struct Weight<D: Device> {
    /// `[outputs, k·k·inputs]`, taps before channels.
    matrix: D::Buffer,
    /// `magnitude/‖weight‖`, `[outputs]`.
    scale: D::Buffer,
    /// `‖weight‖²`, `[outputs]`.
    square: D::Buffer,
}

/// One number per output.
const PER_OUTPUT: Strided = Strided { start: 0, strides: [1, 0, 0] };

impl NormalizedConv {
    /// Declares `weight`, and optionally `magnitude`, with the initialisation of RealNVP's authors: `weight`
    /// uniform on `±√(2/inputs)`, magnitudes `√(k²/6)`.
    pub fn new(
        p: &mut ParamBuilder<'_>,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        magnitude: bool,
    ) -> Self {
        let bound = (2.0 / inputs as f64).sqrt();
        let weight = p.directions("weight", &[outputs, inputs, kernel, kernel], Init::Uniform(bound));
        let magnitude = magnitude.then(|| {
            p.penalized("magnitude", &[outputs], Init::Constant(((kernel * kernel) as f64 / 6.0).sqrt()))
        });
        Self { inputs, outputs, kernel, weight, magnitude }
    }

    /// Multiply-adds per pixel.
    pub fn multiply_adds(self) -> u128 {
        (self.taps() * self.inputs) as u128 * self.outputs as u128
    }

    fn taps(self) -> usize {
        self.kernel * self.kernel
    }

    fn conv(self, grid: Grid) -> Conv {
        Conv { grid, inputs: self.inputs, outputs: self.outputs, kernel: self.kernel }
    }

    /// Axes of a pass over the weight: outputs, taps, inputs.
    fn shape(self) -> [usize; 3] {
        [self.outputs, self.taps(), self.inputs]
    }

    /// The stored weight along those axes.
    fn stored(self) -> Strided {
        let taps = self.taps();
        Strided { start: self.weight.start, strides: [self.inputs * taps, 1, taps] }
    }

    /// The matrix along those axes.
    fn matrix(self) -> Strided {
        Strided { start: 0, strides: [self.taps() * self.inputs, self.inputs, 1] }
    }

    /// Normalises the weight.
    pub fn prepare<D: Primitives>(self, cx: &Context<'_, D>) -> Weight<D> {
        let device = cx.device;
        let stored = read(cx.params, self.stored());
        let mut square = device.scratch(self.outputs);
        device.reduce(&(input(0) * input(0)), self.shape(), &[stored], write(&mut square, PER_OUTPUT), false);
        let mut scale = device.scratch(self.outputs);
        let magnitudes =
            self.magnitude.map(|span| read(cx.params, Strided { start: span.start, ..PER_OUTPUT }));
        let magnitude = if magnitudes.is_some() { input(1) } else { constant(1.0) };
        let inputs: Vec<_> = [Some(read(&square, PER_OUTPUT)), magnitudes].into_iter().flatten().collect();
        device.map(
            &(magnitude / input(0).sqrt()),
            [self.outputs, 1, 1],
            &inputs,
            write(&mut scale, PER_OUTPUT),
        );
        let mut matrix = device.scratch(self.weight.len);
        let inputs = [stored, read(&scale, PER_OUTPUT)];
        device.map(&(input(0) * input(1)), self.shape(), &inputs, write(&mut matrix, self.matrix()));
        Weight { matrix, scale, square }
    }

    /// The convolution, written to `y` or added to it.
    pub fn run<D: Primitives>(
        self,
        device: &D,
        weight: &Weight<D>,
        grid: Grid,
        x: &D::Buffer,
        y: &mut D::Buffer,
        accumulate: bool,
    ) {
        device.conv(self.conv(grid), x, &weight.matrix, y, accumulate);
    }

    /// The input gradient, written to `dx` or added to it.
    pub fn backward_input<D: Primitives>(
        self,
        device: &D,
        weight: &Weight<D>,
        grid: Grid,
        dy: &D::Buffer,
        dx: &mut D::Buffer,
        accumulate: bool,
    ) {
        device.conv_backward_input(self.conv(grid), &weight.matrix, dy, dx, accumulate);
    }

    /// Adds the weight and magnitude gradients: with `P = Σ dW·weight` per output,
    /// `d magnitude = P/‖weight‖`, `d weight = scale·(dW − weight·P/‖weight‖²)`.
    pub fn backward_weight<D: Primitives>(
        self,
        cx: &Context<'_, D>,
        weight: &Weight<D>,
        grid: Grid,
        x: &D::Buffer,
        dy: &D::Buffer,
        gradient: &mut D::Buffer,
    ) {
        let device = cx.device;
        let mut dw = device.scratch(self.weight.len);
        device.conv_backward_weight(self.conv(grid), x, dy, &mut dw, false);
        let (stored, dw) = (read(cx.params, self.stored()), read(&dw, self.matrix()));
        let mut projection = device.scratch(self.outputs);
        let product = input(0) * input(1);
        device.reduce(&product, self.shape(), &[dw, stored], write(&mut projection, PER_OUTPUT), false);
        let (projection, square) = (read(&projection, PER_OUTPUT), read(&weight.square, PER_OUTPUT));
        if let Some(span) = self.magnitude {
            let at = Strided { start: span.start, ..PER_OUTPUT };
            let f = old() + input(0) / input(1).sqrt();
            device.map(&f, [self.outputs, 1, 1], &[projection, square], write(gradient, at));
        }
        let f = old() + input(2) * (input(0) - input(1) * input(3) / input(4));
        let inputs = [dw, stored, read(&weight.scale, PER_OUTPUT), projection, square];
        device.map(&f, self.shape(), &inputs, write(gradient, self.stored()));
    }
}
