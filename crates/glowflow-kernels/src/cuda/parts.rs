//! Batches in parts of whole images, so that what an operation needs besides its operands stays small.

use super::queue::Queue;
use crate::shape::Grid;

/// A part of a batch: its images, and the row at which it begins.
pub struct Part {
    pub grid: Grid,
    pub first: usize,
}

/// How many images of a batch make a part: whole ones, and one at least.
fn images_at_once(queue: &Queue, grid: Grid) -> usize {
    (queue.gpu.rows_at_once / grid.pixels()).max(1)
}

/// Rows of the largest part.
pub fn rows_at_once(queue: &Queue, grid: Grid) -> usize {
    images_at_once(queue, grid).min(grid.batch) * grid.pixels()
}

/// A batch in parts of whole images.
pub fn parts(queue: &Queue, grid: Grid) -> impl Iterator<Item = Part> + use<> {
    let at_once = images_at_once(queue, grid);
    (0..grid.batch).step_by(at_once).map(move |image| Part {
        grid: Grid { batch: at_once.min(grid.batch - image), ..grid },
        first: image * grid.pixels(),
    })
}
