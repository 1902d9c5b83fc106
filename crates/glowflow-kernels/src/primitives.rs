//! General operations from which layers are written for every device.
//!
//! | operation | |
//! | --- | --- |
//! | [`map`](Primitives::map) | an element-wise [expression](crate::expr) of strided inputs |
//! | [`reduce`](Primitives::reduce) | sums of an expression over some of the axes |
//! | [`gemm`](Primitives::gemm), [`gemm_batch`](Primitives::gemm_batch) | a matrix product, and several of one shape |
//! | [`im2col`](Primitives::im2col), [`col2im`](Primitives::col2im) | patches of images, and the adjoint |
//! | [`conv`](Primitives::conv) and its gradients | a convolution, written in the operations above |
//! | [`depthwise`](Primitives::depthwise) and its gradients | a convolution of [each channel by itself](Depthwise) |
//! | [`moments`](Primitives::moments), [`norm_relu`](Primitives::norm_relu) and its gradient | [batch normalisation](BatchNorm) with a ReLU |
//! | [`orthogonalize`](Primitives::orthogonalize) | matrices with their singular values replaced by about 1 |
//! | [`uniform`](Primitives::uniform), [`uniform_from`](Primitives::uniform_from), [`normal`](Primitives::normal) | random numbers |
//! | [`dequantize`](Primitives::dequantize), [`quantize`](Primitives::quantize) | pixels to numbers, and numbers to pixels |
//! | [`update`](Primitives::update), [`update_segments`](Primitives::update_segments) | an optimiser step |
//!
//! Operations queue, fail and panic as those of [`Device`] do.

use crate::batch_norm::{self, BatchNorm, Normalizer};
use crate::depthwise::{self, Depthwise};
use crate::device::{Device, DeviceError};
use crate::expr::{Expr, input, old};
use crate::optimizer::{Segment, Training, Update, UpdateReport};
use crate::orthogonal;
use crate::pixels::{Noise, Quantized};
use crate::random::Stream;
use crate::shape::Grid;

/// Places of the elements `(i, j, k)` of a three-dimensional array in a buffer: element
/// `start + i·strides[0] + j·strides[1] + k·strides[2]`. A stride of 0 repeats an input along that axis.
///
/// Activations `[batch, pixels, channels]` have the strides `[pixels·channels, channels, 1]`, one number a
/// channel `[0, 0, 1]`, one number an image `[1, 0, 0]`, a single number `[0, 0, 0]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strided {
    /// Place of the first element.
    pub start: usize,
    /// Distance between neighbours along each axis.
    pub strides: [usize; 3],
}

impl Strided {
    /// Checks that every element of an array of this shape lies in a buffer of `len` numbers.
    ///
    /// # Panics
    /// If one does not.
    #[track_caller]
    pub(crate) fn check(self, name: &str, shape: [usize; 3], len: usize) {
        if shape.contains(&0) {
            return;
        }
        let last = shape
            .iter()
            .zip(self.strides)
            .fold(self.start, |place, (&len, stride)| place.saturating_add((len - 1).saturating_mul(stride)));
        assert!(last < len, "{name} is a buffer of {len} numbers, and element {last} is needed");
    }
}

/// Elements of a buffer that an operation reads.
#[derive(Debug)]
pub struct View<'a, B> {
    /// The buffer.
    pub buffer: &'a B,
    /// The places of its elements.
    pub at: Strided,
}

impl<B> Clone for View<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for View<'_, B> {}

/// Elements of a buffer that an operation writes.
#[derive(Debug)]
pub struct ViewMut<'a, B> {
    /// The buffer.
    pub buffer: &'a mut B,
    /// The places of its elements.
    pub at: Strided,
}

/// A matrix in a buffer that an operation reads: row `r` begins at element `start + r·stride`.
#[derive(Debug)]
pub struct Matrix<'a, B> {
    /// The buffer.
    pub buffer: &'a B,
    /// Place of the first element.
    pub start: usize,
    /// Distance between rows.
    pub stride: usize,
}

impl<B> Clone for Matrix<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for Matrix<'_, B> {}

/// A matrix in a buffer that an operation writes.
#[derive(Debug)]
pub struct MatrixMut<'a, B> {
    /// The buffer.
    pub buffer: &'a mut B,
    /// Place of the first element.
    pub start: usize,
    /// Distance between rows.
    pub stride: usize,
}

