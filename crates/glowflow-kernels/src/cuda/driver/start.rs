//! Initialisation of the driver.

use cudarc::driver::sys;

use super::errors::failure;
use crate::device::DeviceError;

/// The oldest driver that supports all features in use: that of CUDA 12.0.
const OLDEST_DRIVER: i32 = 12000;

/// Initialises the driver; returns the number of GPUs and the driver's version. `device` is named in errors.
#[allow(unsafe_code)]
pub fn start(device: &str) -> Result<(usize, i32), DeviceError> {
    let check = |result, what| failure(device, result, what);
    let mut version = 0;
    // SAFETY: here and below, out-pointers are to live variables of the types that the driver expects.
    let result = unsafe { sys::cuDriverGetVersion(&mut version) };
    check(result, "asking for the driver's version")?;
    if version < OLDEST_DRIVER {
        let of = |version: i32| format!("{}.{}", version / 1000, version % 1000 / 10);
        let reason = format!(
            "the NVIDIA driver is too old: it supports CUDA {}, and {} or newer is needed",
            of(version),
            of(OLDEST_DRIVER)
        );
        return Err(DeviceError::Unavailable { device: device.to_owned(), reason });
    }
    check(unsafe { sys::cuInit(0) }, "starting the driver")?;
    let mut count = 0;
    check(unsafe { sys::cuDeviceGetCount(&mut count) }, "counting GPUs")?;
    Ok((count as usize, version))
}
