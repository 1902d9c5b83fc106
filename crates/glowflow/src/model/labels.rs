//! Class labels of a batch: one per image, or none for a model without classes.

use glowflow_kernels::Real;

use crate::Error;
use crate::models::Architecture;

/// Converts classes to numbers of a device: exact up to 2²⁴.
pub(crate) fn class_numbers<R: Real>(labels: &[usize]) -> Vec<R> {
    labels.iter().map(|&label| R::of(label as f64)).collect()
}

/// Checks that there is one label per image if the model has classes, and none otherwise.
pub(crate) fn check_labels(config: &impl Architecture, batch: usize, labels: &[usize]) -> Result<(), Error> {
    let classes = config.classes();
    let message = if classes == 0 && !labels.is_empty() {
        format!("{} labels were given to a model without classes", labels.len())
    } else if classes > 0 && labels.len() != batch {
        format!(
            "the model has {classes} classes, so each image needs a label: got {} for {batch} images",
            labels.len()
        )
    } else if let Some(label) = labels.iter().find(|&&label| label >= classes) {
        format!("label {label} is not one of the model's {classes} classes, 0 to {}", classes - 1)
    } else {
        return Ok(());
    };
    Err(Error::Input(message))
}
