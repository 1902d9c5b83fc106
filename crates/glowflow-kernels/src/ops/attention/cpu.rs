//! Processes one image and head at a time: the weights of a head stay in a cache.

use rayon::prelude::*;

use super::{Attention, AttentionShape};
use crate::cpu::isa::Task;
use crate::cpu::primitives::gemm::{Target, gemm};
use crate::cpu::primitives::tiles::Stored;
use crate::cpu::workspace::Workspace;
use crate::cpu::{Buffer, Cpu, Scalar};
use crate::primitives::Gemm;

/// Number of partial results per row, which the compiler can keep in vector registers.
const LANES: usize = 16;

/// Combines `f(i)` over a row, in an order that depends only on its length; `start` is the neutral element.
#[inline(always)]
fn fold<T: Scalar>(len: usize, start: T, f: impl Fn(usize) -> T, combine: impl Fn(T, T) -> T) -> T {
    let mut lanes = [start; LANES];
    let whole = len / LANES * LANES;
    for first in (0..whole).step_by(LANES) {
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane = combine(*lane, f(first + i));
        }
    }
    for i in whole..len {
        lanes[i - whole] = combine(lanes[i - whole], f(i));
    }
    lanes.into_iter().fold(start, combine)
}

/// `softmax(scale·z)` of each row.
struct Softmax<'a, T> {
    scores: &'a mut [T],
    columns: usize,
    scale: T,
}

impl<T: Scalar> Task for Softmax<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { scores, columns, scale } = self;
        for row in scores.chunks_exact_mut(columns) {
            let largest =
                fold(columns, T::neg_infinity(), |i| row[i], |most, x| if x > most { x } else { most });
            for x in row.iter_mut() {
                *x = (scale * (*x - largest)).quick_exp();
            }
            let share = T::one() / fold(columns, T::zero(), |i| row[i], |sum, x| sum + x);
            for x in row.iter_mut() {
                *x *= share;
            }
        }
    }
}

/// Converts the gradient of the weights to the gradient of the products of queries and keys.
struct SoftmaxBackward<'a, T> {
    weights: &'a [T],
    d_weights: &'a mut [T],
    columns: usize,
    scale: T,
}

impl<T: Scalar> Task for SoftmaxBackward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { weights, d_weights, columns, scale } = self;
        for (row, d_row) in weights.chunks_exact(columns).zip(d_weights.chunks_exact_mut(columns)) {
            let pull = fold(columns, T::zero(), |i| row[i] * d_row[i], |sum, x| sum + x);
            for (d, &weight) in d_row.iter_mut().zip(row) {
                *d = scale * weight * (*d - pull);
            }
        }
    }
}

/// The products of one image and one head.
struct Head<'a, T: Scalar> {
    work: &'a Workspace<T>,
    shape: AttentionShape,
    head: usize,
}

impl<T: Scalar> Head<'_, T> {
    /// Position of the first element of the queries (0), keys (1) or values (2).
    fn place(&self, part: usize) -> usize {
        part * self.shape.width + self.head * self.shape.head_width()
    }

    fn part<'b>(&self, qkv: &'b [T], part: usize) -> Stored<'b, T> {
        Stored { data: &qkv[self.place(part)..], stride: 3 * self.shape.width }
    }

    fn part_mut<'b>(&self, qkv: &'b mut [T], part: usize) -> Target<'b, T> {
        let place = self.place(part);
        Target { data: &mut qkv[place..], stride: 3 * self.shape.width, accumulate: false }
    }

    /// `[pixels, pixels]`
    fn scores<'b>(&self, scores: &'b [T]) -> Stored<'b, T> {
        Stored { data: scores, stride: self.shape.grid.pixels() }
    }

    /// The output or its gradient.
    fn output<'b>(&self, y: &'b [T]) -> Stored<'b, T> {
        Stored { data: &y[self.place(0)..], stride: self.shape.width }
    }

    /// `op(scores)·b`
    fn mix(&self, transposed: bool, scores: &[T], b: Stored<'_, T>, to: Target<'_, T>) {
        let (pixels, n) = (self.shape.grid.pixels(), self.shape.head_width());
        let (a_transposed, b_transposed) = (transposed, false);
        let product = Gemm { m: pixels, n, k: pixels, a_transposed, b_transposed, accumulate: false };
        gemm(self.work, product, self.scores(scores), b, to);
    }

    /// `a·bᵀ`, over the rows of all pixels.
    fn compare(&self, a: Stored<'_, T>, b: Stored<'_, T>, scores: &mut [T]) {
        let (pixels, k) = (self.shape.grid.pixels(), self.shape.head_width());
        let (a_transposed, b_transposed) = (false, true);
        let product = Gemm { m: pixels, n: pixels, k, a_transposed, b_transposed, accumulate: false };
        gemm(self.work, product, a, b, Target { data: scores, stride: pixels, accumulate: false });
    }

    /// Computes S.
    fn weights(&self, qkv: &[T], scores: &mut [T]) {
        self.compare(self.part(qkv, 0), self.part(qkv, 1), scores);
        let (columns, scale) = (self.shape.grid.pixels(), T::of(self.shape.scale()));
        self.work.run(Softmax { scores, columns, scale });
    }
}

