//! One block per part of an image; gradients use one thread per number (`gaussian.cu`).

use super::Gaussian;
use crate::cuda::driver::{Argument, Launch};
use crate::cuda::lengths::holds;
use crate::cuda::queue::launch;
use crate::cuda::sums::add_sums;
use crate::cuda::{Buffer, Cuda};
use crate::shape::Grid;

impl Gaussian for Cuda {
    fn standardize(&self, grid: Grid, channels: usize, prior: &Buffer, z: &mut Buffer, logp: &mut Buffer) {
        holds("prior", prior, grid.rows() * 2 * channels);
        holds("z", z, grid.rows() * channels);
        holds("logp", logp, grid.batch);
        self.attempt(|queue| {
            add_sums(queue, grid, logp, |parts, part, sums| {
                launch!(
                    queue, queue.kernels().standardize, Launch::grid(grid.batch, parts, 1);
                    grid.pixels(), channels, part, prior.address(), z.address(), sums
                )
            })
        });
    }

    fn unstandardize(&self, channels: usize, prior: &Buffer, eps: &mut Buffer) {
        holds("prior", prior, 2 * eps.len());
        self.attempt(|queue| {
            launch!(
                queue, queue.kernels().unstandardize, Launch::of(eps.len());
                eps.len(), channels, prior.address(), eps.address()
            )
        });
    }

    fn standardize_backward(
        &self,
        channels: usize,
        prior: &Buffer,
        eps: &Buffer,
        dlogp: f64,
        dz: &mut Buffer,
        d_prior: &mut Buffer,
    ) {
        holds("prior", prior, 2 * eps.len());
        holds("dz", dz, eps.len());
        holds("d_prior", d_prior, 2 * eps.len());
        self.attempt(|queue| {
            launch!(
                queue, queue.kernels().standardize_backward, Launch::of(eps.len());
                eps.len(), channels, dlogp as f32, prior.address(), eps.address(), dz.address(),
                d_prior.address()
            )
        });
    }
}
