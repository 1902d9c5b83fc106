//! The drawn portraits as arrays: images with known attributes, without a download.

use glowflow_data::Dataset;
use glowflow_data::portraits::{ATTRIBUTES, MIN_SIZE, Portraits};
use numpy::{IntoPyArray, PyArray1, PyArray4};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::compute;

type Attribute<'py> = (&'static str, Bound<'py, PyArray1<bool>>);

/// Returns images `[count, size, size, 3]`, and the values of each attribute.
#[pyfunction]
#[pyo3(signature = (count, size, seed))]
pub fn portraits<'py>(
    py: Python<'py>,
    count: usize,
    size: usize,
    seed: u64,
) -> PyResult<(Bound<'py, PyArray4<u8>>, Vec<Attribute<'py>>)> {
    if size < MIN_SIZE {
        return Err(PyValueError::new_err(format!("size must be at least {MIN_SIZE}, got {size}")));
    }
    let set = Portraits::new(count, size, seed);
    let (pixels, attributes) = compute(py, || {
        glowflow::check_count(&[count], set.shape().len())?;
        let mut pixels = vec![0; count * set.shape().len()];
        for (index, image) in pixels.chunks_exact_mut(set.shape().len()).enumerate() {
            set.read(index, image)?;
        }
        let of = |attribute: usize| -> Vec<bool> {
            (0..count).map(|index| set.attributes(index)[attribute].1).collect()
        };
        Ok((pixels, (0..ATTRIBUTES.len()).map(of).collect::<Vec<_>>()))
    })?;
    let images = ndarray::Array4::from_shape_vec((count, size, size, 3), pixels)
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    let attributes = ATTRIBUTES.iter().zip(attributes);
    let attributes = attributes.map(|(&name, values)| (name, values.into_pyarray(py))).collect();
    Ok((images.into_pyarray(py), attributes))
}
