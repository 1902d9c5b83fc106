//! General operations for writing layers that run on every device.
//!
//! | operation | |
//! | --- | --- |
//! | [`map`](Primitives::map) | element-wise [expression](crate::expr) of strided inputs |
//! | [`reduce`](Primitives::reduce) | sums of an expression over some of the axes |
//! | [`gemm`](Primitives::gemm), [`gemm_batch`](Primitives::gemm_batch) | matrix product, one or a batch |
//! | [`im2col`](Primitives::im2col), [`col2im`](Primitives::col2im) | patches of images, and the adjoint |
//! | [`conv`](Primitives::conv) and its gradients | convolution, composed of the operations above |
//! | [`depthwise`](Primitives::depthwise) and its gradients | [depthwise](Depthwise) convolution |
//! | [`moments`](Primitives::moments) | mean and variance of each channel |
//! | [`norm_relu`](Primitives::norm_relu) and its gradient | [batch normalisation](BatchNorm) with a ReLU |
//! | [`orthogonalize`](Primitives::orthogonalize) | matrices with their singular values replaced by about 1 |
//! | [`uniform`](Primitives::uniform), [`uniform_from`](Primitives::uniform_from) | uniform random numbers |
//! | [`normal`](Primitives::normal) | normal random numbers |
//! | [`dequantize`](Primitives::dequantize) | pixels to continuous values |
//! | [`quantize`](Primitives::quantize) | continuous values to pixels |
//! | [`update`](Primitives::update), [`update_segments`](Primitives::update_segments) | optimiser step |
//!
//! Like the operations of [`Device`], these may be queued, report failures later, and panic if a buffer is
//! too short.

mod conv;
mod gemm;
mod strided;

pub use conv::Conv;
pub use gemm::{Gemm, GemmBatch, Matrix, MatrixMut};
pub use strided::{Strided, View, ViewMut};

pub(crate) use gemm::one_by_one;

use conv::patches;

use crate::batch_norm::{self, BatchNorm, Normalizer};
use crate::depthwise::{self, Depthwise};
use crate::device::{Device, DeviceError};
use crate::expr::{Expr, input, old};
use crate::optimizer::{Segment, Training, Update, UpdateReport};
use crate::orthogonal;
use crate::pixels::{Noise, Quantized};
use crate::random::RngStream;
use crate::shape::Grid;

/// Checks that a buffer has at least the length that an operation needs.
///
/// # Panics
/// If it is too short.
#[track_caller]
pub(crate) fn holds(name: &str, len: usize, want: usize) {
    assert!(len >= want, "{name} is a buffer of {len} numbers, and {want} are needed");
}

