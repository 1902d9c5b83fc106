//! Arguments and result of [`update`](crate::Primitives::update): the optimiser's rule, coefficients, buffers
//! and report.

use crate::shape::Span;

/// The optimiser's rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Kingma and Ba, "Adam", algorithm 1.
    Adam,
    /// Kingma and Ba, "Adam", algorithm 2, with ε added to |g| as PyTorch does.
    Adamax,
}

/// The coefficients of an optimiser step.
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
    /// Added to the denominator to keep it from 0.
    pub epsilon: f64,
    /// Number of this update, counted from 1, for bias correction.
    pub count: u64,
    /// Gradients with a larger norm are scaled down to this norm.
    pub clip: Option<f64>,
    /// `ema ← decay·ema + (1 − decay)·weights` after the update.
    pub ema_decay: f64,
}

impl Update {
    /// The factor for a gradient with this norm: less than 1 if it is clipped.
    pub fn shrink(&self, gradient_norm: f64) -> f64 {
        match self.clip {
            Some(clip) if gradient_norm > clip => clip / gradient_norm,
            _ => 1.0,
        }
    }
}

/// A part of the parameters, updated with common settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    /// Its span.
    pub span: Span,
    /// Decoupled weight decay (Loshchilov and Hutter 2019): `w ← w − learning_rate·decay·w − step`.
    pub decay: f64,
}

impl Segment {
    /// All parameters, without weight decay.
    pub fn all(len: usize) -> Self {
        Self { span: Span { start: 0, len }, decay: 0.0 }
    }

    /// The factor that weight decay applies at this learning rate.
    pub(crate) fn keep(self, learning_rate: f64) -> f64 {
        1.0 - learning_rate * self.decay
    }

    /// Checks that segments are in ascending order, do not overlap, and fit buffers of `len` numbers.
    ///
    /// # Panics
    /// If a check fails.
    #[track_caller]
    pub(crate) fn check(segments: &[Self], len: usize) {
        let end = segments.iter().fold(0, |end, Self { span, .. }| {
            assert!(span.start >= end, "the segment at {} begins before {end}", span.start);
            span.start + span.len
        });
        assert!(end <= len, "a segment ends at {end}, but there are {len} parameters");
    }
}

/// The buffers of an optimiser step, all flat and of equal length.
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

/// The result of an optimiser step.
#[derive(Clone, Copy, Debug)]
pub struct UpdateReport {
    /// Euclidean norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// False if the loss or the gradient was not finite, or too large for the rule: then only the gradient
    /// was changed.
    pub applied: bool,
    /// False if a new weight, moment or average was not finite. Such a parameter keeps its old values while
    /// all others are updated, so the buffers hold finite numbers but do not correspond to any step: training
    /// must not continue from them.
    ///
    /// Checking in advance would read all buffers a second time, and undoing the step is not exact.
    pub all_finite: bool,
}
