//! Runs in a folder, driven through the library: what a failure leaves, and what may change on resuming.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use glowflow::train::{Changes, Limits, Options, RunConfig, checkpoint, resume, train, train_on};
use glowflow::{Error, ModelFile};
use glowflow_data::portraits::Portraits;
use glowflow_data::{Dataset, ImageShape};
use glowflow_kernels::Cpu;
use glowflow_report::progress::Display;

static NEVER: AtomicBool = AtomicBool::new(false);

/// A model that trains in milliseconds, on built-in portraits, with `overrides`.
fn config(overrides: &[&str]) -> RunConfig {
    let base = [
        "model.image=[16,16,3]",
        "model.levels=2",
        "model.steps=2",
        "model.hidden=8",
        "train.batch=4",
        "train.eval_images=8",
        "data.path=portraits",
    ];
    RunConfig::resolve(None, None, &texts(&[&base[..], overrides].concat())).unwrap()
}

fn texts(overrides: &[&str]) -> Vec<String> {
    overrides.iter().map(|text| text.to_string()).collect()
}

fn options(steps: u64) -> Options<'static> {
    let limits = Limits { steps: Some(steps), ..Limits::default() };
    Options { limits, display: Display::Quiet, stop: &NEVER }
}

fn device(_: &RunConfig) -> Result<Cpu<f32>, glowflow::DeviceError> {
    Ok(Cpu::new())
}

fn go_on(run: &Path, overrides: &[&str], steps: u64) -> Result<glowflow::train::Summary, Error> {
    let overrides = texts(overrides);
    let changes = Changes { overrides: &overrides, ..Changes::default() };
    resume(device, run, changes, options(steps))
}

fn step_of(run: &Path) -> u64 {
    checkpoint::load(&checkpoint::find(run).unwrap()).unwrap().1.progress.step
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// A dataset that nothing can be read of for a while.
struct Outage {
    dataset: Portraits,
    /// Reads that succeed.
    left: AtomicUsize,
}

impl Dataset for Outage {
    fn len(&self) -> usize {
        self.dataset.len()
    }
    fn shape(&self) -> ImageShape {
        self.dataset.shape()
    }
    fn name(&self, index: usize) -> String {
        self.dataset.name(index)
    }
    fn classes(&self) -> &[String] {
        self.dataset.classes()
    }
    fn label(&self, index: usize) -> Option<usize> {
        self.dataset.label(index)
    }
    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<(), glowflow_data::Error> {
        let less = |left: usize| left.checked_sub(1);
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
            Ok(_) => self.dataset.read(index, pixels),
            Err(_) => Err(glowflow_data::Error::System {
                path: self.name(index).into(),
                source: std::io::Error::other("the drive is away"),
            }),
        }
    }
    fn broken(&self) -> Vec<glowflow_data::Broken> {
        vec![]
    }
}

/// A passing failure of the system ends a run with a save, and the resumed run reaches the weights of one
/// without.
#[test]
fn a_failing_drive_costs_no_step() {
    let config = config(&[]);
    let [whole, torn] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let portraits = || Portraits::new(20_000, 16, 0);
    let test = || -> Arc<dyn Dataset> { Arc::new(Portraits::new(1000, 16, 1)) };
    train(Cpu::<f32>::new(), config.clone(), whole.path(), options(30)).unwrap();

    let outage = Arc::new(Outage { dataset: portraits(), left: AtomicUsize::new(60) });
    let run = torn.path();
    let error = train_on(Cpu::<f32>::new(), config, outage, Some(test()), run, options(30)).unwrap_err();
    assert!(matches!(error, Error::Data(glowflow_data::Error::System { .. })), "{error:?}");
    let step = step_of(run);
    assert!(step > 0, "steps before the failure are lost");
    go_on(run, &[], 30).unwrap();
    let weights = |run: &Path| ModelFile::read(run).unwrap().weights;
    assert!(weights(run) == weights(whole.path()), "it went on from step {step} to other weights");
}

