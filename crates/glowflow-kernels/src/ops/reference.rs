//! [`Reference`]: a device that runs every operation by its reference body.

use std::ops::Range;

use crate::batch_norm::{BatchNorm, Normalizer};
use crate::depthwise::Depthwise;
use crate::device::{Device, DeviceError};
use crate::expr::Expr;
use crate::optimizer::{Segment, Training, Update, UpdateReport};
use crate::pixels::{Noise, Quantized};
use crate::primitives::{Conv, Gemm, GemmBatch, Matrix, MatrixMut, Primitives, View, ViewMut};
use crate::random::RngStream;
use crate::shape::Grid;

/// A device with the memory and the primitives of another one, and the reference bodies of all operations.
///
/// It does not capture, because reference bodies upload constants.
///
/// ```
/// use glowflow_kernels::ops::{Operations, Squeeze};
/// use glowflow_kernels::{Cpu, Device, Grid, Reference};
///
/// fn squeezed(device: &impl Operations<Real = f32>) -> Vec<f32> {
///     let x = device.upload(&[1.0, 2.0, 3.0, 4.0]);
///     let mut y = device.scratch(4);
///     device.squeeze(Grid { batch: 1, height: 2, width: 2 }, 1, &x, &mut y);
///     device.download(&y).unwrap()
/// }
/// let cpu = Cpu::<f32>::new();
/// assert_eq!(squeezed(&cpu), squeezed(&Reference(cpu.clone())));
/// ```
#[derive(Clone, Debug)]
pub struct Reference<D>(pub D);

impl<D: Device> Device for Reference<D> {
    type Real = D::Real;
    type Buffer = D::Buffer;
    type Captured = std::convert::Infallible;

    fn name(&self) -> String {
        format!("{}, reference operations", self.0.name())
    }

    fn pixels_at_once(&self) -> usize {
        self.0.pixels_at_once()
    }

    fn layers_at_once(&self) -> usize {
        self.0.layers_at_once()
    }

    fn peak_memory(&self) -> Option<u64> {
        self.0.peak_memory()
    }

    fn within<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.0.within(work)
    }

    fn capture<T>(&self, _: impl FnOnce(&Self) -> T) -> Option<(T, Self::Captured)> {
        None
    }

    fn replay(&self, capture: &Self::Captured) {
        match *capture {}
    }

    fn scratch(&self, len: usize) -> Self::Buffer {
        self.0.scratch(len)
    }

    fn zeros(&self, len: usize) -> Self::Buffer {
        self.0.zeros(len)
    }

    fn upload(&self, values: &[Self::Real]) -> Self::Buffer {
        self.0.upload(values)
    }

    fn download(&self, buffer: &Self::Buffer) -> Result<Vec<Self::Real>, DeviceError> {
        self.0.download(buffer)
    }

    fn copy(&self, from: &Self::Buffer, to: &mut Self::Buffer) {
        self.0.copy(from, to);
    }

    fn read(&self, buffer: &Self::Buffer, at: Range<usize>) -> Result<Vec<Self::Real>, DeviceError> {
        self.0.read(buffer, at)
    }

    fn write(&self, buffer: &mut Self::Buffer, at: usize, values: &[Self::Real]) {
        self.0.write(buffer, at, values);
    }

    fn len(&self, buffer: &Self::Buffer) -> usize {
        self.0.len(buffer)
    }
}

