//! Runs in a folder through the library: state after a failure, and changes on resuming.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::common::NEVER;
use glowflow::train::{
    Changes, Limits, Options, RunConfig, checkpoint, observers, resume, resume_on, train, train_on,
};
use glowflow::{Error, ModelFile};
use glowflow_data::portraits::Portraits;
use glowflow_data::{Dataset, ImageShape};
use glowflow_kernels::Cpu;
use glowflow_report::progress::Display;

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
    Options { limits, observers: observers::standard(Display::Quiet), faces: None, stop: &NEVER }
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

/// A dataset that is unreadable for a while.
struct Outage {
    dataset: Portraits,
    /// Number of reads that succeed.
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

/// A dataset that requests a stop when it is read.
struct Stopping {
    dataset: Portraits,
    stop: Arc<AtomicBool>,
}

impl Dataset for Stopping {
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
        self.stop.store(true, Ordering::SeqCst);
        self.dataset.read(index, pixels)
    }
}

/// Trains up to step 3, and stops during the evaluation at that step.
fn train_into_a_stop(config: &RunConfig, run: &Path) {
    let stop = Arc::new(AtomicBool::new(false));
    let images = Arc::new(Portraits::new(20_000, 16, 0));
    let test = Arc::new(Stopping { dataset: Portraits::new(1000, 16, 1), stop: Arc::clone(&stop) });
    let options = Options { stop: &stop, ..options(6) };
    let summary = train_on(Cpu::<f32>::new(), config.clone(), images, Some(test), run, options).unwrap();
    assert!(summary.interrupted);
    assert!(summary.evaluation.is_none());
    assert_eq!((summary.steps, summary.saved_step), (3, Some(3)));
}

/// If a run is killed after an evaluation that a resumed run has repeated, and before the next checkpoint,
/// the best score is still known.
#[test]
fn a_kill_after_a_repeated_evaluation_keeps_the_best_score() {
    let config = config(&["train.eval_every=3", "train.checkpoint_every=4"]);
    let [whole, torn] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (whole, torn) = (whole.path(), torn.path());
    train(Cpu::<f32>::new(), config.clone(), whole, options(3)).unwrap();
    train_into_a_stop(&config, torn);
    let saved = std::fs::read(torn.join("checkpoint.safetensors")).unwrap();
    go_on(torn, &[], 3).unwrap();
    // The checkpoint after the evaluation was never written.
    std::fs::write(torn.join("checkpoint.safetensors"), saved).unwrap();
    for run in [whole, torn] {
        go_on(run, &[], 5).unwrap();
    }
    // The checkpoint of step 4, preceding the evaluation at the end.
    let previous = |run: &Path| checkpoint::load(&run.join("checkpoint.previous.safetensors")).unwrap().1;
    assert_eq!(previous(whole).progress.best.map(|(_, step)| step), Some(3));
    assert_eq!(previous(torn).progress, previous(whole).progress);
    for file in ["checkpoint.previous.safetensors", "best.safetensors", "metrics.jsonl", "model.safetensors"]
    {
        let read = |run: &Path| std::fs::read(run.join(file)).unwrap();
        assert!(read(torn) == read(whole), "{file} has other bytes");
    }
}

/// Steps after the checkpoint are lost with a kill. If they are trained again with other settings, the best model
/// of these steps is kept until another is better.
#[test]
fn a_change_after_a_kill_keeps_the_best_model() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    let config = config(&["train.eval_every=20", "train.warmup=0", "train.lr=1e-2"]);
    train(Cpu::<f32>::new(), config, run, options(1)).unwrap();
    let saved = std::fs::read(run.join("checkpoint.safetensors")).unwrap();
    let best = go_on(run, &[], 60).unwrap().best.unwrap();
    assert!(best.step > 1, "{best:?}");
    let model = std::fs::read(run.join("best.safetensors")).unwrap();
    // The checkpoints after step 1 were never written.
    // Nor were those of the first attempt with another rate.
    for rate in ["train.lr=1e-9", "train.lr=1e-8"] {
        std::fs::write(run.join("checkpoint.safetensors"), &saved).unwrap();
        let summary = go_on(run, &[rate], 20).unwrap();
        assert!(summary.evaluation.unwrap().bits_per_dim > best.bits_per_dim);
        assert_eq!(summary.best, Some(best));
        assert!(std::fs::read(run.join("best.safetensors")).unwrap() == model);
    }
}