/// A matrix product `C = op(A)·op(B)`, or `C += op(A)·op(B)`, with C `[m, n]`, op(A) `[m, k]` and op(B) `[k,
/// n]`, all row-major.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gemm {
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// Terms of each sum.
    pub k: usize,
    /// Whether A is stored transposed, `[k, m]`.
    pub a_transposed: bool,
    /// Whether B is stored transposed, `[n, k]`.
    pub b_transposed: bool,
    /// Whether the product is added to C.
    pub accumulate: bool,
}

impl Gemm {
    /// Checks starts and strides of A, B and C against the lengths of their buffers.
    ///
    /// # Panics
    /// If a buffer is too short, or rows of C overlap.
    #[track_caller]
    pub(crate) fn check(self, at: [(usize, usize); 3], lens: [usize; 3]) {
        let Self { m, n, k, a_transposed, b_transposed, .. } = self;
        let a = if a_transposed { [k, m] } else { [m, k] };
        let b = if b_transposed { [n, k] } else { [k, n] };
        let shapes = [("A", a), ("B", b), ("C", [m, n])];
        for (((name, [rows, columns]), (start, stride)), len) in shapes.into_iter().zip(at).zip(lens) {
            Strided { start, strides: [0, stride, 1] }.check(name, [1, rows, columns], len);
        }
        let stride = at[2].1;
        assert!(m <= 1 || stride >= n, "rows of {n} numbers overlap in C, whose stride is {stride}");
    }
}

/// Matrix products of one shape. Each matrix begins at a fixed distance from the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GemmBatch {
    /// Each product.
    pub gemm: Gemm,
    /// Number of products.
    pub count: usize,
    /// Distances between the starts of neighbouring A, B and C.
    pub distances: [usize; 3],
}

impl GemmBatch {
    /// Checks starts and strides of the first A, B and C against the lengths of their buffers.
    ///
    /// # Panics
    /// If a buffer is too short for the last product, or elements of C overlap.
    #[track_caller]
    pub(crate) fn check(self, at: [(usize, usize); 3], lens: [usize; 3]) {
        let Self { gemm: Gemm { m, n, .. }, count, distances } = self;
        let Some(last) = count.checked_sub(1) else { return };
        let [a, b, c] = at;
        let moved = |(start, stride): (usize, usize), distance: usize| {
            (start.saturating_add(last.saturating_mul(distance)), stride)
        };
        self.gemm.check([moved(a, distances[0]), moved(b, distances[1]), moved(c, distances[2])], lens);
        let (stride, distance) = (c.1, distances[2]);
        let apart = distance >= m.saturating_sub(1) * stride + n;
        // Rows of one matrix lie between those of the others.
        let interleaved = distance >= n && stride >= last * distance + n;
        assert!(
            last == 0 || m * n == 0 || apart || interleaved,
            "matrices C of {m} rows overlap, which begin {distance} numbers apart"
        );
    }
}

/// Checks that a buffer has room for as many numbers as an operation needs.
///
/// # Panics
/// If it has not.
#[track_caller]
pub(crate) fn holds(name: &str, len: usize, want: usize) {
    assert!(len >= want, "{name} is a buffer of {len} numbers, and {want} are needed");
}

/// A convolution of stride 1 with zero padding that keeps the size: `x` `[grid, inputs]`, `y` `[grid,
/// outputs]`, `weight` `[outputs, kernel·kernel·inputs]` with the taps before the channels: column
/// `(kernel·dy + dx)·inputs + channel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// The pixels.
    pub grid: Grid,
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Height and width of the window, odd.
    pub kernel: usize,
}

impl Conv {
    /// Columns of the weight matrix.
    pub fn columns(self) -> usize {
        self.kernel * self.kernel * self.inputs
    }

    /// Lengths of the input, the weight and the output.
    pub(crate) fn lens(self) -> [usize; 3] {
        let rows = self.grid.rows();
        [rows * self.inputs, self.outputs * self.columns(), rows * self.outputs]
    }

    /// Checks the lengths of the buffers of an input, a weight and an output, or of their gradients.
    ///
    /// # Panics
    /// If one is too short.
    #[track_caller]
    pub(crate) fn check(self, buffers: [(&str, usize); 3]) {
        for ((name, len), want) in buffers.into_iter().zip(self.lens()) {
            holds(name, len, want);
        }
    }
}

