//! The table of a study: mean ± standard error of bits/dim over seeds, parameters, images/s.
//!
//! `mean = Σ x / n`, `standard error = √(Σ (x − mean)² / (n − 1)) / √n` over the n finished runs of a configuration.

use serde::Serialize;

use super::record::State;
use super::results::RunResult;
use super::{Budget, Study};

/// A configuration's results over its finished runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The configuration.
    pub configuration: String,
    /// Mean bits/dim of held-out images at the end; `None` before a run is finished.
    pub bits_per_dim: Option<f64>,
    /// Its standard error; `None` with fewer than two runs.
    pub standard_error: Option<f64>,
    /// Finished runs.
    pub finished: usize,
    /// Runs that diverged, which count in no other value.
    pub diverged: usize,
    /// Trained parameters.
    pub parameters: u128,
    /// Mean number of images that a run was trained on.
    pub images: Option<u64>,
    /// Images per second of training.
    pub images_per_second: Option<f64>,
}

/// A row for each configuration.
pub fn rows(study: &Study, results: &[RunResult]) -> Vec<Row> {
    let row = |index: usize| {
        let of = |state: State| {
            results.iter().filter(move |run| run.configuration == index && run.record.state == state)
        };
        let last: Vec<_> = of(State::Finished).filter_map(|run| run.points.last()).collect();
        let bits: Vec<f64> = last.iter().filter_map(|point| point.bits_per_dim).collect();
        let images: u64 = last.iter().map(|point| point.images).sum();
        let (trained, seconds) = of(State::Finished).fold((0, 0.0), |(images, seconds), run| {
            (images + run.record.images, seconds + run.record.seconds)
        });
        Row {
            configuration: study.configurations[index].name.clone(),
            bits_per_dim: mean(&bits),
            standard_error: standard_error(&bits),
            finished: of(State::Finished).count(),
            diverged: of(State::Diverged).count(),
            parameters: study.parameters(index),
            images: images.checked_div(last.len() as u64),
            images_per_second: (trained > 0 && seconds > 0.0).then(|| trained as f64 / seconds),
        }
    };
    (0..study.configurations.len()).map(row).collect()
}

/// `study.md`.
pub fn markdown(study: &Study, rows: &[Row], figure: &str) -> String {
    let budget = match study.budget {
        Budget::Images(images) => format!("{} images", grouped(u128::from(images))),
        Budget::Steps(steps) => format!("{} steps", grouped(u128::from(steps))),
        Budget::Minutes(minutes) => format!("{minutes} minutes of training"),
    };
    let data =
        study.data().and_then(|path| path.file_name()).map_or("?".into(), |name| name.to_string_lossy());
    let mut lines = vec![
        format!("# {}", study.title),
        String::new(),
        format!("Data: {data}. Each run: {budget}. Seeds: {}.", study.seeds.len()),
        "Bits/dim of held-out images, uniform bound (1 draw): mean ± standard error over seeds.".into(),
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
        let runs = if row.diverged == 1 { "run" } else { "runs" };
        lines.push(format!(
            "{}: {} {runs} diverged and count in no value.\n",
            row.configuration, row.diverged
        ));
    }
    lines.push(format!("![Bits per dimension against images]({figure})\n"));
    lines.join("\n")
}

/// Mean of the values; `None` without any.
fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Standard error of the mean; `None` with fewer than two values.
fn standard_error(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let count = values.len() as f64;
    Some((squares / (count - 1.0) / count).sqrt())
}

/// A number with commas between thousands.
fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_error_is_that_of_a_sample() {
        // Deviations −1, 0, 1: variance 2/2, standard error √(1/3).
        assert_eq!(mean(&[2.0, 3.0, 4.0]), Some(3.0));
        assert!((standard_error(&[2.0, 3.0, 4.0]).unwrap() - (1.0f64 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!(standard_error(&[3.5, 3.5]), Some(0.0));
    }

    #[test]
    fn one_seed_has_no_standard_error() {
        assert_eq!((mean(&[3.5]), standard_error(&[3.5])), (Some(3.5), None));
        assert_eq!((mean(&[]), standard_error(&[])), (None, None));
    }

    #[test]
    fn thousands_have_commas() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
