//! Parsing of device and precision names.

use glowflow::{AnyDevice, DeviceChoice, DeviceError, Precision};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// The device with this name.
pub fn choice(name: &str) -> PyResult<DeviceChoice> {
    name.parse().map_err(|reason: String| PyValueError::new_err(reason))
}

/// The precision with this name.
pub fn precision(name: &str) -> PyResult<Precision> {
    match name {
        "auto" => Ok(Precision::Auto),
        "f32" => Ok(Precision::F32),
        "tf32" => Ok(Precision::Tf32),
        "bf16" => Ok(Precision::Bf16),
        _ => Err(PyValueError::new_err(format!(
            "unknown precision {name:?}, expected one of auto, f32, tf32, bf16"
        ))),
    }
}

/// Opens a device. Also returns the reason why an existing GPU is not used, if any.
pub fn open(choice: DeviceChoice, precision: Precision) -> Result<(AnyDevice, Option<String>), DeviceError> {
    let mut trouble = None;
    let device = choice.open(precision, |error| {
        trouble = Some(format!("{error}; computing on the CPU instead"));
    })?;
    Ok((device, trouble))
}
