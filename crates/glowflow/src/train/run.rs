//! A run: training in a folder, with everything that is written there.
//!
//! | file | |
//! | --- | --- |
//! | `config.toml` | the resolved configuration |
//! | `model.safetensors`, `best.safetensors` | the model, with averaged weights: the last, and the best on test images |
//! | `checkpoint.safetensors`, `checkpoint.previous.safetensors` | everything that is needed to go on |
//! | `metrics.jsonl` | bits/dim and more, one record a line |
//! | `events/` | the same, and images/s and samples, for TensorBoard |
//! | `eyes.toml` | the positions of the eyes, if they are known |
//! | `curve.png`, `samples.png` | refreshed by every evaluation, by the clock, and at the end |

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use glowflow_data::{Augment, Dataset, TrainingBatches, TrainingOptions};
use glowflow_kernels::{DeviceError, Primitives, catch_out_of_memory};
use glowflow_report::progress::{Display, Goal};
use serde::Serialize;

use super::changes::Changes;
use super::checkpoint::{self, CHECKPOINT, PREVIOUS};
use super::config::{CONFIG, RunConfig};
use super::eyes;
use super::folder::{BEST, Before, check_free, lock};
use super::images::Images;
use super::journal::{Journal, last_recorded};
use super::pace::{Pace, outlook};
use super::pictures::Pictures;
use super::trainer::{TrainState, Trainer, check_memory};
use super::waiting::unless_stopped;
use super::watch::{StepDone, Watch};
use crate::device::on_device;
use crate::evaluate::{Draws, Evaluation, Inversion, evaluate};
use crate::faces::{self, Faces};
use crate::model::{MODEL, memory};
use crate::tensor_file::write_atomically;
use crate::{AnyDevice, Error, Model, ModelFile, data};

/// What a run writes above its configuration.
const CONFIG_COMMENT: &str = "# The configuration of this run. Once it trains, it goes on with the copy in its checkpoints, whatever is changed\n\
                              # here; for another run, --config takes this file.\n\n";
/// The meaning of a run's bits/dim.
const DEQUANTIZED: &str = "bits/dim are upper bounds, by uniform dequantisation (noise added to each pixel)";
/// Images on which an evaluation measures the inverse.
const INVERTED: usize = 64;

/// Where training ends; what is `None` does not end it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Steps in all, those before a resume included.
    pub steps: Option<u64>,
    /// Images in all, likewise.
    pub images: Option<u64>,
    /// Minutes from now.
    pub minutes: Option<f64>,
}

/// What a run is told besides its configuration.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Where to end.
    pub limits: Limits,
    /// How to show progress.
    pub display: Display,
    /// Where the faces are in the images; `None` if that is not given.
    pub faces: Option<Faces>,
    /// Follows the run; `None` to display its progress as `display` says.
    pub watch: Option<&'a dyn Watch>,
    /// Set from elsewhere to end after the current step, with a checkpoint. An evaluation is given up, and
    /// made again when the run is resumed.
    pub stop: &'a AtomicBool,
}

/// How a run ended.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Steps done in all.
    pub steps: u64,
    /// The step of the last checkpoint: an earlier one if steps were being skipped at the end.
    pub saved_step: Option<u64>,
    /// Whether it was told to stop before its end.
    pub interrupted: bool,
    /// The last evaluation, if there are images to test on.
    pub evaluation: Option<Evaluation>,
    /// The best evaluation, whose model is in [`BEST`].
    pub best: Option<Best>,
    /// Steps skipped because something was not finite.
    pub skipped: u64,
    /// Images that could not be read.
    pub broken: usize,
}

/// The best evaluation of a run so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Best {
    /// The step.
    pub step: u64,
    /// Mean bits/dim of test images.
    pub bits_per_dim: f64,
}

/// Begins a run in the folder `out`.
///
/// # Errors
/// [`Error::Input`] if the folder holds a run already, or another process trains there; [`Error::Stopped`] if
/// it was stopped before training began; otherwise errors of data, model and system. Without a checkpoint,
/// the folder is left as it was.
pub fn train(
    device: impl Into<AnyDevice>,
    config: RunConfig,
    out: &Path,
    options: Options<'_>,
) -> Result<Summary, Error> {
    let open = |config: &RunConfig| {
        let (out, config) = (out.to_owned(), config.clone());
        unless_stopped(options.stop, move || check_free(&out, &config).and_then(|()| Images::open(&config)))
    };
    on_device!(device.into(), device => begin(device, config, out, open, options))
}

