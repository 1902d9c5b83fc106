//! Training on several GPUs that NCCL connects; both are emulated, and ranks are threads. The state has the
//! bits of a GPU alone.

#[path = "../../glowflow-kernels/tests/common/nccl.rs"]
mod emulated;
#[path = "suite/common/ranks.rs"]
mod ranks;

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use emulated::{child, open};
use glowflow::Error;
use glowflow::train::{RunConfig, TrainState, Trainer};
use glowflow_kernels::Cuda;
use glowflow_ranks::{Bucket, Local, Ranks, RanksError};
use ranks::{batches, own};

/// The first pass is executed, the second one captured, and the capture replayed.
const STEPS: usize = 4;
const LIMIT: Duration = Duration::from_secs(100);
/// The notice of ranks that NCCL connects.
const DEVICES: &str = "sums over ranks stay on the devices: NCCL 2.30.7";

/// A model that trains in milliseconds.
fn config(overrides: &[&str]) -> RunConfig {
    let base = [
        "model.image=[16,16,3]",
        "model.levels=2",
        "model.steps=2",
        "model.hidden=8",
        "train.batch=8",
        "train.warmup=2",
        "train.ema=0.5",
        "train.accumulate=4",
    ];
    let overrides: Vec<String> = base.iter().chain(overrides).map(|text| text.to_string()).collect();
    RunConfig::resolve(None, None, &overrides).unwrap()
}

/// The way ranks sum.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Hosts,
    Nccl,
}

/// Ranks that seem to be on several hosts, with `each` on every host.
struct OnHosts {
    ranks: Local,
    each: usize,
}

