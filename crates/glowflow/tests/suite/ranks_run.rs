//! Runs in a folder on several ranks, which are threads here: rank 0 writes the same files as a single rank,
//! bit for bit.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::NEVER;
use glowflow::Error;
use glowflow::train::{
    Changes, Job, Limits, Options, RunConfig, Summary, checkpoint, follow, observers, resume_as, train_as,
};
use glowflow_data::{ImageShape, save_png};
use glowflow_kernels::Cpu;
use glowflow_ranks::{EXIT_CODE, Local, Ranks, RanksError};
use glowflow_report::progress::Display;

const LIMIT: Duration = Duration::from_secs(100);
/// Files that contain only computed results.
const FILES: [&str; 5] =
    ["model.safetensors", "best.safetensors", "checkpoint.safetensors", "metrics.jsonl", "config.toml"];

/// A model that trains in milliseconds, on built-in portraits.
fn config(overrides: &[&str]) -> RunConfig {
    let base = [
        "model.image=[16,16,3]",
        "model.levels=2",
        "model.steps=2",
        "model.hidden=8",
        "train.batch=8",
        "train.eval_images=8",
        "train.eval_every=4",
        "train.checkpoint_every=3",
        "train.log_every=1",
        "train.samples_minutes=0",
        "data.path=portraits",
    ];
    let overrides: Vec<String> = base.iter().chain(overrides).map(|text| text.to_string()).collect();
    RunConfig::resolve(None, None, &overrides).unwrap()
}

fn options(steps: u64, stop: &AtomicBool) -> Options<'_> {
    let limits = Limits { steps: Some(steps), ..Limits::default() };
    Options { limits, observers: observers::standard(Display::Quiet), faces: None, stop }
}

fn device(_: &RunConfig) -> Result<Cpu<f32>, glowflow::DeviceError> {
    Ok(Cpu::new())
}

/// Runs rank 0 here and the others in threads; returns all results.
fn on_ranks(
    size: usize,
    limit: Duration,
    stops: &[&AtomicBool],
    root: impl FnOnce(&Job) -> Result<Summary, Error>,
) -> (Result<Summary, Error>, Vec<Result<(), Error>>) {
    let mut ranks = Local::job(size, limit).into_iter().map(|ranks| Job::new(Arc::new(ranks), limit));
    let first = ranks.next().unwrap();
    std::thread::scope(|scope| {
        let others: Vec<_> = ranks
            .zip(1..)
            .map(|(job, rank): (Job, usize)| {
                let stop = stops.get(rank).copied().unwrap_or(&NEVER);
                scope.spawn(move || follow(&job, device, stop))
            })
            .collect();
        let done = root(&first);
        if done.is_err() && first.has_begun() {
            first.ranks().abort(EXIT_CODE);
        }
        (done, others.into_iter().map(|thread| thread.join().unwrap()).collect())
    })
}

/// Trains on several ranks, and checks that all of them succeed.
fn train_on(size: usize, config: &RunConfig, out: &Path, steps: u64) -> Summary {
    let root = |job: &Job| train_as(job, Cpu::new(), config.clone(), out, options(steps, &NEVER));
    let (summary, others) = on_ranks(size, LIMIT, &[], root);
    others.into_iter().for_each(|other| other.unwrap());
    summary.unwrap()
}

fn resume_on(size: usize, out: &Path, steps: u64) -> Summary {
    let root = |job: &Job| resume_as(job, device, out, Changes::default(), options(steps, &NEVER));
    let (summary, others) = on_ranks(size, LIMIT, &[], root);
    others.into_iter().for_each(|other| other.unwrap());
    summary.unwrap()
}

#[track_caller]
fn assert_same_files(have: &Path, want: &Path, what: &str) {
    for name in FILES {
        let read = |folder: &Path| std::fs::read(folder.join(name)).unwrap();
        assert!(read(have) == read(want), "{what}: {name}");
    }
}

