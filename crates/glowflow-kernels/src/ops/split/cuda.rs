//! One thread per number (`data.cu`).

use super::Split;
use crate::cuda::driver::{Argument, Launch};
use crate::cuda::lengths::halves;
use crate::cuda::queue::launch;
use crate::cuda::{Buffer, Cuda};

impl Split for Cuda {
    fn split(&self, channels: usize, x: &Buffer, first: &mut Buffer, last: &mut Buffer) {
        halves(channels, x, first, last);
        self.attempt(|queue| {
            launch!(
                queue, queue.kernels().split, Launch::of(x.len());
                x.len(), channels, 0, x.address(), first.address(), last.address()
            )
        });
    }

    fn join(&self, channels: usize, first: &Buffer, last: &Buffer, x: &mut Buffer) {
        halves(channels, x, first, last);
        self.attempt(|queue| {
            launch!(
                queue, queue.kernels().split, Launch::of(x.len());
                x.len(), channels, 1, x.address(), first.address(), last.address()
            )
        });
    }
}
