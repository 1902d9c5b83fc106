//! Conversion of arrays: arguments are views of numpy's memory, results own Rust memory. Only latents passed
//! as arguments are copied.

use glowflow::Latents;
use numpy::{IntoPyArray, PyArray4, PyReadonlyArray1, PyReadonlyArray4};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Labels of images; empty for a model without classes.
pub fn labels(labels: Option<&PyReadonlyArray1<'_, i64>>) -> PyResult<Vec<usize>> {
    let Some(labels) = labels else { return Ok(vec![]) };
    let number = |&label: &i64| {
        usize::try_from(label)
            .map_err(|_| PyValueError::new_err(format!("label {label} is negative; labels count from 0")))
    };
    labels.as_array().iter().map(number).collect()
}

/// Latents from one array per level.
pub fn latents(levels: &[PyReadonlyArray4<'_, f32>]) -> Latents {
    Latents(levels.iter().map(|level| level.as_array().to_owned()).collect())
}

/// One array per level.
pub fn levels(py: Python<'_>, latents: Latents) -> Vec<Bound<'_, PyArray4<f32>>> {
    latents.0.into_iter().map(|level| level.into_pyarray(py)).collect()
}
