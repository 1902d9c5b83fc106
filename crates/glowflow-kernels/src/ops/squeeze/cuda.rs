//! One thread per number (`data.cu`).

use super::Squeeze;
use crate::cuda::driver::{Argument, Launch};
use crate::cuda::lengths::squeezes;
use crate::cuda::queue::launch;
use crate::cuda::{Buffer, Cuda};
use crate::shape::Grid;

impl Squeeze for Cuda {
    fn squeeze(&self, grid: Grid, channels: usize, x: &Buffer, y: &mut Buffer) {
        squeezes(grid, channels, x, y);
        self.attempt(|queue| {
            launch!(
                queue, queue.kernels().squeeze, Launch::of(x.len());
                x.len(), grid.height, grid.width, channels, 0, x.address(), y.address()
            )
        });
    }

    fn unsqueeze(&self, grid: Grid, channels: usize, y: &Buffer, x: &mut Buffer) {
        squeezes(grid, channels, x, y);
        self.attempt(|queue| {
            launch!(
                queue, queue.kernels().squeeze, Launch::of(x.len());
                x.len(), grid.height, grid.width, channels, 1, x.address(), y.address()
            )
        });
    }
}