/// General operations on the buffers of a device.
pub trait Primitives: Device {
    /// Evaluates `f` for each element of an array of this shape. [`expr::old`](crate::expr::old) reads the
    /// previous value of the element of `out`. The elements of `out` must be at distinct positions.
    fn map(
        &self,
        f: &Expr,
        shape: [usize; 3],
        inputs: &[View<'_, Self::Buffer>],
        out: ViewMut<'_, Self::Buffer>,
    );

    /// Sums `f` over every axis along which `out` has stride 0. The sums are added to `out` if `accumulate`,
    /// else they replace it. `f` must not read [`expr::old`](crate::expr::old). The order of summation
    /// depends only on the shape.
    fn reduce(
        &self,
        f: &Expr,
        shape: [usize; 3],
        inputs: &[View<'_, Self::Buffer>],
        out: ViewMut<'_, Self::Buffer>,
        accumulate: bool,
    );

    /// Computes a matrix product.
    fn gemm(
        &self,
        gemm: Gemm,
        a: Matrix<'_, Self::Buffer>,
        b: Matrix<'_, Self::Buffer>,
        c: MatrixMut<'_, Self::Buffer>,
    );

    /// Computes a batch of matrix products; A, B and C are the first of each.
    fn gemm_batch(
        &self,
        batch: GemmBatch,
        a: Matrix<'_, Self::Buffer>,
        b: Matrix<'_, Self::Buffer>,
        c: MatrixMut<'_, Self::Buffer>,
    ) {
        one_by_one(self, batch, a, b, c);
    }

    /// Writes the patches of `x` `[grid, channels]` to `columns` `[rows, kernel·kernel·channels]`, zero
    /// outside the images, with column `(kernel·dy + dx)·channels + c`.
    fn im2col(
        &self,
        grid: Grid,
        channels: usize,
        kernel: usize,
        x: &Self::Buffer,
        columns: &mut Self::Buffer,
    );

    /// The adjoint of [`im2col`](Self::im2col): sums the copies of each element of `x` in `columns`. The sums
    /// are added to `x` if `accumulate`, else they replace it.
    fn col2im(
        &self,
        grid: Grid,
        channels: usize,
        kernel: usize,
        columns: &Self::Buffer,
        x: &mut Self::Buffer,
        accumulate: bool,
    );

    /// Fills `out` `[images, …]` with uniform numbers on `[0, 1)`, multiples of 2⁻²⁴. Image `i` is drawn from
    /// the stream with the id `stream.id + i`.
    fn uniform(&self, stream: RngStream, images: usize, out: &mut Self::Buffer);

    /// Fills `out` with the numbers `first`, `first + 1`, … of a stream, uniform on `[0, 1)`, multiples of
    /// 2⁻²⁴. Number `i` is element `i % 4` of the stream's block `i / 4`.
    fn uniform_from(&self, stream: RngStream, first: u64, out: &mut Self::Buffer);

    /// Fills `out` `[images, …]` with normal numbers of standard deviation `scale`. Image `i` is drawn from
    /// the stream with the id `stream.id + i`, so it does not depend on the others.
    fn normal(&self, stream: RngStream, images: usize, scale: f64, out: &mut Self::Buffer);

    /// Computes `v = floor(pixel / 2^(8−bits)) / 2^bits − 0.5 + noise`, element-wise.
    fn dequantize(&self, pixels: &[u8], bits: u32, noise: Noise<'_, Self::Real>, v: &mut Self::Buffer);

    /// Converts continuous images `v` to pixels, after all queued work:
    /// `clamp(floor((v + 0.5)·2^bits), 0, 2^bits − 1)`, scaled to 0..=255. A NaN becomes 0.
    ///
    /// # Errors
    /// The first failure of this device, if any.
    fn quantize(&self, v: &Self::Buffer, bits: u32) -> Result<Quantized, DeviceError>;

    /// Performs one optimiser step on all parameters. If the gradient or a log-likelihood in `logp` contains
    /// a non-finite value, weights, moments and moving average do not change. Non-finite values are never
    /// written to them ([`all_finite`](UpdateReport::all_finite)). The gradient is zeroed in either case.
    ///
    /// # Errors
    /// The first failure of this device, if any.
    fn update(
        &self,
        update: &Update,
        logp: &[&Self::Buffer],
        training: Training<'_, Self::Buffer>,
    ) -> Result<UpdateReport, DeviceError> {
        let all = Segment::all(self.len(training.weights));
        self.update_segments(update, logp, training, &[all])
    }

    /// Performs one optimiser step on these segments, in ascending order, like [`update`](Self::update). The
    /// norm, clipping and the check for non-finite values cover the whole gradient. Outside the segments
    /// nothing changes, including the gradient.
    ///
    /// # Errors
    /// See [`update`](Self::update).
    fn update_segments(
        &self,
        update: &Update,
        logp: &[&Self::Buffer],
        training: Training<'_, Self::Buffer>,
        segments: &[Segment],
    ) -> Result<UpdateReport, DeviceError>;

    /// Computes the convolution, written to `y`, or added to it if `accumulate`.
    fn conv(
        &self,
        conv: Conv,
        x: &Self::Buffer,
        weight: &Self::Buffer,
        y: &mut Self::Buffer,
        accumulate: bool,
    ) {
        let columns = patches(self, conv, x);
        let (m, n, k) = (conv.grid.rows(), conv.outputs, conv.columns());
        self.gemm(
            Gemm { m, n, k, a_transposed: false, b_transposed: true, accumulate },
            Matrix { buffer: columns.as_ref().unwrap_or(x), start: 0, stride: k },
            Matrix { buffer: weight, start: 0, stride: k },
            MatrixMut { buffer: y, start: 0, stride: n },
        );
    }

    /// Computes the input gradient of a convolution, given the output gradient.
    fn conv_backward_input(
        &self,
        conv: Conv,
        weight: &Self::Buffer,
        dy: &Self::Buffer,
        dx: &mut Self::Buffer,
        accumulate: bool,
    ) {
        let (m, n, k) = (conv.grid.rows(), conv.columns(), conv.outputs);
        let gemm = |accumulate| Gemm { m, n, k, a_transposed: false, b_transposed: false, accumulate };
        let (dy, weight) =
            (Matrix { buffer: dy, start: 0, stride: k }, Matrix { buffer: weight, start: 0, stride: n });
        if conv.kernel == 1 {
            return self.gemm(gemm(accumulate), dy, weight, MatrixMut { buffer: dx, start: 0, stride: n });
        }
        let mut columns = self.scratch(m * n);
        self.gemm(gemm(false), dy, weight, MatrixMut { buffer: &mut columns, start: 0, stride: n });
        self.col2im(conv.grid, conv.inputs, conv.kernel, &columns, dx, accumulate);
    }

    /// Computes the weight gradient of a convolution, given the output gradient.
    fn conv_backward_weight(
        &self,
        conv: Conv,
        x: &Self::Buffer,
        dy: &Self::Buffer,
        dweight: &mut Self::Buffer,
        accumulate: bool,
    ) {
        let columns = patches(self, conv, x);
        let (m, n, k) = (conv.outputs, conv.columns(), conv.grid.rows());
        self.gemm(
            Gemm { m, n, k, a_transposed: true, b_transposed: false, accumulate },
            Matrix { buffer: dy, start: 0, stride: m },
            Matrix { buffer: columns.as_ref().unwrap_or(x), start: 0, stride: n },
            MatrixMut { buffer: dweight, start: 0, stride: n },
        );
    }

    /// Writes the depthwise convolution of `x` to `y`, with the taps from element `start` of `taps` on.
    fn depthwise(
        &self,
        conv: Depthwise,
        x: &Self::Buffer,
        (taps, start): (&Self::Buffer, usize),
        y: &mut Self::Buffer,
    ) {
        depthwise::forward(self, conv, x, (taps, start), y);
    }

    /// Adds the input gradient of a depthwise convolution to `dx`, given the output gradient.
    fn depthwise_backward_input(
        &self,
        conv: Depthwise,
        (taps, start): (&Self::Buffer, usize),
        dy: &Self::Buffer,
        dx: &mut Self::Buffer,
    ) {
        depthwise::backward_input(self, conv, (taps, start), dy, dx);
    }

    /// Adds the tap gradient of a depthwise convolution to the elements of `dtaps` from `start` on, given the
    /// output gradient.
    fn depthwise_backward_taps(
        &self,
        conv: Depthwise,
        x: &Self::Buffer,
        dy: &Self::Buffer,
        (dtaps, start): (&mut Self::Buffer, usize),
    ) {
        depthwise::backward_taps(self, conv, x, dy, (dtaps, start));
    }

    /// Writes mean and (biased) variance of each channel of `x` to `out` `[2, channels]`.
    fn moments(&self, norm: BatchNorm, x: &Self::Buffer, out: &mut Self::Buffer) {
        batch_norm::moments(self, norm, x, out);
    }

    /// Computes `y = ReLU(norm(x))`.
    fn norm_relu(
        &self,
        norm: BatchNorm,
        by: Normalizer<'_, Self::Buffer>,
        x: &Self::Buffer,
        y: &mut Self::Buffer,
    ) {
        batch_norm::norm_relu(self, norm, by, x, y);
    }

    /// Writes the input gradient of [`norm_relu`](Self::norm_relu) to `dx`, or adds it, given the output
    /// gradient. `constants` means that the statistics do not depend on `x`. `sums` `[2, channels]` receives
    /// Σ g, the bias gradient, and Σ g·x̂.
    #[allow(clippy::too_many_arguments)]
    fn norm_relu_backward(
        &self,
        norm: BatchNorm,
        by: Normalizer<'_, Self::Buffer>,
        constants: bool,
        x: &Self::Buffer,
        dy: &Self::Buffer,
        sums: &mut Self::Buffer,
        dx: &mut Self::Buffer,
        accumulate: bool,
    ) {
        batch_norm::norm_relu_backward(self, norm, by, constants, x, dy, sums, dx, accumulate);
    }

    /// Returns matrices with the singular vectors of those in `x` `[count, rows, columns]` and singular
    /// values of about 1, computed by five Newton–Schulz iterations (Jordan et al. 2024, "Muon"). The
    /// singular values are between 0.7 and 1.2, or less if they were below a thousandth of the norm. A zero
    /// matrix does not change. Factors of products may be rounded to 19 bits.
    fn orthogonalize(&self, count: usize, shape: [usize; 2], x: Self::Buffer) -> Self::Buffer {
        orthogonal::orthogonalize(self, count, shape, x, |gemm, a, b, c| {
            orthogonal::one_by_one(self, count, gemm, a, b, c);
        })
    }

    /// Adds `by·from` to `to`, element-wise.
    fn add_scaled(&self, len: usize, from: &Self::Buffer, by: f64, to: &mut Self::Buffer) {
        let at = Strided { start: 0, strides: [0, 0, 1] };
        let f = old() + crate::expr::constant(by) * input(0);
        self.map(&f, [1, 1, len], &[View { buffer: from, at }], ViewMut { buffer: to, at });
    }
}
