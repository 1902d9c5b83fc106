//! Handling of main memory exhaustion.
//!
//! CPU operations return no errors, and cannot continue without their buffers. A failed allocation therefore
//! unwinds, without a panic message, to the nearest [`catch_out_of_memory`].

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::device::DeviceError;

/// The payload of the unwinding: the number of bytes requested.
struct OutOfMemory(usize);

/// Aborts the current work because memory is exhausted.
pub(crate) fn out_of_memory(bytes: usize) -> ! {
    resume_unwind(Box::new(OutOfMemory(bytes)))
}

/// Calls `work`. If main memory is exhausted, the work is aborted, and its data must not be used again.
///
/// # Errors
/// [`DeviceError::OutOfMemory`].
pub fn catch_out_of_memory<R>(work: impl FnOnce() -> R) -> Result<R, DeviceError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| failure(payload.downcast()))
}

fn failure(payload: Result<Box<OutOfMemory>, Box<dyn Any + Send>>) -> DeviceError {
    match payload {
        Ok(request) => {
            DeviceError::OutOfMemory { device: "the CPU".into(), requested: request.0, memory: None }
        }
        // Other panics are propagated.
        Err(panic) => resume_unwind(panic),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_that_cannot_be_had_are_an_error() {
        use crate::{Cpu, Device};
        let device = Cpu::<f32>::new();
        let error = catch_out_of_memory(|| device.scratch(1 << 58)).err().unwrap();
        assert!(
            matches!(error, DeviceError::OutOfMemory { requested, .. } if requested >= 1 << 58),
            "{error:?}"
        );
        assert!(error.to_string().contains("MiB more were needed"), "{error}");
        assert!(catch_out_of_memory(|| device.scratch(4)).is_ok());
    }

    #[test]
    #[should_panic(expected = "another reason")]
    fn panics_pass() {
        let _ = catch_out_of_memory(|| panic!("another reason"));
    }
}
