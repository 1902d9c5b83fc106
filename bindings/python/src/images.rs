//! Images in a numpy array as a dataset.

use std::sync::Arc;

use glowflow_data::{Dataset, ImageShape, InMemory, RawImages};
use numpy::{PyReadonlyArray1, PyReadonlyArray4};
use pyo3::prelude::*;

use crate::arrays;

/// Images and labels passed as arguments.
pub type Given<'py> = (PyReadonlyArray4<'py, u8>, Option<PyReadonlyArray1<'py, i64>>);

/// A copy of an array's images with their labels, of `classes` classes. Training may outlive the array, and
/// the array may change.
pub fn dataset(given: &Given<'_>, classes: usize) -> PyResult<Arc<dyn Dataset>> {
    let (images, labels) = given;
    let view = images.as_array();
    let pixels = match view.as_slice() {
        Some(pixels) => pixels.to_vec(),
        None => view.iter().copied().collect(),
    };
    let (_, height, width, channels) = view.dim();
    let shape = ImageShape { height, width, channels };
    let images = RawImages { shape, pixels, labels: arrays::labels(labels.as_ref())? };
    let classes = (0..classes).map(|class| class.to_string()).collect();
    Ok(Arc::new(InMemory::new(images, shape, classes)))
}
