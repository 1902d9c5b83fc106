//! Compares a study's configurations with its first, the baseline: paired differences, and compute
//! multipliers.

use serde::Serialize;

use super::Study;
use super::curve::{Curve, Multiplier};
use super::record::State;
use super::results::RunResult;
use super::scores::{Paired, differences, mean, standard_error};

/// Results of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Number of scored held-out images; `None` before a run has finished.
    pub images: Option<usize>,
    /// The baseline's bits/dim for each multiple of the budget.
    pub curve: Vec<CurvePoint>,
    /// All configurations, the baseline first.
    pub configurations: Vec<Arm>,
}

/// The baseline at one multiple of the budget.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CurvePoint {
    /// The multiple.
    pub multiple: f64,
    /// Seconds of training.
    pub seconds: f64,
    /// Counted floating-point operations of training.
    pub training_flops: f64,
    /// Mean bits/dim.
    pub bits_per_dim: f64,
    /// Number of finished runs.
    pub seeds: usize,
}

/// A configuration's results over its finished runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Arm {
    /// The configuration.
    pub configuration: String,
    /// Label of the bound.
    pub label: Option<String>,
    /// Mean bits/dim over seeds.
    pub bits_per_dim: Option<f64>,
    /// Its standard error over seeds; `None` with fewer than two seeds.
    pub standard_error: Option<f64>,
    /// Mean over seeds of the variational bound, which is never compared with another bound; `None` for a
    /// model without one.
    pub variational_bits_per_dim: Option<f64>,
    /// Its standard error over seeds.
    pub variational_standard_error: Option<f64>,
    /// Number of finished runs.
    pub seeds: usize,
    /// Difference from the baseline's runs with the same seeds; `None` for the baseline.
    pub difference: Option<Paired>,
    /// Compute multiplier at equal time.
    pub time_multiplier: Option<Multiplier>,
    /// The same for bits/dim that are one standard error of the difference worse, and better.
    pub time_multiplier_range: Option<[Multiplier; 2]>,
    /// Compute multiplier at equal counted floating-point operations.
    pub flops_multiplier: Option<Multiplier>,
    /// The same for bits/dim that are one standard error of the difference worse, and better.
    pub flops_multiplier_range: Option<[Multiplier; 2]>,
    /// Images per second used for time: those of the calibration, if there was one.
    pub images_per_second: Option<f64>,
    /// Images per second of the runs.
    pub measured_images_per_second: Option<f64>,
    /// Seconds of training of each run.
    pub seconds: Option<f64>,
    /// Counted floating-point operations of training of each run.
    pub training_flops: Option<f64>,
    /// Maximum inversion error.
    pub inverse_error: Option<f64>,
    /// Number of images encoded and decoded.
    pub inverted: usize,
    /// Number of these images with exactly equal pixels.
    pub exact: usize,
    /// Peak memory of training, in bytes.
    pub peak_memory: Option<u64>,
}

impl Comparison {
    /// The comparison of the runs so far; `None` for a study without one.
    pub fn of(study: &Study, results: &[RunResult]) -> Option<Self> {
        let baseline = study.baseline.as_ref()?;
        let scored: Vec<_> = results.iter().filter(|run| bits(run).is_some()).collect();
        let curve: Vec<_> =
            baseline.curve.iter().filter_map(|&multiple| curve_point(study, &scored, multiple)).collect();
        let costs = |cost: fn(&CurvePoint) -> f64| {
            Curve::new(curve.iter().map(|point| (cost(point), point.bits_per_dim)))
        };
        let curves = [costs(|point| point.seconds), costs(|point| point.training_flops)];
        let shown =
            |index: &usize| study.selected.contains(index) || results.iter().any(|run| run.is_of(*index));
        let indices = (0..study.configurations.len()).filter(shown);
        Some(Self {
            images: scored.first().and_then(|run| Some(run.record.score.as_ref()?.images)),
            configurations: indices.map(|index| arm(study, &scored, index, &curves)).collect(),
            curve,
        })
    }
}

/// The mean bits/dim of a finished run with scores.
fn bits(run: &RunResult) -> Option<f64> {
    (run.record.state == State::Finished).then_some(run.record.score.as_ref()?.bits_per_dim)
}