/// After a temporary failure of the system, a run saves and ends, and the resumed run reaches the same
/// weights as one without the failure.
#[test]
fn a_failing_drive_loses_no_step() {
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

/// While steps are being skipped, weights are not saved: neither when a checkpoint is due, nor at the end,
/// nor after an error.
#[test]
fn a_diverging_run_keeps_the_checkpoint_from_before() {
    for steps in [6, 100] {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        let sane = config(&["train.checkpoint_every=1", "train.log_every=1", "train.warmup=0"]);
        train(Cpu::<f32>::new(), sane, &run, options(3)).unwrap();
        let model = std::fs::read(run.join("model.safetensors")).unwrap();
        // One update makes the weights so large that all later steps are non-finite.
        let done = go_on(&run, &["train.lr=1e30"], steps);
        if steps == 6 {
            let summary = done.unwrap();
            assert_eq!((summary.steps, summary.saved_step, summary.skipped), (6, Some(4), 2));
        } else {
            let error = done.unwrap_err();
            let Error::RunDiverged { step, resume, reason } = &error else { panic!("{error:?}") };
            assert!(reason.contains("10 steps in a row"), "{reason}");
            // The checkpoint of step 4 contains the weights that failed.
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
        assert_eq!(step_of(&run), if steps == 6 { 4 } else { 8 });
    }
}

/// A run that ends at a step with a checkpoint saves it again. The previous checkpoint must stay.
#[test]
fn a_run_that_ends_before_it_diverges_keeps_the_checkpoint_from_before() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    let sane = config(&["train.checkpoint_every=1", "train.warmup=0"]);
    train(Cpu::<f32>::new(), sane, run, options(3)).unwrap();
    // The weights of step 4 are too large for step 5.
    go_on(run, &["train.lr=1e30"], 4).unwrap();
    let error = go_on(run, &["train.lr=1e-3"], 100).unwrap_err();
    let Error::RunDiverged { step, resume, .. } = &error else { panic!("{error:?}") };
    assert_eq!((*step, resume), (3, &run.join("checkpoint.previous.safetensors")));
    go_on(resume, &["train.lr=1e-3"], 8).unwrap();
}

/// An update that overflows is never saved.
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
        ("train.lr=1e39", ["train.lr is 1e39;", "3.4e38"]),
        ("train.lr=1e-60", ["train.lr is 1e-60;", "above 0"]),
        ("train.epsilon=1e-46", ["train.epsilon is 1e-46;", "1.2e-38"]),
        ("train.epsilon=1e-40", ["train.epsilon", "1.2e-38"]),
        ("train.beta1=0.99999999999", ["train.beta1 is 0.99999999999", "below 1"]),
        ("train.beta2=0.99999999999", ["train.beta2 is 0.99999999999", "below 1"]),
        ("train.ema=0.99999999999", ["train.ema is 0.99999999999", "below 1"]),
        ("train.clip=1e39", ["train.clip is 1e39;", "0 for off"]),
        ("train.batch=0", ["train.batch is 0;", "at least 1"]),
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
        ("train.accumulate=2", "gradients"),
        ("train.seed=1", "order"),
        ("train.optimizer=adam", "moments"),
        ("train.muon=true", "moments"),
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
        "train.muon_lr=0.01",
        "train.weight_decay=0.1",
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
    // The changes are permanent.
    go_on(run, &[], 7).unwrap();
    assert_eq!(checkpoint::load(&checkpoint::find(run).unwrap()).unwrap().0, changed);
}

/// A stop before the first step leaves no files.
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

/// If a run fails to begin, its folder is restored exactly.
#[test]
fn a_run_that_cannot_begin_restores_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    std::fs::create_dir(out.join("events")).unwrap();
    for name in ["notes.txt", "samples.png", "events/events.out.tfevents.1.mine"] {
        std::fs::write(out.join(name), "mine").unwrap();
    }
    // Blocks the first checkpoint.
    std::fs::create_dir(out.join("checkpoint.safetensors")).unwrap();
    let test: Option<Arc<dyn Dataset>> = None;
    let images = Arc::new(Portraits::new(8, 16, 0));
    let before = (files(out), files(&out.join("events")));
    train_on(Cpu::<f32>::new(), config(&[]), images, test, out, options(2)).unwrap_err();
    assert_eq!((files(out), files(&out.join("events"))), before);
    assert_eq!(std::fs::read(out.join("samples.png")).unwrap(), b"mine");
}

/// Models that exceed any machine's memory are rejected with the required amount, before anything is written.
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
    let model = glowflow::GlowConfig { hidden: 16384, steps: 4096, ..Default::default() };
    assert!(glowflow::Model::new(model, 0).err().unwrap().to_string().contains("TiB"));
}