/// As [`train`], on given datasets instead of those that the configuration names, and whatever the folder
/// holds.
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
    on_device!(device.into(), device => begin(device, config, out, images, options))
}

fn begin<D: Primitives<Real = f32>>(
    device: D,
    mut config: RunConfig,
    out: &Path,
    images: impl FnOnce(&RunConfig) -> Result<Images, Error>,
    options: Options<'_>,
) -> Result<Summary, Error> {
    config.validate()?;
    check_memory(&device, &config)?;
    let before = Before::of(out);
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    let _lock = lock(out)?;
    let done = images(&config).and_then(|images| {
        if config.model.classes() > 0 {
            config.data.classes = images.train.classes().to_vec();
        }
        let trainer = catch_out_of_memory(|| Trainer::new(device, config))??;
        write_config(out, trainer.config())?;
        eyes::store(out, trainer.config(), options.faces)?;
        Run::new(trainer, images, out, options)?.run()
    });
    if done.is_err() && checkpoint::find(out).is_none() {
        // Nothing was trained, so the folder is free for another try.
        before.restore();
    }
    done
}

fn write_config(folder: &Path, config: &RunConfig) -> Result<(), Error> {
    write_atomically(&folder.join(CONFIG), format!("{CONFIG_COMMENT}{}", config.to_toml()?).as_bytes())
}

/// The folder of a run that is given by it, or by a file in it such as a checkpoint or a model.
pub fn run_folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if path.is_file() && folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) if path.is_file() => folder,
        _ => path,
    }
}

/// Continues the run in a folder, or from a checkpoint file in one, to the weights and records that it would
/// have had without the stop, unless `changes` says otherwise. `device` makes what the run's configuration
/// asks for.
///
/// # Errors
/// [`Error::Input`] if there is no run, or no images to test on were named at first; [`Error::Config`] for a
/// change that a run cannot make; [`Error::File`] if its checkpoint is damaged; otherwise as [`train`].
pub fn resume<A: Into<AnyDevice>>(
    device: impl FnOnce(&RunConfig) -> Result<A, DeviceError>,
    path: &Path,
    changes: Changes<'_>,
    options: Options<'_>,
) -> Result<Summary, Error> {
    let folder = run_folder(path);
    let _lock = lock(folder)?;
    let open = |config: &RunConfig| {
        let config = config.clone();
        unless_stopped(options.stop, move || Images::open(&config))
    };
    let Some(checkpoint) = checkpoint::find(path) else {
        let config = folder.join(CONFIG);
        if !config.exists() {
            return Err(Error::Input(format!("{} holds no run to resume", path.display())));
        }
        let previous = folder.join(PREVIOUS);
        if previous.exists() {
            return Err(Error::Input(format!(
                "{} is missing; go on from the checkpoint before it: --resume {}",
                folder.join(CHECKPOINT).display(),
                previous.display()
            )));
        }
        // Stopped before its first checkpoint: from the beginning, then.
        let (config, notices) = changes.apply(&RunConfig::read(&config)?)?;
        options.faces.map_or(Ok(()), |faces| faces::write(folder, faces))?;
        return on_device!(device(&config)?.into(), device => {
            let trainer = Trainer::new(device, config)?;
            let images = open(trainer.config())?;
            Run::new(trainer, images, folder, options)?.with_changes(&notices).run()
        });
    };
    let (config, state) = checkpoint::load(&checkpoint)?;
    let (config, notices) = changes.apply(&config)?;
    options.faces.map_or(Ok(()), |faces| faces::write(folder, faces))?;
    let device: AnyDevice = device(&config)?.into();
    if device.peak_memory().is_none() {
        memory::check_training(&config.model, &config.train, true)?;
    }
    let images = open(&config)?;
    checkpoint::go_on_from(&checkpoint)?;
    let saved = Saved::of(&state.progress);
    on_device!(device, device => {
        let mut run = Run::new(Trainer::resume(device, config, state), images, folder, options)?;
        run.saved = Some(saved);
        run.with_changes(&notices).run()
    })
}

/// A checkpoint on the disk.
#[derive(Clone, Copy)]
struct Saved {
    step: u64,
    updates: u64,
}

