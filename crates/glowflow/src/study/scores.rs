//! Scores of a finished run: bits/dim of every held-out image, and exactness of the inverse.
//!
//! The averaged weights are scored in single precision with one noise draw from a fixed seed, so that runs on
//! the same images can be compared image by image. `scores.csv` in the run's folder holds the images'
//! bits/dim, so the model is not needed again.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use glowflow_data::Dataset;
use serde::{Deserialize, Serialize};

use crate::evaluate::{Draws, Inversion, NoiseKind, evaluate};
use crate::models::Architecture;
use crate::tensor_file::write_atomically;
use crate::train::{Images, RunConfig};
use crate::{AnyDevice, Error, Model, data};

/// File name of the scores in a run's folder.
pub const SCORES: &str = "scores.csv";

/// Seed of the noise, of the subset of images, and of the images to invert.
const SEED: u64 = 0;

/// Maximum number of images on which the inverse is measured.
const INVERTED: usize = 1000;

/// Scores of a run, as stored in its record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Label of the bound.
    pub label: String,
    /// Number of images scored.
    pub images: usize,
    /// Mean bits/dim.
    pub bits_per_dim: f64,
    /// Its standard error over the images; `None` for one image.
    pub standard_error: Option<f64>,
    /// Mean bits/dim by the variational bound, if the model has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variational: Option<f64>,
    /// Number of images encoded and decoded.
    pub inverted: usize,
    /// Number of these images with exactly equal pixels.
    pub exact: usize,
    /// Maximum inversion error; `None` if not finite.
    pub inverse_error: Option<f64>,
}

/// The held-out images of a run, at most `images` of them.
///
/// # Errors
/// Errors of reading, and [`Error::Input`] if no images are held out.
pub fn held_out(config: &RunConfig, images: Option<usize>) -> Result<Arc<dyn Dataset>, Error> {
    let test = Images::open(config)?.test.ok_or_else(|| {
        Error::Input(
            "the data has no held-out images to compare configurations on: set data.test_fraction, or data.test".into(),
        )
    })?;
    Ok(data::sample(&test, images.unwrap_or(usize::MAX), SEED))
}

/// Scores the model in a run's folder, and writes [`SCORES`] there. `None` if it diverged, which means that a
/// score is not finite.
///
/// # Errors
/// [`Error::Stopped`] on request; errors of model, data and system.
pub fn score(
    run: &Path,
    device: AnyDevice,
    test: &Arc<dyn Dataset>,
    stop: &AtomicBool,
) -> Result<Option<Summary>, Error> {
    let model = Model::load_on(device, run)?;
    let draws = Draws::Uniform { draws: 1, seed: SEED };
    let inversion = Inversion { images: INVERTED, seed: SEED };
    let check = |_| if stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) };
    let evaluation = evaluate(&model, test, draws, inversion, check)?;
    if !evaluation.bits_per_dim.is_finite() {
        return Ok(None);
    }
    let variational = if model.config().noise() == NoiseKind::Variational {
        let draws = Draws::mean(NoiseKind::Variational, 1, SEED);
        let evaluation = evaluate(&model, test, draws, Inversion { images: 0, seed: SEED }, check)?;
        if !evaluation.bits_per_dim.is_finite() {
            return Ok(None);
        }
        Some(evaluation.bits_per_dim)
    } else {
        None
    };
    let mut csv = String::from("index,bits_per_dim\n");
    for (index, bits) in &evaluation.scores {
        let _ = writeln!(csv, "{index},{bits}");
    }
    write_atomically(&run.join(SCORES), csv.as_bytes())?;
    Ok(Some(Summary {
        label: evaluation.estimate.to_string(),
        images: evaluation.images,
        bits_per_dim: evaluation.bits_per_dim,
        standard_error: Some(evaluation.standard_error).filter(|error| error.is_finite()),
        variational,
        inverted: evaluation.inverted,
        exact: evaluation.exact,
        inverse_error: Some(evaluation.inverse_error).filter(|error| error.is_finite()),
    }))
}

/// Bits/dim of a run by image; empty if it has no scores.
///
/// # Errors
/// [`Error::Io`], or [`Error::File`] for a damaged file.
pub fn read(run: &Path) -> Result<HashMap<usize, f64>, Error> {
    let path = run.join(SCORES);
    if !path.exists() {
        return Ok(HashMap::new());
    }
    // Of any size: it has a line for each image.
    let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
    let parse = |line: &str| {
        let (index, bits) = line.split_once(',')?;
        Some((index.parse().ok()?, bits.parse().ok()?))
    };
    let lines = text.lines().skip(1).map(|line| {
        parse(line).ok_or_else(|| Error::file(&path, format!("{line:?} is not an image and its bits/dim")))
    });
    lines.collect()
}

