//! Operations on latents that require no model.

use glowflow::latent::{Interpolation, between};
use glowflow::{Latents, check_count};
use numpy::{PyArray4, PyReadonlyArray4};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::arrays;
use crate::errors::compute;

/// Interpolates the latents of two images in `steps` points, both ends included.
#[pyfunction]
#[pyo3(signature = (a, b, steps, spherical))]
pub fn interpolate<'py>(
    py: Python<'py>,
    a: Vec<PyReadonlyArray4<'py, f32>>,
    b: Vec<PyReadonlyArray4<'py, f32>>,
    steps: usize,
    spherical: bool,
) -> PyResult<Vec<Bound<'py, PyArray4<f32>>>> {
    let (a, b) = (arrays::latents(&a), arrays::latents(&b));
    let shapes = |latents: &Latents| -> Vec<Vec<usize>> {
        latents.0.iter().map(|level| level.shape().to_vec()).collect()
    };
    if shapes(&a) != shapes(&b) || a.batch() != 1 {
        return Err(PyValueError::new_err(format!(
            "interpolate takes the latents of one image each, [1, h, w, c] a level; got {:?} and {:?}",
            shapes(&a),
            shapes(&b)
        )));
    }
    if steps < 2 {
        return Err(PyValueError::new_err(format!("steps is {steps}; it must be at least 2")));
    }
    let walk = if spherical { Interpolation::Spherical } else { Interpolation::Linear };
    let points = compute(py, || {
        check_count(&[steps], a.0.iter().map(|level| level.len() * size_of::<f32>()).sum())?;
        let point = |step: usize| between(&a, &b, step as f64 / (steps - 1) as f64, walk);
        Latents::concatenate(&(0..steps).map(point).collect::<Vec<_>>())
    })?;
    Ok(arrays::levels(py, points))
}