/// Images per second of a configuration's runs.
fn measured(runs: &[&RunResult], configuration: usize) -> Option<f64> {
    let own = runs.iter().filter(|run| run.id.configuration == configuration);
    let (images, seconds) = own
        .fold((0, 0.0), |(images, seconds), run| (images + run.record.images, seconds + run.record.seconds));
    (images > 0 && seconds > 0.0).then(|| images as f64 / seconds)
}

/// Images per second by which time is computed.
fn rate(study: &Study, runs: &[&RunResult], configuration: usize) -> Option<f64> {
    study.speeds.get(configuration).copied().filter(|rate| rate.is_finite()).or(measured(runs, configuration))
}

/// Seconds and floating-point operations of a configuration's runs at one budget.
fn costs(study: &Study, runs: &[&RunResult], configuration: usize, multiple: f64) -> Option<[f64; 2]> {
    let own = runs.iter().filter(|run| run.id.configuration == configuration && run.id.multiple == multiple);
    let images = mean(own.filter_map(|run| Some(run.points.last()?.images as f64)))?;
    let rate = rate(study, runs, configuration)?;
    Some([images / rate, images * study.flops_per_image(configuration)])
}

fn curve_point(study: &Study, runs: &[&RunResult], multiple: f64) -> Option<CurvePoint> {
    let own = runs.iter().filter(|run| run.id.configuration == 0 && run.id.multiple == multiple);
    let own: Vec<f64> = own.filter_map(|run| bits(run)).collect();
    let [seconds, training_flops] = costs(study, runs, 0, multiple)?;
    let bits_per_dim = mean(own.iter().copied())?;
    Some(CurvePoint { multiple, seconds, training_flops, bits_per_dim, seeds: own.len() })
}

fn arm(study: &Study, runs: &[&RunResult], index: usize, curves: &[Curve; 2]) -> Arm {
    let own: Vec<_> = runs.iter().filter(|run| run.is_of(index)).collect();
    let scores: Vec<_> = own.iter().filter_map(|run| run.record.score.as_ref()).collect();
    let all: Vec<f64> = own.iter().filter_map(|run| bits(run)).collect();
    let variational: Vec<f64> = scores.iter().filter_map(|score| score.variational).collect();
    let label = scores.first().map(|score| score.label.clone());
    // Different bounds are different quantities.
    let comparable = |run: &RunResult| run.record.score.as_ref().map(|score| &score.label) == label.as_ref();
    let baseline: Vec<_> = runs.iter().filter(|run| run.is_of(0) && comparable(run)).collect();
    let baselines: Vec<f64> = baseline.iter().filter_map(|run| bits(run)).collect();
    let pairs = own.iter().filter_map(|run| {
        let same = baseline.iter().find(|other| other.id.seed == run.id.seed)?;
        Some(differences(&run.scores, &same.scores))
    });
    let difference = (index > 0).then(|| Paired::of(&pairs.collect::<Vec<_>>())).flatten();
    let costs = costs(study, runs, index, 1.0);
    // Relative to all runs of the baseline, as the curve is: this configuration may have fewer seeds.
    let reached = difference.and_then(|paired| Some(mean(baselines.iter().copied())? + paired.mean));
    let multiplier = |axis: usize, by: f64| curves[axis].multiplier(reached? + by, costs?[axis]);
    let error = difference.and_then(|paired| paired.error_over_seeds);
    let range = |axis| error.and_then(|error| Some([multiplier(axis, error)?, multiplier(axis, -error)?]));
    Arm {
        configuration: study.configurations[index].name.clone(),
        label,
        bits_per_dim: mean(all.iter().copied()),
        standard_error: standard_error(&all),
        variational_bits_per_dim: mean(variational.iter().copied()),
        variational_standard_error: standard_error(&variational),
        seeds: all.len(),
        difference,
        time_multiplier: multiplier(0, 0.0),
        time_multiplier_range: range(0),
        flops_multiplier: multiplier(1, 0.0),
        flops_multiplier_range: range(1),
        images_per_second: rate(study, runs, index),
        measured_images_per_second: measured(runs, index),
        seconds: costs.map(|costs| costs[0]),
        training_flops: costs.map(|costs| costs[1]),
        inverse_error: scores.iter().map(|score| score.inverse_error).reduce(largest).flatten(),
        inverted: scores.iter().map(|score| score.inverted).sum(),
        exact: scores.iter().map(|score| score.exact).sum(),
        peak_memory: own.iter().filter_map(|run| run.record.peak_memory).max(),
    }
}

/// The larger of two errors; `None` if one of them is not finite.
fn largest(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    Some(a?.max(b?))
}