impl<D: Primitives> Primitives for Reference<D> {
    fn map(
        &self,
        f: &Expr,
        shape: [usize; 3],
        inputs: &[View<'_, Self::Buffer>],
        out: ViewMut<'_, Self::Buffer>,
    ) {
        self.0.map(f, shape, inputs, out);
    }

    fn reduce(
        &self,
        f: &Expr,
        shape: [usize; 3],
        inputs: &[View<'_, Self::Buffer>],
        out: ViewMut<'_, Self::Buffer>,
        accumulate: bool,
    ) {
        self.0.reduce(f, shape, inputs, out, accumulate);
    }

    fn gemm(
        &self,
        gemm: Gemm,
        a: Matrix<'_, Self::Buffer>,
        b: Matrix<'_, Self::Buffer>,
        c: MatrixMut<'_, Self::Buffer>,
    ) {
        self.0.gemm(gemm, a, b, c);
    }

    fn gemm_batch(
        &self,
        batch: GemmBatch,
        a: Matrix<'_, Self::Buffer>,
        b: Matrix<'_, Self::Buffer>,
        c: MatrixMut<'_, Self::Buffer>,
    ) {
        self.0.gemm_batch(batch, a, b, c);
    }

    fn im2col(
        &self,
        grid: Grid,
        channels: usize,
        kernel: usize,
        x: &Self::Buffer,
        columns: &mut Self::Buffer,
    ) {
        self.0.im2col(grid, channels, kernel, x, columns);
    }

    fn col2im(
        &self,
        grid: Grid,
        channels: usize,
        kernel: usize,
        columns: &Self::Buffer,
        x: &mut Self::Buffer,
        accumulate: bool,
    ) {
        self.0.col2im(grid, channels, kernel, columns, x, accumulate);
    }

    fn depthwise(
        &self,
        conv: Depthwise,
        x: &Self::Buffer,
        taps: (&Self::Buffer, usize),
        y: &mut Self::Buffer,
    ) {
        self.0.depthwise(conv, x, taps, y);
    }

    fn depthwise_backward_input(
        &self,
        conv: Depthwise,
        taps: (&Self::Buffer, usize),
        dy: &Self::Buffer,
        dx: &mut Self::Buffer,
    ) {
        self.0.depthwise_backward_input(conv, taps, dy, dx);
    }

    fn depthwise_backward_taps(
        &self,
        conv: Depthwise,
        x: &Self::Buffer,
        dy: &Self::Buffer,
        dtaps: (&mut Self::Buffer, usize),
    ) {
        self.0.depthwise_backward_taps(conv, x, dy, dtaps);
    }

    fn moments(&self, norm: BatchNorm, x: &Self::Buffer, out: &mut Self::Buffer) {
        self.0.moments(norm, x, out);
    }

    fn norm_relu(
        &self,
        norm: BatchNorm,
        by: Normalizer<'_, Self::Buffer>,
        x: &Self::Buffer,
        y: &mut Self::Buffer,
    ) {
        self.0.norm_relu(norm, by, x, y);
    }

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
        self.0.norm_relu_backward(norm, by, constants, x, dy, sums, dx, accumulate);
    }

    fn uniform(&self, stream: RngStream, images: usize, out: &mut Self::Buffer) {
        self.0.uniform(stream, images, out);
    }

    fn uniform_from(&self, stream: RngStream, first: u64, out: &mut Self::Buffer) {
        self.0.uniform_from(stream, first, out);
    }

    fn normal(&self, stream: RngStream, images: usize, scale: f64, out: &mut Self::Buffer) {
        self.0.normal(stream, images, scale, out);
    }

    fn dequantize(&self, pixels: &[u8], bits: u32, noise: Noise<'_, Self::Real>, v: &mut Self::Buffer) {
        self.0.dequantize(pixels, bits, noise, v);
    }

    fn quantize(&self, v: &Self::Buffer, bits: u32) -> Result<Quantized, DeviceError> {
        self.0.quantize(v, bits)
    }

    fn update_segments(
        &self,
        update: &Update,
        logp: &[&Self::Buffer],
        training: Training<'_, Self::Buffer>,
        segments: &[Segment],
    ) -> Result<UpdateReport, DeviceError> {
        self.0.update_segments(update, logp, training, segments)
    }

    fn conv(
        &self,
        conv: Conv,
        x: &Self::Buffer,
        weight: &Self::Buffer,
        y: &mut Self::Buffer,
        accumulate: bool,
    ) {
        self.0.conv(conv, x, weight, y, accumulate);
    }

    fn conv_backward_input(
        &self,
        conv: Conv,
        weight: &Self::Buffer,
        dy: &Self::Buffer,
        dx: &mut Self::Buffer,
        accumulate: bool,
    ) {
        self.0.conv_backward_input(conv, weight, dy, dx, accumulate);
    }

    fn conv_backward_weight(
        &self,
        conv: Conv,
        x: &Self::Buffer,
        dy: &Self::Buffer,
        dweight: &mut Self::Buffer,
        accumulate: bool,
    ) {
        self.0.conv_backward_weight(conv, x, dy, dweight, accumulate);
    }
}
