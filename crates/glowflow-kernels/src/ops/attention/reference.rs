//! Attention as a batch of matrix products per head, with maps and sums over the rows of all heads. The
//! weights S of all images and heads are in memory at once.

use super::{Attention, AttentionShape};
use crate::device::Device;
use crate::expr::{constant, input, old};
use crate::ops::Reference;
use crate::ops::views::{Rows, read, write};
use crate::primitives::{Gemm, GemmBatch, Matrix, MatrixMut, Primitives, Strided};

/// Matrices of a head, one per image: position of the first, stride of the rows, distance between matrices.
#[derive(Clone, Copy)]
struct Places {
    start: usize,
    stride: usize,
    distance: usize,
}

impl Places {
    fn of<B>(self, buffer: &B) -> (Matrix<'_, B>, usize) {
        (Matrix { buffer, start: self.start, stride: self.stride }, self.distance)
    }
}

/// Parts of `qkv`: queries, keys and values.
#[derive(Clone, Copy)]
enum Part {
    Queries,
    Keys,
    Values,
}

impl AttentionShape {
    fn part(self, part: Part, head: usize) -> Places {
        let stride = 3 * self.width;
        let start = part as usize * self.width + head * self.head_width();
        Places { start, stride, distance: self.grid.pixels() * stride }
    }

    fn output(self, head: usize) -> Places {
        let start = head * self.head_width();
        Places { start, stride: self.width, distance: self.grid.pixels() * self.width }
    }

    /// Layout of the matrices of a head in arrays `[heads, batch, pixels, pixels]`.
    fn scores(self, head: usize) -> Places {
        let (pixels, rows) = (self.grid.pixels(), self.grid.rows());
        Places { start: head * rows * pixels, stride: pixels, distance: pixels * pixels }
    }

    /// The rows of such an array.
    pub(super) fn score_rows(self) -> Rows {
        Rows { rows: self.heads * self.grid.rows(), channels: self.grid.pixels() }
    }
}

/// A device's softmax on arrays `[heads, batch, pixels, pixels]`, including the scale of the scores.
pub(super) struct Softmax<D: Device> {
    /// Converts products of queries and keys to weights.
    pub forward: fn(&D, AttentionShape, &mut D::Buffer),
    /// Converts the gradient of the weights, the last argument, to the gradient of those products.
    pub backward: fn(&D, AttentionShape, &D::Buffer, &mut D::Buffer),
}

/// Layout with one value per row.
const PER_ROW: Strided = Strided { start: 0, strides: [0, 1, 0] };

