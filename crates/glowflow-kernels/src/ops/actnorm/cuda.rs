//! One block per channel (`channel_map.cu`).

use super::{ActNorm, ActNormParams};
use crate::cuda::driver::{Argument, Launch};
use crate::cuda::lengths::holds_parameters;
use crate::cuda::memory::at;
use crate::cuda::queue::{Queue, launch};
use crate::cuda::{Buffer, Cuda};
use crate::device::DeviceError;

type Result<T> = std::result::Result<T, DeviceError>;

/// Sets an actnorm's bias and logs from `x` `[rows, stride]`.
pub fn initialize(
    queue: &Queue,
    norm: &ActNormParams,
    rows: usize,
    stride: usize,
    x: u64,
    buffer: u64,
) -> Result<()> {
    launch!(
        queue, queue.kernels().initialize_actnorm, Launch::blocks(norm.bias.len);
        rows, stride, x, at(buffer, norm.bias), at(buffer, norm.logs)
    )
}

impl ActNorm for Cuda {
    fn initialize_actnorm(&self, at: &ActNormParams, x: &Buffer, params: &mut Buffer) {
        holds_parameters(params, at);
        self.attempt(|queue| {
            let channels = at.bias.len;
            let rows = x.len() / channels;
            initialize(queue, at, rows, channels, x.address(), params.address())
        });
    }
}
