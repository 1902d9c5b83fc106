//! Conversion of checkpoints of other programs to model files.

use std::path::PathBuf;

use glowflow_import::{Checkpoint, Settings, Source, import};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::import_raised;

/// Converts a checkpoint of the program `source` to the model file `out`. Returns notes for the user.
#[pyfunction]
#[pyo3(signature = (path, source, image, bits, permutation, out))]
pub fn convert(
    py: Python<'_>,
    path: PathBuf,
    source: String,
    image: Option<(usize, usize)>,
    bits: Option<u32>,
    permutation: Option<String>,
    out: PathBuf,
) -> PyResult<Vec<String>> {
    let source: Source = source.parse().map_err(|reason: String| PyValueError::new_err(reason))?;
    let permutation = permutation.map(|name| serde_json::from_value(name.into())).transpose();
    let permutation = permutation.map_err(|error| PyValueError::new_err(format!("permutation: {error}")))?;
    let settings = Settings { image: image.map(<[usize; 2]>::from), bits, permutation };
    let converted = py.detach(|| -> Result<Vec<String>, glowflow_import::Error> {
        let imported = import(Checkpoint::read(&path)?, source, &settings)?;
        imported.model()?.write(&out)?;
        let unused = imported.unused.iter().map(|name| format!("{name} is not used"));
        Ok(imported.notes.iter().cloned().chain(unused).collect())
    });
    converted.map_err(import_raised)
}
