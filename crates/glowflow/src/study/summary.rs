//! The table of a study: mean ± standard error of bits/dim over seeds, parameters, images/s.
//!
//! `mean = Σ x / n`, `standard error = √(Σ (x − mean)² / (n − 1)) / √n` over the n finished runs of a
//! configuration.

use serde::Serialize;

use super::plan::Configuration;
use super::record::State;
use super::results::RunResult;
use super::scores::{mean, standard_error};
use super::{Budget, Study};
use crate::models::Architecture;
use crate::{Draws, NoiseKind};

/// A configuration's results over its finished runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The configuration.
    pub configuration: String,
    /// Mean final bits/dim of held-out images; `None` before a run has finished.
    pub bits_per_dim: Option<f64>,
    /// Its standard error; `None` with fewer than two runs.
    pub standard_error: Option<f64>,
    /// Number of finished runs.
    pub finished: usize,
    /// Number of diverged runs, which are excluded from all other values.
    pub diverged: usize,
    /// Number of trained parameters.
    pub parameters: u128,
    /// Mean number of images per run.
    pub images: Option<u64>,
    /// Images per second of training.
    pub images_per_second: Option<f64>,
}

/// One row per configuration.
pub fn rows(study: &Study, results: &[RunResult]) -> Vec<Row> {
    let row = |index: usize| {
        let of =
            |state: State| results.iter().filter(move |run| run.is_of(index) && run.record.state == state);
        let last: Vec<_> = of(State::Finished).filter_map(|run| run.points.last()).collect();
        let bits: Vec<f64> = last.iter().filter_map(|point| point.bits_per_dim).collect();
        let images: u64 = last.iter().map(|point| point.images).sum();
        let (trained, seconds) = of(State::Finished).fold((0, 0.0), |(images, seconds), run| {
            (images + run.record.images, seconds + run.record.seconds)
        });
        Row {
            configuration: study.configurations[index].name.clone(),
            bits_per_dim: mean(bits.iter().copied()),
            standard_error: standard_error(&bits),
            finished: of(State::Finished).count(),
            diverged: of(State::Diverged).count(),
            parameters: study.parameters(index),
            images: images.checked_div(last.len() as u64),
            images_per_second: (trained > 0 && seconds > 0.0).then(|| trained as f64 / seconds),
        }
    };
    let shown = |index: &usize| study.selected.contains(index) || results.iter().any(|run| run.is_of(*index));
    (0..study.configurations.len()).filter(shown).map(row).collect()
}

/// The bounds that the runs of the table have evaluated, and of which configurations if they differ.
fn bounds(study: &Study, rows: &[Row]) -> String {
    let label = |noise| Draws::mean(noise, 1, 0).to_string();
    let noise = |c: &Configuration| c.run.model.noise();
    let is_shown = |c: &&Configuration| rows.iter().any(|row| row.configuration == c.name);
    let of = |kind| study.configurations.iter().filter(is_shown).filter(move |c| noise(c) == kind);
    let variational: Vec<&str> = of(NoiseKind::Variational).map(|c| &*c.name).collect();
    if variational.is_empty() {
        return label(NoiseKind::Uniform);
    }
    if of(NoiseKind::Uniform).next().is_none() {
        return label(NoiseKind::Variational);
    }
    let (uniform, learned) = (label(NoiseKind::Uniform), label(NoiseKind::Variational));
    format!("{uniform}, and {learned} of {}, which is not comparable", variational.join(", "))
}

/// `study.md`.
pub fn markdown(study: &Study, rows: &[Row], figure: &str) -> String {
    let budget = match study.budget {
        Budget::Images(images) => format!("{} images", grouped(u128::from(images))),
        Budget::Steps(steps) => format!("{} steps", grouped(u128::from(steps))),
        Budget::Minutes(minutes) => format!("{minutes} minutes of training"),
        Budget::Flops(flops) => format!("{flops:.2e} floating-point operations of training"),
    };
    let data =
        study.data().and_then(|path| path.file_name()).map_or("?".into(), |name| name.to_string_lossy());
    let mut lines = vec![
        format!("# {}", study.title),
        String::new(),
        format!("Data: {data}. Each run: {budget}. Seeds: {}.", study.seeds.len()),
        format!("Bits/dim of held-out images, {}: mean ± standard error over seeds.", bounds(study, rows)),
        String::new(),
        "| configuration | bits/dim | seeds | parameters | images | images/s |".into(),
        "| --- | ---: | ---: | ---: | ---: | ---: |".into(),
    ];
    let none = || "–".to_owned();
    for row in rows {
        let error = row.standard_error.map_or(String::new(), |error| format!(" ± {error:.3}"));
        let bits = row.bits_per_dim.map_or_else(none, |bits| format!("{bits:.3}{error}"));
        let images = row.images.map_or_else(none, |images| grouped(u128::from(images)));
        let rate = row.images_per_second.map_or_else(none, |rate| format!("{rate:.0}"));
        let (name, seeds, parameters) = (&row.configuration, row.finished, grouped(row.parameters));
        lines.push(format!("| {name} | {bits} | {seeds} | {parameters} | {images} | {rate} |"));
    }
    lines.push(String::new());
    for row in rows.iter().filter(|row| row.diverged > 0) {
        let runs = if row.diverged == 1 { "run diverged and is" } else { "runs diverged and are" };
        lines.push(format!("{}: {} {runs} excluded from all values.\n", row.configuration, row.diverged));
    }
    lines.push(format!("![Bits per dimension against images]({figure})\n"));
    lines.join("\n")
}

/// Formats a number with thousands separators.
pub fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::{Overrides, Scale};

    #[test]
    fn bounds_are_those_of_the_selected_configurations() {
        let table = |arms: &[&str]| {
            let arms: Vec<String> = arms.iter().map(|arm| arm.to_string()).collect();
            let overrides = Overrides { arms: Some(&arms), ..Overrides::default() };
            let study = Study::builtin("speedrun", Scale::Cpu, overrides).unwrap();
            markdown(&study, &rows(&study, &[]), "figure.svg")
        };
        let uniform = table(&["exp2tanh"]);
        assert!(!uniform.contains("variational"), "{uniform}");
        let both = table(&["variational-2"]);
        assert!(both.contains("of variational-2, which is not comparable"), "{both}");
    }

    #[test]
    fn thousands_have_commas() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
