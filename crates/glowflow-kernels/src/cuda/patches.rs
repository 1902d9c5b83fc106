//! Patches of 3×3 pixels with an edge channel, and sums over pixels at the edges (`patches.cu`).

use super::divisor::{Divisor, Plane};
use super::driver::{Argument, Launch};
use super::memory::Block;
use super::parts::Part;
use super::product::Element;
use super::queue::{Queue, launch};
use crate::device::DeviceError;
use crate::shape::Grid;

type Result<T> = std::result::Result<T, DeviceError>;

/// Number of groups into which kernels divide channels to read several at a time: 4, 2 or 1 channels, as in
/// `patches.cu`.
pub fn groups(channels: usize) -> usize {
    match channels % 4 {
        0 => channels / 4,
        2 => channels / 2,
        _ => channels,
    }
}

/// The patches of the first `inputs` of the `channels` channels in a part of `x`.
pub fn patches(
    queue: &Queue,
    element: Element,
    part: &Part,
    inputs: usize,
    channels: usize,
    stride: usize,
    x: u64,
) -> Result<Block> {
    // A thread handles 16 bytes of a row.
    let (rows, packs) = (part.grid.rows(), stride * element.bytes() / 16);
    queue.counted(rows * stride)?;
    let patches = queue.matrix(rows, stride, element)?;
    launch!(
        queue, queue.kernels().of(element).patches, Launch::of(rows * packs);
        rows, Plane::of(part.grid), Divisor::new(inputs), channels, Divisor::new(packs),
        x + 4 * (part.first * channels) as u64, patches.address
    )?;
    Ok(patches)
}

/// The result of the kernel `edge_sums`, `[slabs, 10, channels]`, and the number of slabs.
pub fn edge_sums(queue: &Queue, grid: Grid, channels: usize, dy: u64) -> Result<(usize, Block)> {
    let rows = grid.rows();
    let (slabs, slab) = Queue::slabs(rows);
    let sums = queue.floats(slabs * 10 * channels)?;
    let shape = Launch::grid(slabs, channels.div_ceil(128), 1);
    launch!(
        queue, queue.kernels().edge_sums, shape;
        rows, Plane::of(grid), channels, slab, dy, sums.address
    )?;
    Ok((slabs, sums))
}
