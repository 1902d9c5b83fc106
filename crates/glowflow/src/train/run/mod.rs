//! A run: training in a folder, with all files written there.
//!
//! | file | |
//! | --- | --- |
//! | `config.toml` | the resolved configuration |
//! | `model.safetensors`, `best.safetensors` | the model with averaged weights: last, best on test images |
//! | `checkpoint.safetensors`, `checkpoint.previous.safetensors` | the complete state, for resuming |
//! | `config.json`, `README.md` | the model card, unless these files have another author |
//! | `metrics.jsonl` | bits/dim and other metrics, one record per line |
//! | `events/` | the same, and images/s and samples, for TensorBoard |
//! | `eyes.toml` | the positions of the eyes, if available |
//! | `curve.png`, `samples.png` | updated at every evaluation, at timed intervals, and at the end |

mod card;
mod due;
mod entrance;
mod failure;
mod follow;
mod job;
mod start;
mod steps;
mod training;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use glowflow_data::Dataset;
use glowflow_kernels::{DeviceError, Operations, catch_out_of_memory};
use serde::{Deserialize, Serialize};

use super::changes::Changes;
use super::checkpoint::{self, CHECKPOINT, PREVIOUS};
use super::config::{CONFIG, RunConfig};
use super::eyes;
use super::folder::{Snapshot, check_free, check_portraits_stay_visible, lock};
use super::images::Images;
use super::observer::Observer;
use super::recorded::keep_best;
use super::trainer::{Trainer, check_memory};
use super::waiting::unless_stopped;
use crate::device::on_device;
use crate::evaluate::Evaluation;
use crate::faces::{self, Faces};
use crate::model::memory;
use crate::tensor_file::write_atomically;
use crate::{AnyDevice, Error, pretrained};
use entrance::Entrance;
pub use follow::follow;
pub use job::Job;
use training::{Run, Saved};

/// Comment at the top of a run's configuration.
const CONFIG_COMMENT: &str = "# The configuration of this run. A run that has started continues with the copy in its checkpoints, regardless of\n\
                              # changes here. Another run can use this file as its configuration.\n\n";

/// Limits of training; `None` sets no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Total number of steps, including those before a resume.
    pub steps: Option<u64>,
    /// Total number of images, likewise.
    pub images: Option<u64>,
    /// Minutes from now.
    pub minutes: Option<f64>,
}

impl Limits {
    /// Returns the step at which a run ends.
    fn last_step(&self, config: &RunConfig) -> Option<u64> {
        let batch = config.train.batch as u64;
        match (self.steps, self.images) {
            (None, None) => config.train.steps,
            (steps, images) => {
                [steps, images.map(|images| images.div_ceil(batch))].into_iter().flatten().min()
            }
        }
    }

    /// Returns the time after which a run ends.
    fn time(&self) -> Result<Option<Duration>, Error> {
        match self.minutes {
            Some(minutes) if minutes.is_nan() || minutes < 0.0 => {
                Err(Error::Input(format!("the training time must be 0 or more minutes, got {minutes}")))
            }
            minutes => Ok(minutes.map(|minutes| Duration::from_secs_f64(60.0 * minutes.clamp(0.0, 1e9)))),
        }
    }
}

/// Options of a run in addition to its configuration.
pub struct Options<'a> {
    /// Limits of training.
    pub limits: Limits,
    /// Positions of the faces in the images; `None` if not given.
    pub faces: Option<Faces>,
    /// Observers of the run: [`observers::standard`](super::observers::standard) writes its records and
    /// images and shows its progress. Without observers, a run only writes its configuration, checkpoints,
    /// models and their card.
    pub observers: Vec<Box<dyn Observer + 'a>>,
    /// Set by the caller to end after the current step, with a checkpoint. An evaluation in progress is
    /// cancelled, and repeated when the run is resumed.
    pub stop: &'a AtomicBool,
}

/// Outcome of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Total number of steps.
    pub steps: u64,
    /// The step of the last checkpoint: an earlier one if steps were being skipped at the end.
    pub saved_step: Option<u64>,
    /// True if it was stopped before its end.
    pub interrupted: bool,
    /// The last evaluation, if there are test images.
    pub evaluation: Option<Evaluation>,
    /// The best evaluation; its model is in [`BEST`](super::BEST).
    pub best: Option<Best>,
    /// Number of steps skipped because a value was not finite.
    pub skipped: u64,
    /// Number of images that could not be read.
    pub broken: usize,
    /// Duration of training since the run was begun or resumed.
    #[serde(skip)]
    pub trained_for: Duration,
}

/// The best evaluation of a run so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// The step.
    pub step: u64,
    /// Mean bits/dim of test images.
    pub bits_per_dim: f64,
}

