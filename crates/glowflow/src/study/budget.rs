//! The training budget of each run, and the schedule of its evaluations.

use super::Configuration;
use super::check::fail;
use super::form::Form;
use crate::Error;

/// Floating-point operations of training per multiply-add of a forward pass: a multiplication and an addition
/// each for the forward pass, the input gradient, and the weight gradient.
pub const FLOPS_PER_MULTIPLY_ADD: f64 = 6.0;

/// Training budget of each run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// Images, rounded up to whole batches.
    Images(u64),
    /// Optimiser steps.
    Steps(u64),
    /// Minutes of training, excluding evaluations.
    Minutes(f64),
    /// Counted floating-point operations of training, rounded to whole batches.
    Flops(f64),
}

impl Budget {
    /// Reads the budget of a study file.
    pub(super) fn of(form: &Form) -> Result<Self, Error> {
        let budgets = [
            form.images.map(Self::Images),
            form.steps.map(Self::Steps),
            form.minutes.map(Self::Minutes),
            form.flops.map(Self::Flops),
        ];
        match budgets.into_iter().flatten().collect::<Vec<_>>()[..] {
            [budget] => Ok(budget),
            [] => fail("the budget is missing: set one of images, steps, minutes and flops"),
            _ => fail("the study has several budgets: set only one of images, steps, minutes and flops"),
        }
    }

    pub(super) fn check(self) -> Result<(), Error> {
        let positive = |value: f64| value > 0.0 && value.is_finite();
        match self {
            Self::Images(0) => fail("images is 0; it must be at least 1"),
            Self::Steps(0) => fail("steps is 0; it must be at least 1"),
            Self::Minutes(minutes) if !positive(minutes) => {
                fail(format!("minutes is {minutes}; it must be above 0"))
            }
            Self::Flops(flops) if !positive(flops) => fail(format!("flops is {flops}; it must be above 0")),
            _ => Ok(()),
        }
    }

    /// Writes the budget to a study file.
    pub(super) fn write<M, T, D>(self, form: &mut Form<M, T, D>) {
        match self {
            Self::Images(images) => form.images = Some(images),
            Self::Steps(steps) => form.steps = Some(steps),
            Self::Minutes(minutes) => form.minutes = Some(minutes),
            Self::Flops(flops) => form.flops = Some(flops),
        }
    }
}

/// Schedule of evaluations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evaluations {
    /// Images between evaluations: a whole number of batches of each configuration.
    Every(u64),
    /// Number of evaluations per run, whose length depends on its configuration.
    Times(u64),
}

impl Evaluations {
    /// Reads the schedule of a study file, given the budget. `calibrated` means that a budget of minutes is
    /// converted to steps before training.
    pub(super) fn of(
        form: &Form,
        budget: Budget,
        calibrated: bool,
        configurations: &[Configuration],
    ) -> Result<Self, Error> {
        let batches = || configurations.iter().map(|configuration| configuration.run.train.batch as u64);
        let largest = batches().max().unwrap_or(1);
        let images = match (form.evaluations, form.evaluate_every) {
            (Some(0), _) => return fail("evaluations is 0; it must be at least 1"),
            (_, Some(0)) => return fail("evaluate_every is 0; it must be at least 1"),
            (None, Some(images)) => images,
            (Some(count), None) => match budget {
                Budget::Images(images) => images.div_ceil(count),
                Budget::Steps(steps) => steps.saturating_mul(largest).div_ceil(count),
                Budget::Flops(_) => return Ok(Self::Times(count)),
                Budget::Minutes(_) if calibrated => return Ok(Self::Times(count)),
                Budget::Minutes(_) => {
                    return fail(
                        "evaluations needs a budget of images or steps; with minutes, set evaluate_every to a number of \
                         images",
                    );
                }
            },
            (None, None) => return fail("evaluations is missing: set it, or evaluate_every in images"),
            _ => return fail("evaluations and evaluate_every exclude each other: set one of them"),
        };
        let common =
            batches().try_fold(1u64, |common, batch| (common / gcd(common, batch)).checked_mul(batch));
        let rounded = common.and_then(|common| images.div_ceil(common).checked_mul(common));
        rounded.map(Self::Every).ok_or_else(|| {
            Error::Config("the values of train.batch have no common multiple in 64 bits".into())
        })
    }

    /// Steps between two evaluations of a run.
    pub(super) fn steps_between(self, batch: u64, steps: Option<u64>) -> u64 {
        match self {
            Self::Every(images) => images / batch,
            Self::Times(count) => steps.map_or(1, |steps| steps.div_ceil(count)),
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