/// General operations on the buffers of a device.
pub trait Primitives: Device {
    /// Evaluates `f` for each element of an array of this shape. [`expr::old`](crate::expr::old) reads the
    /// element of `out` that is about to be overwritten; two elements of `out` must not have one place.
    fn map(
        &self,
        f: &Expr,
        shape: [usize; 3],
        inputs: &[View<'_, Self::Buffer>],
        out: ViewMut<'_, Self::Buffer>,
    );

    /// Sums `f` over every axis along which `out` has the stride 0, and writes the sums, or adds them if
    /// `accumulate`. `f` must not read [`expr::old`](crate::expr::old). The order of the summands is fixed by
    /// the shape.
    fn reduce(
        &self,
        f: &Expr,
        shape: [usize; 3],
        inputs: &[View<'_, Self::Buffer>],
        out: ViewMut<'_, Self::Buffer>,
        accumulate: bool,
    );

    /// A matrix product.
    fn gemm(
        &self,
        gemm: Gemm,
        a: Matrix<'_, Self::Buffer>,
        b: Matrix<'_, Self::Buffer>,
        c: MatrixMut<'_, Self::Buffer>,
    );

    /// Matrix products of one shape; A, B and C are the first of each.
    fn gemm_batch(
        &self,
        batch: GemmBatch,
        a: Matrix<'_, Self::Buffer>,
        b: Matrix<'_, Self::Buffer>,
        c: MatrixMut<'_, Self::Buffer>,
    ) {
        one_by_one(self, batch, a, b, c);
    }

    /// Patches `columns` `[rows, kernel·kernel·channels]` of `x` `[grid, channels]`, zero outside the images:
    /// column `(kernel·dy + dx)·channels + c`.
    fn im2col(
        &self,
        grid: Grid,
        channels: usize,
        kernel: usize,
        x: &Self::Buffer,
        columns: &mut Self::Buffer,
    );

    /// The adjoint of [`im2col`](Self::im2col): each element of `x` becomes the sum of its copies in
    /// `columns`, or is increased by it if `accumulate`.
    fn col2im(
        &self,
        grid: Grid,
        channels: usize,
        kernel: usize,
        columns: &Self::Buffer,
        x: &mut Self::Buffer,
        accumulate: bool,
    );

    /// Fills `out` `[images, …]` with numbers uniform on `[0, 1)`, multiples of 2⁻²⁴; image `i` is drawn from
    /// the stream with the id `stream.id + i`.
    fn uniform(&self, stream: Stream, images: usize, out: &mut Self::Buffer);

    /// Fills `out` with the numbers `first`, `first + 1`, … of a stream, uniform on `[0, 1)`, multiples of
    /// 2⁻²⁴. Number `i` is element `i % 4` of the stream's block `i / 4`.
    fn uniform_from(&self, stream: Stream, first: u64, out: &mut Self::Buffer);

    /// Fills `out` `[images, …]` with `scale` times standard normal numbers; image `i` is drawn from the
    /// stream with the id `stream.id + i`, and so does not depend on the others.
    fn normal(&self, stream: Stream, images: usize, scale: f64, out: &mut Self::Buffer);

    /// `v = floor(pixel / 2^(8−bits)) / 2^bits − 0.5 + noise`, element by element.
    fn dequantize(&self, pixels: &[u8], bits: u32, noise: Noise<'_, Self::Real>, v: &mut Self::Buffer);

    /// Pixels of continuous images `v`, when everything queued before is done: `clamp(floor((v +
    /// 0.5)·2^bits), 0, 2^bits − 1)`, scaled to 0..=255. A NaN becomes 0.
    ///
    /// # Errors
    /// The first failure of this device, if there was one.
    fn quantize(&self, v: &Self::Buffer, bits: u32) -> Result<Quantized, DeviceError>;

    /// One optimiser step of all parameters. If the gradient, or a log-likelihood in one of `logp`, is not finite, weights,
    /// moments and average stay as they are. No number that is not finite is ever written to them
    /// ([`all_finite`](UpdateReport::all_finite)). The gradient is zero afterwards either way.
    ///
    /// # Errors
    /// The first failure of this device, if there was one.
    fn update(
        &self,
        update: &Update,
        logp: &[&Self::Buffer],
        training: Training<'_, Self::Buffer>,
    ) -> Result<UpdateReport, DeviceError> {
        let all = Segment::all(self.len(training.weights));
        self.update_segments(update, logp, training, &[all])
    }

    /// One optimiser step of these segments, in ascending order, as [`update`](Self::update). The norm, clipping and the
    /// check for numbers that are not finite take the whole gradient into account. Outside of the segments nothing
    /// changes, the gradient included.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    fn update_segments(
        &self,
        update: &Update,
        logp: &[&Self::Buffer],
        training: Training<'_, Self::Buffer>,
        segments: &[Segment],
    ) -> Result<UpdateReport, DeviceError>;

    /// The convolution, written to `y`, or added to it if `accumulate`.
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

    /// The gradient by the input of a convolution, given that by the output.
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

    /// The gradient by the weight of a convolution, given that by the output.
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

    /// The depthwise convolution of `x` with the taps from element `start` of `taps` on, written to `y`.
    fn depthwise(
        &self,
        conv: Depthwise,
        x: &Self::Buffer,
        (taps, start): (&Self::Buffer, usize),
        y: &mut Self::Buffer,
    ) {
        depthwise::forward(self, conv, x, (taps, start), y);
    }

    /// Adds the gradient by the input of a depthwise convolution to `dx`, given that by the output.
    fn depthwise_backward_input(
        &self,
        conv: Depthwise,
        (taps, start): (&Self::Buffer, usize),
        dy: &Self::Buffer,
        dx: &mut Self::Buffer,
    ) {
        depthwise::backward_input(self, conv, (taps, start), dy, dx);
    }

    /// Adds the gradient by the taps of a depthwise convolution to the elements of `dtaps` from `start` on, given that
    /// by the output.
    fn depthwise_backward_taps(
        &self,
        conv: Depthwise,
        x: &Self::Buffer,
        dy: &Self::Buffer,
        (dtaps, start): (&mut Self::Buffer, usize),
    ) {
        depthwise::backward_taps(self, conv, x, dy, (dtaps, start));
    }

    /// Mean and variance (divided by the count) of each channel of `x`, written to `out` `[2, channels]`.
    fn moments(&self, norm: BatchNorm, x: &Self::Buffer, out: &mut Self::Buffer) {
        batch_norm::moments(self, norm, x, out);
    }

    /// `y = ReLU(norm(x))`.
    fn norm_relu(
        &self,
        norm: BatchNorm,
        by: Normalizer<'_, Self::Buffer>,
        x: &Self::Buffer,
        y: &mut Self::Buffer,
    ) {
        batch_norm::norm_relu(self, norm, by, x, y);
    }

    /// The gradient by the input of [`norm_relu`](Self::norm_relu), written to `dx` or added to it, given that by the
    /// output. `constants` says that the statistics do not depend on `x`. `sums` `[2, channels]` takes Σ g, the gradient
    /// by the bias, and Σ g·x̂.
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

    /// Matrices with the singular vectors of those in `x` `[count, rows, columns]` and singular values of about 1, by five
    /// Newton–Schulz iterations (Jordan et al. 2024, "Muon"): between 0.7 and 1.2, less for values below a thousandth of
    /// the norm. A matrix of zeros stays. Factors of products may be rounded to 19 bits.
    fn orthogonalize(&self, count: usize, shape: [usize; 2], x: Self::Buffer) -> Self::Buffer {
        orthogonal::orthogonalize(self, count, shape, x, |gemm, a, b, c| {
            orthogonal::one_by_one(self, count, gemm, a, b, c);
        })
    }

    /// Adds `by·from` to `to`, number by number.
    fn add_scaled(&self, len: usize, from: &Self::Buffer, by: f64, to: &mut Self::Buffer) {
        let at = Strided { start: 0, strides: [0, 0, 1] };
        let f = old() + crate::expr::constant(by) * input(0);
        self.map(&f, [1, 1, len], &[View { buffer: from, at }], ViewMut { buffer: to, at });
    }
}

/// The body of [`Primitives::gemm_batch`].
pub(crate) fn one_by_one<D: Primitives>(
    device: &D,
    batch: GemmBatch,
    a: Matrix<'_, D::Buffer>,
    b: Matrix<'_, D::Buffer>,
    c: MatrixMut<'_, D::Buffer>,
) {
    let lens = [device.len(a.buffer), device.len(b.buffer), device.len(c.buffer)];
    batch.check([(a.start, a.stride), (b.start, b.stride), (c.start, c.stride)], lens);
    let [of_a, of_b, of_c] = batch.distances;
    let MatrixMut { buffer, start, stride } = c;
    for i in 0..batch.count {
        device.gemm(
            batch.gemm,
            Matrix { start: a.start + i * of_a, ..a },
            Matrix { start: b.start + i * of_b, ..b },
            MatrixMut { buffer: &mut *buffer, start: start + i * of_c, stride },
        );
    }
}

/// The patches of `x`; none for a 1×1 convolution, whose patches are `x` itself.
fn patches<D: Primitives>(device: &D, conv: Conv, x: &D::Buffer) -> Option<D::Buffer> {
    (conv.kernel > 1).then(|| {
        let mut columns = device.scratch(conv.grid.rows() * conv.columns());
        device.im2col(conv.grid, conv.inputs, conv.kernel, x, &mut columns);
        columns
    })
}
