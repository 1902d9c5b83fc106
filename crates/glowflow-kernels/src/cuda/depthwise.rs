//! Depthwise convolutions (`depthwise.cu`).

use super::divisor::{Divisor, Plane};
use super::driver::{Argument, Launch};
use super::queue::{Queue, launch};
use crate::depthwise::Depthwise;
use crate::device::DeviceError;

type Result<T> = std::result::Result<T, DeviceError>;

/// Adjacent outputs of a line computed by one thread; as in `depthwise.cu`.
const NEIGHBOURS: usize = 8;

/// Threads per block of the tap gradient.
const THREADS: usize = 128;

/// Maximum number of partial sums of the tap gradient.
const PARTS: usize = 512;

/// Returns whether there are kernels for this window.
pub fn supports(conv: Depthwise) -> bool {
    matches!(conv.kernel, 1 | 3 | 5 | 7)
}

fn lines(conv: Depthwise) -> usize {
    conv.grid.batch * conv.grid.height
}

/// Writes the convolution to `y`, or if `back`, adds the input gradient to `y`.
pub fn convolve(queue: &Queue, conv: Depthwise, x: u64, taps: u64, y: u64, back: bool) -> Result<()> {
    let Depthwise { grid, channels, kernel } = conv;
    let blocks = grid.width.div_ceil(NEIGHBOURS);
    let count = queue.counted(lines(conv) * blocks * channels)?;
    launch!(
        queue, queue.kernels().depthwise, Launch::of(count);
        count, Plane::of(grid), Divisor::new(channels), Divisor::new(blocks), kernel, i32::from(back), x,
        taps, y
    )
}

/// Writes the tap gradient to `sums`. The partial sums depend only on the shape.
pub fn by_taps(queue: &Queue, conv: Depthwise, x: u64, dy: u64, sums: u64) -> Result<()> {
    let Depthwise { grid, channels, kernel } = conv;
    let part = lines(conv).div_ceil(PARTS);
    let parts = lines(conv).div_ceil(part);
    let partial = queue.floats(queue.counted(parts * conv.taps_len())?)?;
    let groups = (kernel * channels).div_ceil(THREADS);
    let shape = Launch { block: THREADS as u32, ..Launch::grid(parts, groups, 1) };
    launch!(
        queue, queue.kernels().depthwise_taps, shape;
        lines(conv), part, Plane::of(grid), channels, kernel, x, dy, partial.address
    )?;
    queue.sum_slabs(conv.taps_len(), parts, partial.address, sums)
}
