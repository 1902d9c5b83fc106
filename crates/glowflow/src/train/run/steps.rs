//! Work common to all ranks around their steps: reading their images, and comparing their weights.

use std::sync::Arc;

use glowflow_data::{TrainingBatches, TrainingOptions};
use glowflow_kernels::Operations;
use glowflow_ranks::require_equal;

use crate::train::images::Images;
use crate::train::numbers::to_bytes;
use crate::train::trainer::Trainer;
use crate::{Error, data};

/// Steps between comparisons of the ranks' weights.
const COMPARED_EVERY: u64 = 100;

/// This rank's images of the batches, from the trainer's step on.
pub(super) fn batches<D: Operations<Real = f32>>(
    trainer: &Trainer<D>,
    images: &Images,
) -> Result<TrainingBatches, Error> {
    let (config, ranks) = (trainer.config(), trainer.ranks());
    let options = TrainingOptions {
        batch_size: config.train.batch,
        seed: config.train.seed,
        augment: config.data.augment(),
        start_at: trainer.progress().step,
        threads: data::loader_threads(),
    };
    let count = config.train.batch / ranks.size();
    let rows = ranks.rank() * count..(ranks.rank() + 1) * count;
    Ok(TrainingBatches::of_rows(Arc::clone(&images.train), options, rows)?)
}

/// Checks every `COMPARED_EVERY` steps that all ranks have the same weights.
pub(super) fn compare_weights<D: Operations<Real = f32>>(trainer: &Trainer<D>) -> Result<(), Error> {
    if trainer.ranks().size() == 1 || !trainer.progress().step.is_multiple_of(COMPARED_EVERY) {
        return Ok(());
    }
    let checksum = crc32fast::hash(&to_bytes(&trainer.weights()?));
    Ok(require_equal(trainer.ranks(), "weights", &checksum.to_le_bytes())?)
}
