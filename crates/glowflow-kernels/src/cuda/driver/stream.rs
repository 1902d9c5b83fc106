//! Queues of work, and copies in them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytemuck::NoUninit;
use cudarc::driver::sys::{self, CUresult};

use super::{Context, Event};
use crate::device::DeviceError;

/// A queue of work on a GPU.
pub struct Stream {
    pub context: Arc<Context>,
    pub raw: sys::CUstream,
    /// True if work is being captured.
    pub(super) capturing: AtomicBool,
}

// SAFETY: handles of the driver may be used from any thread.
#[allow(unsafe_code)]
unsafe impl Send for Stream {}
#[allow(unsafe_code)]
unsafe impl Sync for Stream {}

impl Stream {
    #[allow(unsafe_code)]
    pub fn new(context: &Arc<Context>) -> Result<Self, DeviceError> {
        context.enter()?;
        let mut raw = std::ptr::null_mut();
        // Not synchronised with the default stream, which is unused.
        let flags = sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the out-pointer is to a live variable.
        context.check(unsafe { sys::cuStreamCreate(&mut raw, flags) }, "creating a stream")?;
        Ok(Self { context: Arc::clone(context), raw, capturing: AtomicBool::new(false) })
    }

    /// Makes all work queued from now on wait for the event.
    #[allow(unsafe_code)]
    pub fn wait(&self, event: &Event) -> Result<(), DeviceError> {
        self.context.enter()?;
        // SAFETY: both handles are live.
        self.context.check(unsafe { sys::cuStreamWaitEvent(self.raw, event.raw, 0) }, "waiting for a stream")
    }

    /// Waits until all queued work has finished.
    #[allow(unsafe_code)]
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        self.context.enter()?;
        // SAFETY: the stream lives as long as `self`.
        self.context.check(unsafe { sys::cuStreamSynchronize(self.raw) }, "waiting for the GPU")
    }

    /// Returns true if all queued work has finished.
    #[allow(unsafe_code)]
    pub fn is_done(&self) -> Result<bool, DeviceError> {
        self.context.enter()?;
        // SAFETY: the stream lives as long as `self`.
        match unsafe { sys::cuStreamQuery(self.raw) } {
            CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            result => self.context.check(result, "asking for the GPU's progress").map(|()| true),
        }
    }

    /// Fails during a capture: every replay would read the program's memory, which may hold other data by
    /// then.
    pub(super) fn not_capturing(&self) -> Result<(), DeviceError> {
        if !self.capturing.load(Ordering::Relaxed) {
            return Ok(());
        }
        let reason = "copies from the program's memory cannot be captured; upload before the capture".into();
        Err(DeviceError::Failed { device: self.context.name.clone(), reason })
    }

    /// Copies to the GPU. `from` has been read when this returns.
    #[allow(unsafe_code)]
    pub fn write<T: NoUninit>(&self, from: &[T], to: u64) -> Result<(), DeviceError> {
        if from.is_empty() {
            return Ok(());
        }
        self.not_capturing()?;
        self.context.enter()?;
        let bytes = std::mem::size_of_val(from);
        // SAFETY: `from` holds this number of bytes, which the driver reads before it returns, because
        // nothing is captured and the memory is not pinned; callers pass an address with room for them
        // (`lengths.rs`).
        let result = unsafe { sys::cuMemcpyHtoDAsync_v2(to, from.as_ptr().cast(), bytes, self.raw) };
        self.context.check(result, "copying to the GPU")
    }

    /// Copies from the GPU after all queued work.
    #[allow(unsafe_code)]
    pub fn read<T: bytemuck::Pod>(&self, from: u64, to: &mut [T]) -> Result<(), DeviceError> {
        if !to.is_empty() {
            self.context.enter()?;
            let bytes = std::mem::size_of_val(to);
            // SAFETY: `to` has room for this number of bytes and lives until the wait below has finished, and
            // any bytes are a valid `T`.
            let result = unsafe { sys::cuMemcpyDtoHAsync_v2(to.as_mut_ptr().cast(), from, bytes, self.raw) };
            self.context.check(result, "copying from the GPU")?;
        }
        self.synchronize()
    }

    /// Copies within the GPU.
    #[allow(unsafe_code)]
    pub fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), DeviceError> {
        if bytes == 0 {
            return Ok(());
        }
        self.context.enter()?;
        // SAFETY: callers pass addresses with this number of bytes each (`lengths.rs`).
        let result = unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, bytes, self.raw) };
        self.context.check(result, "copying on the GPU")
    }

    /// Zeroes memory.
    #[allow(unsafe_code)]
    pub fn clear(&self, address: u64, bytes: usize) -> Result<(), DeviceError> {
        if bytes == 0 {
            return Ok(());
        }
        self.context.enter()?;
        // SAFETY: callers pass an address with this number of bytes (`lengths.rs`).
        let result = unsafe { sys::cuMemsetD8Async(address, 0, bytes, self.raw) };
        self.context.check(result, "clearing memory")
    }
}

impl Drop for Stream {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: created in `new` and owned by this value alone. Work still queued continues.
            let _ = unsafe { sys::cuStreamDestroy_v2(self.raw) };
        }
    }
}
