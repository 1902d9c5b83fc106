//! The convolutions of a coupling network's last hidden activations, as one product in the backward pass:
//! that of a [`ZeroConvParams`](crate::ops::ZeroConvParams), and that of a [head](crate::ops::HeadParams) if
//! there is one.

use rayon::prelude::*;

use super::Workspace;
use super::conv::{Scaled, ScaledAt, WeightGradient, column_sums};
use super::element::Element;
use super::patches;
use super::product::Packed;
use crate::cpu::Scalar;
use crate::shape::Grid;

/// Spans and values of the parameters.
pub struct LastConvolutions<'a, T> {
    at: ScaledAt,
    conv: Scaled<'a, T>,
    head: Option<(ScaledAt, Scaled<'a, T>)>,
    hidden: usize,
}

impl<'a, T: Scalar> LastConvolutions<'a, T> {
    pub fn of(at: ScaledAt, head: Option<ScaledAt>, hidden: usize, params: &'a [T]) -> Self {
        Self { at, conv: at.of(params), head: head.map(|head| (head, head.of(params))), hidden }
    }

    fn outputs(&self) -> usize {
        self.conv.bias.len()
    }

    /// Number of columns of the output gradient in the layout of [`GatherBack`](super::patches::GatherBack):
    /// nine for each output of the convolution, then those of the head.
    pub fn columns(&self) -> usize {
        9 * self.outputs() + self.head.as_ref().map_or(0, |(_, head)| head.bias.len())
    }

    /// The weights as `[columns, hidden]`, for the input gradient.
    pub fn pack_transposed<E: Element<Sum = T>>(&self, work: &Workspace<E>) -> Packed<E> {
        let (outputs, hidden) = (self.outputs(), self.hidden);
        let (width, scale) = (9 * (hidden + 1), self.conv.scale());
        let head_scale = self.head.as_ref().map_or(vec![], |(_, head)| head.scale());
        Packed::of_rows(work, self.columns(), hidden, |row, first, to| {
            let (k, c) = (row / outputs, row % outputs);
            match &self.head {
                Some((_, head)) if k >= 9 => {
                    let row = row - 9 * outputs;
                    let from = &head.weight[row * hidden + first..];
                    to.iter_mut().zip(from).for_each(|(to, &from)| *to = head_scale[row] * from);
                }
                _ => {
                    let from = self.conv.weight[c * width + 9 * first + k..].iter().step_by(9);
                    to.iter_mut().zip(from).for_each(|(to, &from)| *to = scale[c] * from);
                }
            }
        })
    }

    /// Adds the gradients of the parameters, given those of the weights `[columns, hidden]` and of the
    /// outputs.
    pub fn unfold<E: Element<Sum = T>>(
        &self,
        work: &Workspace<E>,
        grid: Grid,
        d_weight: &WeightGradient<T>,
        d_o: &[T],
        d_head: &[T],
        gradient: &mut [T],
    ) {
        let (outputs, hidden) = (self.outputs(), self.hidden);
        let width = 9 * (hidden + 1);
        let (of_conv, of_head) = d_weight.matrix.split_at(9 * outputs * hidden);
        // Converts to the stored order [outputs, hidden + 1, 9], edge channel last.
        let d_edge = patches::edge_gradient(grid, outputs, d_o);
        let mut d_conv = work.take_sums(outputs * width);
        d_conv.par_chunks_mut(width).enumerate().for_each(|(c, to)| {
            for k in 0..9 {
                let column = k * outputs + c;
                let from = of_conv[column * hidden..(column + 1) * hidden].iter().chain([&d_edge[column]]);
                to[k..].iter_mut().step_by(9).zip(from).for_each(|(to, &from)| *to = from);
            }
        });
        self.conv.unfold(work, self.at, &d_conv, &column_sums(outputs, d_o), gradient);
        if let Some((at, head)) = &self.head {
            head.unfold(work, *at, of_head, &column_sums(head.bias.len(), d_head), gradient);
        }
    }
}
