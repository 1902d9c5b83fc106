//! Pinned host memory.

use std::sync::Arc;

use cudarc::driver::sys;

use super::{Context, Event, Stream};
use crate::device::DeviceError;

/// Pinned host memory, which the GPU accesses directly, for transfers in one direction.
pub struct Pinned {
    context: Arc<Context>,
    address: *mut u8,
    len: usize,
    /// Recorded after the last copy to the GPU.
    done: Event,
}

// SAFETY: the memory is owned by this value alone, and handles of the driver may be used from any thread.
#[allow(unsafe_code)]
unsafe impl Send for Pinned {}

impl Pinned {
    #[allow(unsafe_code)]
    pub fn new(context: &Arc<Context>, len: usize) -> Result<Self, DeviceError> {
        let done = Event::new(context)?;
        let mut address = std::ptr::null_mut();
        // SAFETY: the out-pointer is to a live variable.
        context
            .check(unsafe { sys::cuMemAllocHost_v2(&mut address, len.max(1)) }, "allocating pinned memory")?;
        Ok(Self { context: Arc::clone(context), address: address.cast(), len, done })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Copies `from` into pinned memory and queues the copy to the GPU. First waits for an earlier copy to
    /// finish.
    #[allow(unsafe_code)]
    pub fn send(&mut self, stream: &Stream, from: &[u8], to: u64) -> Result<(), DeviceError> {
        debug_assert!(from.len() <= self.len);
        stream.not_capturing()?;
        let from = &from[..from.len().min(self.len)];
        self.done.synchronize()?;
        // SAFETY: `address` has at least `len` bytes, which have no reader after the event. The copies are
        // within both buffers, and the event is recorded after the second one.
        unsafe {
            std::ptr::copy_nonoverlapping(from.as_ptr(), self.address, from.len());
            let copied = sys::cuMemcpyHtoDAsync_v2(to, self.address.cast(), from.len(), stream.raw);
            self.context.check(copied, "copying to the GPU")?;
        }
        self.done.record(stream)
    }

    /// Appends data from the GPU to `to`, after all queued work; each copy is at most the size of the pinned
    /// memory.
    #[allow(unsafe_code)]
    pub fn receive(
        &mut self,
        stream: &Stream,
        from: u64,
        bytes: usize,
        to: &mut Vec<u8>,
    ) -> Result<(), DeviceError> {
        stream.not_capturing()?;
        self.done.synchronize()?;
        for start in (0..bytes).step_by(self.len.max(1)) {
            let piece = self.len.min(bytes - start);
            // SAFETY: callers pass an address with `bytes` bytes (`lengths.rs`). The pinned memory has at
            // least `len` bytes, owned by `self` alone: copies out of it finished before the event, and
            // copies into it before the wait of the previous iteration.
            let copied = unsafe {
                sys::cuMemcpyDtoHAsync_v2(self.address.cast(), from + start as u64, piece, stream.raw)
            };
            self.context.check(copied, "copying from the GPU")?;
            stream.synchronize()?;
            // SAFETY: the copy has finished, so these bytes are initialised, and `to` owns other memory.
            to.extend_from_slice(unsafe { std::slice::from_raw_parts(self.address, piece) });
        }
        Ok(())
    }
}

impl Drop for Pinned {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // Otherwise a copy to the GPU would read freed memory; copies from the GPU have been waited for.
        let _ = self.done.synchronize();
        if self.context.enter().is_ok() {
            // SAFETY: created in `new` and owned by this value alone.
            let _ = unsafe { sys::cuMemFreeHost(self.address.cast()) };
        }
    }
}
