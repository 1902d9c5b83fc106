//! Sums over images, for log-likelihoods (`coupling.cu`, `gaussian.cu`).

use super::driver::{Argument, Launch};
use super::memory::Buffer;
use super::queue::{Queue, launch};
use crate::device::DeviceError;
use crate::shape::Grid;

/// Partition of an image's pixels into parts that are summed separately: their number, and pixels per part.
/// It depends only on the image's size, so an image's likelihood does not depend on the batch.
pub fn parts_of(grid: Grid) -> (usize, usize) {
    let part = grid.pixels().div_ceil(64).max(256);
    (grid.pixels().div_ceil(part), part)
}

/// Adds the sums of a batch's parts to `logp`. If images have one part each, `work` adds them itself;
/// otherwise it writes them to `[batch, parts]`.
pub fn add_sums(
    queue: &Queue,
    grid: Grid,
    logp: &mut Buffer,
    work: impl FnOnce(usize, usize, u64) -> Result<(), DeviceError>,
) -> Result<(), DeviceError> {
    let (parts, part) = parts_of(grid);
    if parts == 1 {
        return work(parts, part, logp.address());
    }
    let sums = queue.floats(grid.batch * parts)?;
    work(parts, part, sums.address)?;
    launch!(
        queue, queue.kernels().add_parts, Launch::of(grid.batch);
        grid.batch, parts, sums.address, logp.address()
    )
}