/// Begins a run in the folder `out`.
///
/// # Errors
/// [`Error::RunExists`] if the folder already contains a run; [`Error::Input`] if another process trains
/// there; [`Error::Stopped`] if it was stopped before training began; otherwise errors of data, model and
/// system. Without a checkpoint, the folder is restored to its original contents.
pub fn train(
    device: impl Into<AnyDevice>,
    config: RunConfig,
    out: &Path,
    options: Options<'_>,
) -> Result<Summary, Error> {
    train_as(&Job::alone(), device, config, out, options)
}

/// Like [`train`], as rank 0 of a job. The other ranks [`follow`]. The number of parts of a batch,
/// `train.accumulate`, equals that of the ranks unless the configuration sets more than one. The job is
/// finished, unless it failed.
///
/// # Errors
/// As [`train`]; [`Error::Ranks`] if the ranks differ, or one is missing. The last complete step is then
/// saved.
pub fn train_as(
    job: &Job,
    device: impl Into<AnyDevice>,
    mut config: RunConfig,
    out: &Path,
    options: Options<'_>,
) -> Result<Summary, Error> {
    let ranks = job.ranks().size();
    if config.train.accumulate == 1 && ranks > 1 {
        if !config.train.batch.is_multiple_of(ranks) {
            let batch = config.train.batch;
            return Entrance::new(job).leave(Err(Error::Config(format!(
                "train.batch is {batch}; it must be a multiple of the number of ranks, {ranks}"
            ))));
        }
        config.train.accumulate = ranks;
    }
    let stop = options.stop;
    let open = |config: &RunConfig| {
        let (out, config) = (out.to_owned(), config.clone());
        unless_stopped(stop, move || check_free(&out, &config).and_then(|()| Images::open_new(&config)))
    };
    begin_on(job, device.into(), config, out, Box::new(open), options)
}

/// Like [`train`], on given datasets instead of those of the configuration, and regardless of the folder's
/// contents.
///
/// # Errors
/// As [`train`].
pub fn train_on(
    device: impl Into<AnyDevice>,
    config: RunConfig,
    train: Arc<dyn Dataset>,
    test: Option<Arc<dyn Dataset>>,
    out: &Path,
    options: Options<'_>,
) -> Result<Summary, Error> {
    let images = |_: &RunConfig| Ok(Images::new(train, test));
    begin_on(&Job::alone(), device.into(), config, out, Box::new(images), options)
}

// Functions that contain the trainers of all devices are not generic, so that they are compiled once, here.

type Open<'a> = Box<dyn FnOnce(&RunConfig) -> Result<Images, Error> + 'a>;
type OpenDevice<'a> = Box<dyn FnOnce(&RunConfig) -> Result<AnyDevice, DeviceError> + 'a>;

fn begin_on(
    job: &Job,
    device: AnyDevice,
    config: RunConfig,
    out: &Path,
    images: Open<'_>,
    options: Options<'_>,
) -> Result<Summary, Error> {
    on_device!(device, device => begin(job, device, config, out, images, options))
}

fn begin<D: Operations<Real = f32>>(
    job: &Job,
    device: D,
    config: RunConfig,
    out: &Path,
    images: Open<'_>,
    options: Options<'_>,
) -> Result<Summary, Error> {
    let entrance = Entrance::new(job);
    let done = begin_alone(&entrance, device, config, out, images, options);
    entrance.leave(done)
}

fn begin_alone<D: Operations<Real = f32>>(
    entrance: &Entrance<'_>,
    device: D,
    mut config: RunConfig,
    out: &Path,
    images: Open<'_>,
    options: Options<'_>,
) -> Result<Summary, Error> {
    config.validate()?;
    check_memory(&device, &config, entrance.job().ranks().size())?;
    check_portraits_stay_visible(out, &config.data)?;
    let before = Snapshot::of(out);
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    let _lock = lock(out)?;
    let done = images(&config).and_then(|images| {
        images.check_shape(&config.model)?;
        if config.model.classes() > 0 {
            config.data.classes = images.train.classes().to_vec();
        }
        let trainer = catch_out_of_memory(|| Trainer::new(device, config))??;
        let trainer = entrance.enter(trainer, &images)?;
        write_config(out, trainer.config())?;
        eyes::store(out, trainer.config(), options.faces)?;
        Run::new(trainer, images, out, options, entrance.job())?.run()
    });
    if done.is_err() && checkpoint::find(out).is_none() {
        // Nothing was trained, so the folder is made free for another attempt.
        before.restore();
    }
    done
}

fn write_config(folder: &Path, config: &RunConfig) -> Result<(), Error> {
    write_atomically(&folder.join(CONFIG), format!("{CONFIG_COMMENT}{}", config.to_toml()?).as_bytes())
}

/// The folder of a run, given the folder or a file in it such as a checkpoint or a model.
pub fn run_folder(path: &Path) -> &Path {
    let is_file = path.is_file() || pretrained::bytes(path).is_some();
    match path.parent() {
        Some(folder) if is_file && folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) if is_file => folder,
        _ => path,
    }
}