impl Ranks for OnHosts {
    fn local(&self) -> (usize, usize) {
        (self.ranks.rank() % self.each, self.each)
    }
    fn rank(&self) -> usize {
        self.ranks.rank()
    }
    fn size(&self) -> usize {
        self.ranks.size()
    }
    fn at(&self, step: u64) {
        self.ranks.at(step);
    }
    fn set_limit(&self, limit: Duration) {
        self.ranks.set_limit(limit);
    }
    fn start(&self, bucket: Bucket) {
        self.ranks.start(bucket);
    }
    fn finished(&self) -> Result<Bucket, RanksError> {
        self.ranks.finished()
    }
    fn gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>, RanksError> {
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

fn trainer(
    device: Cuda,
    config: &RunConfig,
    ranks: &Arc<dyn Ranks>,
    way: Way,
    limit: Duration,
) -> Trainer<Cuda> {
    let trainer = Trainer::new(device, config.clone()).unwrap();
    // In several slices.
    let mut trainer = trainer.with_ranks(Arc::clone(ranks)).unwrap().with_slices_of(500);
    if way == Way::Nccl {
        trainer.connect_devices(limit).unwrap();
    }
    trainer
}

/// The bits/dim and gradient norms of all steps, how ranks sum, and the state at the end.
type Trained = (Vec<[u64; 2]>, Option<String>, TrainState);

/// Trains on `size` ranks, with a GPU each, of which `each` are on one host.
fn train(config: &RunConfig, (size, each): (usize, usize), way: Way) -> Option<Vec<Trained>> {
    let devices: Vec<Cuda> = (0..size).map(open).collect::<Option<_>>()?;
    let batches = &batches(STEPS);
    let jobs = devices.into_iter().zip(Local::job(size, LIMIT));
    Some(std::thread::scope(|scope| {
        let start = |(device, ranks): (Cuda, Local)| {
            scope.spawn(move || {
                let ranks: Arc<dyn Ranks> = Arc::new(OnHosts { ranks, each });
                let mut trainer = trainer(device, config, &ranks, way, LIMIT);
                let mut reports = vec![];
                for batch in batches {
                    let pixels = own(&*ranks, batch);
                    if trainer.progress().step == 0 {
                        trainer.initialize(pixels, &[]).unwrap();
                    }
                    let report = trainer.step(pixels, &[]).unwrap();
                    assert!(report.applied, "{report:?}");
                    reports.push([report.bits_per_dim, report.gradient_norm].map(f64::to_bits));
                }
                ranks.finish().unwrap();
                (reports, trainer.sums().map(str::to_owned), trainer.state().unwrap())
            })
        };
        let threads: Vec<_> = jobs.map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }))
}

#[track_caller]
fn assert_same(have: &Trained, want: &Trained, what: &str) {
    assert_eq!(have.0, want.0, "{what}: bits/dim and gradient norms");
    let bits = |state: &TrainState| -> Vec<u32> {
        let TrainState { weights, first, second, ema, .. } = state;
        [weights, first, second, ema].into_iter().flatten().map(|x| x.to_bits()).collect()
    };
    assert!(bits(&have.2) == bits(&want.2), "{what}: state");
}

#[test]
#[ignore = "a child of other tests"]
fn ranks_with_nccl() {
    let noise = ["model.dequantization=\"variational\"", "model.dequantization_hidden=8"];
    for overrides in [&["train.backprop=stored"][..], &noise[..]] {
        let config = config(overrides);
        let Some(alone) = train(&config, (1, 1), Way::Hosts) else { return };
        // Two parts and one part for each rank: sums after the passes, and within them.
        for (size, each, way, groups) in [
            (2, 2, Way::Hosts, None),
            (2, 2, Way::Nccl, Some("2 ranks")),
            (4, 4, Way::Nccl, Some("4 ranks")),
            (4, 2, Way::Nccl, Some("2 × 2 ranks")),
        ] {
            for have in train(&config, (size, each), way).unwrap() {
                assert_same(&have, &alone[0], &format!("{overrides:?}, {size} GPUs, {way:?}, {groups:?}"));
                let want = groups.map(|groups| format!("{DEVICES}, {groups}"));
                assert_eq!(have.1, want);
            }
        }
    }
}

#[test]
fn gpus_that_nccl_connects_give_the_bits_of_one() {
    child("ranks_with_nccl", &[]);
}

/// Streams do nothing before someone waits for them, which shows missing waits.
#[test]
fn gpus_that_nccl_connects_wait_for_what_they_need() {
    child("ranks_with_nccl", &[("CUDA_EMULATOR_LAZY", "1")]);
}

#[test]
#[ignore = "a child of another test"]
fn ranks_without_nccl() {
    let config = config(&[]);
    let Some(alone) = train(&config, (1, 1), Way::Hosts) else { return };
    for have in train(&config, (2, 2), Way::Nccl).unwrap() {
        assert_same(&have, &alone[0], "2 GPUs");
        let sentence = have.1.unwrap();
        assert!(sentence.starts_with("sums over ranks pass through the memory of hosts"), "{sentence}");
        assert!(sentence.contains("rank 0") && sentence.contains("NCCL 2.13.4 is too old"), "{sentence}");
    }
}

#[test]
fn without_nccl_sums_pass_through_hosts() {
    child("ranks_without_nccl", &[("NCCL_EMULATOR_VERSION", "21304")]);
}

/// A rank stops making steps: ahead of the step that would be captured, or of one that replays the capture.
/// The state of the other stays that of the last step, to be saved.
#[test]
#[ignore = "a child of another test"]
fn a_rank_leaves() {
    let limit = Duration::from_secs(2);
    let config = &config(&["train.accumulate=2"]);
    let batches = &batches(STEPS);
    for steps in [1, 3] {
        let (Some(device), Some(other)) = (open(0), open(1)) else { return };
        let mut jobs = Local::job(2, LIMIT);
        let (leaves, stays) = (jobs.remove(1), jobs.remove(0));
        let first_steps = move |device: Cuda, ranks: &Arc<dyn Ranks>| {
            let mut trainer = trainer(device, config, ranks, Way::Nccl, limit);
            trainer.initialize(own(&**ranks, &batches[0]), &[]).unwrap();
            for batch in &batches[..steps] {
                trainer.step(own(&**ranks, batch), &[]).unwrap();
            }
            trainer
        };
        std::thread::scope(|scope| {
            let (end, ended) = mpsc::channel::<()>();
            scope.spawn(move || {
                // Its memory and connection stay, as those of a process that hangs.
                let _trainer = first_steps(other, &(Arc::new(leaves) as Arc<dyn Ranks>));
                let _ = ended.recv();
            });
            let ranks: Arc<dyn Ranks> = Arc::new(stays);
            let mut trainer = first_steps(device, &ranks);
            let before = trainer.state().unwrap();
            ranks.set_limit(Duration::from_millis(500));
            let begin = Instant::now();
            let error = trainer.step(own(&*ranks, &batches[steps]), &[]).unwrap_err();
            assert!(begin.elapsed() < Duration::from_secs(20));
            let Error::Ranks(RanksError::Missing { ranks: missing, .. }) = &error else {
                panic!("{error:?}")
            };
            assert_eq!(missing.iter().map(|absent| absent.rank).collect::<Vec<_>>(), [1]);
            assert_eq!(trainer.state().unwrap(), before);
            drop(end);
        });
    }
}

/// One of two ranks hangs in the middle of a sum.
#[test]
#[ignore = "a child of another test"]
fn a_rank_hangs_in_a_sum() {
    let limit = Duration::from_secs(2);
    let config = &config(&["train.accumulate=2"]);
    let Some(devices) = (0..2).map(open).collect::<Option<Vec<Cuda>>>() else { return };
    let batches = &batches(STEPS);
    std::thread::scope(|scope| {
        let jobs = devices.into_iter().zip(Local::job(2, LIMIT));
        let start = |(device, ranks): (Cuda, Local)| {
            scope.spawn(move || {
                let ranks: Arc<dyn Ranks> = Arc::new(ranks);
                let mut trainer = trainer(device, config, &ranks, Way::Nccl, limit);
                trainer.initialize(own(&*ranks, &batches[0]), &[]).unwrap();
                let before = trainer.state().unwrap();
                let error = trainer.step(own(&*ranks, &batches[0]), &[]).unwrap_err();
                assert_eq!(trainer.state().unwrap(), before);
                error.to_string()
            })
        };
        let threads: Vec<_> = jobs.map(start).collect();
        for thread in threads {
            // Both ranks answer: it is not a rank that is missing.
            let error = thread.join().unwrap();
            assert!(error.contains("a sum over GPUs was not complete after 1.5 s"), "{error}");
        }
    });
}

#[test]
fn a_missing_rank_ends_a_sum_and_the_last_step_is_kept() {
    child("a_rank_leaves", &[]);
    child("a_rank_hangs_in_a_sum", &[("NCCL_EMULATOR_SILENT", "1:2")]);
}