#[test]
fn any_number_of_ranks_writes_the_same_files() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&["train.accumulate=4"]);
    let alone = folder.path().join("1");
    let summary = train_on(1, &config, &alone, 6);
    assert_eq!((summary.steps, summary.saved_step), (6, Some(6)));
    for size in [2, 4] {
        let out = folder.path().join(size.to_string());
        train_on(size, &config, &out, 6);
        assert_same_files(&out, &alone, &format!("{size} ranks"));
    }
    // 2, then 4, then 1 rank.
    let out = folder.path().join("resumed");
    train_on(2, &config, &out, 2);
    resume_on(4, &out, 4);
    resume_on(1, &out, 6);
    let read = |folder: &Path| checkpoint::load(&checkpoint::find(folder).unwrap()).unwrap().1;
    let (have, want) = (read(&out), read(&alone));
    // Each stop adds an evaluation, so the best model may differ.
    assert!(have.weights == want.weights && have.first == want.first && have.second == want.second);
    assert!(have.ema == want.ema);
    assert_eq!(have.progress.step, want.progress.step);
}

#[test]
fn without_parts_each_rank_has_one() {
    let folder = tempfile::tempdir().unwrap();
    train_on(2, &config(&[]), folder.path(), 1);
    let (config, _) = checkpoint::load(&checkpoint::find(folder.path()).unwrap()).unwrap();
    assert_eq!(config.train.accumulate, 2);
}

#[test]
fn a_rank_that_stops_stops_all_after_the_same_step() {
    let folder = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let config = config(&["train.accumulate=2"]);
    let root = |job: &Job| {
        let mut options = options(1_000_000, &NEVER);
        options.observers.push(Box::new(AtStep { step: 3, stop: &stop }));
        train_as(job, Cpu::new(), config.clone(), folder.path(), options)
    };
    let (summary, others) = on_ranks(2, LIMIT, &[&NEVER, &stop], root);
    let summary = summary.unwrap();
    assert!(summary.interrupted && summary.steps >= 3, "{summary:?}");
    assert_eq!(summary.saved_step, Some(summary.steps));
    others.into_iter().for_each(|other| other.unwrap());
}

/// Requests a stop after a certain step.
struct AtStep<'a> {
    step: u64,
    stop: &'a AtomicBool,
}

impl glowflow::train::Observer for AtStep<'_> {
    fn on(
        &mut self,
        event: &glowflow::train::Event<'_>,
        _: &mut glowflow::train::observer::Outbox,
    ) -> Result<std::ops::ControlFlow<()>, Error> {
        if let glowflow::train::Event::Step(done) = event
            && done.step == self.step
        {
            self.stop.store(true, Ordering::Relaxed);
        }
        Ok(std::ops::ControlFlow::Continue(()))
    }
}

#[test]
fn ranks_end_if_the_first_cannot_begin() {
    let folder = tempfile::tempdir().unwrap();
    let root = |job: &Job| {
        train_as(job, Cpu::new(), config(&["train.accumulate=8"]), folder.path(), options(1, &NEVER))
    };
    // 8 parts cannot be distributed over 3 ranks, and neither can 8 images.
    let (done, others) = on_ranks(3, LIMIT, &[], root);
    assert!(matches!(done, Err(Error::Ranks(RanksError::Parts { .. }))), "{done:?}");
    assert!(others.iter().all(|other| matches!(other, Err(Error::Stopped))), "{others:?}");
    let root = |job: &Job| train_as(job, Cpu::new(), config(&[]), folder.path(), options(1, &NEVER));
    let (done, others) = on_ranks(3, LIMIT, &[], root);
    assert!(done.unwrap_err().to_string().contains("multiple of the number of ranks, 3"));
    assert!(others.iter().all(|other| matches!(other, Err(Error::Stopped))), "{others:?}");
    assert!(checkpoint::find(folder.path()).is_none());
}

/// If a rank fails to open its device, all ranks report it.
#[test]
fn a_rank_that_cannot_begin_ends_all() {
    let folder = tempfile::tempdir().unwrap();
    let mut ranks = Local::job(2, LIMIT).into_iter().map(|ranks| Job::new(Arc::new(ranks), LIMIT));
    let [first, second] = [(); 2].map(|()| ranks.next().unwrap());
    let broken = |_: &RunConfig| -> Result<Cpu<f32>, glowflow::DeviceError> {
        Err(glowflow::DeviceError::Absent { device: "cuda:7".into(), reason: "there is one GPU".into() })
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(move || follow(&second, broken, &NEVER));
        let config = config(&["train.accumulate=2"]);
        let error = train_as(&first, Cpu::new(), config, folder.path(), options(1, &NEVER)).unwrap_err();
        assert_eq!(error.to_string(), "rank 1: there is no device cuda:7: there is one GPU");
        assert!(matches!(other.join().unwrap(), Err(Error::Device(_))));
    });
}

