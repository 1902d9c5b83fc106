//! Conversion of library errors to Python exceptions.
//!
//! | library | Python |
//! | --- | --- |
//! | `Io`, reading and writing of data and reports | the matching `OSError`, such as `FileNotFoundError` |
//! | `Device` | `glowflow.DeviceError` |
//! | `Diverged`, `RunDiverged` | `glowflow.Diverged` |
//! | `Stopped` | `KeyboardInterrupt` |
//! | all others | `ValueError` |

use std::io::{self, ErrorKind};

use glowflow::{Error, catch_out_of_memory};
use glowflow_import::Setting;
use pyo3::create_exception;
use pyo3::exceptions::{PyKeyboardInterrupt, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

create_exception!(
    glowflow,
    DeviceError,
    PyRuntimeError,
    "A device is missing, failed, or has too little memory."
);
create_exception!(glowflow, Diverged, PyRuntimeError, "Training encountered only non-finite gradients.");

/// Calls `work` without the GIL.
pub fn compute<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T, Error> + Send) -> PyResult<T> {
    py.detach(|| catch_out_of_memory(work)).map_err(Error::from).flatten().map_err(raised)
}

/// Converts an error to an exception.
pub fn raised(error: Error) -> PyErr {
    let advice = match error {
        Error::NoData => "; pass data",
        Error::NoDirections { .. } => "; Directions.fit computes them from labelled images",
        _ => "",
    };
    let message = format!("{error}{advice}");
    match error {
        Error::Io { reason, .. }
        | Error::Data(
            glowflow_data::Error::Read { reason, .. } | glowflow_data::Error::System { source: reason, .. },
        ) => of_system(reason.kind(), message),
        Error::Data(glowflow_data::Error::Write { .. }) | Error::Report(_) => PyOSError::new_err(message),
        Error::Device(_) => DeviceError::new_err(message),
        Error::Diverged(_) | Error::RunDiverged { .. } => Diverged::new_err(message),
        Error::Stopped => PyKeyboardInterrupt::new_err(message),
        _ => PyValueError::new_err(message),
    }
}

/// Converts an error of the checkpoint import to an exception.
pub fn import_raised(error: glowflow_import::Error) -> PyErr {
    let advice = match &error {
        glowflow_import::Error::Missing(settings) => {
            let argument = |setting: &Setting| match setting {
                Setting::Image => "image",
                Setting::Bits => "bits",
                Setting::Permutation => "permutation",
            };
            format!(": pass {}", settings.iter().map(argument).collect::<Vec<_>>().join(" and "))
        }
        _ => String::new(),
    };
    let message = format!("{error}{advice}");
    match error {
        glowflow_import::Error::Io { reason, .. } => of_system(reason.kind(), message),
        glowflow_import::Error::Glowflow(error) => raised(error),
        _ => PyValueError::new_err(message),
    }
}

/// The `OSError` for a kind of error.
fn of_system(kind: ErrorKind, message: String) -> PyErr {
    io::Error::new(kind, message).into()
}
