//! Work that is repeated on the same buffers.

use std::convert::Infallible;

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

    /// Does the work: the first call executes it, the second one records it, and later ones replay the
    /// record. Returns the value of the last call of `work`; buffers in it hold the results of this run.
    pub fn run(&mut self, device: &D, work: impl FnMut(&D) -> T) -> &mut T {
        let Ok(result) = self.run_agreed(device, work, Ok::<_, Infallible>);
        result
    }

    /// As [`run`](Self::run), for work of several processes of which either all replay a record or none does.
    /// `agree` is called once: it receives whether this process has a record, and returns whether all
    /// processes have one.
    ///
    /// # Errors
    /// That of `agree`. The work is not done then.
    pub fn run_agreed<E>(
        &mut self,
        device: &D,
        mut work: impl FnMut(&D) -> T,
        agree: impl FnOnce(bool) -> Result<bool, E>,
    ) -> Result<&mut T, E> {
        if self.recording.is_none()
            // The previous result may be large; free its memory before the next run.
            && self.result.take().is_some()
            && !std::mem::replace(&mut self.tried, true)
        {
            let recorded = device.record(&mut work);
            if agree(recorded.is_some())?
                && let Some((result, recording)) = recorded
            {
                (self.result, self.recording) = (Some(result), Some(recording));
            }
        }
        if let Some(recording) = &self.recording {
            device.replay(recording);
        }
        Ok(self.result.get_or_insert_with(|| work(device)))
    }
}
