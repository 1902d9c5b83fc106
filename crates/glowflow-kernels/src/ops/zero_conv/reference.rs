//! Patches with an edge channel, one product, and a map.

use super::{ZeroConv, ZeroConvParams};
use crate::device::Device;
use crate::ops::Reference;
use crate::ops::scaled::{Patches, ScaledConv};
use crate::primitives::Primitives;
use crate::shape::Grid;

impl ZeroConvParams {
    /// The convolution over a number of rows.
    pub(in crate::ops) fn scaled(&self, rows: usize) -> ScaledConv {
        let Self { inputs, outputs, weight, bias, logs } = *self;
        ScaledConv { rows, columns: 9 * (inputs + 1), taps: 9, outputs, weight, bias, logs: Some(logs) }
    }

    /// The patches of `x` `[grid, inputs]`.
    pub(in crate::ops) fn patches(&self, grid: Grid) -> Patches {
        Patches { grid, inputs: self.inputs, channels: self.inputs }
    }
}

/// A copy of the parameters, with their spans.
pub struct Weights<B> {
    at: ZeroConvParams,
    params: B,
}

impl<D: Primitives> ZeroConv for Reference<D> {
    type Weights = Weights<D::Buffer>;

    fn prepare_zero_conv(&self, at: &ZeroConvParams, params: &D::Buffer) -> Self::Weights {
        Weights { at: *at, params: self.copied(params, self.len(params)) }
    }

    fn zero_conv(&self, weights: &Self::Weights, grid: Grid, x: &D::Buffer, y: &mut D::Buffer) {
        let Weights { at, params } = weights;
        let patches = at.patches(grid).of(self, x);
        at.scaled(grid.rows()).forward(self, params, &patches, y);
    }

    fn zero_conv_backward(
        &self,
        at: &ZeroConvParams,
        params: &D::Buffer,
        grid: Grid,
        x: &D::Buffer,
        dy: &D::Buffer,
        dx: &mut D::Buffer,
        gradient: &mut D::Buffer,
    ) {
        let conv = at.scaled(grid.rows());
        let patches = at.patches(grid).of(self, x);
        let mut y = self.scratch(grid.rows() * at.outputs);
        conv.forward(self, params, &patches, &mut y);
        let d_patches = conv.backward(self, params, &patches, &y, dy, gradient);
        at.patches(grid).backward(self, &d_patches, dx);
    }
}