impl Saved {
    fn of(progress: &super::Progress) -> Self {
        Self { step: progress.step, updates: progress.updates }
    }
}

struct Run<'a, D: Primitives<Real = f32>> {
    trainer: Trainer<D>,
    images: Images,
    out: &'a Path,
    options: Options<'a>,
    journal: Journal<'a>,
    pictures: Pictures,
    last_step: Option<u64>,
    evaluated_at: Option<u64>,
    /// The last checkpoint.
    saved: Option<Saved>,
    /// Whether a checkpoint was due while steps were being skipped.
    save_due: bool,
    /// Whether the configuration is another one than `config.toml` says.
    changed: bool,
    /// The last step of which `metrics.jsonl` has an evaluation already: one killed between an evaluation and the
    /// checkpoint after it makes the same evaluation again.
    recorded_at: Option<u64>,
    evaluation: Option<Evaluation>,
    /// Whether a record of training is being written.
    recording: bool,
    broken: HashSet<String>,
}

impl<'a, D: Primitives<Real = f32>> Run<'a, D> {
    fn new(
        mut trainer: Trainer<D>,
        images: Images,
        out: &'a Path,
        options: Options<'a>,
    ) -> Result<Self, Error> {
        let batch = trainer.config().train.batch as u64;
        let limits = options.limits;
        if let Some(minutes) = limits.minutes.filter(|minutes| minutes.is_nan() || *minutes < 0.0) {
            return Err(Error::Input(format!("{minutes} minutes are no time to train; give 0 or more")));
        }
        let last_step = match (limits.steps, limits.images) {
            (None, None) => trainer.config().train.steps,
            (steps, images) => {
                [steps, images.map(|images| images.div_ceil(batch))].into_iter().flatten().min()
            }
        };
        let goal = match (last_step, limits.minutes) {
            (_, Some(minutes)) => Goal::Until(Duration::from_secs_f64(60.0 * minutes.clamp(0.0, 1e9))),
            (Some(steps), None) => Goal::Steps(steps),
            (None, None) => Goal::Open,
        };
        let step = trainer.progress().step;
        let journal = Journal::open(out, step, goal, options.display, options.watch)?;
        let recorded = last_recorded(out)?;
        let best = trainer.progress().best;
        if let Some((at, Some(bits))) = recorded
            && at == step
            && best.is_none_or(|(best, _)| bits < best)
        {
            // Killed between this evaluation, which wrote the best model, and the next checkpoint.
            trainer.progress_mut().best = Some((bits, step));
        }
        Ok(Self {
            journal,
            pictures: Pictures::new(trainer.config().train.samples_minutes),
            trainer,
            images,
            out,
            options,
            last_step,
            evaluated_at: None,
            saved: None,
            save_due: false,
            changed: false,
            recorded_at: recorded.map(|(step, _)| step),
            evaluation: None,
            recording: false,
            broken: HashSet::new(),
        })
    }

    /// Shows what is different from now on, and writes it down with the next checkpoint.
    fn with_changes(mut self, notices: &[String]) -> Self {
        let written = RunConfig::read(&self.out.join(CONFIG));
        self.changed = written.map_or(true, |written| written != *self.trainer.config());
        notices.iter().for_each(|notice| self.journal.say(notice));
        self
    }

    fn run(mut self) -> Result<Summary, Error> {
        let began_at = self.trainer.progress().step;
        let trained = catch_out_of_memory(|| self.train()).map_err(Error::from).flatten();
        let interrupted = match trained {
            Ok(interrupted) => interrupted,
            Err(error) => return Err(self.failed(error, began_at)),
        };
        self.report_broken();
        let progress = self.trainer.progress().clone();
        if self.saved.is_none_or(|saved| saved.step != progress.step) {
            let last = self.last_checkpoint();
            self.journal.say(&format!(
                "the last {} steps were skipped, so step {} is not saved; {last}",
                progress.skipped_in_a_row, progress.step
            ));
        }
        self.journal.finish();
        Ok(Summary {
            steps: progress.step,
            saved_step: self.saved.map(|saved| saved.step),
            interrupted,
            evaluation: self.evaluation.clone(),
            best: progress.best.map(|(bits_per_dim, step)| Best { step, bits_per_dim }),
            skipped: progress.skipped,
            broken: self.broken.len(),
        })
    }

