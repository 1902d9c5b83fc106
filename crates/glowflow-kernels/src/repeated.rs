//! Work that is done again and again on the same buffers.

use crate::device::Device;

/// Work that a device records once it has seen it, if it can, and then repeats by itself.
///
/// What the work reads must lie in buffers that stay, and is changed between runs by writing into them.
#[derive(Default)]
pub struct Repeated<D: Device, T> {
    result: Option<T>,
    recording: Option<D::Recording>,
    /// Whether the device was asked to record, in vain if there is no recording.
    tried: bool,
}

impl<D: Device, T> Repeated<D, T> {
    /// Nothing done yet.
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