/// Weights of which steps are being skipped are not saved: neither when a checkpoint is due nor at the end
/// nor after an error.
#[test]
fn a_diverging_run_keeps_the_checkpoint_from_before() {
    for steps in [6, 100] {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        let sane = config(&["train.checkpoint_every=1", "train.log_every=1", "train.warmup=0"]);
        train(Cpu::<f32>::new(), sane, &run, options(3)).unwrap();
        let model = std::fs::read(run.join("model.safetensors")).unwrap();
        // One update that makes weights so large that no step after it is finite.
        let done = go_on(&run, &["train.lr=1e30"], steps);
        if steps == 6 {
            let summary = done.unwrap();
            assert_eq!((summary.steps, summary.saved_step, summary.skipped), (6, Some(4), 2));
        } else {
            let error = done.unwrap_err();
            let Error::RunDiverged { step, resume, reason } = &error else { panic!("{error:?}") };
            assert!(reason.contains("10 steps in a row"), "{reason}");
            // The checkpoint of step 4 has the weights that failed.
            assert_eq!((*step, resume), (3, &run.join("checkpoint.previous.safetensors")));
            assert!(error.to_string().contains("step 3"), "{error}");
            let summary = go_on(resume, &["train.lr=1e-3"], 8).unwrap();
            assert_eq!((summary.steps, summary.saved_step, summary.skipped), (8, Some(8), 0));
            assert!(ModelFile::read(&run).unwrap().weights.iter().all(|w| w.is_finite()));
            assert!(std::fs::read(run.join("model.safetensors")).unwrap() != model);
            let log = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
            assert!(!log.contains("e+30") && !log.contains("1e30"), "records of given-up steps stay: {log}");
            let toml = std::fs::read_to_string(run.join("config.toml")).unwrap();
            assert!(toml.contains("lr = 0.001"), "{toml}");
        }
        assert!(step_of(&run) != 0);
    }
}

/// A single update that overflows is never saved at all.
#[test]
fn an_update_that_overflows_ends_the_run_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    let config = config(&["train.lr=3e38", "train.warmup=0", "train.checkpoint_every=1"]);
    let error = train(Cpu::<f32>::new(), config, run, options(20)).unwrap_err();
    assert!(matches!(error, Error::RunDiverged { step: 0, .. }), "{error:?}");
    let (_, state) = checkpoint::load(&checkpoint::find(run).unwrap()).unwrap();
    for values in [&state.weights, &state.first, &state.second, &state.ema] {
        assert!(values.iter().all(|x| x.is_finite()));
    }
}

#[test]
fn rates_are_validated_as_the_numbers_that_devices_compute_with() {
    for (text, words) in [
        ("train.lr=1e39", ["train.lr is 1", "3.4e38"]),
        ("train.lr=1e-60", ["train.lr is 0.0", "above 0"]),
        ("train.epsilon=1e-46", ["train.epsilon", "1.2e-38"]),
        ("train.epsilon=1e-40", ["train.epsilon", "1.2e-38"]),
        ("train.beta1=0.99999999999", ["train.beta1 is 0.99999999999", "below 1"]),
        ("train.beta2=0.99999999999", ["train.beta2 is 0.99999999999", "below 1"]),
        ("train.ema=0.99999999999", ["train.ema is 0.99999999999", "below 1"]),
        ("train.clip=1e39", ["train.clip", "0 for off"]),
        ("train.clip=1e-50", ["train.clip", "0 for off"]),
    ] {
        let message = RunConfig::resolve(None, None, &[text.to_owned()]).unwrap_err().to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{text}: {message}");
    }
}

