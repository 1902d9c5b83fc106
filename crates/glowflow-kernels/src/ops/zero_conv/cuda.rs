//! Gathers patches, then multiplies, in `f32`.

use super::ZeroConvParams;
use crate::cuda::divisor::{Divisor, Plane};
use crate::cuda::driver::{Argument, Launch};
use crate::cuda::lengths::{holds, holds_parameters};
use crate::cuda::memory::{Block, at};
use crate::cuda::parts::parts;
use crate::cuda::patches::{edge_sums, groups, patches};
use crate::cuda::product::{Element, Epilogue, Kind, Operands, Product, operands};
use crate::cuda::queue::{Queue, launch};
use crate::cuda::{Buffer, Cuda};
use crate::device::DeviceError;
use crate::shape::Grid;

type Result<T> = std::result::Result<T, DeviceError>;

/// A ZeroConv in `f32`, computed by gathering patches and one product.
pub struct ZeroConv {
    inputs: usize,
    outputs: usize,
    /// Number of patch columns.
    width: usize,
    weight: Block,
    bias: Block,
}

impl ZeroConv {
    fn prepare(queue: &Queue, params: &ZeroConvParams, buffer: u64) -> Result<Self> {
        let (inputs, outputs) = (params.inputs, params.outputs);
        let width = (9 * (inputs + 1)).next_multiple_of(8);
        let conv = Self {
            inputs,
            outputs,
            width,
            weight: queue.floats(outputs * width)?,
            bias: queue.floats(outputs)?,
        };
        launch!(
            queue, queue.kernels().fold_conv_f32, Launch::blocks(outputs);
            outputs, inputs, width, at(buffer, params.weight), at(buffer, params.bias),
            at(buffer, params.logs), conv.weight.address, conv.bias.address
        )?;
        Ok(conv)
    }

    fn product(&self, kind: Kind, rows: usize) -> Product {
        Product {
            kind,
            rows,
            inputs: self.width,
            outputs: self.outputs,
            x_stride: self.width,
            y_stride: self.outputs,
            w_stride: self.width,
            operands: Element::F32,
            result: Element::F32,
            tf32: false,
            epilogue: Epilogue::Nothing,
            accumulate: false,
            aligned: true,
            batch: None,
        }
    }

    fn run(&self, queue: &Queue, grid: Grid, x: u64, y: u64) -> Result<()> {
        for part in parts(queue, grid) {
            let rows = part.grid.rows();
            let patches = patches(queue, Element::F32, &part, self.inputs, self.inputs, self.width, x)?;
            let product = Product { epilogue: Epilogue::Bias, ..self.product(Kind::Forward, rows) };
            let y = y + 4 * (part.first * self.outputs) as u64;
            let addresses = operands(patches.address, self.weight.address, y);
            queue.product(product, Operands { bias: self.bias.address, ..addresses })?;
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn backward(
        queue: &Queue,
        params: &ZeroConvParams,
        buffer: u64,
        grid: Grid,
        x: u64,
        dy: u64,
        dx: u64,
        gradient: u64,
    ) -> Result<()> {
        let conv = Self::prepare(queue, params, buffer)?;
        let (inputs, outputs, width) = (conv.inputs, conv.outputs, conv.width);
        let d_weight = queue.zeros(outputs * width)?;
        for part in parts(queue, grid) {
            let (rows, first) = (part.grid.rows(), part.first);
            let dy = dy + 4 * (first * outputs) as u64;
            let patches = patches(queue, Element::F32, &part, inputs, inputs, width, x)?;
            let product = Product { accumulate: true, ..conv.product(Kind::ByWeight, rows) };
            queue.product(product, operands(dy, patches.address, d_weight.address))?;
            // The patches are no longer needed, and contributions have the same shape.
            let contributions = patches;
            let product = conv.product(Kind::ByInput, rows);
            queue.product(product, operands(dy, conv.weight.address, contributions.address))?;
            launch!(
                queue, queue.kernels().add_shifted_back, Launch::of(rows * groups(inputs));
                rows, Plane::of(part.grid), inputs, Divisor::new(groups(inputs)), inputs, width,
                contributions.address, dx + 4 * (first * inputs) as u64
            )?;
        }
        let (slabs, partial) = edge_sums(queue, grid, outputs, dy)?;
        let sums = queue.floats(10 * outputs)?;
        queue.sum_slabs(10 * outputs, slabs, partial.address, sums.address)?;
        launch!(
            queue, queue.kernels().unfold_conv, Launch::blocks(outputs);
            inputs, width, at(buffer, params.weight), at(buffer, params.bias), at(buffer, params.logs),
            d_weight.address, sums.address + 4 * (9 * outputs) as u64, at(gradient, params.weight),
            at(gradient, params.bias), at(gradient, params.logs)
        )
    }
}

impl super::ZeroConv for Cuda {
    type Weights = Option<ZeroConv>;

    fn prepare_zero_conv(&self, at: &ZeroConvParams, params: &Buffer) -> Option<ZeroConv> {
        holds_parameters(params, at);
        self.make_ready(|queue| ZeroConv::prepare(queue, at, params.address()))
    }

    fn zero_conv(&self, weights: &Option<ZeroConv>, grid: Grid, x: &Buffer, y: &mut Buffer) {
        let Some(conv) = weights else { return };
        holds("x", x, grid.rows() * conv.inputs);
        holds("y", y, grid.rows() * conv.outputs);
        self.attempt(|queue| conv.run(queue, grid, x.address(), y.address()));
    }

    fn zero_conv_backward(
        &self,
        at: &ZeroConvParams,
        params: &Buffer,
        grid: Grid,
        x: &Buffer,
        dy: &Buffer,
        dx: &mut Buffer,
        gradient: &mut Buffer,
    ) {
        holds_parameters(params, at);
        holds_parameters(gradient, at);
        holds("x", x, grid.rows() * at.inputs);
        holds("dx", dx, grid.rows() * at.inputs);
        holds("dy", dy, grid.rows() * at.outputs);
        self.attempt(|queue| {
            let (params, x, dy) = (params.address(), x.address(), dy.address());
            ZeroConv::backward(queue, at, params, grid, x, dy, dx.address(), gradient.address())
        });
    }
}