/// Computes the attention.
pub fn forward<T: Scalar>(work: &Workspace<T>, shape: AttentionShape, qkv: &[T], y: &mut [T]) {
    shape.check(&[qkv.len()], &[y.len()]);
    let len = shape.grid.pixels() * shape.width;
    if shape.len() == 0 {
        return;
    }
    let images = y[..shape.len()].par_chunks_mut(len).zip(qkv[..3 * shape.len()].par_chunks(3 * len));
    images.for_each(|(y, qkv)| {
        let mut scores = work.take(shape.grid.pixels().pow(2));
        for head in 0..shape.heads {
            let head = Head { work, shape, head };
            head.weights(qkv, &mut scores);
            let to = Target { data: &mut y[head.place(0)..], stride: shape.width, accumulate: false };
            head.mix(false, &scores, head.part(qkv, 2), to);
        }
    });
}

/// Writes the gradient of `qkv` to `d_qkv`.
pub fn backward<T: Scalar>(work: &Workspace<T>, shape: AttentionShape, qkv: &[T], dy: &[T], d_qkv: &mut [T]) {
    shape.check(&[qkv.len(), d_qkv.len()], &[dy.len()]);
    let len = shape.grid.pixels() * shape.width;
    if shape.len() == 0 {
        return;
    }
    let whole = 3 * shape.len();
    let images = d_qkv[..whole]
        .par_chunks_mut(3 * len)
        .zip(qkv[..whole].par_chunks(3 * len))
        .zip(dy[..shape.len()].par_chunks(len));
    images.for_each(|((d_qkv, qkv), dy)| {
        let [mut weights, mut d_scores] = [(); 2].map(|()| work.take(shape.grid.pixels().pow(2)));
        for head in 0..shape.heads {
            let head = Head { work, shape, head };
            head.weights(qkv, &mut weights);
            head.mix(true, &weights, head.output(dy), head.part_mut(d_qkv, 2));
            head.compare(head.output(dy), head.part(qkv, 2), &mut d_scores);
            let (columns, scale) = (shape.grid.pixels(), T::of(shape.scale()));
            work.run(SoftmaxBackward { weights: &weights, d_weights: &mut d_scores, columns, scale });
            head.mix(false, &d_scores, head.part(qkv, 1), head.part_mut(d_qkv, 0));
            head.mix(true, &d_scores, head.part(qkv, 0), head.part_mut(d_qkv, 1));
        }
    });
}

impl<T: Scalar> Attention for Cpu<T> {
    fn attention(&self, shape: AttentionShape, qkv: &Buffer<T>, y: &mut Buffer<T>) {
        forward(&self.work, shape, qkv, y);
    }

    fn attention_backward(
        &self,
        shape: AttentionShape,
        qkv: &Buffer<T>,
        dy: &Buffer<T>,
        d_qkv: &mut Buffer<T>,
    ) {
        backward(&self.work, shape, qkv, dy, d_qkv);
    }
}