/// Continues the run in a folder, or from a checkpoint file in one, to the same weights and records as
/// without the stop, except for `changes`. `device` opens the device for the run's configuration.
///
/// # Errors
/// [`Error::Input`] if there is no run, or if test images are given to a run that had none; [`Error::Config`]
/// for a change that a run cannot make; [`Error::LastCheckpoint`] or [`Error::File`] if its checkpoint is
/// missing or damaged; otherwise as [`train`].
pub fn resume<A: Into<AnyDevice>>(
    device: impl FnOnce(&RunConfig) -> Result<A, DeviceError>,
    path: &Path,
    changes: Changes<'_>,
    options: Options<'_>,
) -> Result<Summary, Error> {
    resume_as(&Job::alone(), device, path, changes, options)
}

/// Like [`resume`], as rank 0 of a job. The other ranks [`follow`]. Their number may differ from before if
/// the parts of a batch, `train.accumulate`, can be distributed over them. The job is finished, unless it
/// failed.
///
/// # Errors
/// As [`resume`]; [`Error::Ranks`] if the ranks differ, or one is missing. The last complete step is then
/// saved.
pub fn resume_as<A: Into<AnyDevice>>(
    job: &Job,
    device: impl FnOnce(&RunConfig) -> Result<A, DeviceError>,
    path: &Path,
    changes: Changes<'_>,
    options: Options<'_>,
) -> Result<Summary, Error> {
    let stop = options.stop;
    let open = |config: &RunConfig| {
        let config = config.clone();
        unless_stopped(stop, move || Images::open(&config))
    };
    go_on(job, Box::new(|config| device(config).map(A::into)), path, changes, Box::new(open), options)
}

/// Like [`resume`], on given datasets: for a run begun by [`train_on`].
///
/// # Errors
/// As [`resume`].
pub fn resume_on<A: Into<AnyDevice>>(
    device: impl FnOnce(&RunConfig) -> Result<A, DeviceError>,
    path: &Path,
    changes: Changes<'_>,
    train: Arc<dyn Dataset>,
    test: Option<Arc<dyn Dataset>>,
    options: Options<'_>,
) -> Result<Summary, Error> {
    let open = |_: &RunConfig| Ok(Images::new(train, test));
    let device = Box::new(|config: &RunConfig| device(config).map(A::into));
    go_on(&Job::alone(), device, path, changes, Box::new(open), options)
}

fn go_on(
    job: &Job,
    device: OpenDevice<'_>,
    path: &Path,
    changes: Changes<'_>,
    open: Open<'_>,
    options: Options<'_>,
) -> Result<Summary, Error> {
    let entrance = Entrance::new(job);
    let done = go_on_alone(&entrance, device, path, changes, open, options);
    entrance.leave(done)
}

fn go_on_alone(
    entrance: &Entrance<'_>,
    device: OpenDevice<'_>,
    path: &Path,
    changes: Changes<'_>,
    open: Open<'_>,
    options: Options<'_>,
) -> Result<Summary, Error> {
    let folder = run_folder(path);
    let _lock = lock(folder)?;
    let Some(checkpoint) = checkpoint::find(path) else {
        let config = folder.join(CONFIG);
        if !config.exists() {
            return Err(Error::Input(format!("{} holds no run to resume", path.display())));
        }
        let previous = folder.join(PREVIOUS);
        if previous.exists() {
            let path = folder.join(CHECKPOINT);
            return Err(Error::LastCheckpoint { path, reason: "it is missing".into(), previous });
        }
        // Stopped before its first checkpoint: starts from the beginning.
        let (config, notices) = changes.apply(&RunConfig::read(&config)?)?;
        options.faces.map_or(Ok(()), |faces| faces::write(folder, faces))?;
        return on_device!(device(&config)?, device => {
            let trainer = Trainer::new(device, config)?;
            let images = open(trainer.config())?;
            images.check_shape(&trainer.config().model)?;
            let trainer = entrance.enter(trainer, &images)?;
            Run::new(trainer, images, folder, options, entrance.job())?.with_changes(notices).run()
        });
    };
    let (config, mut state) = checkpoint::load(&checkpoint)?;
    let (config, mut notices) = changes.apply(&config)?;
    if !notices.is_empty() {
        notices.extend(keep_best(folder, &mut state.progress));
    }
    options.faces.map_or(Ok(()), |faces| faces::write(folder, faces))?;
    let device = device(&config)?;
    if device.peak_memory().is_none() {
        memory::check_training(&config.model, &config.train, entrance.job().ranks().size(), true)?;
    }
    let images = open(&config)?;
    images.check_shape(&config.model)?;
    checkpoint::go_on_from(&checkpoint)?;
    let saved = Saved::of(&state.progress);
    on_device!(device, device => {
        let trainer = entrance.enter(Trainer::resume(device, config, state), &images)?;
        let mut run = Run::new(trainer, images, folder, options, entrance.job())?;
        run.saved = Some(saved);
        run.with_changes(notices).run()
    })
}
