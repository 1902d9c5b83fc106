//! The general operations on the CPU.

mod batch_norm;
mod conv;
pub(crate) mod depthwise;
pub(crate) mod gemm;
mod map;
mod patches;
mod program;
mod reduce;
pub(crate) mod tiles;
mod winograd;

use rayon::prelude::*;

use self::depthwise::Goal;
use self::gemm::Target;
use self::tiles::{Patches, Stored};
use super::{Buffer, Cpu, Scalar, update};
use crate::batch_norm::{BatchNorm, Normalizer};
use crate::depthwise::Depthwise;
use crate::device::{Device, DeviceError};
use crate::elements::Elements;
use crate::expr::Expr;
use crate::optimizer::{Segment, Training, Update, UpdateReport};
use crate::orthogonal;
use crate::pixels::{Noise, Quantized};
use crate::primitives::{Conv, Gemm, Matrix, MatrixMut, Primitives, Strided, View, ViewMut, holds};
use crate::random::RngStream;
use crate::shape::Grid;

/// Splits views into positions with buffer lengths, and the buffers.
fn views<'a, T>(inputs: &[View<'a, Buffer<T>>]) -> (Vec<(Strided, usize)>, Vec<&'a [T]>) {
    inputs.iter().map(|view| ((view.at, view.buffer.len()), &view.buffer[..])).unzip()
}

/// The part of a buffer from a matrix's first element on. An empty matrix may begin anywhere.
fn stored<T: Scalar>(of: Matrix<'_, Buffer<T>>) -> Stored<'_, T> {
    Stored { data: of.buffer.get(of.start..).unwrap_or_default(), stride: of.stride }
}

/// Statistics and bias as slices with one value per channel.
fn normalizer<'a, T: Scalar>(
    norm: BatchNorm,
    by: Normalizer<'a, Buffer<T>>,
) -> self::batch_norm::Normalizer<'a, T> {
    let (mean, rest) = by.statistics.split_at(norm.channels);
    let bias = &by.bias[by.bias_start..][..norm.channels];
    self::batch_norm::Normalizer { mean, inverse: &rest[..norm.channels], bias }
}

