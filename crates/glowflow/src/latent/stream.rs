//! Latents of a whole dataset, a batch at a time.

use std::sync::Arc;

use glowflow_data::{Dataset, batches_in_order};
use ndarray::Array4;

use crate::{Dequantization, Encoded, Error, Model, data};

/// A batch of images of a dataset, encoded with typical noise.
#[derive(Clone, Debug)]
pub struct EncodedBatch {
    /// Their indices in the dataset.
    pub images: Vec<usize>,
    /// Their classes, if the model has classes.
    pub labels: Vec<usize>,
    /// Their latents and likelihoods.
    pub encoded: Encoded,
}

/// A batch of images of a dataset in the model's shape.
pub(crate) struct PixelBatch {
    /// Position of the batch in the dataset, from 0.
    pub(crate) number: u64,
    /// Indices of the images in the dataset.
    pub(crate) images: Vec<usize>,
    /// Classes of the images, if the model has classes.
    pub(crate) labels: Vec<usize>,
    /// `[batch, H, W, C]`.
    pub(crate) pixels: Array4<u8>,
}

/// Reads every readable image of a dataset, in order. `label`, if given, replaces all labels of the data.
pub(crate) fn read_each(
    model: &Model,
    dataset: &Arc<dyn Dataset>,
    label: Option<usize>,
    mut each: impl FnMut(PixelBatch) -> Result<(), Error>,
) -> Result<(), Error> {
    for batch in batches_in_order(Arc::clone(dataset), model.chunk(), data::loader_threads())? {
        let batch = batch?;
        let pixels = data::pixels(model.config(), &batch)?;
        let labels = data::labels_or(model.config(), &batch, label);
        each(PixelBatch { number: batch.number, images: batch.indices, labels, pixels })?;
    }
    Ok(())
}

/// Encodes every readable image of a dataset, in order. `label`, if given, replaces all labels of the data.
///
/// # Errors
/// Errors of reading, of the model, and of `each`.
pub fn encode_each(
    model: &Model,
    dataset: &Arc<dyn Dataset>,
    label: Option<usize>,
    mut each: impl FnMut(EncodedBatch) -> Result<(), Error>,
) -> Result<(), Error> {
    read_each(model, dataset, label, |PixelBatch { images, labels, pixels, .. }| {
        let encoded = model.encode(pixels.view(), &labels, Dequantization::Typical)?;
        each(EncodedBatch { images, labels, encoded })
    })
}
