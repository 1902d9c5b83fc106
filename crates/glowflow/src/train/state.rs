//! The state of a run: what a checkpoint holds.

use serde::{Deserialize, Serialize};

use crate::params::Constant;

/// Counters and sums of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Batches seen, skipped ones included.
    pub step: u64,
    /// Optimiser steps made: bias correction and the learning rate go by them.
    pub updates: u64,
    /// Steps skipped because something was not finite.
    pub skipped: u64,
    /// How many of them in a row, just now.
    pub skipped_in_a_row: u32,
    /// The best test bits/dim, and the step at which it was.
    pub best: Option<(f64, u64)>,
    /// Sum of the training bits/dim since the last record.
    pub window_sum: f64,
    /// Number of steps in that sum.
    pub window_steps: u64,
    /// Largest gradient norm since the last record.
    pub window_norm: f64,
    /// A checksum of the images' names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<u32>,
    /// A checksum of the images' stored contents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<u32>,
}

/// The whole state of a run, outside any device: what a checkpoint holds.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainState {
    /// Tensors that are fixed, such as permutations.
    pub constants: Vec<Constant>,
    /// The weights.
    pub weights: Vec<f32>,
    /// Running statistics.
    pub buffers: Vec<f32>,
    /// The optimiser's first moment.
    pub first: Vec<f32>,
    /// The optimiser's second moment or infinity norm.
    pub second: Vec<f32>,
    /// The moving average of the weights.
    pub ema: Vec<f32>,
    /// The moving average of the running statistics.
    pub buffers_ema: Vec<f32>,
    /// Counters and sums.
    pub progress: Progress,
}

impl TrainState {
    /// Whether all of its numbers are finite.
    pub fn is_finite(&self) -> bool {
        [&self.weights, &self.buffers, &self.first, &self.second, &self.ema, &self.buffers_ema]
            .into_iter()
            .flatten()
            .all(|x| x.is_finite())
    }
}

/// What one step came to.
#[derive(Clone, Copy, Debug)]
pub struct StepReport {
    /// Mean bits/dim of the batch before the update.
    pub bits_per_dim: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// False where something was not finite and the weights stayed as they were.
    pub applied: bool,
}