impl<T: Scalar> Primitives for Cpu<T> {
    fn map(&self, f: &Expr, shape: [usize; 3], inputs: &[View<'_, Buffer<T>>], out: ViewMut<'_, Buffer<T>>) {
        let (at, inputs) = views(inputs);
        let elements = Elements::of_map(f, shape, &at, (out.at, out.buffer.len()));
        map::map(&self.work, f, &elements, &inputs, out.buffer);
    }

    fn reduce(
        &self,
        f: &Expr,
        shape: [usize; 3],
        inputs: &[View<'_, Buffer<T>>],
        out: ViewMut<'_, Buffer<T>>,
        accumulate: bool,
    ) {
        let (at, inputs) = views(inputs);
        let elements = Elements::of_reduction(f, shape, &at, (out.at, out.buffer.len()));
        reduce::reduce(&self.work, f, &elements, &inputs, out.buffer, accumulate);
    }

    fn gemm(
        &self,
        gemm: Gemm,
        a: Matrix<'_, Buffer<T>>,
        b: Matrix<'_, Buffer<T>>,
        c: MatrixMut<'_, Buffer<T>>,
    ) {
        gemm.check(
            [(a.start, a.stride), (b.start, b.stride), (c.start, c.stride)],
            [a.buffer.len(), b.buffer.len(), c.buffer.len()],
        );
        if gemm.m == 0 || gemm.n == 0 {
            return;
        }
        let target = Target { data: &mut c.buffer[c.start..], stride: c.stride, accumulate: gemm.accumulate };
        gemm::gemm(&self.work, gemm, stored(a), stored(b), target);
    }

    fn im2col(&self, grid: Grid, channels: usize, kernel: usize, x: &Buffer<T>, columns: &mut Buffer<T>) {
        let len = grid.rows() * channels;
        holds("x", x.len(), len);
        holds("columns", columns.len(), kernel * kernel * len);
        if len > 0 {
            patches::im2col(Patches { grid, channels, kernel, x }, &mut columns[..kernel * kernel * len]);
        }
    }

    fn col2im(
        &self,
        grid: Grid,
        channels: usize,
        kernel: usize,
        columns: &Buffer<T>,
        x: &mut Buffer<T>,
        accumulate: bool,
    ) {
        let len = grid.rows() * channels;
        holds("x", x.len(), len);
        holds("columns", columns.len(), kernel * kernel * len);
        if len > 0 {
            let patches = Patches { grid, channels, kernel, x: columns };
            patches::col2im(&self.work, patches, &mut x[..len], accumulate);
        }
    }

    fn uniform(&self, stream: RngStream, images: usize, out: &mut Buffer<T>) {
        let length = (out.len() / images.max(1)).max(1);
        out.par_chunks_exact_mut(length).enumerate().for_each(|(image, out)| {
            let stream = RngStream { id: stream.id.wrapping_add(image as u64), ..stream };
            self.fill(out, |i| stream.uniform(i));
        });
    }

    fn uniform_from(&self, stream: RngStream, first: u64, out: &mut Buffer<T>) {
        self.fill_from(first, out, |i| stream.uniform(i));
    }

    fn dequantize(&self, pixels: &[u8], bits: u32, noise: Noise<'_, T>, v: &mut Buffer<T>) {
        let bins = f64::from(1u32 << bits);
        match noise {
            Noise::Midpoint => v.fill(T::of(0.5 / bins)),
            Noise::Uniform(stream, first) => {
                self.fill_from(first, v, |i| stream.uniform(i).map(|u| u / bins))
            }
            Noise::Given(noise) => v.copy_from_slice(noise),
        }
        for (v, &pixel) in v.iter_mut().zip(pixels) {
            *v += T::of(f64::from(pixel >> (8 - bits)) / bins - 0.5);
        }
    }

    fn quantize(&self, v: &Buffer<T>, bits: u32) -> Result<Quantized, DeviceError> {
        let bins = f64::from(1u32 << bits);
        // A NaN becomes 0, as the saturating cast has it.
        let pixel = |v: &T| (((v.wide() + 0.5) * bins).floor().clamp(0.0, bins - 1.0) as u8) << (8 - bits);
        Ok(Quantized { pixels: v.iter().map(pixel).collect(), finite: v.iter().all(|v| v.is_finite()) })
    }

    fn normal(&self, stream: RngStream, images: usize, scale: f64, out: &mut Buffer<T>) {
        let length = (out.len() / images.max(1)).max(1);
        for (image, out) in out.chunks_exact_mut(length).enumerate() {
            let stream = RngStream { id: stream.id.wrapping_add(image as u64), ..stream };
            self.fill(out, |i| stream.normal(i).map(|x| scale * x));
        }
    }

    fn update_segments(
        &self,
        update: &Update,
        logp: &[&Buffer<T>],
        training: Training<'_, Buffer<T>>,
        segments: &[Segment],
    ) -> Result<UpdateReport, DeviceError> {
        Ok(update::update(&self.work, update, logp, training, segments))
    }

    fn orthogonalize(&self, count: usize, shape: [usize; 2], mut x: Buffer<T>) -> Buffer<T> {
        let len = shape[0] * shape[1];
        holds("x", x.len(), count * len);
        // Products of single matrices are too small for all threads.
        x[..count * len].par_chunks_mut(len.max(1)).for_each(|x| {
            let result = orthogonal::orthogonalize(self, 1, shape, self.upload(x), |gemm, a, b, c| {
                orthogonal::one_by_one(self, 1, gemm, a, b, c);
            });
            x.copy_from_slice(&result);
        });
        x
    }

    fn conv(&self, conv: Conv, x: &Buffer<T>, weight: &Buffer<T>, y: &mut Buffer<T>, accumulate: bool) {
        conv.check([("x", x.len()), ("weight", weight.len()), ("y", y.len())]);
        let [_, _, len] = conv.lens();
        conv::forward(&self.work, conv, x, weight, &mut y[..len], accumulate);
    }

    fn conv_backward_input(
        &self,
        conv: Conv,
        weight: &Buffer<T>,
        dy: &Buffer<T>,
        dx: &mut Buffer<T>,
        accumulate: bool,
    ) {
        conv.check([("dx", dx.len()), ("weight", weight.len()), ("dy", dy.len())]);
        let [len, _, _] = conv.lens();
        conv::backward_input(&self.work, conv, weight, dy, &mut dx[..len], accumulate);
    }

    fn conv_backward_weight(
        &self,
        conv: Conv,
        x: &Buffer<T>,
        dy: &Buffer<T>,
        dweight: &mut Buffer<T>,
        accumulate: bool,
    ) {
        conv.check([("x", x.len()), ("dweight", dweight.len()), ("dy", dy.len())]);
        let [_, len, _] = conv.lens();
        conv::backward_weight(&self.work, conv, x, dy, &mut dweight[..len], accumulate);
    }

    fn depthwise(
        &self,
        conv: Depthwise,
        x: &Buffer<T>,
        (taps, start): (&Buffer<T>, usize),
        y: &mut Buffer<T>,
    ) {
        conv.check(&[("x", x.len()), ("y", y.len())], (taps.len(), start));
        if !conv.is_empty() {
            let (x, y) = (&x[..conv.len()], &mut y[..conv.len()]);
            depthwise::convolve(conv, x, &taps[start..][..conv.taps_len()], y, Goal::Forward);
        }
    }

    fn depthwise_backward_input(
        &self,
        conv: Depthwise,
        (taps, start): (&Buffer<T>, usize),
        dy: &Buffer<T>,
        dx: &mut Buffer<T>,
    ) {
        conv.check(&[("dy", dy.len()), ("dx", dx.len())], (taps.len(), start));
        if !conv.is_empty() {
            let (dy, dx) = (&dy[..conv.len()], &mut dx[..conv.len()]);
            let taps = &taps[start..][..conv.taps_len()];
            depthwise::convolve(conv, dy, taps, dx, Goal::BackwardInput);
        }
    }

    fn depthwise_backward_taps(
        &self,
        conv: Depthwise,
        x: &Buffer<T>,
        dy: &Buffer<T>,
        (dtaps, start): (&mut Buffer<T>, usize),
    ) {
        conv.check(&[("x", x.len()), ("dy", dy.len())], (dtaps.len(), start));
        if !conv.is_empty() {
            let dtaps = &mut dtaps[start..][..conv.taps_len()];
            depthwise::by_taps(&self.work, conv, &x[..conv.len()], &dy[..conv.len()], dtaps);
        }
    }

    fn moments(&self, norm: BatchNorm, x: &Buffer<T>, out: &mut Buffer<T>) {
        norm.check(&[("x", x.len())], &[("out", out.len())]);
        if !norm.is_empty() {
            self::batch_norm::moments(&self.work, norm, &x[..norm.len()], &mut out[..2 * norm.channels]);
        }
    }

    fn norm_relu(&self, norm: BatchNorm, by: Normalizer<'_, Buffer<T>>, x: &Buffer<T>, y: &mut Buffer<T>) {
        norm.check(&[("x", x.len()), ("y", y.len())], &[("statistics", by.statistics.len())]);
        if !norm.is_empty() {
            let by = normalizer(norm, by);
            self::batch_norm::norm_relu(&self.work, by, &x[..norm.len()], &mut y[..norm.len()]);
        }
    }

    fn norm_relu_backward(
        &self,
        norm: BatchNorm,
        by: Normalizer<'_, Buffer<T>>,
        constants: bool,
        x: &Buffer<T>,
        dy: &Buffer<T>,
        sums: &mut Buffer<T>,
        dx: &mut Buffer<T>,
        accumulate: bool,
    ) {
        norm.check(
            &[("x", x.len()), ("dy", dy.len()), ("dx", dx.len())],
            &[("statistics", by.statistics.len()), ("sums", sums.len())],
        );
        if norm.is_empty() {
            return;
        }
        let (by, x, dy) = (normalizer(norm, by), &x[..norm.len()], &dy[..norm.len()]);
        let sums = &mut sums[..2 * norm.channels];
        self::batch_norm::gradient_sums(&self.work, by, x, dy, sums);
        let share = if constants { T::zero() } else { T::of(1.0 / norm.rows as f64) };
        let means: Vec<T> = sums.iter().map(|&sum| sum * share).collect();
        let dx = &mut dx[..norm.len()];
        self::batch_norm::by_input(&self.work, by, &means, (x, dy), dx, accumulate);
    }
}