    /// Saves what was learned before an error, which need not be lost with a test image, and returns the
    /// error. A run goes on from a whole step with its records only, and from none of which the state is not
    /// sound.
    fn failed(&mut self, error: Error, began_at: u64) -> Error {
        match error {
            Error::Diverged(reason) => return self.diverged(reason),
            Error::Stopped => return error,
            _ => {}
        }
        let step = self.trainer.progress().step;
        let whole = !self.recording && step > began_at && self.saved.is_none_or(|saved| saved.step != step);
        // If this fails too, the first error is the one to report.
        let saved = if whole { self.save() } else { Ok(()) };
        if step > began_at {
            let failure =
                saved.err().map_or(String::new(), |error| format!("; step {step} is not saved: {error}"));
            let last = self.last_checkpoint();
            self.journal.say(&format!("{last}{failure}"));
        }
        error
    }

    fn last_checkpoint(&self) -> String {
        match self.saved {
            Some(Saved { step, .. }) => format!("the last checkpoint is of step {step}"),
            None => "there is no checkpoint".into(),
        }
    }

    /// The error of a run that diverged, with the checkpoint to go on from.
    fn diverged(&self, reason: String) -> Error {
        let Some(saved) = self.saved else { return Error::Diverged(reason) };
        let progress = self.trainer.progress();
        // A checkpoint made after the update that spoiled the weights, and before they were used, fails as
        // they do.
        let spoiled = progress.skipped_in_a_row > 0 && progress.updates == saved.updates && saved.updates > 0;
        if !spoiled {
            return Error::RunDiverged { reason, step: saved.step, resume: self.out.to_owned() };
        }
        let previous = self.out.join(PREVIOUS);
        match checkpoint::load(&previous) {
            Ok((_, state)) if state.progress.updates < saved.updates => {
                Error::RunDiverged { reason, step: state.progress.step, resume: previous }
            }
            _ => Error::Diverged(format!(
                "{reason}. The last checkpoint, of step {}, has the same weights",
                saved.step
            )),
        }
    }

    /// [`Error::Stopped`] if a stop was requested.
    fn check_stop(&self) -> Result<(), Error> {
        if self.options.stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
    }

    /// Trains up to the end, with an evaluation and a checkpoint there; returns whether it was stopped
    /// before.
    fn train(&mut self) -> Result<bool, Error> {
        let test = self.images.test.as_ref().map_or(0, |test| test.len());
        self.journal.say(&format!(
            "{} parameters, {} training and {test} test images, {}",
            self.trainer.layout().len(),
            self.images.train.len(),
            self.trainer.device().name()
        ));
        if let (Some(from), 0) = (&self.trainer.config().train.from, self.trainer.progress().step) {
            self.journal.say(&format!(
                "training begins with the weights of {}, at a learning rate of {}",
                from.display(),
                self.trainer.config().train.lr
            ));
        }
        self.images.notices.iter().for_each(|notice| self.journal.say(notice));
        if self.options.watch.is_none() {
            self.journal.say(DEQUANTIZED);
        }
        self.compare_images();
        let interrupted = match self.train_until_stopped() {
            // Before the first checkpoint there is nothing to keep.
            Err(Error::Stopped) if self.saved.is_some() => true,
            done => {
                done?;
                false
            }
        };
        self.save()?;
        if interrupted && !self.pictures.are_of(self.trainer.progress().step) {
            self.draw_last();
        }
        Ok(interrupted)
    }

    /// Refreshes samples and curve of a run that was stopped. It is saved, so that a failure costs nothing.
    fn draw_last(&mut self) {
        let drawn = self.averaged().and_then(|glow| self.draw(&glow, false));
        if let Err(error) = drawn {
            self.journal.say(&format!("the samples are of an earlier step: {error}"));
        }
    }

    /// Says so if the images are others than those that the run knew.
    fn compare_images(&mut self) {
        let now = self.images.fingerprint;
        let progress = self.trainer.progress_mut();
        let names = progress.images.replace(now.names);
        // A run begun by an older program knew the names alone.
        let contents = progress.contents.replace(now.contents);
        let what = match (names, contents) {
            (Some(names), _) if names != now.names => "other names or order",
            (_, Some(contents)) if contents != now.contents => "same names, other contents",
            _ => return,
        };
        self.journal.say(&format!(
            "The images have changed since the last checkpoint ({what}). Training goes on, but its results will \
             differ, and test images may have been trained on."
        ));
    }

