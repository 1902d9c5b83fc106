//! Folds an actnorm, or a ZeroConv's scale, into the preceding convolution, and unfolds the gradients.
//!
//! `y = (W x + bias) ⊙ s` with `s = exp(3·logs)` is `y = W' x + b'` with `W' = s ⊙ W` (row by row) and
//! `b' = s ⊙ bias`. Given the gradients with respect to `W'` and `b'`, those of the parameters need no
//! activations: `dW = s ⊙ dW'`, `dbias = s ⊙ db'`, and because `Σ dy·y = W'·dW' + b'·db'` for every output,
//! `dlogs = 3·(Σ W' ⊙ dW' + b'·db')`.

use rayon::prelude::*;

use super::element::Element;
use super::isa::Task;
use super::panels::View;
use super::product::{Gradient, Packed};
use super::workspace::Workspace;
use super::{Buffer, Scalar};
use crate::shape::Span;

/// A convolution followed by a scale and bias, as views of the parameters.
///
/// The weight is row-major, with a row for each output.
#[derive(Clone, Copy)]
pub struct Scaled<'a, T> {
    pub weight: &'a [T],
    pub bias: &'a [T],
    pub logs: &'a [T],
}

/// Parameter spans of a scaled convolution.
#[derive(Clone, Copy)]
pub struct ScaledAt {
    pub weight: Span,
    pub bias: Span,
    pub logs: Span,
}

impl ScaledAt {
    pub fn of<T>(self, params: &[T]) -> Scaled<'_, T> {
        Scaled {
            weight: &params[self.weight.range()],
            bias: &params[self.bias.range()],
            logs: &params[self.logs.range()],
        }
    }
}

impl<T: Scalar> Scaled<'_, T> {
    /// `exp(3·logs)`, one value per output.
    pub fn scale(&self) -> Vec<T> {
        self.logs.iter().map(|&logs| (T::of(3.0) * logs).exp()).collect()
    }

    /// `b'`.
    pub fn folded_bias(&self) -> Vec<T> {
        self.scale().iter().zip(self.bias).map(|(&s, &bias)| s * bias).collect()
    }

    /// Number of inputs in a row of the weight.
    pub fn inputs(&self) -> usize {
        self.weight.len() / self.bias.len()
    }

    /// The folded weight as `[inputs, outputs]`, for the forward pass.
    pub fn pack<E: Element<Sum = T>>(&self, work: &Workspace<E>) -> Packed<E> {
        let (inputs, scale) = (self.inputs(), self.scale());
        Packed::of_columns(work, inputs, self.bias.len(), 1, |j| {
            (&self.weight[j * inputs..(j + 1) * inputs], scale[j])
        })
        .with_bias(self.folded_bias().into_iter())
    }

    /// The folded weight as `[outputs, inputs]`, for the input gradient.
    pub fn pack_transposed<E: Element<Sum = T>>(&self, work: &Workspace<E>) -> Packed<E> {
        let (inputs, scale) = (self.inputs(), self.scale());
        Packed::of_rows(work, self.bias.len(), inputs, |j, first, to| {
            let from = &self.weight[j * inputs + first..][..to.len()];
            to.iter_mut().zip(from).for_each(|(to, &from)| *to = scale[j] * from);
        })
    }

    /// The folded weight of a 3×3 convolution as `[outputs, 9·inputs]`, columns in the order `k·inputs + c`
    /// and without the edge channel, for the input gradient.
    pub fn pack_contributions<E: Element<Sum = T>>(&self, work: &Workspace<E>, inputs: usize) -> Packed<E> {
        let (width, scale) = (self.inputs(), self.scale());
        let from: Vec<usize> = (0..9).flat_map(|k| (0..inputs).map(move |c| 9 * c + k)).collect();
        Packed::of_rows(work, self.bias.len(), 9 * inputs, |j, first, to| {
            let weight = &self.weight[j * width..(j + 1) * width];
            to.iter_mut().zip(&from[first..]).for_each(|(to, &from)| *to = scale[j] * weight[from]);
        })
    }

    /// Adds the parameters' gradients, given those of the folded weight and bias.
    pub fn unfold<E: Element<Sum = T>>(
        &self,
        work: &Workspace<E>,
        at: ScaledAt,
        d_weight: &[T],
        d_bias: &[T],
        gradient: &mut [T],
    ) {
        let (inputs, scale) = (self.inputs(), self.scale());
        let products: Vec<T> = gradient[at.weight.range()]
            .par_chunks_mut(inputs)
            .zip(d_weight.par_chunks(inputs))
            .zip(self.weight.par_chunks(inputs))
            .zip(&scale)
            .map(|(((gradient, d_weight), weight), &s)| {
                s * work.run(UnfoldRow { gradient, d_weight, weight, scale: s })
            })
            .collect();
        for (j, (&s, &d)) in scale.iter().zip(d_bias).enumerate() {
            gradient[at.bias.start + j] += s * d;
            gradient[at.logs.start + j] += T::of(3.0) * (products[j] + s * self.bias[j] * d);
        }
    }
}

/// Adds `scale·d_weight` to the gradient, and returns `Σ weight·d_weight`.
struct UnfoldRow<'a, T> {
    gradient: &'a mut [T],
    d_weight: &'a [T],
    weight: &'a [T],
    scale: T,
}

impl<T: Scalar> Task for UnfoldRow<'_, T> {
    type Output = T;

    #[inline(always)]
    fn run(self) -> T {
        // Independent sums that the compiler can keep in vectors.
        const SUMS: usize = 32;
        let mut sums = [T::zero(); SUMS];
        let parts =
            self.gradient.chunks_mut(SUMS).zip(self.d_weight.chunks(SUMS)).zip(self.weight.chunks(SUMS));
        for ((gradient, d_weight), weight) in parts {
            for (((gradient, &d), &w), sum) in gradient.iter_mut().zip(d_weight).zip(weight).zip(&mut sums) {
                *gradient += self.scale * d;
                *sum += w * d;
            }
        }
        sums.into_iter().sum()
    }
}

/// Column sums of a row-major matrix: the gradient of a bias.
pub fn column_sums<T: Scalar>(columns: usize, matrix: &[T]) -> Vec<T> {
    let sums = matrix
        .par_chunks(columns * 256)
        .map(|block| {
            let mut sums = vec![T::zero(); columns];
            for row in block.chunks_exact(columns) {
                sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += x);
            }
            sums
        })
        .collect::<Vec<_>>();
    // Summed in order, so that the result does not depend on thread timing.
    (0..columns).map(|j| sums.iter().map(|block| block[j]).sum()).collect()
}

/// The gradient of a matrix, and of the bias added to its product.
pub struct WeightGradient<T> {
    /// Row-major, `[outputs, inputs]`.
    pub matrix: Buffer<T>,
    /// `[outputs]`
    pub sums: Vec<T>,
}

impl<T: Scalar> WeightGradient<T> {
    pub fn zero<E: Element<Sum = T>>(work: &Workspace<E>, outputs: usize, inputs: usize) -> Self {
        let mut matrix = work.take_sums(outputs * inputs);
        matrix.fill(T::zero());
        Self { matrix, sums: vec![T::zero(); outputs] }
    }

    /// The operation that adds `dyᵀ·x` to it.
    pub fn of<'a, E: Element<Sum = T>>(&'a mut self, dy: View<'a, E>, x: View<'a, E>) -> Gradient<'a, E> {
        Gradient { a: dy, b: x, c: &mut self.matrix, sums: &mut self.sums }
    }
}
