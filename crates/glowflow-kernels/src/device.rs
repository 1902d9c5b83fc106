//! The hardware interface: memory, captures, names and sizes. A device computes through
//! [`Primitives`](crate::Primitives) and [`ops`](crate::ops).

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use crate::communicator::Transport;
use crate::real::Real;

/// Failure of a device.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DeviceError {
    /// This machine has no such device.
    #[error("there is no device {device}: {reason}")]
    Absent {
        /// The device as specified by the user.
        device: String,
        /// The hardware that was searched for, and what exists instead.
        reason: String,
    },
    /// The device exists but cannot be used.
    #[error("device {device} is not available: {reason}")]
    Unavailable {
        /// The device as specified by the user.
        device: String,
        /// The missing requirement, and advice.
        reason: String,
    },
    /// An earlier operation failed; subsequent ones were not computed.
    #[error("{device} failed: {reason}")]
    Failed {
        /// The device's name.
        device: String,
        /// The failure, as reported by the device.
        reason: String,
    },
    /// The device's memory is exhausted.
    #[error(
        "{device} has too little memory: {} MiB more were needed{}",
        requested.div_ceil(1 << 20), of_memory(*memory)
    )]
    OutOfMemory {
        /// The device's name.
        device: String,
        /// Bytes requested.
        requested: usize,
        /// Its memory, if it has its own.
        memory: Option<Memory>,
    },
}

/// Memory of a device, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Free bytes.
    pub free: usize,
    /// Total bytes.
    pub total: usize,
}

fn of_memory(memory: Option<Memory>) -> String {
    memory.map_or(String::new(), |Memory { free, total }| {
        format!(", {} of its {} MiB are free", free >> 20, total >> 20)
    })
}

/// A compute backend.
///
/// Activations are row-major `[rows, channels]` with `rows = grid.rows()`, in `Real`, which is `f32` on every
/// device that trains.
///
/// **Operations do not return errors.** A device may queue them. It records the first failure, ignores all
/// later operations, and reports the failure at the next [`download`](Self::download) or other call that
/// waits for results.
///
/// **Buffers have the lengths implied by the shapes.** Operations panic if one is too short.
pub trait Device: Clone + Debug + Send + Sync + 'static {
    /// Scalar of the flow variables and parameters.
    type Real: Real;
    /// An array of `Real` in the device's memory.
    type Buffer: Debug + Send + Sync;
    /// A captured sequence of operations.
    type Captured: Send + Sync;

    /// Name of the device in reports.
    fn name(&self) -> String;

    /// Default chunk size, in pixels.
    fn pixels_at_once(&self) -> usize;

    /// Number of layers to prepare together in a training step. It is small and does not depend on the depth
    /// of the flow, because prepared weights take additional memory.
    fn layers_at_once(&self) -> usize;

    /// Peak memory used on the device, in bytes; `None` if it uses the host's memory.
    fn peak_memory(&self) -> Option<u64>;

    /// Runs `work`, which issues many operations, in the context in which they start fastest: on a CPU, in
    /// one of its threads.
    fn within<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        work()
    }

    /// The library that connects devices of this kind in several processes; `None` if there is none.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] if it cannot be used.
    fn transport(&self) -> Result<Option<Arc<dyn Transport<Self>>>, DeviceError> {
        Ok(None)
    }

    // ---- repetition ----------------------------------------------------------------------------

    /// Captures the operations that `work` issues on the device passed to it, without executing them.
    /// [`replay`](Self::replay) executes them any number of times on the same buffers. Returns `None` if
    /// capture has no benefit on the device or too little memory is available. The return value of `work`
    /// may contain buffers, which each replay overwrites.
    ///
    /// All operations of `work` must have been executed once before, because a device may have to prepare
    /// things that cannot be captured. `work` must not wait for results, and no varying data may pass through
    /// the host. Gradients are complete at the end of the capture and at the points where they are copied,
    /// and must not be read elsewhere.
    fn capture<T>(&self, work: impl FnOnce(&Self) -> T) -> Option<(T, Self::Captured)>;

    /// Executes a capture.
    fn replay(&self, capture: &Self::Captured);

    // ---- memory --------------------------------------------------------------------------------

    /// A buffer with unspecified contents.
    fn scratch(&self, len: usize) -> Self::Buffer;

    /// A buffer of zeros.
    fn zeros(&self, len: usize) -> Self::Buffer;

    /// A buffer with these contents.
    fn upload(&self, values: &[Self::Real]) -> Self::Buffer;

    /// Returns the contents of a buffer, after all queued work.
    fn download(&self, buffer: &Self::Buffer) -> Result<Vec<Self::Real>, DeviceError>;

    /// Returns a slice of a buffer, after all queued work.
    fn read(&self, buffer: &Self::Buffer, at: Range<usize>) -> Result<Vec<Self::Real>, DeviceError>;

    /// Overwrites the elements of a buffer from `at` on.
    fn write(&self, buffer: &mut Self::Buffer, at: usize, values: &[Self::Real]);

    /// Overwrites `to` with `from`, of the same length.
    fn copy(&self, from: &Self::Buffer, to: &mut Self::Buffer);

    /// Number of elements of a buffer.
    fn len(&self, buffer: &Self::Buffer) -> usize;

    /// A copy of a buffer of `len` elements.
    fn copied(&self, from: &Self::Buffer, len: usize) -> Self::Buffer {
        let mut copy = self.scratch(len);
        self.copy(from, &mut copy);
        copy
    }
}