    /// Trains up to the end, with an evaluation there.
    fn train_until_stopped(&mut self) -> Result<(), Error> {
        let config = self.trainer.config().clone();
        let started = Instant::now();
        let allowed = self
            .options
            .limits
            .minutes
            .map(|minutes| Duration::from_secs_f64(60.0 * minutes.clamp(0.0, 1e9)));
        let mut saved = Instant::now();
        let mut pace = Pace::default();
        let watch = self.options.watch;
        let step = self.trainer.progress().step;
        if step > 0
            && step.is_multiple_of(config.train.eval_every)
            && self.images.test.is_some()
            && self.recorded_at != Some(step)
        {
            // It failed or was stopped, and the step was saved without it.
            self.evaluate()?;
        }
        let batches = TrainingBatches::new(
            Arc::clone(&self.images.train),
            TrainingOptions {
                batch_size: config.train.batch,
                seed: config.train.seed,
                augment: Augment { shift: config.data.shift, flip: config.data.flip, ..Default::default() },
                start_at: self.trainer.progress().step,
                threads: data::loader_threads(),
            },
        )?;
        let mut resumed = Instant::now();
        for batch in batches {
            let step = self.trainer.progress().step;
            if self.last_step.is_some_and(|last| step >= last)
                || allowed.is_some_and(|t| started.elapsed() >= t)
            {
                break;
            }
            self.check_stop()?;
            let batch = batch?;
            let labels = data::labels(&config.model, &batch);
            if step == 0 {
                self.trainer.initialize(&batch.pixels, labels)?;
                self.save()?;
                self.check_stop()?;
                resumed = Instant::now();
            }
            let learning_rate = self.trainer.learning_rate();
            let report = self.trainer.step(&batch.pixels, labels)?;
            let step = self.trainer.progress().step;
            let rate = pace.count(config.train.batch);
            let skipped = if report.applied { "" } else { ", skipped: not finite" };
            let rate_known = if rate > 0.0 { format!(", {rate:.0} images/s") } else { String::new() };
            self.journal.update(step, &format!("{:.3} bits/dim{rate_known}{skipped}", report.bits_per_dim));

            let done = StepDone {
                step,
                bits_per_dim: report.bits_per_dim,
                seconds: resumed.elapsed().as_secs_f64(),
            };
            let ends = watch.is_some_and(|watch| watch.step(&done).is_break());

            if let Some(rate) = pace.measured().filter(|_| watch.is_none()) {
                let seen = step * config.train.batch as u64;
                let mut lines = outlook(&config.model, rate, self.images.train.len(), seen);
                if config.train.from.is_some() {
                    // The milestones are those of new weights.
                    lines.truncate(1);
                }
                lines.iter().for_each(|line| self.journal.say(line));
            }

            if step.is_multiple_of(config.train.log_every) {
                self.log(learning_rate, rate)?;
            }
            if step.is_multiple_of(config.train.eval_every) {
                self.evaluate()?;
            } else if self.pictures.are_due(&config.model, rate) {
                self.draw(&self.averaged()?, true)?;
            }
            let due = saved.elapsed().as_secs_f64() >= 60.0 * config.train.checkpoint_minutes;
            if due || self.save_due || step.is_multiple_of(config.train.checkpoint_every) {
                self.save()?;
                saved = Instant::now();
            }
            if ends {
                break;
            }
            resumed = Instant::now();
        }
        if self.evaluated_at != Some(self.trainer.progress().step) {
            self.evaluate()?;
        }
        Ok(())
    }

    /// Records the mean of the training bits/dim since the last record. No clock time goes into the metrics, so that
    /// a resumed run writes the same ones.
    fn log(&mut self, learning_rate: f64, images_per_second: f64) -> Result<(), Error> {
        let progress = self.trainer.progress_mut();
        let mean = (progress.window_steps > 0).then(|| progress.window_sum / progress.window_steps as f64);
        let norm = progress.window_norm;
        (progress.window_sum, progress.window_steps, progress.window_norm) = (0.0, 0, 0.0);
        let (step, skipped) = (progress.step, progress.skipped);
        self.recording = true;
        self.journal.append(&serde_json::json!({
            "step": step,
            "train_bits_per_dim": mean,
            "gradient_norm": norm,
            "learning_rate": learning_rate,
            "skipped": skipped,
        }))?;
        self.recording = false;
        self.journal.show(|events| {
            if let Some(mean) = mean {
                events.scalar("train/bits_per_dim", mean as f32, step)?;
            }
            events.scalar("train/gradient_norm", norm as f32, step)?;
            events.scalar("train/learning_rate", learning_rate as f32, step)?;
            events.scalar("train/images_per_second", images_per_second as f32, step)
        });
        self.report_broken();
        Ok(())
    }