#[test]
fn a_resumed_run_may_change_how_it_learns_and_not_what() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    train(Cpu::<f32>::new(), config(&[]), run, options(2)).unwrap();
    let before = std::fs::read(run.join("checkpoint.safetensors")).unwrap();
    for (text, words) in [
        ("model.steps=3", "weights"),
        ("model.bits=5", "weights"),
        ("train.batch=8", "images each step"),
        ("train.accumulate=2", "noise"),
        ("train.seed=1", "order"),
        ("train.optimizer=adam", "moments"),
        ("train.precision=bf16", "rounded"),
        ("data.test_fraction=0.5", "trained on"),
        ("train.lr=0", "above 0"),
        ("train.rate=1", "`lr`"),
        ("lr=1", "section.key=value"),
    ] {
        let error = go_on(run, &[text], 4).unwrap_err();
        let message = error.to_string();
        let key = text.split('=').next().unwrap().rsplit('.').next().unwrap();
        assert!(message.contains(key) && message.contains(words), "{text}: {message}");
    }
    assert!(std::fs::read(run.join("checkpoint.safetensors")).unwrap() == before);

    let changes = [
        "train.lr=1e-4",
        "train.steps=40",
        "train.schedule=cosine",
        "train.warmup=5",
        "train.clip=10",
        "train.ema=0.9",
        "train.eval_every=3",
        "train.eval_images=4",
        "train.log_every=1",
        "train.checkpoint_every=2",
        "train.checkpoint_minutes=5",
        "train.backprop=stored",
        // Unchanged.
        "model.steps=2",
    ];
    go_on(run, &changes, 6).unwrap();
    let (changed, _) = checkpoint::load(&checkpoint::find(run).unwrap()).unwrap();
    assert_eq!((changed.train.lr, changed.train.steps, changed.train.log_every), (1e-4, Some(40), 1));
    assert_eq!(RunConfig::read(&run.join("config.toml")).unwrap(), changed);
    let log = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    assert!(log.contains("\"step\":5") && log.contains("\"step\":6"), "{log}");
    // They last.
    go_on(run, &[], 7).unwrap();
    assert_eq!(checkpoint::load(&checkpoint::find(run).unwrap()).unwrap().0, changed);
}

/// A stop before the first step leaves nothing behind.
#[test]
fn a_run_that_is_stopped_before_it_begins_leaves_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(true);
    let options = Options { stop: &stop, ..options(5) };
    let out = folder.path().join("a/b/run");
    let error = train(Cpu::<f32>::new(), config(&[]), &out, options).unwrap_err();
    assert!(matches!(error, Error::Stopped), "{error:?}");
    assert!(files(folder.path()).is_empty(), "{:?}", files(folder.path()));
}

/// What was in a folder before a run failed to begin there is there afterwards, and nothing else.
#[test]
fn a_run_that_cannot_begin_leaves_a_folder_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    std::fs::create_dir(out.join("events")).unwrap();
    for name in ["notes.txt", "samples.png", "events/events.out.tfevents.1.mine"] {
        std::fs::write(out.join(name), "mine").unwrap();
    }
    // In the way of the first checkpoint.
    std::fs::create_dir(out.join("checkpoint.safetensors")).unwrap();
    let test: Option<Arc<dyn Dataset>> = None;
    let images = Arc::new(Portraits::new(8, 16, 0));
    let before = (files(out), files(&out.join("events")));
    train_on(Cpu::<f32>::new(), config(&[]), images, test, out, options(2)).unwrap_err();
    assert_eq!((files(out), files(&out.join("events"))), before);
    assert_eq!(std::fs::read(out.join("samples.png")).unwrap(), b"mine");
}

/// Models that no machine has the memory for are refused by the sum, before anything is written.
#[test]
fn models_that_cannot_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    for (overrides, words) in [
        (&["model.hidden=16384", "model.steps=4096"][..], ["parameters with gradient", "TiB"]),
        (&["model.image=[65536,65536,3]", "train.batch=64"], ["activations of 64 images", "TiB"]),
        (&["train.batch=4000000000000"], ["activations of 4000000000000 images", "model.hidden"]),
        (&["model.image=[65536,65536,64]", "model.levels=12"], ["a rotation of", "model.levels"]),
    ] {
        let message = train(Cpu::<f32>::new(), config(overrides), &out, options(2)).unwrap_err().to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{overrides:?}: {message}");
        assert!(files(folder.path()).is_empty(), "{overrides:?}");
    }
    let model = glowflow::ModelConfig { hidden: 16384, steps: 4096, ..Default::default() };
    assert!(glowflow::Glow::new(model, 0).err().unwrap().to_string().contains("TiB"));
}

/// Other images are noticed by their contents too, but not by a run that knew the names alone.
#[test]
fn contents_of_images_are_part_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    train(Cpu::<f32>::new(), config(&[]), folder.path(), options(1)).unwrap();
    let (config, mut state) = checkpoint::load(&checkpoint::find(folder.path()).unwrap()).unwrap();
    assert!(state.progress.contents.is_some());
    // As an older program saved it.
    state.progress.contents = None;
    checkpoint::save(folder.path(), &config, &state).unwrap();
    go_on(folder.path(), &[], 2).unwrap();
    assert!(
        checkpoint::load(&checkpoint::find(folder.path()).unwrap()).unwrap().1.progress.contents.is_some()
    );
}
