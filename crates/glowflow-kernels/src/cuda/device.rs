//! GPUs as a [`Device`]: memory and captures.

use std::ops::Range;
use std::sync::Arc;

use super::driver::Graph;
use super::lengths::holds;
use super::queue::Queue;
use super::{Buffer, Cuda, nccl};
use crate::communicator::Transport;
use crate::device::{Device, DeviceError};
use crate::precision::Precision;

/// A captured graph and the memory that it uses.
pub struct Captured {
    graph: Graph,
    _queue: Arc<Queue>,
}

impl Device for Cuda {
    type Real = f32;
    type Buffer = Buffer;
    type Captured = Captured;

    fn name(&self) -> String {
        let precision = match self.precision {
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
            _ => "f32",
        };
        format!("{}, {precision}", self.queue.gpu.context.name)
    }

    fn pixels_at_once(&self) -> usize {
        1 << 21
    }

    fn layers_at_once(&self) -> usize {
        // One kernel launch computes the matrices of all these layers.
        16
    }

    fn peak_memory(&self) -> Option<u64> {
        Some(self.queue.gpu.context.peak() as u64)
    }

    fn transport(&self) -> Result<Option<Arc<dyn Transport<Self>>>, DeviceError> {
        nccl::open(&self.queue.gpu.context.name, &self.libraries)
    }

    fn capture<T>(&self, work: impl FnOnce(&Self) -> T) -> Option<(T, Captured)> {
        // A capture has its own memory, so that nothing else overwrites it between replays. Cached memory
        // of the main stream is released to make room.
        let queue = self.attempt(|queue| {
            queue.stream.synchronize()?;
            queue.pool.trim();
            Ok(Queue::for_capture(&queue.gpu))
        })?;
        // If this fails for lack of memory, the work can still run without a capture.
        let device = Self { queue: Arc::new(queue.ok()?), failure: Arc::default(), ..self.clone() };
        let captured = device.queue.stream.capture(|| {
            let result = work(&device);
            // Work that has not been joined yet is part of the capture.
            device.attempt(|queue| queue.join());
            result
        });
        let (result, graph) = captured.ok()?;
        match device.failed() {
            Some(_) => None,
            None => Some((result, Captured { graph, _queue: device.queue })),
        }
    }

    fn replay(&self, capture: &Captured) {
        self.attempt(|queue| queue.stream.replay(&capture.graph));
    }

    fn scratch(&self, len: usize) -> Buffer {
        self.buffer(len, |queue| queue.floats(len))
    }

    fn zeros(&self, len: usize) -> Buffer {
        self.buffer(len, |queue| queue.zeros(len))
    }

    fn upload(&self, values: &[f32]) -> Buffer {
        self.buffer(values.len(), |queue| {
            let block = queue.floats(values.len())?;
            queue.stream.write(values, block.address)?;
            Ok(block)
        })
    }

    fn download(&self, buffer: &Buffer) -> Result<Vec<f32>, DeviceError> {
        self.report(|queue| {
            let mut values = vec![0.0; buffer.len()];
            queue.stream.read(buffer.address(), &mut values)?;
            Ok(values)
        })
    }

    fn len(&self, buffer: &Buffer) -> usize {
        buffer.len()
    }

    fn read(&self, buffer: &Buffer, at: Range<usize>) -> Result<Vec<f32>, DeviceError> {
        holds("a slice", buffer, at.end);
        self.report(|queue| {
            // The buffer may be a gradient that a side stream still writes.
            queue.join()?;
            let mut values = vec![0.0; at.len()];
            queue.stream.read(buffer.at(at.start), &mut values)?;
            Ok(values)
        })
    }

    fn write(&self, buffer: &mut Buffer, at: usize, values: &[f32]) {
        holds("a slice", buffer, at + values.len());
        self.attempt(|queue| {
            queue.join()?;
            queue.stream.write(values, buffer.at(at))
        });
    }

    fn copy(&self, from: &Buffer, to: &mut Buffer) {
        self.attempt(|queue| {
            // The buffer may be a gradient that a side stream still writes.
            queue.join()?;
            queue.stream.copy(from.address(), to.address(), 4 * from.len().min(to.len()))
        });
    }
}