/// Hosts may have different copies of a folder.
#[test]
fn ranks_with_other_images_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (folder.path().join("images"), folder.path().join("run"));
    std::fs::create_dir(&data).unwrap();
    let shape = ImageShape { height: 16, width: 16, channels: 3 };
    for i in 0..20 {
        save_png(&data.join(format!("{i:02}.png")), shape, &[10 * i; 768]).unwrap();
    }
    let mut ranks = Local::job(2, LIMIT).into_iter().map(|ranks| Job::new(Arc::new(ranks), LIMIT));
    let [first, second] = [(); 2].map(|()| ranks.next().unwrap());
    let path = format!("data.path={}", data.display());
    let config = config(&["train.accumulate=2", &path]);
    // Rank 0 has already read the folder when the others open their devices.
    let other_images = |_: &RunConfig| -> Result<Cpu<f32>, glowflow::DeviceError> {
        std::fs::remove_file(data.join("07.png")).unwrap();
        Ok(Cpu::new())
    };
    let unlike = RanksError::Unlike { what: "data", rank: 1 };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| follow(&second, other_images, &NEVER));
        let error = train_as(&first, Cpu::new(), config, &out, options(1, &NEVER)).unwrap_err();
        assert!(matches!(&error, Error::Ranks(error) if *error == unlike), "{error:?}");
        let error = other.join().unwrap().unwrap_err();
        assert!(matches!(&error, Error::Ranks(error) if *error == unlike), "{error:?}");
    });
    assert!(!out.exists());
}

/// Rank 0 saves its last complete step, although no checkpoint was due.
#[test]
fn a_missing_rank_loses_no_step() {
    let folder = tempfile::tempdir().unwrap();
    let limit = Duration::from_secs(5);
    let mut ranks = Local::job(2, limit).into_iter();
    let [first, second] = [(); 2].map(|()| ranks.next().unwrap());
    let first = Job::new(Arc::new(first), limit);
    let second = Job::new(Arc::new(Leaving { ranks: second, gathers: AtomicUsize::new(20) }), limit);
    std::thread::scope(|scope| {
        let other = scope.spawn(move || follow(&second, device, &NEVER));
        let config = config(&["train.accumulate=2", "train.checkpoint_every=1000", "train.eval_every=1000"]);
        let error = train_as(&first, Cpu::new(), config, folder.path(), options(1000, &NEVER)).unwrap_err();
        let Error::Ranks(RanksError::Missing { ranks, step, .. }) = &error else { panic!("{error:?}") };
        assert_eq!(ranks.iter().map(|absent| absent.rank).collect::<Vec<_>>(), [1]);
        assert!(other.join().unwrap().is_err());
        let (_, state) = checkpoint::load(&checkpoint::find(folder.path()).unwrap()).unwrap();
        assert!(state.progress.step >= 1 && state.progress.step >= *step, "{error}: {:?}", state.progress);
    });
}

/// A rank that fails after a number of messages.
struct Leaving {
    ranks: Local,
    gathers: AtomicUsize,
}

impl Ranks for Leaving {
    fn rank(&self) -> usize {
        self.ranks.rank()
    }
    fn size(&self) -> usize {
        self.ranks.size()
    }
    fn local(&self) -> (usize, usize) {
        self.ranks.local()
    }
    fn at(&self, step: u64) {
        self.ranks.at(step);
    }
    fn set_limit(&self, limit: Duration) {
        self.ranks.set_limit(limit);
    }
    fn start(&self, bucket: glowflow_ranks::Bucket) {
        self.ranks.start(bucket);
    }
    fn finished(&self) -> Result<glowflow_ranks::Bucket, RanksError> {
        self.ranks.finished()
    }
    fn gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>, RanksError> {
        if self.gathers.fetch_sub(1, Ordering::Relaxed) == 0 {
            return Err(RanksError::Engine("this rank leaves".into()));
        }
        self.ranks.gather(mine)
    }
    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<(), RanksError> {
        self.ranks.broadcast(bytes)
    }
    fn finish(&self) -> Result<(), RanksError> {
        self.ranks.finish()
    }
    fn abort(&self, code: u8) {
        self.ranks.abort(code);
    }
}
