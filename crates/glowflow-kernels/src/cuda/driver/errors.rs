//! Results of the driver as errors.

use std::ffi::CStr;

use cudarc::driver::sys::{self, CUresult};

use crate::device::DeviceError;

/// A text of the driver.
pub(super) fn words(pointer: *const std::ffi::c_char) -> String {
    if pointer.is_null() {
        return "unknown error".into();
    }
    // SAFETY: the driver returns static, terminated strings, and null was excluded.
    #[allow(unsafe_code)]
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// The driver's description of a result.
pub(super) fn explain(result: CUresult) -> String {
    let (mut name, mut text) = (std::ptr::null(), std::ptr::null());
    // SAFETY: both pointers are to variables of the right type.
    #[allow(unsafe_code)]
    unsafe {
        let _ = sys::cuGetErrorName(result, &mut name);
        let _ = sys::cuGetErrorString(result, &mut text);
    }
    format!("{} ({})", words(text), words(name))
}

/// Converts a failed result to an error of this device.
pub(super) fn failure(device: &str, result: CUresult, what: &str) -> Result<(), DeviceError> {
    let device = device.to_owned();
    match result {
        CUresult::CUDA_SUCCESS => Ok(()),
        CUresult::CUDA_ERROR_NO_DEVICE => {
            Err(DeviceError::Absent { device, reason: "this machine has no NVIDIA GPU".into() })
        }
        result => Err(DeviceError::Unavailable { device, reason: format!("{what}: {}", explain(result)) }),
    }
}
