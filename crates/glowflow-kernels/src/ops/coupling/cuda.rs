//! One block per part of an image; gradients use one thread per number (`coupling.cu`).

use super::{AffineScale, Coupling, CouplingKind};
use crate::cuda::driver::{Argument, Launch};
use crate::cuda::lengths::holds;
use crate::cuda::queue::launch;
use crate::cuda::sums::{add_sums, parts_of};
use crate::cuda::{Buffer, Cuda};
use crate::shape::Grid;

/// The kind of a coupling, as in `coupling.cu`.
fn number(kind: CouplingKind) -> i32 {
    match kind {
        CouplingKind::Additive => 0,
        CouplingKind::Affine(AffineScale::Sigmoid) => 1,
        CouplingKind::Affine(AffineScale::Exp2Tanh) => 2,
    }
}

impl Coupling for Cuda {
    fn couple(
        &self,
        kind: CouplingKind,
        grid: Grid,
        channels: usize,
        o: &Buffer,
        x: &mut Buffer,
        logp: &mut Buffer,
    ) {
        holds("o", o, grid.rows() * kind.network_outputs(channels));
        holds("x", x, grid.rows() * channels);
        holds("logp", logp, grid.batch);
        self.attempt(|queue| {
            let work = |parts, part: usize, sums: u64| {
                // A part is handled by one block, which should have threads for all of it.
                let threads = (part.min(grid.pixels()) * channels / 4).next_power_of_two().clamp(128, 1024);
                let shape = Launch { block: threads as u32, ..Launch::grid(grid.batch, parts, 1) };
                launch!(
                    queue, queue.kernels().couple, shape;
                    grid.pixels(), channels, number(kind), part, o.address(), x.address(), sums
                )
            };
            match kind {
                CouplingKind::Affine(_) => add_sums(queue, grid, logp, work),
                CouplingKind::Additive => {
                    let (parts, part) = parts_of(grid);
                    work(parts, part, 0)
                }
            }
        });
    }

    fn uncouple(&self, kind: CouplingKind, channels: usize, o: &Buffer, x: &mut Buffer) {
        holds("o", o, x.len() / channels * kind.network_outputs(channels));
        self.attempt(|queue| {
            let count = x.len() / 2;
            launch!(
                queue, queue.kernels().uncouple, Launch::of(count);
                count, channels, number(kind), o.address(), x.address()
            )
        });
    }

    fn couple_backward(
        &self,
        kind: CouplingKind,
        channels: usize,
        o: &Buffer,
        x: &mut Buffer,
        dx: &mut Buffer,
        dlogp: f64,
        d_o: &mut Buffer,
    ) {
        let outputs = x.len() / channels * kind.network_outputs(channels);
        for (name, buffer) in [("o", o), ("d_o", &*d_o)] {
            holds(name, buffer, outputs);
        }
        holds("dx", dx, x.len());
        self.attempt(|queue| {
            let count = x.len() / 2;
            launch!(
                queue, queue.kernels().couple_backward, Launch::of(count);
                count, channels, number(kind), dlogp as f32, o.address(), x.address(), dx.address(),
                d_o.address()
            )
        });
    }
}
