//! The state of a run, as stored in a checkpoint.

use serde::{Deserialize, Serialize};

use crate::params::Constant;

/// Counters and sums of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Number of batches seen, including skipped ones.
    pub step: u64,
    /// Number of optimiser steps, which determines bias correction and learning rate.
    pub updates: u64,
    /// Number of steps skipped because a value was not finite.
    pub skipped: u64,
    /// Number of consecutive skipped steps up to the current one.
    pub skipped_in_a_row: u32,
    /// The best test bits/dim, and its step.
    pub best: Option<(f64, u64)>,
    /// Sum of the training bits/dim since the last record.
    pub window_sum: f64,
    /// Number of steps in that sum.
    pub window_steps: u64,
    /// Largest gradient norm since the last record.
    pub window_norm: f64,
    /// Checksum of the images' names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<u32>,
    /// Checksum of the images' stored contents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<u32>,
}

/// The complete state of a run, outside any device, as stored in a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainState {
    /// Fixed tensors, such as permutations.
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
    /// Returns whether all of its numbers are finite.
    pub fn is_finite(&self) -> bool {
        [&self.weights, &self.buffers, &self.first, &self.second, &self.ema, &self.buffers_ema]
            .into_iter()
            .flatten()
            .all(|x| x.is_finite())
    }
}

/// Result of one step.
#[derive(Clone, Copy, Debug)]
pub struct StepReport {
    /// Mean bits/dim of the batch before the update.
    pub bits_per_dim: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// False if a value was not finite and the weights are unchanged.
    pub applied: bool,
}
