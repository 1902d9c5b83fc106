//! The runs of a study: configurations, seeds, and multiples of the budget.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::budget::{Budget, Evaluations, FLOPS_PER_MULTIPLY_ADD};
use super::check::fail;
use super::form::Form;
use super::{Study, plan};
use crate::Error;
use crate::model::memory;
use crate::train::RunConfig;

/// Multiples of the budget that a curve can have.
const MULTIPLES: RangeInclusive<f64> = 1e-3..=1e3;

/// One run of a study.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunId {
    /// Index of the configuration.
    pub configuration: usize,
    /// The seed.
    pub seed: u64,
    /// Multiple of the study's budget.
    pub multiple: f64,
}

impl RunId {
    /// A run with the unscaled budget.
    pub fn new(configuration: usize, seed: u64) -> Self {
        Self { configuration, seed, multiple: 1.0 }
    }

    /// Its folder, given its configuration's folder.
    pub(super) fn folder(&self, configuration: &Path) -> PathBuf {
        let multiple = if self.multiple == 1.0 { String::new() } else { format!("-x{}", self.multiple) };
        configuration.join(format!("seed-{}{multiple}", self.seed))
    }

    /// Its name in messages, given its configuration's name.
    pub(super) fn label(&self, configuration: &str) -> String {
        let multiple = if self.multiple == 1.0 { String::new() } else { format!(" × {}", self.multiple) };
        format!("{configuration}{multiple}, seed {}", self.seed)
    }
}

/// Comparison of all configurations with the first, the baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct Baseline {
    /// Multiples of the budget for the baseline, ascending; 1 is included.
    pub curve: Vec<f64>,
    /// Number of seeds of the multiples other than 1.
    pub curve_seeds: usize,
    /// Number of held-out images scored at the end, the same for all runs; all by default.
    pub images: Option<usize>,
}

impl Baseline {
    /// Reads the comparison of a study file; `curve` replaces that of the file.
    pub(super) fn of(form: &Form, curve: Option<&[f64]>) -> Result<Option<Self>, Error> {
        let Some(curve) = curve.or(form.curve.as_deref()) else {
            for (key, value) in [("curve_seeds", form.curve_seeds), ("score_images", form.score_images)] {
                if let Some(value) = value {
                    return fail(format!(
                        "{key} is {value}, but there is no curve; set curve = [1] for a comparison"
                    ));
                }
            }
            return Ok(None);
        };
        let mut curve = curve.to_vec();
        if let Some(wrong) = curve.iter().find(|multiple| !MULTIPLES.contains(multiple)) {
            let (least, most) = (MULTIPLES.start(), MULTIPLES.end());
            return fail(format!("curve holds {wrong}; multiples of the budget must be {least} to {most}"));
        }
        curve.push(1.0);
        curve.sort_by(f64::total_cmp);
        curve.dedup();
        for (key, value) in [("curve_seeds", form.curve_seeds), ("score_images", form.score_images)] {
            if value == Some(0) {
                return fail(format!("{key} is 0; it must be at least 1"));
            }
        }
        Ok(Some(Self { curve, curve_seeds: form.curve_seeds.unwrap_or(1), images: form.score_images }))
    }

    /// The multiples other than 1.
    pub(super) fn others(&self) -> impl Iterator<Item = f64> {
        self.curve.iter().copied().filter(|&multiple| multiple != 1.0)
    }

    /// Writes the comparison to a study file.
    pub(super) fn write<M, T, D>(&self, form: &mut Form<M, T, D>) {
        form.curve = Some(self.curve.clone());
        form.curve_seeds = Some(self.curve_seeds);
        form.score_images = self.images;
    }
}

impl Study {
    /// Returns whether a budget of minutes is converted to a number of steps before training, based on
    /// measured speeds.
    pub fn is_calibrated(&self) -> bool {
        plan::is_calibrated(self.budget, self.baseline.as_ref(), &self.configurations)
    }

    /// Steps per run of a configuration; `None` if the budget is a time.
    pub fn steps(&self, index: usize) -> Option<u64> {
        self.steps_of(RunId::new(index, 0))
    }

    /// Images per run of a configuration; `None` if the budget is a time.
    pub fn images(&self, index: usize) -> Option<u64> {
        self.images_of(RunId::new(index, 0))
    }

    /// Steps of a run; `None` if the budget is an uncalibrated time.
    pub fn steps_of(&self, run: RunId) -> Option<u64> {
        let batch = self.configurations[run.configuration].run.train.batch as u64;
        let whole = |steps: f64| (steps.round() as u64).max(1);
        let scaled = |count: u64| {
            if run.multiple == 1.0 { count } else { whole(count as f64 * run.multiple) }
        };
        match self.budget {
            Budget::Images(images) => Some(scaled(images).div_ceil(batch)),
            Budget::Steps(steps) => Some(scaled(steps)),
            Budget::Minutes(minutes) => {
                let rate = self.speeds.get(run.configuration)?;
                Some(whole(60.0 * minutes * run.multiple * rate / batch as f64))
            }
            Budget::Flops(flops) => {
                Some(whole(flops * run.multiple / (self.flops_per_image(run.configuration) * batch as f64)))
            }
        }
    }

    /// Images of a run; `None` if the budget is an uncalibrated time.
    pub fn images_of(&self, run: RunId) -> Option<u64> {
        let batch = self.configurations[run.configuration].run.train.batch as u64;
        self.steps_of(run).map(|steps| steps.saturating_mul(batch))
    }

    /// Images between evaluations; `None` if defined as a fraction of each run.
    pub fn evaluate_every(&self) -> Option<u64> {
        match self.evaluations {
            Evaluations::Every(images) => Some(images),
            Evaluations::Times(_) => None,
        }
    }

    /// Multiply-adds of a configuration's forward pass per image.
    pub fn multiply_adds(&self, index: usize) -> u128 {
        memory::multiply_adds(&self.configurations[index].run.model)
    }

    /// Counted floating-point operations of training per image.
    pub fn flops_per_image(&self, index: usize) -> f64 {
        FLOPS_PER_MULTIPLY_ADD * self.multiply_adds(index) as f64
    }

    /// The runs in training order: by seed, then by configuration; the baseline's other budgets come last.
    pub fn runs(&self) -> Vec<RunId> {
        let at = |seed: &u64| self.selected.iter().map(|&index| RunId::new(index, *seed)).collect::<Vec<_>>();
        let mut runs: Vec<_> = self.seeds.iter().flat_map(at).collect();
        if let Some(baseline) = &self.baseline {
            for multiple in baseline.others() {
                let seeds = self.seeds.iter().take(baseline.curve_seeds);
                runs.extend(seeds.map(|&seed| RunId { configuration: 0, seed, multiple }));
            }
        }
        runs
    }

    /// The configuration of a run with the unscaled budget.
    pub fn run_config(&self, index: usize, seed: u64) -> RunConfig {
        self.config_of(RunId::new(index, seed))
    }

    /// The configuration of a run.
    pub fn config_of(&self, run: RunId) -> RunConfig {
        let mut config = self.configurations[run.configuration].run.clone();
        config.train.seed = run.seed;
        config.train.steps = self.steps_of(run);
        config.train.eval_every =
            self.evaluations.steps_between(config.train.batch as u64, config.train.steps);
        config
    }
}
