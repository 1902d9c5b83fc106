//! A run: training in a folder, with everything that is written there.
//!
//! | file | |
//! | --- | --- |
//! | `config.toml` | the resolved configuration |
//! | `model.safetensors`, `best.safetensors` | the model, with averaged weights: the last, and the best on test images |
//! | `checkpoint.safetensors`, `checkpoint.previous.safetensors` | everything that is needed to go on |
//! | `metrics.jsonl` | bits/dim and more, one record a line |
//! | `events/` | the same, and images/s and samples, for TensorBoard |
//! | `curve.png`, `samples.png` | refreshed by every evaluation |

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use glowflow_data::{Augment, Dataset, Splits, TrainingBatches, TrainingOptions};
use glowflow_kernels::{Device, DeviceError};
use glowflow_report::curve::Curve;
use glowflow_report::events::EventLog;
use glowflow_report::metrics::{self, MetricsLog};
use glowflow_report::picture;
use glowflow_report::progress::{Display, Goal, Progress};
use serde::Serialize;

use super::checkpoint::{self, CHECKPOINT, PREVIOUS};
use super::config::{CONFIG, RunConfig};
use super::trainer::Trainer;
use crate::evaluate::{Draws, Evaluation, Inversion, evaluate};
use crate::model::MODEL;
use crate::tensor_file::write_atomically;
use crate::{Error, Glow, data};

/// What a run writes above its configuration.
const CONFIG_COMMENT: &str = "# What this run was begun with. Once it trains, it goes on with the copy in its checkpoints, whatever is \
                              changed\n# here; for another run, --config takes this file.\n\n";
/// Name of the log in a run's folder.
const METRICS: &str = "metrics.jsonl";
/// Temperature of the samples that a run shows.
const TEMPERATURE: f64 = 0.7;
/// Images on which an evaluation measures the inverse.
const INVERTED: usize = 64;
/// Images, at least, of which some are held out if nothing was said about it.
const ENOUGH_TO_HOLD_OUT: usize = 100;

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
    /// Set from elsewhere to end after the step at hand, with a checkpoint.
    pub stop: &'a AtomicBool,
}

/// How a run ended.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Steps done in all.
    pub steps: u64,
    /// Whether it was told to stop before its end.
    pub interrupted: bool,
    /// The last evaluation, if there are images to test on.
    pub evaluation: Option<Evaluation>,
    /// Steps skipped because something was not finite.
    pub skipped: u64,
    /// Images that could not be read.
    pub broken: usize,
}

/// The images of a run.
struct Data {
    train: Arc<dyn Dataset>,
    test: Option<Arc<dyn Dataset>>,
}

impl Data {
    fn open(config: &RunConfig) -> Result<Self, Error> {
        let path = config.data.path.as_deref().ok_or_else(|| {
            Error::Config("there is no data to train on: say --data FOLDER, or set data.path".into())
        })?;
        let opened = data::open(path, &config.model, &config.data.classes)?;
        let data = Self::split(config, opened)?;
        // Better found now than by the first evaluation.
        if let Some(test) =
            data.test.as_ref().filter(|test| config.model.classes > 0 && test.label(0).is_none())
        {
            return Err(Error::Input(format!(
                "the {} images to test on have no labels, which a model with classes needs: give them some, or set \
                 data.test_fraction to test on a part of the others",
                test.len()
            )));
        }
        Ok(data)
    }

    /// A checksum of the images' names, in order: what tells whether a run goes on with the images it began with.
    fn fingerprint(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        for data in [Some(&self.train), self.test.as_ref()].into_iter().flatten() {
            hasher.update(&(data.len() as u64).to_le_bytes());
            (0..data.len()).for_each(|i| hasher.update(format!("{}\n", data.name(i)).as_bytes()));
        }
        hasher.finalize()
    }

    /// Into images to train and to test on, as the configuration says.
    fn split(config: &RunConfig, opened: Splits) -> Result<Self, Error> {
        if let Some(path) = &config.data.test {
            // A folder with a test set of its own was meant for that.
            let other = data::open(path, &config.model, opened.train.classes())?;
            return Ok(Self { train: opened.train, test: Some(other.test.unwrap_or(other.train)) });
        }
        let fraction = match (config.data.test_fraction, &opened.test) {
            (Some(fraction), _) => fraction,
            (None, Some(_)) => return Ok(Self { train: opened.train, test: opened.test }),
            (None, None) if opened.train.len() >= ENOUGH_TO_HOLD_OUT => 0.05,
            (None, None) => return Ok(Self { train: opened.train, test: None }),
        };
        let (train, test) = glowflow_data::split(opened.train, fraction, config.train.seed)?;
        Ok(Self { train: Arc::new(train), test: Some(Arc::new(test)) })
    }
}

