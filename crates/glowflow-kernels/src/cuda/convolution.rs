//! Convolutions as products with patches, tens of thousands of rows at a time.

use super::divisor::{Divisor, Plane};
use super::driver::{Argument, Launch};
use super::memory::Block;
use super::parts::parts;
use super::primitives::{Rows, product};
use super::queue::{Queue, launch};
use crate::device::DeviceError;
use crate::primitives::{Conv, Gemm};
use crate::shape::Grid;

type Result<T> = std::result::Result<T, DeviceError>;

/// See [`im2col`](crate::Primitives::im2col).
pub fn im2col(queue: &Queue, grid: Grid, channels: usize, kernel: usize, x: u64, columns: u64) -> Result<()> {
    let count = queue.counted(kernel * kernel * grid.rows() * channels)?;
    launch!(
        queue, queue.kernels().im2col, Launch::of(count);
        count, Plane::of(grid), Divisor::new(channels), Divisor::new(kernel), x, columns
    )
}

/// See [`col2im`](crate::Primitives::col2im).
pub fn col2im(
    queue: &Queue,
    grid: Grid,
    channels: usize,
    kernel: usize,
    columns: u64,
    x: u64,
    accumulate: bool,
) -> Result<()> {
    let count = grid.rows() * channels;
    launch!(
        queue, queue.kernels().col2im, Launch::of(count);
        count, Plane::of(grid), Divisor::new(channels), kernel, i32::from(accumulate), columns, x
    )
}

/// The patches of a part of a batch; `None` for a 1×1 convolution, whose patches are `x` itself.
fn patches(queue: &Queue, conv: Conv, x: u64) -> Result<(Option<Block>, u64)> {
    if conv.kernel == 1 {
        return Ok((None, x));
    }
    let columns = queue.floats(queue.counted(conv.grid.rows() * conv.columns())?)?;
    im2col(queue, conv.grid, conv.inputs, conv.kernel, x, columns.address)?;
    let address = columns.address;
    Ok((Some(columns), address))
}

/// The address of a row.
fn row(address: u64, first: usize, channels: usize) -> u64 {
    address + 4 * (first * channels) as u64
}

/// The forward pass.
pub fn forward(queue: &Queue, conv: Conv, x: u64, weight: u64, y: u64, accumulate: bool) -> Result<()> {
    let (n, k) = (conv.outputs, conv.columns());
    for part in parts(queue, conv.grid) {
        let (_columns, x) =
            patches(queue, Conv { grid: part.grid, ..conv }, row(x, part.first, conv.inputs))?;
        let m = part.grid.rows();
        let gemm = Gemm { m, n, k, a_transposed: false, b_transposed: true, accumulate };
        let [x, weight] = [x, weight].map(|address| Rows { address, stride: k });
        product(queue, gemm, x, weight, Rows { address: row(y, part.first, n), stride: n })?;
    }
    Ok(())
}

/// The input gradient.
pub fn backward_input(
    queue: &Queue,
    conv: Conv,
    weight: u64,
    dy: u64,
    dx: u64,
    accumulate: bool,
) -> Result<()> {
    let (n, k) = (conv.columns(), conv.outputs);
    for part in parts(queue, conv.grid) {
        let (m, dx) = (part.grid.rows(), row(dx, part.first, conv.inputs));
        let gemm = Gemm { m, n, k, a_transposed: false, b_transposed: false, accumulate };
        let dy = Rows { address: row(dy, part.first, k), stride: k };
        let weight = Rows { address: weight, stride: n };
        if conv.kernel == 1 {
            product(queue, gemm, dy, weight, Rows { address: dx, stride: n })?;
            continue;
        }
        let columns = queue.floats(queue.counted(m * n)?)?;
        let to = Rows { address: columns.address, stride: n };
        product(queue, Gemm { accumulate: false, ..gemm }, dy, weight, to)?;
        col2im(queue, part.grid, conv.inputs, conv.kernel, columns.address, dx, accumulate)?;
    }
    Ok(())
}

/// The weight gradient. The batch must not be empty.
pub fn backward_weight(
    queue: &Queue,
    conv: Conv,
    x: u64,
    dy: u64,
    dweight: u64,
    accumulate: bool,
) -> Result<()> {
    let (m, n) = (conv.outputs, conv.columns());
    for part in parts(queue, conv.grid) {
        let (_columns, x) =
            patches(queue, Conv { grid: part.grid, ..conv }, row(x, part.first, conv.inputs))?;
        let (k, accumulate) = (part.grid.rows(), accumulate || part.first > 0);
        let gemm = Gemm { m, n, k, a_transposed: true, b_transposed: false, accumulate };
        let dy = Rows { address: row(dy, part.first, m), stride: m };
        product(queue, gemm, dy, Rows { address: x, stride: n }, Rows { address: dweight, stride: n })?;
    }
    Ok(())
}
