//! The final prior: the learned prior of the last level's latents.
//!
//! `prior = (mean, logs) + one_hot(label) · class_weight` at every pixel of an image, `[rows, 2·channels]`;
//! without classes `(mean, logs)`.

mod cpu;
mod cuda;
mod reference;

use super::Parameters;
use crate::primitives::Primitives;
use crate::shape::{Grid, Span};

/// Parameters of the final prior.
#[derive(Clone, Copy, Debug)]
pub struct FinalPriorParams {
    /// Channels of the latents.
    pub channels: usize,
    /// `[channels]`
    pub mean: Span,
    /// `[channels]`
    pub logs: Span,
    /// `[classes, 2·channels]`, if the model has classes.
    pub class_weight: Option<Span>,
}

impl Parameters for FinalPriorParams {
    fn spans(&self) -> Vec<(Span, usize)> {
        let mut spans = vec![(self.mean, self.channels), (self.logs, self.channels)];
        // The number of classes is the number of rows.
        let rows = |weight: Span| weight.len.next_multiple_of(2 * self.channels);
        spans.extend(self.class_weight.map(|weight| (weight, rows(weight))));
        spans
    }
}

/// Mean and log standard deviation of the last latents.
pub trait FinalPrior: Primitives {
    /// The parameters in the device's form.
    type Prior: Send + Sync;

    /// Converts the parameters to the device's form.
    fn prepare_final_prior(&self, at: &FinalPriorParams, params: &Self::Buffer) -> Self::Prior;

    /// Writes mean and log standard deviation, `prior` `[rows, 2·channels]`, the same at every pixel of an
    /// image. `labels` `[batch]` are class numbers, which are exact in `f32` up to 2²⁴; empty if the model
    /// has no classes.
    fn final_prior(&self, top: &Self::Prior, grid: Grid, labels: &Self::Buffer, prior: &mut Self::Buffer);

    /// Adds the gradient of the parameters, given that of `prior`.
    fn final_prior_backward(
        &self,
        at: &FinalPriorParams,
        grid: Grid,
        labels: &Self::Buffer,
        d_prior: &Self::Buffer,
        gradient: &mut Self::Buffer,
    );
}
