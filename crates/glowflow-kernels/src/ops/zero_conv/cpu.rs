//! Gathers patches, then multiplies. The scale is folded into the weight (see [`conv`](crate::cpu::conv)).

use super::ZeroConvParams;
use crate::cpu::conv::{ScaledAt, WeightGradient};
use crate::cpu::panels::Panels;
use crate::cpu::patches::{self, AddShifted, Offsets};
use crate::cpu::product::{Packed, product_into_rows, transposed_products};
use crate::cpu::workspace::Workspace;
use crate::cpu::{Buffer, Cpu, Scalar};
use crate::shape::Grid;

impl ZeroConvParams {
    pub(in crate::ops) fn at(&self) -> ScaledAt {
        ScaledAt { weight: self.weight, bias: self.bias, logs: self.logs }
    }
}

/// A ZeroConv with few inputs, computed by gathering patches and one product.
pub struct ZeroConv<T: Scalar> {
    inputs: usize,
    weight: Packed<T>,
}

impl<T: Scalar> ZeroConv<T> {
    fn prepare(work: &Workspace<T>, at: &ZeroConvParams, params: &[T]) -> Self {
        Self { inputs: at.inputs, weight: at.at().of(params).pack(work) }
    }

    fn run(&self, work: &Workspace<T>, grid: Grid, x: &[T], y: &mut [T]) {
        let patches = patches::all_with_edge(work, grid, self.inputs, self.inputs, x);
        product_into_rows(patches.view(), &self.weight, y);
    }

    #[allow(clippy::too_many_arguments)]
    fn backward(
        work: &Workspace<T>,
        at: &ZeroConvParams,
        params: &[T],
        grid: Grid,
        x: &[T],
        dy: &[T],
        dx: &mut [T],
        gradient: &mut [T],
    ) {
        let (inputs, outputs) = (at.inputs, at.outputs);
        let conv = at.at().of(params);
        let patches = patches::all_with_edge(work, grid, inputs, inputs, x);
        let dy = Panels::of_rows(work, outputs, dy);
        let mut d_weight = WeightGradient::zero(work, outputs, patches.cut.columns);
        transposed_products(work, vec![d_weight.of(dy.view(), patches.view())]);
        conv.unfold(work, at.at(), &d_weight.matrix, &d_weight.sums, gradient);

        let weight = conv.pack_contributions(work, inputs);
        let mut contributions = work.take(grid.rows() * 9 * inputs);
        product_into_rows(dy.view(), &weight, &mut contributions);
        let (offsets, channels, stride) = (Offsets::Transposed, inputs, inputs);
        AddShifted { grid, offsets, channels, stride, contributions: &contributions, edge: None }
            .to(work, dx);
    }
}

impl<T: Scalar> super::ZeroConv for Cpu<T> {
    type Weights = ZeroConv<T>;

    fn prepare_zero_conv(&self, at: &ZeroConvParams, params: &Buffer<T>) -> ZeroConv<T> {
        ZeroConv::prepare(&self.work, at, params)
    }

    fn zero_conv(&self, weights: &ZeroConv<T>, grid: Grid, x: &Buffer<T>, y: &mut Buffer<T>) {
        weights.run(&self.work, grid, x, y);
    }

    fn zero_conv_backward(
        &self,
        at: &ZeroConvParams,
        params: &Buffer<T>,
        grid: Grid,
        x: &Buffer<T>,
        dy: &Buffer<T>,
        dx: &mut Buffer<T>,
        gradient: &mut Buffer<T>,
    ) {
        ZeroConv::backward(&self.work, at, params, grid, x, dy, dx, gradient);
    }
}
