//! The parameters broadcast to every pixel, and classes as a product with one-hot rows.

use super::{FinalPrior, FinalPriorParams};
use crate::device::Device;
use crate::expr::{constant, input, old};
use crate::ops::Reference;
use crate::ops::views::{Rows, per_channel, read, write};
use crate::primitives::{Gemm, Matrix, MatrixMut, Primitives, Strided};
use crate::real::Real;
use crate::shape::Grid;

/// The parameters, copied: mean and logs, then a row for each class.
pub struct Prior<B> {
    channels: usize,
    classes: usize,
    values: B,
}

/// `[batch, classes]`, 1 in the column of an image's class.
fn one_hot<D: Primitives>(device: &D, batch: usize, classes: usize, labels: &D::Buffer) -> D::Buffer {
    let numbers: Vec<_> = (0..classes).map(|class| D::Real::of(class as f64)).collect();
    let numbers = device.upload(&numbers);
    let rows = Rows { rows: batch, channels: classes };
    let mut out = device.scratch(rows.len());
    let label = Strided { start: 0, strides: [0, 1, 0] };
    let f = (constant(0.5) - (input(0) - input(1)).abs()).step();
    let inputs = [read(labels, label), read(&numbers, per_channel(0))];
    device.map(&f, rows.shape(), &inputs, write(&mut out, rows.each()));
    out
}

/// Strides of a per-image vector in a `[rows, width]` array, the same at every pixel.
fn per_image(width: usize) -> Strided {
    Strided { start: 0, strides: [width, 0, 1] }
}

/// Strides of a `[rows, width]` array, by images.
fn each(grid: Grid, width: usize) -> Strided {
    Strided { start: 0, strides: [grid.pixels() * width, width, 1] }
}

fn shape(grid: Grid, width: usize) -> [usize; 3] {
    [grid.batch, grid.pixels(), width]
}

impl<D: Primitives> FinalPrior for Reference<D> {
    type Prior = Prior<D::Buffer>;

    fn prepare_final_prior(&self, at: &FinalPriorParams, params: &D::Buffer) -> Self::Prior {
        let width = 2 * at.channels;
        let classes = at.class_weight.map_or(0, |weight| weight.len / width);
        let mut values = self.scratch(width * (1 + classes));
        let mut to = 0;
        for span in [Some(at.mean), Some(at.logs), at.class_weight].into_iter().flatten() {
            let from = read(params, per_channel(span.start));
            self.map(&input(0), [1, 1, span.len], &[from], write(&mut values, per_channel(to)));
            to += span.len;
        }
        Prior { channels: at.channels, classes, values }
    }

    fn final_prior(&self, top: &Self::Prior, grid: Grid, labels: &D::Buffer, prior: &mut D::Buffer) {
        let (width, n) = (2 * top.channels, top.classes);
        let (shape, each) = (shape(grid, width), each(grid, width));
        let base = read(&top.values, per_channel(0));
        self.map(&input(0), shape, &[base], write(&mut *prior, each));
        if n == 0 {
            return;
        }
        let one_hot = one_hot(self, grid.batch, n, labels);
        let mut of_class = self.scratch(grid.batch * width);
        let (m, k) = (grid.batch, n);
        self.gemm(
            Gemm { m, n: width, k, a_transposed: false, b_transposed: false, accumulate: false },
            Matrix { buffer: &one_hot, start: 0, stride: n },
            Matrix { buffer: &top.values, start: width, stride: width },
            MatrixMut { buffer: &mut of_class, start: 0, stride: width },
        );
        self.map(&(old() + input(0)), shape, &[read(&of_class, per_image(width))], write(prior, each));
    }

    fn final_prior_backward(
        &self,
        at: &FinalPriorParams,
        grid: Grid,
        labels: &D::Buffer,
        d_prior: &D::Buffer,
        gradient: &mut D::Buffer,
    ) {
        let width = 2 * at.channels;
        for (span, first) in [(at.mean, 0), (at.logs, at.channels)] {
            let from = Strided { start: first, ..each(grid, width) };
            let to = write(&mut *gradient, per_channel(span.start));
            self.reduce(&input(0), shape(grid, at.channels), &[read(d_prior, from)], to, true);
        }
        let Some(weight) = at.class_weight else { return };
        let mut sums = self.scratch(grid.batch * width);
        let to = write(&mut sums, per_image(width));
        self.reduce(&input(0), shape(grid, width), &[read(d_prior, each(grid, width))], to, false);
        let classes = weight.len / width;
        let one_hot = one_hot(self, grid.batch, classes, labels);
        let (m, n, k) = (classes, width, grid.batch);
        self.gemm(
            Gemm { m, n, k, a_transposed: true, b_transposed: false, accumulate: true },
            Matrix { buffer: &one_hot, start: 0, stride: classes },
            Matrix { buffer: &sums, start: 0, stride: width },
            MatrixMut { buffer: gradient, start: weight.start, stride: width },
        );
    }
}
