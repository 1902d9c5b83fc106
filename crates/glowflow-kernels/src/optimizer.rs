//! What [`update`](crate::Primitives::update) takes and returns: the optimiser's rule, its numbers, its
//! buffers, its report.

use crate::shape::Span;

/// The optimiser's rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Kingma and Ba, "Adam", algorithm 1.
    Adam,
    /// Kingma and Ba, "Adam", algorithm 2, with ε added to |g| as PyTorch does.
    Adamax,
}

/// One optimiser step, in numbers.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// The rule.
    pub rule: Rule,
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Keeps the denominator from 0.
    pub epsilon: f64,
    /// Which update this is, counted from 1: bias correction needs it.
    pub count: u64,
    /// Gradients of a larger norm are scaled down to this one.
    pub clip: Option<f64>,
    /// `ema ← decay·ema + (1 − decay)·weights` after the update.
    pub ema_decay: f64,
}

impl Update {
    /// What a gradient of this norm is multiplied by: below 1 if it is clipped.
    pub fn shrink(&self, gradient_norm: f64) -> f64 {
        match self.clip {
            Some(clip) if gradient_norm > clip => clip / gradient_norm,
            _ => 1.0,
        }
    }
}

/// A part of the parameters that an optimiser step changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    /// Its place.
    pub span: Span,
    /// Decoupled weight decay (Loshchilov and Hutter 2019): `w ← w − learning_rate·decay·w − step`.
    pub decay: f64,
}

impl Segment {
    /// All parameters, without weight decay.
    pub fn all(len: usize) -> Self {
        Self { span: Span { start: 0, len }, decay: 0.0 }
    }

    /// What a step with this learning rate multiplies the weights with.
    pub(crate) fn keep(self, learning_rate: f64) -> f64 {
        1.0 - learning_rate * self.decay
    }

    /// Checks that segments are in ascending order, do not overlap, and lie in buffers of `len` numbers.
    ///
    /// # Panics
    /// If they are not.
    #[track_caller]
    pub(crate) fn check(segments: &[Self], len: usize) {
        let end = segments.iter().fold(0, |end, Self { span, .. }| {
            assert!(span.start >= end, "the segment at {} begins before {end}", span.start);
            span.start + span.len
        });
        assert!(end <= len, "a segment ends at {end}, and there are {len} parameters");
    }
}

/// What an optimiser step works on: flat buffers of one length.
#[derive(Debug)]
pub struct Training<'a, B> {
    /// The weights.
    pub weights: &'a mut B,
    /// Their gradient; zero afterwards.
    pub gradient: &'a mut B,
    /// First moment.
    pub first: &'a mut B,
    /// Second moment (Adam) or infinity norm (Adamax).
    pub second: &'a mut B,
    /// Exponential moving average of the weights.
    pub ema: &'a mut B,
}

/// What became of an optimiser step.
#[derive(Clone, Copy, Debug)]
pub struct UpdateReport {
    /// Euclidean norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// False if the loss or the gradient was not finite, or too large for the rule: only the gradient was
    /// changed.
    pub applied: bool,
    /// False if a new weight, moment or average was not finite. Such a parameter keeps its old values while
    /// all others are updated, so that the buffers hold finite numbers but the state of no step: training
    /// must not go on from it.
    ///
    /// Checking in advance would read all buffers a second time, and undoing the step is not exact.
    pub all_finite: bool,
}
