//! One block per part of an image; other functions use one thread per number (`mixture.cu`).

use super::{Mixture, MixtureShape};
use crate::cuda::driver::{Argument, Launch};
use crate::cuda::lengths::holds;
use crate::cuda::queue::launch;
use crate::cuda::sums::add_sums;
use crate::cuda::{Buffer, Cuda};
use crate::ops::NetworkOutputs;
use crate::ops::network_outputs::head;

/// Checks the lengths of outputs, or of their gradients.
fn hold(shape: MixtureShape, outputs: &NetworkOutputs<Buffer>) {
    holds("o", &outputs.o, shape.grid.rows() * shape.channels);
    holds("head", head(outputs), shape.grid.rows() * shape.head());
}

impl Mixture for Cuda {
    fn mix(&self, shape: MixtureShape, outputs: &NetworkOutputs<Buffer>, x: &mut Buffer, logp: &mut Buffer) {
        let MixtureShape { grid, channels, components } = shape;
        hold(shape, outputs);
        holds("x", x, grid.rows() * channels);
        holds("logp", logp, grid.batch);
        let (o, head) = (outputs.o.address(), head(outputs).address());
        self.attempt(|queue| {
            add_sums(queue, grid, logp, |parts, part, sums| {
                let threads = (part.min(grid.pixels()) * shape.half()).next_power_of_two().clamp(128, 256);
                let launch = Launch { block: threads as u32, ..Launch::grid(grid.batch, parts, 1) };
                launch!(
                    queue, queue.kernels().mix, launch;
                    grid.pixels(), channels, components, part, o, head, x.address(), sums
                )
            })
        });
    }

    fn unmix(&self, shape: MixtureShape, outputs: &NetworkOutputs<Buffer>, x: &mut Buffer) {
        hold(shape, outputs);
        let count = shape.grid.rows() * shape.half();
        holds("x", x, 2 * count);
        let (o, head) = (outputs.o.address(), head(outputs).address());
        self.attempt(|queue| {
            launch!(
                queue, queue.kernels().unmix, Launch::of(count);
                count, shape.channels, shape.components, o, head, x.address()
            )
        });
    }

    fn mix_backward(
        &self,
        shape: MixtureShape,
        outputs: &NetworkOutputs<Buffer>,
        x: &mut Buffer,
        dx: &mut Buffer,
        dlogp: f64,
        d_outputs: &mut NetworkOutputs<Buffer>,
    ) {
        hold(shape, outputs);
        hold(shape, d_outputs);
        let count = shape.grid.rows() * shape.half();
        holds("x", x, 2 * count);
        holds("dx", dx, 2 * count);
        let (o, of_head) = (outputs.o.address(), head(outputs).address());
        let (d_o, d_head) = (d_outputs.o.address(), head(d_outputs).address());
        self.attempt(|queue| {
            launch!(
                queue, queue.kernels().mix_backward, Launch::of(count);
                count, shape.channels, shape.components, dlogp as f32, o, of_head, x.address(), dx.address(),
                d_o, d_head
            )
        });
    }
}
