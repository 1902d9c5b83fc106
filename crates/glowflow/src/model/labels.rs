//! Class labels of a batch: one class an image, or none at all for a model without classes.

use glowflow_kernels::Real;

use crate::Error;
use crate::models::Architecture;

/// One-hot rows `[batch, classes]`.
pub(crate) fn one_hot<R: Real>(labels: &[usize], classes: usize) -> Vec<R> {
    let mut rows = vec![R::zero(); labels.len() * classes];
    labels.iter().enumerate().for_each(|(i, label)| rows[i * classes + label] = R::one());
    rows
}

/// Checks that there is a label for each image if the model has classes, and none otherwise.
pub(crate) fn check_labels(config: &impl Architecture, batch: usize, labels: &[usize]) -> Result<(), Error> {
    let classes = config.classes();
    let message = if classes == 0 && !labels.is_empty() {
        format!("{} labels were given to a model without classes", labels.len())
    } else if classes > 0 && labels.len() != batch {
        format!(
            "the model has {classes} classes, so it needs a label for each image: {} for {batch}",
            labels.len()
        )
    } else if let Some(label) = labels.iter().find(|&&label| label >= classes) {
        format!("label {label} is not one of the model's {classes} classes, 0 to {}", classes - 1)
    } else {
        return Ok(());
    };
    Err(Error::Input(message))
}