/// Keeps a second process out of a run's folder while this one trains in it.
fn lock(folder: &Path) -> Result<Option<File>, Error> {
    // A system that cannot lock a folder does without.
    let Ok(handle) = File::open(folder) else { return Ok(None) };
    match handle.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Error::Input(format!(
            "another process is training in {}: wait for its end, or choose another folder",
            folder.display()
        ))),
        _ => Ok(Some(handle)),
    }
}

/// Checks that a new run finds nothing in its folder that it would write over, or that it would be trained on.
fn check_free(out: &Path, config: &RunConfig) -> Result<(), Error> {
    let way_out = |name: &str| match name {
        MODEL => "choose another folder".to_owned(),
        PREVIOUS => {
            format!("continue it with --resume {}, or choose another folder", out.join(name).display())
        }
        _ => format!("continue it with --resume {}, or choose another folder", out.display()),
    };
    if let Some(name) = [CONFIG, CHECKPOINT, PREVIOUS, MODEL].into_iter().find(|name| out.join(name).exists())
    {
        let way_out = way_out(name);
        return Err(Error::Input(format!("{} holds a run already ({name}): {way_out}", out.display())));
    }
    let among = |path: &PathBuf| match (path.canonicalize(), out.canonicalize()) {
        (Ok(data), Ok(out)) => out.starts_with(data),
        _ => false,
    };
    let empty = std::fs::read_dir(out).map_err(Error::io(out))?.next().is_none();
    if !empty && [&config.data.path, &config.data.test].into_iter().flatten().any(among) {
        return Err(Error::Input(format!(
            "{} holds some of the data, and a run's pictures would be among them: choose another folder",
            out.display()
        )));
    }
    Ok(())
}

/// Begins a run in the folder `out`.
///
/// # Errors
/// [`Error::Input`] where the folder holds a run already, or another process trains there; otherwise errors of data, model and system.
pub fn train<D: Device>(
    device: D,
    config: RunConfig,
    out: &Path,
    options: Options<'_>,
) -> Result<Summary, Error> {
    let open = |config: &RunConfig| check_free(out, config).and_then(|()| Data::open(config));
    begin(device, config, out, open, options)
}

/// As [`train`], on datasets at hand instead of those that the configuration names, and whatever the folder holds.
///
/// # Errors
/// As [`train`].
pub fn train_on<D: Device>(
    device: D,
    config: RunConfig,
    train: Arc<dyn Dataset>,
    test: Option<Arc<dyn Dataset>>,
    out: &Path,
    options: Options<'_>,
) -> Result<Summary, Error> {
    begin(device, config, out, |_| Ok(Data { train, test }), options)
}

