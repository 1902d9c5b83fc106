//! Attribute directions of a model.

use std::path::PathBuf;

use glowflow::latent::{self, DIRECTIONS, find_directions, manipulate};
use glowflow::pretrained::is_folder;
use glowflow_data::Attributes;
use numpy::{PyArray4, PyReadonlyArray2, PyReadonlyArray4};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::arrays;
use crate::errors::{compute, raised};
use crate::images::{self, Given};
use crate::model::Model;

#[pyclass(frozen, module = "glowflow._native")]
pub struct Directions {
    inner: latent::Directions,
}

#[pymethods]
impl Directions {
    /// Computes attribute directions from images, with warnings. `values` is `[images, names]`: 1 with, 0
    /// without, −1 unknown.
    #[staticmethod]
    fn fit<'py>(
        py: Python<'py>,
        model: &Model,
        images: Given<'py>,
        names: Vec<String>,
        values: PyReadonlyArray2<'py, i8>,
        orthogonalize: Vec<String>,
    ) -> PyResult<(Self, Vec<String>)> {
        let model = model.inner();
        let dataset = images::dataset(&images, model.config().classes())?;
        let answer = |&value: &i8| (value >= 0).then_some(value > 0);
        let answers: Vec<Option<bool>> = values.as_array().iter().map(answer).collect();
        let attributes = Attributes::of_values(names, answers)
            .ok_or_else(|| PyValueError::new_err("attributes is empty: give one array a name at least"))?;
        let found = compute(py, || find_directions(model, &dataset, &attributes, &orthogonalize, None))?;
        Ok((Self { inner: found.directions }, found.warnings))
    }

    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf, model: &Model) -> PyResult<Self> {
        let model = model.inner();
        let path = if is_folder(&path) { path.join(DIRECTIONS) } else { path };
        Ok(Self { inner: compute(py, || latent::Directions::read(&path, model))? })
    }

    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        compute(py, || self.inner.write(&path))
    }

    #[getter]
    fn names(&self) -> Vec<String> {
        self.inner.list.iter().map(|direction| direction.about.name.clone()).collect()
    }

    /// AUC and its standard error; `None` if a direction was not measured.
    #[getter]
    fn auc(&self) -> Vec<Option<(f64, f64)>> {
        let auc =
            |direction: &latent::Direction| direction.about.auc.map(|auc| (auc.value, auc.standard_error));
        self.inner.list.iter().map(auc).collect()
    }

    /// The reasons why directions are unreliable; `None` for those that are reliable.
    #[getter]
    fn weaknesses(&self) -> Vec<Option<String>> {
        self.inner.list.iter().map(|direction| direction.about.weakness()).collect()
    }

    /// The direction of an attribute, one array per level.
    fn direction<'py>(&self, py: Python<'py>, name: String) -> PyResult<Vec<Bound<'py, PyArray4<f32>>>> {
        let direction = self.inner.get(&name).map_err(raised)?;
        Ok(arrays::levels(py, direction.latents.clone()))
    }

    /// `latents + Σ amount·direction`.
    fn move_latents<'py>(
        &self,
        py: Python<'py>,
        latents: Vec<PyReadonlyArray4<'py, f32>>,
        amounts: Vec<(String, f64)>,
    ) -> PyResult<Vec<Bound<'py, PyArray4<f32>>>> {
        let latents = arrays::latents(&latents);
        let moved = compute(py, || {
            let moves = amounts
                .iter()
                .map(|(name, amount)| -> Result<_, glowflow::Error> { Ok((self.inner.get(name)?, *amount)) });
            let moves = moves.collect::<Result<Vec<_>, _>>()?;
            manipulate(&latents, &moves)
        })?;
        Ok(arrays::levels(py, moved))
    }
}