/// Writes a NumPy array of images with one seed each.
fn save_array(path: &Path, seeds: impl Iterator<Item = u8>) {
    let images: Vec<Vec<u8>> =
        seeds.map(|seed| (0..16 * 16 * 3).map(|i| (i as u8).wrapping_mul(seed + 1)).collect()).collect();
    let header =
        format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({}, 16, 16, 3), }}", images.len());
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    // Magic, version, length, header and line break fill two blocks of 64 bytes.
    bytes.extend(118u16.to_le_bytes());
    bytes.extend(format!("{header:117}\n").bytes());
    bytes.extend(images.concat());
    std::fs::write(path, bytes).unwrap();
}

/// Different images under the same names are reported, except for a run of an older version, which only
/// recorded the names.
#[test]
fn contents_of_images_are_part_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) = (folder.path().join("images.npy"), folder.path().join("run"));
    save_array(&data, 0..12);
    let config = config(&[&format!("data.path={}", data.display())]);
    train(Cpu::<f32>::new(), config, &run, options(1)).unwrap();
    let known = || {
        let progress = checkpoint::load(&checkpoint::find(&run).unwrap()).unwrap().1.progress;
        (progress.images.unwrap(), progress.contents.unwrap())
    };
    let (names, contents) = known();
    go_on(&run, &[], 2).unwrap();
    assert_eq!(known(), (names, contents));

    save_array(&data, (0..12).rev());
    go_on(&run, &[], 3).unwrap();
    assert_eq!(known().0, names);
    assert_ne!(known().1, contents);

    let (config, mut state) = checkpoint::load(&checkpoint::find(&run).unwrap()).unwrap();
    state.progress.contents = None;
    checkpoint::save(&run, &config, &state).unwrap();
    go_on(&run, &[], 4).unwrap();
    assert_ne!(known().1, contents);
}

/// Rates that an older version accepted do not make a run unreadable: they can be changed.
#[test]
fn rates_of_older_programs_can_be_changed() {
    for (text, cure) in [
        ("epsilon = 1e-40", "train.epsilon=1e-8"),
        ("clip = 1e39", "train.clip=0"),
        ("ema = 0.99999999999", "train.ema=0.999"),
    ] {
        let key = text.split(' ').next().unwrap();
        let [begun, trained] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let mut config = config(&[cure]);
        train(Cpu::<f32>::new(), config.clone(), trained.path(), options(1)).unwrap();
        let old: f64 = text.split(' ').next_back().unwrap().parse().unwrap();
        match key {
            "epsilon" => config.train.epsilon = old,
            "clip" => config.train.clip = old,
            _ => config.train.ema = old,
        }
        let (_, state) = checkpoint::load(&checkpoint::find(trained.path()).unwrap()).unwrap();
        checkpoint::save(trained.path(), &config, &state).unwrap();
        // Stopped before its first checkpoint.
        std::fs::write(begun.path().join("config.toml"), config.to_toml().unwrap()).unwrap();
        for run in [trained.path(), begun.path()] {
            let message = go_on(run, &[], 2).unwrap_err().to_string();
            assert!(message.contains(&format!("train.{key} is ")), "{message}");
            go_on(run, &[cure], 2).unwrap();
            assert_eq!(step_of(run), 2);
        }
    }
}

/// Unchanged paths keep their text, even if another path is changed and becomes absolute.
#[test]
fn unchanged_paths_keep_their_text() {
    let before = config(&["data.path=photos/../portraits"]);
    let (after, notices) = Changes::default().apply(&before).unwrap();
    assert_eq!((after, notices), (before.clone(), vec![]));
    let overrides = texts(&["data.path=elsewhere"]);
    let (after, _) = Changes { overrides: &overrides, ..Changes::default() }.apply(&before).unwrap();
    assert!(after.data.path.unwrap().is_absolute());
}

/// A log or a model without a run is not overwritten either.
#[test]
fn files_of_another_run_are_not_overwritten() {
    for name in ["metrics.jsonl", "model.safetensors", "best.safetensors"] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, "kept").unwrap();
        let message =
            train(Cpu::<f32>::new(), config(&[]), folder.path(), options(1)).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains("another folder"), "{message}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    }
}