/// `C = op(A)·op(B)` for each image.
fn products<D: Primitives>(
    device: &D,
    shape: AttentionShape,
    [m, n, k]: [usize; 3],
    [a_transposed, b_transposed]: [bool; 2],
    (a, of_a): (Matrix<'_, D::Buffer>, usize),
    (b, of_b): (Matrix<'_, D::Buffer>, usize),
    (c, to): (&mut D::Buffer, Places),
) {
    let gemm = Gemm { m, n, k, a_transposed, b_transposed, accumulate: false };
    let batch = GemmBatch { gemm, count: shape.grid.batch, distances: [of_a, of_b, to.distance] };
    device.gemm_batch(batch, a, b, MatrixMut { buffer: c, start: to.start, stride: to.stride });
}

/// A value per row that equals its maximum up to rounding: the halves of the rows are folded onto each other.
fn maxima<D: Primitives>(device: &D, rows: Rows, x: &D::Buffer) -> D::Buffer {
    let mut folded = device.copied(x, rows.len());
    let mut width = rows.channels;
    while width > 1 {
        let half = width.div_ceil(2);
        let pairs = width - half;
        let mut next = device.scratch(rows.rows * half);
        let places = |first: usize, stride: usize| Strided { start: first, strides: [0, stride, 1] };
        let inputs = [read(&folded, places(0, width)), read(&folded, places(half, width))];
        let larger = input(0) + (input(1) - input(0)).relu();
        device.map(&larger, [1, rows.rows, pairs], &inputs, write(&mut next, places(0, half)));
        if pairs < half {
            let alone = [read(&folded, places(pairs, width))];
            device.map(&input(0), [1, rows.rows, 1], &alone, write(&mut next, places(pairs, half)));
        }
        folded = next;
        width = half;
    }
    folded
}

fn softmax<D: Primitives>(device: &D, shape: AttentionShape, scores: &mut D::Buffer) {
    let rows = shape.score_rows();
    let largest = maxima(device, rows, scores);
    let f = (constant(shape.scale()) * (old() - input(0))).exp();
    device.map(&f, rows.shape(), &[read(&largest, PER_ROW)], write(scores, rows.each()));
    let mut sums = device.scratch(rows.rows);
    let terms = [read(&*scores, rows.each())];
    device.reduce(&input(0), rows.shape(), &terms, write(&mut sums, PER_ROW), false);
    let f = old() / input(0);
    device.map(&f, rows.shape(), &[read(&sums, PER_ROW)], write(scores, rows.each()));
}

fn softmax_backward<D: Primitives>(
    device: &D,
    shape: AttentionShape,
    weights: &D::Buffer,
    d_weights: &mut D::Buffer,
) {
    let rows = shape.score_rows();
    let mut sums = device.scratch(rows.rows);
    let inputs = [read(&*d_weights, rows.each()), read(weights, rows.each())];
    device.reduce(&(input(0) * input(1)), rows.shape(), &inputs, write(&mut sums, PER_ROW), false);
    let f = constant(shape.scale()) * input(0) * (old() - input(1));
    let inputs = [read(weights, rows.each()), read(&sums, PER_ROW)];
    device.map(&f, rows.shape(), &inputs, write(d_weights, rows.each()));
}

/// Computes S `[heads, batch, pixels, pixels]`.
fn weights<D: Primitives>(device: &D, by: &Softmax<D>, shape: AttentionShape, qkv: &D::Buffer) -> D::Buffer {
    let pixels = shape.grid.pixels();
    let mut scores = device.scratch(shape.score_rows().len());
    for head in 0..shape.heads {
        let [queries, keys] = [Part::Queries, Part::Keys].map(|part| shape.part(part, head).of(qkv));
        let (size, to) = ([pixels, pixels, shape.head_width()], (&mut scores, shape.scores(head)));
        products(device, shape, size, [false, true], queries, keys, to);
    }
    (by.forward)(device, shape, &mut scores);
    scores
}

/// Computes the attention with batches of matrix products.
pub(super) fn forward<D: Primitives>(
    device: &D,
    by: &Softmax<D>,
    shape: AttentionShape,
    qkv: &D::Buffer,
    y: &mut D::Buffer,
) {
    shape.check(&[device.len(qkv)], &[device.len(y)]);
    if shape.len() == 0 {
        return;
    }
    let weights = weights(device, by, shape, qkv);
    let pixels = shape.grid.pixels();
    for head in 0..shape.heads {
        let size = [pixels, shape.head_width(), pixels];
        let (of_head, values) = (shape.scores(head).of(&weights), shape.part(Part::Values, head).of(qkv));
        products(device, shape, size, [false, false], of_head, values, (&mut *y, shape.output(head)));
    }
}

/// Computes the gradient of the attention.
pub(super) fn backward<D: Primitives>(
    device: &D,
    by: &Softmax<D>,
    shape: AttentionShape,
    qkv: &D::Buffer,
    dy: &D::Buffer,
    d_qkv: &mut D::Buffer,
) {
    shape.check(&[device.len(qkv), device.len(d_qkv)], &[device.len(dy)]);
    if shape.len() == 0 {
        return;
    }
    let weights = weights(device, by, shape, qkv);
    let (pixels, depth) = (shape.grid.pixels(), shape.head_width());
    let (outer, inner) = ([pixels, pixels, depth], [pixels, depth, pixels]);
    let mut d_scores = device.scratch(shape.score_rows().len());
    for head in 0..shape.heads {
        let values = shape.part(Part::Values, head);
        let (of_head, d_head) = (shape.scores(head), shape.output(head).of(dy));
        products(device, shape, inner, [true, false], of_head.of(&weights), d_head, (&mut *d_qkv, values));
        products(device, shape, outer, [false, true], d_head, values.of(qkv), (&mut d_scores, of_head));
    }
    (by.backward)(device, shape, &weights, &mut d_scores);
    for head in 0..shape.heads {
        let [queries, keys] = [Part::Queries, Part::Keys].map(|part| shape.part(part, head));
        let d_head = shape.scores(head).of(&d_scores);
        products(device, shape, inner, [false, false], d_head, keys.of(qkv), (&mut *d_qkv, queries));
        products(device, shape, inner, [true, false], d_head, queries.of(qkv), (&mut *d_qkv, keys));
    }
}

impl<D: Primitives> Reference<D> {
    const SOFTMAX: Softmax<Self> = Softmax { forward: softmax, backward: softmax_backward };
}

impl<D: Primitives> Attention for Reference<D> {
    fn attention(&self, shape: AttentionShape, qkv: &Self::Buffer, y: &mut Self::Buffer) {
        forward(self, &Self::SOFTMAX, shape, qkv, y);
    }

    fn attention_backward(
        &self,
        shape: AttentionShape,
        qkv: &Self::Buffer,
        dy: &Self::Buffer,
        d_qkv: &mut Self::Buffer,
    ) {
        backward(self, &Self::SOFTMAX, shape, qkv, dy, d_qkv);
    }
}
