//! The matrix products of the reference implementation, with kernels for the softmax (`attention.cu`).

use super::reference::{self, Softmax};
use super::{Attention, AttentionShape};
use crate::cuda::driver::{Argument, Launch};
use crate::cuda::queue::launch;
use crate::cuda::{Buffer, Cuda};

const SOFTMAX: Softmax<Cuda> = Softmax { forward: softmax, backward: softmax_backward };

fn softmax(device: &Cuda, shape: AttentionShape, scores: &mut Buffer) {
    let rows = shape.score_rows();
    device.attempt(|queue| {
        launch!(
            queue, queue.kernels().softmax, Launch::of(queue.counted(32 * rows.rows)?);
            rows.rows, rows.channels, shape.scale() as f32, scores.address()
        )
    });
}

fn softmax_backward(device: &Cuda, shape: AttentionShape, weights: &Buffer, d_weights: &mut Buffer) {
    let rows = shape.score_rows();
    device.attempt(|queue| {
        launch!(
            queue, queue.kernels().softmax_backward, Launch::of(queue.counted(32 * rows.rows)?);
            rows.rows, rows.channels, shape.scale() as f32, weights.address(), d_weights.address()
        )
    });
}

impl Attention for Cuda {
    fn attention(&self, shape: AttentionShape, qkv: &Buffer, y: &mut Buffer) {
        reference::forward(self, &SOFTMAX, shape, qkv, y);
    }

    fn attention_backward(&self, shape: AttentionShape, qkv: &Buffer, dy: &Buffer, d_qkv: &mut Buffer) {
        reference::backward(self, &SOFTMAX, shape, qkv, dy, d_qkv);
    }
}
