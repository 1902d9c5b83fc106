//! A convolution with bias and scale, `y = (W·patches + bias) ⊙ exp(3·logs)`, in primitives: the reference
//! body of zero convolutions and of the layers of coupling networks, whose actnorms have this form.
//!
//! Patches are explicit, `[rows, columns]`. Those of a 3×3 convolution have an edge channel, which is 1
//! outside the image: an additional channel is −1 inside before patches are gathered, and 1 is added to its
//! columns.

use super::views::{Rows, per_channel, read, write};
use crate::expr::{constant, input, old};
use crate::primitives::{Gemm, Matrix, MatrixMut, Primitives, Strided};
use crate::shape::{Grid, Span};

/// 3×3 patches of the first `inputs` of `channels` channels, with an edge channel.
#[derive(Clone, Copy)]
pub(super) struct Patches {
    pub grid: Grid,
    pub inputs: usize,
    pub channels: usize,
}

impl Patches {
    /// Number of inputs including the edge channel.
    fn with_edge(self) -> usize {
        self.inputs + 1
    }

    fn inputs(self) -> Rows {
        Rows { rows: self.grid.rows(), channels: self.inputs }
    }

    /// Columns `(k, c)`: offset `k` of channel `c`, the edge channel last.
    pub fn of<D: Primitives>(self, device: &D, x: &D::Buffer) -> D::Buffer {
        let (rows, channels, inputs) = (self.grid.rows(), self.with_edge(), self.inputs());
        let mut extended = device.scratch(rows * channels);
        let to = write(&mut extended, inputs.part(channels, 0));
        device.map(&input(0), inputs.shape(), &[read(x, inputs.part(self.channels, 0))], to);
        let edge = Rows { rows, channels: 1 };
        let to = write(&mut extended, edge.part(channels, self.inputs));
        device.map(&constant(-1.0), edge.shape(), &[], to);
        let mut patches = device.scratch(rows * 9 * channels);
        device.im2col(self.grid, channels, 3, &extended, &mut patches);
        let edge = Strided { start: self.inputs, strides: [0, channels, 1] };
        device.map(&(old() + constant(1.0)), [1, 9 * rows, 1], &[], write(&mut patches, edge));
        patches
    }

    /// Adds the input gradient to `dx`, given the gradient of the patches.
    pub fn backward<D: Primitives>(self, device: &D, d_patches: &D::Buffer, dx: &mut D::Buffer) {
        let (channels, inputs) = (self.with_edge(), self.inputs());
        let mut d_extended = device.scratch(self.grid.rows() * channels);
        device.col2im(self.grid, channels, 3, d_patches, &mut d_extended, false);
        let from = read(&d_extended, inputs.part(channels, 0));
        let to = write(dx, inputs.part(self.channels, 0));
        device.map(&(old() + input(0)), inputs.shape(), &[from], to);
    }
}

/// A convolution with its parameter spans.
#[derive(Clone, Copy)]
pub(super) struct ScaledConv {
    /// Number of pixels.
    pub rows: usize,
    /// Number of patch columns.
    pub columns: usize,
    /// Height times width of the kernel.
    pub taps: usize,
    pub outputs: usize,
    /// `[outputs, columns/taps, taps]`
    pub weight: Span,
    pub bias: Span,
    /// `None` for a scale of 1.
    pub logs: Option<Span>,
}

impl ScaledConv {
    fn outputs(self) -> Rows {
        Rows { rows: self.rows, channels: self.outputs }
    }

    /// The shape of the weight in the order of patches, and its strides in that order and in the parameters.
    fn orders(self) -> ([usize; 3], Strided, Strided) {
        let channels = self.columns / self.taps;
        let patches = Strided { start: 0, strides: [self.columns, channels, 1] };
        let stored = Strided { start: self.weight.start, strides: [self.columns, 1, self.taps] };
        ([self.outputs, self.taps, channels], patches, stored)
    }

    /// The weight in the order of patches, `[outputs, columns]`.
    pub fn weight<D: Primitives>(self, device: &D, params: &D::Buffer) -> D::Buffer {
        let (shape, patches, stored) = self.orders();
        let mut weight = device.scratch(self.outputs * self.columns);
        device.map(&input(0), shape, &[read(params, stored)], write(&mut weight, patches));
        weight
    }

