//! Work captured in a stream, and its replay.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cudarc::driver::sys;

use super::{Context, Stream};
use crate::device::DeviceError;

impl Stream {
    /// Captures the work that `work` queues, without executing it.
    #[allow(unsafe_code)]
    pub fn capture<T>(&self, work: impl FnOnce() -> T) -> Result<(T, Graph), DeviceError> {
        self.context.enter()?;
        // Allocating during a capture is harmless, because memory comes from a pool that outlives the graph.
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: here and below, the handles are live and out-pointers are to live variables.
        self.context.check(unsafe { sys::cuStreamBeginCapture_v2(self.raw, mode) }, "starting a capture")?;
        self.capturing.store(true, Ordering::Relaxed);
        let result = work();
        self.capturing.store(false, Ordering::Relaxed);
        self.context.enter()?;
        let (mut graph, mut ready) = (std::ptr::null_mut(), std::ptr::null_mut());
        self.context.check(unsafe { sys::cuStreamEndCapture(self.raw, &mut graph) }, "ending a capture")?;
        let instantiated = unsafe { sys::cuGraphInstantiateWithFlags(&mut ready, graph, 0) };
        let _ = unsafe { sys::cuGraphDestroy(graph) };
        self.context.check(instantiated, "instantiating a graph")?;
        Ok((result, Graph { context: Arc::clone(&self.context), raw: ready }))
    }

    /// Queues a captured graph.
    #[allow(unsafe_code)]
    pub fn replay(&self, graph: &Graph) -> Result<(), DeviceError> {
        self.context.enter()?;
        // SAFETY: both handles are live.
        self.context.check(unsafe { sys::cuGraphLaunch(graph.raw, self.raw) }, "launching a graph")
    }
}

/// A captured graph, ready to be replayed.
pub struct Graph {
    context: Arc<Context>,
    raw: sys::CUgraphExec,
}

// SAFETY: handles of the driver may be used from any thread.
#[allow(unsafe_code)]
unsafe impl Send for Graph {}
#[allow(unsafe_code)]
unsafe impl Sync for Graph {}

impl Drop for Graph {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: created in `capture` and owned by this value alone.
            let _ = unsafe { sys::cuGraphExecDestroy(self.raw) };
        }
    }
}
