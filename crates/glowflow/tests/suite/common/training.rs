//! Short training runs on portraits of 16×16 pixels.

use std::sync::Arc;

use glowflow::train::{RunConfig, Trainer};
use glowflow_data::portraits::Portraits;
use glowflow_data::{TrainingBatches, TrainingOptions};
use glowflow_kernels::Operations;

/// Pixels of the training batches, of `size` images each.
pub fn batches(size: usize) -> impl Iterator<Item = Vec<u8>> {
    let options =
        TrainingOptions { batch_size: size, seed: 0, augment: Default::default(), start_at: 0, threads: 1 };
    let batches = TrainingBatches::new(Arc::new(Portraits::new(64, 16, 0)), options).unwrap();
    batches.map(|batch| batch.unwrap().pixels)
}

/// A trainer after the data-dependent initialisation and `steps` steps, and the bits/dim of each.
pub fn trained<D: Operations<Real = f32>>(
    device: D,
    config: RunConfig,
    steps: usize,
) -> (Trainer<D>, Vec<f64>) {
    let size = config.train.batch;
    let mut trainer = Trainer::new(device, config).unwrap();
    trainer.initialize(&batches(size).next().unwrap(), &[]).unwrap();
    let step = |pixels: Vec<u8>| trainer.step(&pixels, &[]).unwrap().bits_per_dim;
    let bits = batches(size).take(steps).map(step).collect();
    (trainer, bits)
}
