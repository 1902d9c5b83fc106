//! Work that is repeated on the same buffers.

use std::convert::Infallible;

use crate::device::Device;

/// Work that a device captures on its second run, if it can, and then replays.
///
/// The inputs of the work must be in persistent buffers, whose contents may change between runs.
#[derive(Default)]
pub struct Repeated<D: Device, T> {
    result: Option<T>,
    capture: Option<D::Captured>,
    /// True if capture was attempted; without a capture, the attempt failed.
    tried: bool,
}

impl<D: Device, T> Repeated<D, T> {
    /// Creates it without running anything.
    pub fn new() -> Self {
        Self { result: None, capture: None, tried: false }
    }

    /// Does the work: the first call executes it, the second one captures it, and later ones replay the
    /// capture. Returns the value of the last call of `work`; buffers in it hold the results of this run.
    pub fn run(&mut self, device: &D, work: impl FnMut(&D) -> T) -> &mut T {
        let Ok(result) = self.run_agreed(device, work, Ok::<_, Infallible>);
        result
    }

    /// As [`run`](Self::run), for work of several processes of which either all replay a capture or none does.
    /// `agree` is called once: it receives whether this process has a capture, and returns whether all
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
        if self.capture.is_none()
            // The previous result may be large; free its memory before the next run.
            && self.result.take().is_some()
            && !std::mem::replace(&mut self.tried, true)
        {
            let captured = device.capture(&mut work);
            if agree(captured.is_some())?
                && let Some((result, capture)) = captured
            {
                (self.result, self.capture) = (Some(result), Some(capture));
            }
        }
        if let Some(capture) = &self.capture {
            device.replay(capture);
        }
        Ok(self.result.get_or_insert_with(|| work(device)))
    }
}
