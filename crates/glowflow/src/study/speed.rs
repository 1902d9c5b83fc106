//! Calibration: converts a budget of minutes to a number of steps.
//!
//! A schedule that ends at 0 needs its last step, and a repeated or resumed run should have the same number
//! of steps. Therefore each configuration is trained for a few seconds before the study starts, in rounds
//! that alternate with the baseline, because the speed of a machine drifts. The baseline's images per second
//! are the median of its rounds; those of another configuration are the baseline's times the median ratio
//! within a round. Steps follow from these, and are the same for all seeds. `study.speed.json` caches them: a
//! resumed study only measures added configurations.
//!
//! The alternative was a schedule by the fraction of elapsed time. It needs no measurement, but two such runs
//! never have equal steps, and a pause of the machine costs training.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use glowflow_data::Dataset;
use glowflow_kernels::DeviceError;

use super::{Budget, Study};
use crate::tensor_file::write_atomically;
use crate::train::observer::{Event, Observer, Outbox};
use crate::train::{self, Images, Limits, RunConfig, train_on};
use crate::{AnyDevice, Error, text_file};

/// File name of the measured speeds in a study's folder.
const SPEEDS: &str = "study.speed.json";

/// Number of rounds in which every configuration is measured once.
const ROUNDS: usize = 9;

/// Fraction of the budget measured per round of a configuration, and its limits in seconds.
const PART: f64 = 0.007;
const SECONDS: (f64, f64) = (0.07, 4.0);

/// Number of warm-up steps, and minimum number of measured steps.
const STEPS: u64 = 3;

/// Measures the configurations that are to be trained and not measured yet, and sets the speeds of all. `say`
/// receives lines for the user.
///
/// # Errors
/// [`Error::Stopped`] on request; errors of data, models and system.
pub fn calibrate(
    study: &mut Study,
    out: &Path,
    device: impl Fn(&RunConfig) -> Result<AnyDevice, DeviceError>,
    stop: &AtomicBool,
    say: impl Fn(&str),
) -> Result<(), Error> {
    let Budget::Minutes(minutes) = study.budget else { return Ok(()) };
    let path = out.join(SPEEDS);
    let mut speeds = read(&path)?;
    let name = |index: usize| study.configurations[index].name.clone();
    let added: Vec<usize> =
        study.selected.iter().copied().filter(|&index| !speeds.contains_key(&name(index))).collect();
    if !added.is_empty() {
        say("measuring the speed of each configuration to determine its number of steps");
        let images = Images::open(&study.run_config(0, study.seeds[0]))?.train;
        let seconds = (PART * 60.0 * minutes).clamp(SECONDS.0, SECONDS.1);
        let measure =
            |index| measure(&study.run_config(index, study.seeds[0]), &images, out, &device, seconds, stop);
        let (mut baseline, mut ratios) = (vec![], vec![vec![]; added.len()]);
        for _ in 0..ROUNDS {
            let reference = measure(0)?.ok_or_else(|| {
                Error::Diverged(format!("configuration {:?} diverges within {STEPS} steps", name(0)))
            })?;
            baseline.push(reference);
            for (&index, ratios) in added.iter().zip(&mut ratios) {
                let rate = if index == 0 { Some(reference) } else { measure(index)? };
                // A configuration that diverges immediately needs no steps.
                ratios.push(rate.unwrap_or(reference) / reference);
            }
        }
        let reference = speeds.get(&name(0)).copied().unwrap_or_else(|| median(baseline));
        for (&index, ratios) in added.iter().zip(ratios) {
            speeds.insert(name(index), reference * median(ratios));
        }
        speeds.insert(name(0), reference);
        let text = serde_json::to_string_pretty(&speeds).map_err(|e| Error::file(&path, e.to_string()))?;
        write_atomically(&path, format!("{text}\n").as_bytes())?;
    }
    // Configurations that are not trained need no steps.
    let all = study.configurations.iter().map(|named| speeds.get(&named.name).copied().unwrap_or(f64::NAN));
    let all: Vec<f64> = all.collect();
    study.speeds = all;
    for &index in &added {
        let steps = study.steps(index).unwrap_or_default();
        say(&format!("{}: {:.1} images/s, {steps} steps", name(index), study.speeds[index]));
    }
    Ok(())
}

fn read(path: &Path) -> Result<BTreeMap<String, f64>, Error> {
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let speeds: BTreeMap<String, f64> = serde_json::from_str(&text_file::read(path)?).map_err(|error| {
        Error::file(path, format!("{error}; without this file, speeds are measured again"))
    })?;
    match speeds.iter().find(|(_, rate)| !(**rate > 0.0 && rate.is_finite())) {
        Some((name, rate)) => {
            Err(Error::file(path, format!("the speed of {name:?} is {rate}; it must be above 0")))
        }
        None => Ok(speeds),
    }
}

/// Images per second of training a configuration; `None` if it diverged before anything was measured.
fn measure(
    config: &RunConfig,
    images: &Arc<dyn Dataset>,
    out: &Path,
    device: impl Fn(&RunConfig) -> Result<AnyDevice, DeviceError>,
    seconds: f64,
    stop: &AtomicBool,
) -> Result<Option<f64>, Error> {
    if stop.load(Ordering::Relaxed) {
        return Err(Error::Stopped);
    }
    let folder = tempfile::Builder::new().prefix(".speed-").tempdir_in(out).map_err(Error::io(out))?;
    let mut config = config.clone();
    let never = i64::MAX as u64;
    config.train.steps = Some(never);
    (config.train.eval_every, config.train.checkpoint_every) = (never, never);
    (config.train.checkpoint_minutes, config.train.samples_minutes) = (1e9, 0.0);
    let device = device(&config)?;
    let mut clock = Clock { seconds, images: 0, elapsed: 0.0 };
    let options = train::Options {
        limits: Limits::default(),
        faces: None,
        observers: vec![Box::new(&mut clock)],
        stop,
    };
    match train_on(device, config, Arc::clone(images), None, folder.path(), options) {
        Ok(summary) if summary.interrupted => return Err(Error::Stopped),
        Ok(_) | Err(Error::Diverged(_) | Error::RunDiverged { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok((clock.images > 0).then(|| clock.images as f64 / clock.elapsed))
}

/// Counts the images of a few seconds, after the warm-up steps, and then ends training.
struct Clock {
    seconds: f64,
    images: u64,
    elapsed: f64,
}

impl Observer for Clock {
    fn on(&mut self, event: &Event<'_>, _: &mut Outbox) -> Result<ControlFlow<()>, Error> {
        let Event::Step(step) = event else { return Ok(ControlFlow::Continue(())) };
        if step.step > STEPS {
            self.images += step.images as u64;
            self.elapsed += step.seconds;
        }
        let done = self.elapsed >= self.seconds && step.step >= 2 * STEPS;
        Ok(if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }
}

/// The median; the upper one of two middle values.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
