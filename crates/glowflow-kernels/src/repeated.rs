//! Work that is done again and again on the same buffers.

use crate::device::Device;

/// Work that a device records on its second run, if it can, and then replays.
///
/// The inputs of the work must be in persistent buffers, whose contents may change between runs.
#[derive(Default)]
pub struct Repeated<D: Device, T> {
    result: Option<T>,
    recording: Option<D::Recording>,
    /// True if recording was attempted; without a recording, the attempt failed.
    tried: bool,
}

impl<D: Device, T> Repeated<D, T> {
    /// Creates it without running anything.
    pub fn new() -> Self {
        Self { result: None, recording: None, tried: false }
    }

    /// Does the work: the first time as it is, the second time recording it, and from then on by the record. Returns what `work`
    /// returned when it was last called; buffers in it hold what this run computed.
    pub fn run(&mut self, device: &D, mut work: impl FnMut(&D) -> T) -> &mut T {
        if self.recording.is_none()
            // What the last run left may be large, and is in the way of the next.
            && self.result.take().is_some()
            && !std::mem::replace(&mut self.tried, true)
            && let Some((result, recording)) = device.record(&mut work)
        {
            (self.result, self.recording) = (Some(result), Some(recording));
        }
        if let Some(recording) = &self.recording {
            device.replay(recording);
        }
        self.result.get_or_insert_with(|| work(device))
    }
}
