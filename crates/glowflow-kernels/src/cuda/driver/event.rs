//! Points in the work of streams.

use std::sync::Arc;

use cudarc::driver::sys;

use super::{Context, Stream};
use crate::device::DeviceError;

/// A point in a stream's work that others can wait for.
pub struct Event {
    context: Arc<Context>,
    pub(super) raw: sys::CUevent,
}

// SAFETY: handles of the driver may be used from any thread.
#[allow(unsafe_code)]
unsafe impl Send for Event {}
#[allow(unsafe_code)]
unsafe impl Sync for Event {}

impl Event {
    #[allow(unsafe_code)]
    pub fn new(context: &Arc<Context>) -> Result<Self, DeviceError> {
        context.enter()?;
        let mut raw = std::ptr::null_mut();
        let flags = sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING as u32;
        // SAFETY: the out-pointer is to a live variable.
        context.check(unsafe { sys::cuEventCreate(&mut raw, flags) }, "creating an event")?;
        Ok(Self { context: Arc::clone(context), raw })
    }

    /// Marks the end of all work queued in the stream so far.
    #[allow(unsafe_code)]
    pub fn record(&self, stream: &Stream) -> Result<(), DeviceError> {
        self.context.enter()?;
        // SAFETY: both handles are live.
        self.context.check(unsafe { sys::cuEventRecord(self.raw, stream.raw) }, "recording an event")
    }

    /// Makes the host wait; returns at once if the event was never recorded.
    #[allow(unsafe_code)]
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        self.context.enter()?;
        // SAFETY: the handle is live.
        self.context.check(unsafe { sys::cuEventSynchronize(self.raw) }, "waiting for an event")
    }
}

impl Drop for Event {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: created in `new` and owned by this value alone.
            let _ = unsafe { sys::cuEventDestroy_v2(self.raw) };
        }
    }
}