    /// `W·patches`.
    pub fn product<D: Primitives>(
        self,
        device: &D,
        params: &D::Buffer,
        patches: &D::Buffer,
        y: &mut D::Buffer,
    ) {
        let (m, n, k) = (self.rows, self.outputs, self.columns);
        device.gemm(
            Gemm { m, n, k, a_transposed: false, b_transposed: true, accumulate: false },
            Matrix { buffer: patches, start: 0, stride: k },
            Matrix { buffer: &self.weight(device, params), start: 0, stride: k },
            MatrixMut { buffer: y, start: 0, stride: n },
        );
    }

    /// `y = (y + bias) ⊙ exp(3·logs)`.
    pub fn scale<D: Primitives>(self, device: &D, params: &D::Buffer, y: &mut D::Buffer) {
        let (shape, to) = (self.outputs().shape(), write(y, self.outputs().each()));
        let bias = read(params, per_channel(self.bias.start));
        match self.logs {
            Some(logs) => {
                let f = (old() + input(0)) * (constant(3.0) * input(1)).exp();
                device.map(&f, shape, &[bias, read(params, per_channel(logs.start))], to);
            }
            None => device.map(&(old() + input(0)), shape, &[bias], to),
        }
    }

    /// Product and scale.
    pub fn forward<D: Primitives>(
        self,
        device: &D,
        params: &D::Buffer,
        patches: &D::Buffer,
        y: &mut D::Buffer,
    ) {
        self.product(device, params, patches, y);
        self.scale(device, params, y);
    }

    /// Adds the parameters' gradients, given the gradient of the output `y`, and returns that of the patches.
    pub fn backward<D: Primitives>(
        self,
        device: &D,
        params: &D::Buffer,
        patches: &D::Buffer,
        y: &D::Buffer,
        dy: &D::Buffer,
        gradient: &mut D::Buffer,
    ) -> D::Buffer {
        let Some(logs) = self.logs else {
            return self.backward_product(device, params, patches, dy, gradient);
        };
        let (each, shape) = (self.outputs().each(), self.outputs().shape());
        let (y, dy) = (read(y, each), read(dy, each));
        let to_logs = write(&mut *gradient, per_channel(logs.start));
        device.reduce(&(constant(3.0) * input(0) * input(1)), shape, &[y, dy], to_logs, true);
        let mut d_product = device.scratch(self.outputs().len());
        let inputs = [dy, read(params, per_channel(logs.start))];
        let f = input(0) * (constant(3.0) * input(1)).exp();
        device.map(&f, shape, &inputs, write(&mut d_product, each));
        self.backward_product(device, params, patches, &d_product, gradient)
    }

    /// Adds the weight and bias gradients, given the gradient of `W·patches + bias`, and returns that of the
    /// patches.
    fn backward_product<D: Primitives>(
        self,
        device: &D,
        params: &D::Buffer,
        patches: &D::Buffer,
        d_product: &D::Buffer,
        gradient: &mut D::Buffer,
    ) -> D::Buffer {
        let (each, shape) = (self.outputs().each(), self.outputs().shape());
        let to_bias = write(&mut *gradient, per_channel(self.bias.start));
        device.reduce(&input(0), shape, &[read(d_product, each)], to_bias, true);

        let (m, n, k) = (self.outputs, self.columns, self.rows);
        let d_product_at = Matrix { buffer: d_product, start: 0, stride: m };
        let mut d_weight = device.scratch(m * n);
        device.gemm(
            Gemm { m, n, k, a_transposed: true, b_transposed: false, accumulate: false },
            d_product_at,
            Matrix { buffer: patches, start: 0, stride: n },
            MatrixMut { buffer: &mut d_weight, start: 0, stride: n },
        );
        let (order, in_patches, stored) = self.orders();
        device.map(&(old() + input(0)), order, &[read(&d_weight, in_patches)], write(gradient, stored));
        let mut d_patches = device.scratch(k * n);
        device.gemm(
            Gemm { m: k, n, k: m, a_transposed: false, b_transposed: false, accumulate: false },
            d_product_at,
            Matrix { buffer: &self.weight(device, params), start: 0, stride: n },
            MatrixMut { buffer: &mut d_patches, start: 0, stride: n },
        );
        d_patches
    }
}