/// The differences between two runs, image by image, over their common images.
pub fn differences(run: &HashMap<usize, f64>, baseline: &HashMap<usize, f64>) -> HashMap<usize, f64> {
    run.iter().filter_map(|(image, bits)| Some((*image, bits - baseline.get(image)?))).collect()
}

/// A mean difference of paired runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Paired {
    /// Mean over seeds of the mean over images.
    pub mean: f64,
    /// Standard error over images, each first averaged over the seeds; `None` for one image.
    pub error_over_images: Option<f64>,
    /// Standard error over seeds; `None` for one seed.
    pub error_over_seeds: Option<f64>,
    /// Number of seeds.
    pub seeds: usize,
}

impl Paired {
    /// Computed from the differences of each seed; `None` without any.
    pub fn of(seeds: &[HashMap<usize, f64>]) -> Option<Self> {
        let means: Vec<f64> = seeds.iter().filter_map(|images| mean(images.values().copied())).collect();
        let mut images: HashMap<usize, (f64, f64)> = HashMap::new();
        for (image, difference) in seeds.iter().flatten() {
            let (sum, count) = images.entry(*image).or_default();
            (*sum, *count) = (*sum + difference, *count + 1.0);
        }
        // In the order of images, because the last bits of sums depend on it.
        let mut images: Vec<_> = images.into_iter().collect();
        images.sort_by_key(|(image, _)| *image);
        let of_images: Vec<f64> = images.into_iter().map(|(_, (sum, count))| sum / count).collect();
        Some(Self {
            mean: mean(means.iter().copied())?,
            error_over_images: standard_error(&of_images),
            error_over_seeds: standard_error(&means),
            seeds: means.len(),
        })
    }
}

/// Mean of the values; `None` without any.
pub fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    (count > 0.0).then(|| sum / count)
}

/// Standard error of the mean, `√(Σ (x − mean)² / (n − 1) / n)`; `None` with fewer than two values.
pub fn standard_error(values: &[f64]) -> Option<f64> {
    let mean = mean(values.iter().copied()).filter(|_| values.len() > 1)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let count = values.len() as f64;
    Some((squares / (count - 1.0) / count).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(pairs: &[(usize, f64)]) -> HashMap<usize, f64> {
        pairs.iter().copied().collect()
    }

    #[test]
    fn the_standard_error_is_that_of_a_sample() {
        // Deviations −1, 0, 1: variance 2/2, standard error √(1/3).
        assert_eq!(mean([2.0, 3.0, 4.0].into_iter()), Some(3.0));
        assert!((standard_error(&[2.0, 3.0, 4.0]).unwrap() - (1.0f64 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!(standard_error(&[3.5, 3.5]), Some(0.0));
    }

    #[test]
    fn one_seed_has_no_standard_error() {
        assert_eq!((mean([3.5].into_iter()), standard_error(&[3.5])), (Some(3.5), None));
        assert_eq!((mean([].into_iter()), standard_error(&[])), (None, None));
    }

    #[test]
    fn scores_of_many_images_are_read() {
        let run = tempfile::tempdir().unwrap();
        let lines: String = (0..60_000).map(|image| format!("{image},3.4567890123456789\n")).collect();
        fs::write(run.path().join(SCORES), format!("image,bits_per_dim\n{lines}")).unwrap();
        assert_eq!(read(run.path()).unwrap().len(), 60_000);
    }

    /// Images differ by bits, runs by hundredths: pairing reveals the difference.
    #[test]
    fn differences_are_paired_by_image() {
        let baseline = scores(&[(0, 1.0), (1, 5.0), (2, 9.0), (7, 2.0)]);
        let run = scores(&[(2, 8.5), (0, 0.75), (1, 4.75), (8, 100.0)]);
        let difference = differences(&run, &baseline);
        assert_eq!(difference, scores(&[(0, -0.25), (1, -0.25), (2, -0.5)]));
        let paired = Paired::of(&[difference]).unwrap();
        assert!((paired.mean + 1.0 / 3.0).abs() < 1e-15);
        // Deviations 1/12, 1/12, −1/6: variance (1/24)/2.
        assert!((paired.error_over_images.unwrap() - (1.0f64 / 48.0 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!((paired.error_over_seeds, paired.seeds), (None, 1));
        assert_eq!(differences(&run, &scores(&[(9, 1.0)])), scores(&[]));
        assert_eq!(Paired::of(&[scores(&[])]), None);
    }

    #[test]
    fn images_are_averaged_over_seeds_first() {
        let seeds = [scores(&[(0, 1.0), (1, 3.0)]), scores(&[(0, 3.0), (1, 5.0)])];
        let paired = Paired::of(&seeds).unwrap();
        // Images 2 and 4; seeds 2 and 4.
        assert_eq!((paired.mean, paired.seeds), (3.0, 2));
        assert_eq!((paired.error_over_images, paired.error_over_seeds), (Some(1.0), Some(1.0)));
    }
}