fn begin<D: Device>(
    device: D,
    mut config: RunConfig,
    out: &Path,
    data: impl FnOnce(&RunConfig) -> Result<Data, Error>,
    options: Options<'_>,
) -> Result<Summary, Error> {
    let new = !out.exists();
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    let _lock = lock(out)?;
    let path = out.join(CONFIG);
    let mut written = false;
    let done = data(&config).and_then(|data| {
        if config.model.classes > 0 {
            config.data.classes = data.train.classes().to_vec();
        }
        let trainer = Trainer::new(device, config)?;
        write_atomically(&path, format!("{CONFIG_COMMENT}{}", trainer.config().to_toml()?).as_bytes())?;
        written = true;
        Run::new(trainer, data, out, options)?.run()
    });
    if done.is_err() && checkpoint::find(out).is_none() {
        // Nothing was trained, so the folder is free for another try.
        if written {
            let _ = std::fs::remove_file(path);
        }
        if new {
            // Unless something is in it by now.
            let _ = std::fs::remove_dir(out);
        }
    }
    done
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
/// have had without the stop. `device` makes what the run's configuration asks for. `data` and `test_data` say where the images
/// to train and to test on are now, if elsewhere than at first.
///
/// # Errors
/// [`Error::Input`] where there is no run, or no images to test on were named at first; [`Error::File`] where its checkpoint is damaged;
/// otherwise as [`train`].
pub fn resume<D: Device>(
    device: impl FnOnce(&RunConfig) -> Result<D, DeviceError>,
    path: &Path,
    (data, test_data): (Option<&Path>, Option<&Path>),
    options: Options<'_>,
) -> Result<Summary, Error> {
    let find_images = |config: &mut RunConfig| {
        if test_data.is_some() && config.data.test.is_none() {
            return Err(Error::Input(
                "this run was begun without --test-data, and is tested on a part of its own images: leave it out".into(),
            ));
        }
        for (now, path) in [(data, &mut config.data.path), (test_data, &mut config.data.test)] {
            *path = now.map(Path::to_owned).or(path.take());
        }
        Ok(())
    };
    let folder = run_folder(path);
    let _lock = lock(folder)?;
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
        let mut config = RunConfig::read(&config)?;
        find_images(&mut config)?;
        let trainer = Trainer::new(device(&config)?, config)?;
        let data = Data::open(trainer.config())?;
        return Run::new(trainer, data, folder, options)?.run();
    };
    let (mut config, state) = checkpoint::load(&checkpoint)?;
    find_images(&mut config)?;
    let device = device(&config)?;
    let data = Data::open(&config)?;
    checkpoint::go_on_from(&checkpoint)?;
    Run::new(Trainer::resume(device, config, state), data, folder, options)?.run()
}

struct Run<'a, D: Device> {
    trainer: Trainer<D>,
    data: Data,
    out: &'a Path,
    options: Options<'a>,
    metrics: MetricsLog,
    /// `None` once it could not be written.
    events: Option<EventLog>,
    progress: Progress,
    last_step: Option<u64>,
    evaluated_at: Option<u64>,
    /// The last step of which `metrics.jsonl` has an evaluation already: one killed between an evaluation and the
    /// checkpoint after it makes the same evaluation again.
    recorded_at: Option<u64>,
    evaluation: Option<Evaluation>,
    /// Whether a record of training is being written.
    recording: bool,
    broken: HashSet<String>,
}

impl<'a, D: Device> Run<'a, D> {
    fn new(trainer: Trainer<D>, data: Data, out: &'a Path, options: Options<'a>) -> Result<Self, Error> {
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
        let path = out.join(METRICS);
        let metrics = MetricsLog::open(&path, Some(step))?;
        let tests = metrics::points(&metrics::read(&path)?, "test_bits_per_dim");
        Ok(Self {
            metrics,
            events: Some(EventLog::create(&out.join("events"), Some(step))?),
            progress: Progress::new(goal, options.display),
            trainer,
            data,
            out,
            options,
            last_step,
            evaluated_at: None,
            recorded_at: tests.last().map(|&(step, _)| step as u64),
            evaluation: None,
            recording: false,
            broken: HashSet::new(),
        })
    }

    fn run(mut self) -> Result<Summary, Error> {
        let began_at = self.trainer.progress().step;
        let interrupted = self.train().inspect_err(|error| {
            // What was learned since the last checkpoint need not be lost with a test image. Where this fails too, the first error is the
            // one to tell. A run goes on from a whole step with its records only, and from none where it diverged.
            let whole = !self.recording && !matches!(error, Error::Diverged(_));
            if whole && self.trainer.progress().step > began_at {
                let _ = self.save();
            }
        })?;
        self.report_broken();
        self.progress.finish();
        let progress = self.trainer.progress();
        Ok(Summary {
            steps: progress.step,
            interrupted,
            evaluation: self.evaluation.clone(),
            skipped: progress.skipped,
            broken: self.broken.len(),
        })
    }

