//! The images of ranks that train together.

use std::sync::Arc;

use glowflow_data::portraits::Portraits;
use glowflow_data::{Batch, TrainingBatches, TrainingOptions};
use glowflow_ranks::Ranks;

/// Images per batch.
pub const BATCH: usize = 8;

/// The first batches of a run on portraits of 16×16 pixels.
pub fn batches(count: usize) -> Vec<Batch> {
    let options =
        TrainingOptions { batch_size: BATCH, seed: 0, augment: Default::default(), start_at: 0, threads: 1 };
    let batches = TrainingBatches::new(Arc::new(Portraits::new(64, 16, 0)), options).unwrap();
    batches.take(count).map(Result::unwrap).collect()
}

/// A rank's images of a batch.
pub fn own<'a>(ranks: &dyn Ranks, batch: &'a Batch) -> &'a [u8] {
    let (count, image) = (BATCH / ranks.size(), batch.pixels.len() / BATCH);
    &batch.pixels[ranks.rank() * count * image..][..count * image]
}