/// The content of margins exposed by shifts is part of a run's configuration, and affects its training
/// images.
#[test]
fn shifts_repeat_or_reflect_edges() {
    let folder = tempfile::tempdir().unwrap();
    let trained = |name: &str, overrides: &[&str]| {
        let (run, config) = (folder.path().join(name), config(overrides));
        train(Cpu::<f32>::new(), config, &run, options(2)).unwrap();
        let text = std::fs::read_to_string(run.join("config.toml")).unwrap();
        (text, ModelFile::read(&run).unwrap().weights)
    };
    let (text, replicated) = trained("default", &["data.shift=0.3"]);
    assert!(!text.contains("edge"), "{text}");
    let (_, same) = trained("replicate", &["data.shift=0.3", "data.edge=replicate"]);
    assert!(same == replicated, "replicated edges are the default");
    let (text, reflected) = trained("reflect", &["data.shift=0.3", "data.edge=reflect"]);
    assert!(text.contains("edge = \"reflect\""), "{text}");
    assert!(reflected != replicated);

    let error = RunConfig::resolve(None, None, &texts(&["data.edge=mirror"])).unwrap_err().to_string();
    for part in ["mirror", "replicate", "reflect"] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

/// A run on given datasets, without paths in its configuration, continues on them to the same weights.
#[test]
fn a_run_on_given_datasets_is_resumed_on_them() {
    let mut config = config(&[]);
    config.data.path = None;
    let [whole, parts] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let images = || -> Arc<dyn Dataset> { Arc::new(Portraits::new(40, 16, 0)) };
    train_on(Cpu::<f32>::new(), config.clone(), images(), None, whole.path(), options(4)).unwrap();
    train_on(Cpu::<f32>::new(), config, images(), None, parts.path(), options(2)).unwrap();
    let summary = resume_on(device, parts.path(), Changes::default(), images(), None, options(4)).unwrap();
    assert_eq!(summary.steps, 4);
    let model = |run: &Path| ModelFile::read(run).unwrap();
    assert_eq!(model(parts.path()), model(whole.path()));
}

/// The number of bytes of other images may be that of whole images of the model.
#[test]
fn datasets_of_another_shape_are_refused() {
    let mut config = config(&[]);
    config.data.path = None;
    let images = |size| -> Arc<dyn Dataset> { Arc::new(Portraits::new(40, size, 0)) };
    let folder = tempfile::tempdir().unwrap();
    let new = folder.path().join("new");
    let run = folder.path().join("run");
    train_on(Cpu::<f32>::new(), config.clone(), images(16), None, &run, options(1)).unwrap();
    let before = std::fs::read(run.join("checkpoint.safetensors")).unwrap();
    for (train, test, what) in [(32, 16, "training"), (16, 32, "test")] {
        let test = Some(images(test));
        let begun =
            train_on(Cpu::<f32>::new(), config.clone(), images(train), test.clone(), &new, options(2));
        assert!(!new.exists());
        let resumed = resume_on(device, &run, Changes::default(), images(train), test, options(2));
        for error in [begun, resumed] {
            let error = error.unwrap_err().to_string();
            assert!(
                error.contains(&format!("the {what} images are 32×32×3, those of the model 16×16×3")),
                "{error}"
            );
        }
    }
    assert_eq!(std::fs::read(run.join("checkpoint.safetensors")).unwrap(), before);
}

/// Values of the section `data` are checked before anything is opened.
#[test]
fn impossible_selections_of_images_are_refused() {
    for (overrides, parts) in [
        (&["data.shift=0.7"][..], &["shift of 0.7", "0.5"][..]),
        (&["data.test_fraction=1.0"], &["data.test_fraction is 1", "between 0 and 1"]),
        (
            &["data.test_fraction=0.2", "data.test=portraits"],
            &["data.test is portraits", "data.test_fraction is 0.2", "omit"],
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("new");
        let base = [
            "model.image=[16,16,3]",
            "model.levels=1",
            "model.steps=1",
            "model.hidden=4",
            "data.path=portraits",
        ];
        let config = RunConfig::resolve(None, None, &texts(&[&base[..], overrides].concat()));
        let error = config
            .and_then(|config| train(Cpu::<f32>::new(), config, &new, options(1)))
            .unwrap_err()
            .to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        assert!(!new.exists());
    }
}

/// TOML is Unicode, but names of folders need not be.
#[cfg(unix)]
#[test]
fn a_path_that_is_not_unicode_is_named() {
    use std::os::unix::ffi::OsStrExt;
    let mut config = RunConfig::default();
    config.data.path = Some(std::ffi::OsStr::from_bytes(b"ph\xffotos").into());
    let error = config.to_toml().unwrap_err().to_string();
    assert!(error.contains("data.path is ph") && error.contains("rename it"), "{error}");
}