    /// Trains up to the end, with an evaluation and a checkpoint there; returns whether it was told to stop before.
    fn train(&mut self) -> Result<bool, Error> {
        let config = self.trainer.config().clone();
        let test = self.data.test.as_ref().map_or(0, |test| test.len());
        self.progress.println(&format!(
            "{} parameters, {} training and {test} test images, {}",
            self.trainer.layout().len(),
            self.data.train.len(),
            self.trainer.device().name()
        ));
        let images = self.data.fingerprint();
        if self.trainer.progress_mut().images.replace(images).is_some_and(|before| before != images) {
            self.progress.println(
                "the images are not those that this run knew: it goes on with them, but not to the weights that it would have \
                 had, and some that it is tested on may be some that it was trained on",
            );
        }
        let started = Instant::now();
        let allowed = self
            .options
            .limits
            .minutes
            .map(|minutes| Duration::from_secs_f64(60.0 * minutes.clamp(0.0, 1e9)));
        let mut saved = Instant::now();
        let mut speed = Speed::default();
        let mut interrupted = false;
        let step = self.trainer.progress().step;
        if step > 0
            && step.is_multiple_of(config.train.eval_every)
            && self.data.test.is_some()
            && self.recorded_at != Some(step)
        {
            // It failed, and was saved for that.
            self.evaluate()?;
        }
        let batches = TrainingBatches::new(
            Arc::clone(&self.data.train),
            TrainingOptions {
                batch_size: config.train.batch,
                seed: config.train.seed,
                augment: Augment { shift: config.data.shift, flip: config.data.flip, ..Default::default() },
                start_at: self.trainer.progress().step,
                threads: data::loader_threads(),
            },
        )?;
        for batch in batches {
            let step = self.trainer.progress().step;
            if self.last_step.is_some_and(|last| step >= last)
                || allowed.is_some_and(|t| started.elapsed() >= t)
            {
                break;
            }
            if self.options.stop.load(Ordering::Relaxed) {
                interrupted = true;
                break;
            }
            let batch = batch?;
            let labels = data::labels(&config.model, &batch);
            if step == 0 {
                self.trainer.initialize(&batch.pixels, labels)?;
                self.save()?;
            }
            let learning_rate = self.trainer.learning_rate();
            let report = self.trainer.step(&batch.pixels, labels)?;
            let step = self.trainer.progress().step;
            let rate = speed.count(config.train.batch);
            let skipped = if report.applied { "" } else { ", skipped: not finite" };
            let rate_known = if rate > 0.0 { format!(", {rate:.0} images/s") } else { String::new() };
            self.progress.update(step, &format!("{:.3} bits/dim{rate_known}{skipped}", report.bits_per_dim));

            if step.is_multiple_of(config.train.log_every) {
                self.log(learning_rate, rate)?;
            }
            if step.is_multiple_of(config.train.eval_every) {
                self.evaluate()?;
            }
            let due = saved.elapsed().as_secs_f64() >= 60.0 * config.train.checkpoint_minutes;
            if due || step.is_multiple_of(config.train.checkpoint_every) {
                self.save()?;
                saved = Instant::now();
            }
        }
        if !interrupted && self.evaluated_at != Some(self.trainer.progress().step) {
            self.evaluate()?;
        }
        self.save()?;
        Ok(interrupted)
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
        self.metrics.append(&serde_json::json!({
            "step": step,
            "train_bits_per_dim": mean,
            "gradient_norm": norm,
            "learning_rate": learning_rate,
            "skipped": skipped,
        }))?;
        self.recording = false;
        self.show(|events| {
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

    /// Writes to TensorBoard's log, as long as that is possible: no run ends for it.
    fn show(&mut self, write: impl FnOnce(&mut EventLog) -> Result<(), glowflow_report::Error>) {
        if let Some(events) = &mut self.events
            && let Err(error) = write(events)
        {
            self.progress.println(&format!("{error}; training goes on without a log for TensorBoard"));
            self.events = None;
        }
    }

    /// Names images that turned out to be broken since the last time.
    fn report_broken(&mut self) {
        for data in [Some(&self.data.train), self.data.test.as_ref()].into_iter().flatten() {
            for image in data.broken() {
                if self.broken.insert(image.name.clone()) {
                    self.progress.println(&format!("skipped {}: {}", image.name, image.reason));
                }
            }
        }
    }

    /// Evaluates the averaged weights on test images, and refreshes samples and curve.
    fn evaluate(&mut self) -> Result<(), Error> {
        let step = self.trainer.progress().step;
        let train = self.trainer.config().train.clone();
        let glow = Glow::on(self.trainer.device().clone(), &self.trainer.model()?);
        if let Some(test) = &self.data.test {
            let test = data::sample(test, train.eval_images, train.seed);
            let draws = Draws::Uniform { draws: 1, seed: train.seed };
            let inversion = Inversion { images: INVERTED, seed: train.seed };
            let evaluation = evaluate(&glow, &test, draws, inversion, |_| Ok(()))?;
            let (bits, error) = (evaluation.bits_per_dim, evaluation.inverse_error);
            if bits.is_finite() && self.trainer.progress().best.is_none_or(|(best, _)| bits < best) {
                self.trainer.model()?.write(&self.out.join("best.safetensors"))?;
                self.trainer.progress_mut().best = Some((bits, step));
            }
            if self.recorded_at != Some(step) {
                self.metrics.append(&serde_json::json!({
                    "step": step,
                    "test_bits_per_dim": bits,
                    "inverse_error": error,
                }))?;
                self.recorded_at = Some(step);
            }
            self.show(|events| {
                events.scalar("test/bits_per_dim", bits as f32, step)?;
                events.scalar("test/inverse_error", error as f32, step)
            });
            self.progress
                .println(&format!("step {step}: test {bits:.3} bits/dim, inverse error {error:.1e}"));
            self.evaluation = Some(evaluation);
        }
        for drawn in [self.draw_samples(&glow, step), self.draw_curve()] {
            match drawn {
                // A picture that cannot be drawn is no reason to end a run.
                Err(error @ Error::Report(_)) => self.progress.println(&format!("{error}; training goes on")),
                drawn => drawn?,
            }
        }
        self.evaluated_at = Some(step);
        Ok(())
    }

    fn draw_samples(&mut self, glow: &Glow<D>, step: u64) -> Result<(), Error> {
        let config = glow.config();
        let [_, _, channels] = config.image;
        if channels != 1 && channels != 3 {
            return Ok(());
        }
        let columns = if config.image[1] > 64 { 4 } else { 8 };
        let count = columns * columns;
        let labels: Vec<usize> =
            if config.classes == 0 { vec![] } else { (0..count).map(|i| i % config.classes).collect() };
        let samples = glow.sample(count, TEMPERATURE, &labels, 0)?;
        if glow.was_not_finite() {
            self.progress.println(
                "some samples hold numbers that are not finite, and are black there; they become fewer as training goes on",
            );
        }
        let picture = picture::grid(&samples.into_raw_vec_and_offset().0, config.image, columns);
        picture::save_png(&self.out.join("samples.png"), &picture)?;
        self.show(|events| events.picture("samples", &picture, step));
        Ok(())
    }

    fn draw_curve(&self) -> Result<(), Error> {
        let records = metrics::read(&self.out.join(METRICS))?;
        let train = metrics::points(&records, "train_bits_per_dim");
        let test = metrics::points(&records, "test_bits_per_dim");
        let name = self.out.file_name().map_or("run".into(), |name| name.to_string_lossy());
        Ok(Curve { title: &name, train: &train, test: &test }.save(&self.out.join("curve.png"))?)
    }

    fn save(&self) -> Result<(), Error> {
        // A checkpoint that outlives a loss of power needs the records before it.
        self.metrics.flush()?;
        self.trainer.model()?.write(&self.out.join(MODEL))?;
        checkpoint::save(self.out, self.trainer.config(), &self.trainer.state()?)
    }
}

/// What a run's model scored when it was last evaluated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LastEvaluation {
    /// The step.
    pub step: u64,
    /// Mean bits per dimension of test images.
    pub bits_per_dim: f64,
    /// How exactly the model inverted them.
    pub inverse_error: f64,
}

/// The last evaluation in a run's log; `None` where there is no run, or none was made.
pub fn last_evaluation(run: &Path) -> Option<LastEvaluation> {
    let records = metrics::read(&run.join(METRICS)).ok()?;
    let (step, bits_per_dim) = metrics::points(&records, "test_bits_per_dim").pop()?;
    let (_, inverse_error) = metrics::points(&records, "inverse_error").pop()?;
    Some(LastEvaluation { step: step as u64, bits_per_dim, inverse_error })
}

/// Images a second, averaged over the last steps.
#[derive(Default)]
struct Speed {
    last: Option<Instant>,
    seconds_per_image: f64,
}

impl Speed {
    fn count(&mut self, images: usize) -> f64 {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            let seconds = (now - last).as_secs_f64() / images as f64;
            let old = self.seconds_per_image;
            self.seconds_per_image = if old == 0.0 { seconds } else { 0.9 * old + 0.1 * seconds };
        }
        if self.seconds_per_image == 0.0 { 0.0 } else { 1.0 / self.seconds_per_image }
    }
}
