//! The section `[train]`: optimiser, schedule, and intervals of recurring work.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Optimizer, Schedule};
use crate::Precision;
use crate::model::Backprop;

/// The section `[train]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Number of images per optimiser step.
    pub batch: usize,
    /// Number of parts in which a batch is computed, to save memory and to distribute it over ranks; divides
    /// `batch`. The parts determine the rounding of gradients, regardless of the number of ranks. Batch
    /// normalisation uses the statistics of each part.
    pub accumulate: usize,
    /// Optimiser step at which training ends, unless a limit overrides it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Seed of weights, order, noise and augmentation.
    pub seed: u64,
    /// The optimiser.
    pub optimizer: Optimizer,
    /// Peak learning rate, after the warm-up.
    pub lr: f64,
    /// Number of steps of linear warm-up.
    pub warmup: u64,
    /// Learning rate schedule after the warm-up.
    pub schedule: Schedule,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the optimiser's denominator to avoid division by 0.
    pub epsilon: f64,
    /// Train the hidden matrices of the flow's networks with Muon instead of the optimiser above. Older
    /// programs reject this key and the next two, so they are only written if they differ from their
    /// defaults.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub muon: bool,
    /// Peak learning rate of Muon. Warm-up and schedule are those of `lr`.
    #[serde(skip_serializing_if = "is_default_muon_lr")]
    pub muon_lr: f64,
    /// Decoupled decay of the weights of convolutions and linear layers: each step subtracts the learning
    /// rate times `weight_decay` times the weight from each; 0 disables it.
    #[serde(skip_serializing_if = "is_zero")]
    pub weight_decay: f64,
    /// Maximum gradient norm; larger gradients are scaled down to it; 0 disables clipping.
    pub clip: f64,
    /// Penalty on weight-normalised magnitudes and scales, `penalty·Σ w²/(D·log 2)` bits/dim, which is part
    /// of the objective but of no reported number; disabled if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub penalty: Option<f64>,
    /// Decay of the moving average of the weights used for evaluation and sampling; 0 disables averaging.
    pub ema: f64,
    /// The model file with the initial weights; new weights if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
    /// The fingerprint of that model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_fingerprint: Option<String>,
    /// Save or recompute hidden activations.
    pub backprop: Backprop,
    /// Precision of the products in coupling networks.
    pub precision: Precision,
    /// Steps between two records of the training bits/dim.
    pub log_every: u64,
    /// Steps between two evaluations, each with a sample grid and the learning curve.
    pub eval_every: u64,
    /// Maximum number of test images per evaluation; from a larger set they are drawn at random, from the
    /// seed.
    pub eval_images: usize,
    /// Steps between two checkpoints.
    pub checkpoint_every: u64,
    /// Minutes between two checkpoints.
    pub checkpoint_minutes: f64,
    /// Minutes between two timed sample grids, the first of which are drawn after 1, 2 and 5 minutes;
    /// 0 disables them. Older versions reject this key, so it is only written if it differs from the default.
    #[serde(skip_serializing_if = "is_default_samples_minutes")]
    pub samples_minutes: f64,
}

/// Default of `train.samples_minutes`.
const SAMPLES_MINUTES: f64 = 10.0;

fn is_default_samples_minutes(minutes: &f64) -> bool {
    *minutes == SAMPLES_MINUTES
}

/// Maximum `train.muon_lr`, for which weights stay finite.
pub(super) const MAX_MUON_LR: f64 = 1.0;

/// Default of `train.muon_lr`.
const MUON_LR: f64 = 0.02;

fn is_default_muon_lr(lr: &f64) -> bool {
    *lr == MUON_LR
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            batch: 64,
            accumulate: 1,
            steps: None,
            seed: 0,
            optimizer: Optimizer::Adamax,
            lr: 1e-3,
            warmup: 100,
            schedule: Schedule::Constant,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            muon: false,
            muon_lr: MUON_LR,
            weight_decay: 0.0,
            clip: 0.0,
            penalty: None,
            ema: 0.999,
            from: None,
            from_fingerprint: None,
            backprop: Backprop::Reversible,
            precision: Precision::Auto,
            log_every: 10,
            eval_every: 1000,
            eval_images: 1000,
            checkpoint_every: 1000,
            checkpoint_minutes: 10.0,
            samples_minutes: SAMPLES_MINUTES,
        }
    }
}