    /// Names images that turned out to be broken since the last time.
    fn report_broken(&mut self) {
        for image in self.images.broken() {
            if self.broken.insert(image.name.clone()) {
                self.journal.say(&format!("skipped {}: {}", image.name, image.reason));
            }
        }
    }

    /// Evaluates the averaged weights on test images, and refreshes samples and curve.
    fn evaluate(&mut self) -> Result<(), Error> {
        let step = self.trainer.progress().step;
        let train = self.trainer.config().train.clone();
        let glow = self.averaged()?;
        if let Some(test) = &self.images.test {
            let test = data::sample(test, train.eval_images, train.seed);
            let draws = Draws::Uniform { draws: 1, seed: train.seed };
            let inversion = Inversion { images: INVERTED, seed: train.seed };
            let evaluation = evaluate(&glow, &test, draws, inversion, |_| self.check_stop())?;
            let (bits, error) = (evaluation.bits_per_dim, evaluation.inverse_error);
            let better = bits.is_finite() && self.trainer.progress().best.is_none_or(|(best, _)| bits < best);
            if better && self.trainer.is_sound() {
                self.trainer.model()?.write(&self.out.join(BEST))?;
                self.trainer.progress_mut().best = Some((bits, step));
            }
            if self.recorded_at != Some(step) {
                self.journal.append(&serde_json::json!({
                    "step": step,
                    "test_bits_per_dim": bits,
                    "inverse_error": error,
                }))?;
                self.recorded_at = Some(step);
            }
            self.journal.show(|events| {
                events.scalar("test/bits_per_dim", bits as f32, step)?;
                events.scalar("test/inverse_error", error as f32, step)
            });
            self.journal.say(&if bits.is_finite() && error.is_finite() {
                format!("step {step}: test {bits:.3} bits/dim, inverse error {error:.1e}")
            } else {
                format!("step {step}: the evaluation is not finite")
            });
            self.evaluation = Some(evaluation);
        }
        self.draw(&glow, true)?;
        self.evaluated_at = Some(step);
        Ok(())
    }

    /// The model with averaged weights.
    fn averaged(&self) -> Result<Model, Error> {
        Ok(Model::on(self.trainer.device().clone(), &self.trainer.model()?))
    }

    /// Refreshes samples and curve; `stops` tells whether a request to stop ends that.
    fn draw(&mut self, glow: &Model, stops: bool) -> Result<(), Error> {
        let (step, stop) = (self.trainer.progress().step, self.options.stop);
        let check = || if stops && stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) };
        self.pictures.draw(glow, self.out, step, &mut self.journal, check)
    }

    /// Saves a checkpoint and then the model, or postpones that while steps are being skipped: the weights
    /// may be what makes them fail, and the checkpoints from before that are the way out.
    fn save(&mut self) -> Result<(), Error> {
        self.save_due = !self.trainer.is_sound();
        if self.save_due {
            return Ok(());
        }
        let (config, state) = (self.trainer.config(), self.trainer.state()?);
        if !state.is_finite() {
            return Err(Error::Diverged(format!(
                "weights or moments of step {} are not finite, and are not saved",
                state.progress.step
            )));
        }
        // A checkpoint that outlives a loss of power needs the records before it.
        self.journal.flush()?;
        // The larger file first: if it does not fit on the disk, the model stays that of the last checkpoint.
        checkpoint::save(self.out, config, &state)?;
        self.saved = Some(Saved::of(&state.progress));
        let step = state.progress.step;
        let TrainState { constants, ema, buffers_ema, .. } = state;
        let model = ModelFile { config: config.model.clone(), constants, weights: ema, buffers: buffers_ema };
        model.write(&self.out.join(MODEL))?;
        if self.changed {
            write_config(self.out, self.trainer.config())?;
            self.changed = false;
        }
        self.options.watch.map_or(Ok(()), |watch| watch.saved(step))
    }
}
