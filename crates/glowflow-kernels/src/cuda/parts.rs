//! Splits batches into parts of whole images, to bound an operation's temporary memory.

use super::queue::Queue;
use crate::shape::Grid;

/// A part of a batch: its images, and its first row.
pub struct Part {
    pub grid: Grid,
    pub first: usize,
}

/// Number of images per part: at least one.
fn images_at_once(queue: &Queue, grid: Grid) -> usize {
    (queue.gpu.rows_at_once / grid.pixels().max(1)).max(1)
}

/// Number of rows in the largest part.
pub fn rows_at_once(queue: &Queue, grid: Grid) -> usize {
    images_at_once(queue, grid).min(grid.batch) * grid.pixels()
}

/// A batch, in parts of whole images.
pub fn parts(queue: &Queue, grid: Grid) -> impl Iterator<Item = Part> + use<> {
    let at_once = images_at_once(queue, grid);
    (0..grid.batch).step_by(at_once).map(move |image| Part {
        grid: Grid { batch: at_once.min(grid.batch - image), ..grid },
        first: image * grid.pixels(),
    })
}
