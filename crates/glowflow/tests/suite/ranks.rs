//! Training on several ranks, which are threads here: the state has the bits of a single rank, for any number
//! of ranks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use glowflow::train::{RunConfig, TrainState, Trainer};
use glowflow::{Error, Operations};
use glowflow_data::Batch;
use glowflow_kernels::{Cpu, Cuda, Precision};
use glowflow_ranks::{Local, Ranks, RanksError};

use crate::common::ranks::{BATCH, batches, own};

const STEPS: usize = 3;
const LIMIT: Duration = Duration::from_secs(100);

/// A model that trains in milliseconds.
fn config(overrides: &[&str]) -> RunConfig {
    let base =
        ["model.image=[16,16,3]", "model.levels=2", "train.batch=8", "train.warmup=2", "train.ema=0.5"];
    let overrides: Vec<String> = base.iter().chain(overrides).map(|text| text.to_string()).collect();
    RunConfig::resolve(None, None, &overrides).unwrap()
}

/// A rank's labels of a batch, if the model has classes.
fn own_labels(config: &RunConfig, ranks: &dyn Ranks) -> Vec<usize> {
    let (classes, count) = (config.model.classes(), BATCH / ranks.size());
    (0..if classes > 0 { count } else { 0 }).map(|i| (ranks.rank() * count + i) % classes).collect()
}

/// Bits/dim and gradient norms of all steps, and the final state.
type Trained = (Vec<[u64; 2]>, TrainState);

/// Trains as one rank from a state, or from a new model.
fn train<D: Operations<Real = f32>>(
    device: D,
    config: &RunConfig,
    state: Option<&TrainState>,
    ranks: Arc<dyn Ranks>,
    batches: &[Batch],
) -> Trained {
    let trainer = match state {
        Some(state) => Trainer::resume(device, config.clone(), state.clone()),
        None => Trainer::new(device, config.clone()).unwrap(),
    };
    let mut trainer = trainer.with_ranks(Arc::clone(&ranks)).unwrap();
    let mut reports = vec![];
    for batch in batches {
        let (pixels, labels) = (own(&*ranks, batch), own_labels(config, &*ranks));
        if trainer.progress().step == 0 {
            trainer.initialize(pixels, &labels).unwrap();
        }
        let report = trainer.step(pixels, &labels).unwrap();
        assert!(report.applied, "{report:?}");
        reports.push([report.bits_per_dim, report.gradient_norm].map(f64::to_bits));
    }
    ranks.finish().unwrap();
    (reports, trainer.state().unwrap())
}

/// Trains on `size` ranks, and checks that their results are equal.
fn train_on(config: &RunConfig, state: Option<&TrainState>, size: usize, batches: &[Batch]) -> Trained {
    let jobs = Local::job(size, LIMIT);
    let mut all: Vec<Trained> = std::thread::scope(|scope| {
        let start = |ranks: Local| {
            scope.spawn(move || train(Cpu::<f32>::new(), config, state, Arc::new(ranks), batches))
        };
        let threads: Vec<_> = jobs.into_iter().map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let first = all.swap_remove(0);
    for other in &all {
        assert_same(other, &first, &format!("{size} ranks"));
    }
    first
}

#[track_caller]
fn assert_same(have: &Trained, want: &Trained, what: &str) {
    assert_eq!(have.0, want.0, "{what}: bits/dim and gradient norms");
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let (have, want) = (&have.1, &want.1);
    for (name, have, want) in [
        ("weights", &have.weights, &want.weights),
        ("first moment", &have.first, &want.first),
        ("second moment", &have.second, &want.second),
        ("average", &have.ema, &want.ema),
        ("running statistics", &have.buffers, &want.buffers),
        ("their average", &have.buffers_ema, &want.buffers_ema),
    ] {
        assert!(bits(have) == bits(want), "{what}: {name}");
    }
    assert_eq!(have.progress, want.progress, "{what}");
}

const GLOW: [&str; 2] = ["model.steps=2", "model.hidden=8"];

/// The bits depend only on the parts of the batch, not on their distribution over ranks.
#[test]
fn any_number_of_ranks_gives_the_same_bits() {
    let batches = batches(STEPS);
    let norm = ["train.backprop=stored", "model.normalization=batchnorm"];
    let noise = ["model.dequantization=\"variational\"", "model.dequantization_hidden=8"];
    let classes = ["model.classes=3", "train.muon=true", "train.weight_decay=0.01"];
    let realnvp = ["model.architecture=realnvp", "model.hidden=8", "model.blocks=1"];
    for (parts, sizes, overrides) in [
        (8, &[2, 4, 8][..], [&GLOW[..], &["train.clip=1"]].concat()),
        (2, &[2][..], [&GLOW[..], &classes[..]].concat()),
        (4, &[2, 4][..], [&GLOW[..], &norm[..]].concat()),
        (4, &[4][..], [&GLOW[..], &noise[..]].concat()),
        (4, &[2, 4][..], realnvp.to_vec()),
    ] {
        let parts = format!("train.accumulate={parts}");
        let config = config(&[&overrides[..], &[&*parts]].concat());
        let alone = train_on(&config, None, 1, &batches);
        for &size in sizes {
            let have = train_on(&config, None, size, &batches);
            assert_same(&have, &alone, &format!("{overrides:?}, {parts}, {size} ranks"));
        }
    }
}

/// All images contribute, for any number of parts.
#[test]
fn initialization_is_that_of_the_whole_batch() {
    let batch = &batches(1)[0];
    let noise = ["model.dequantization=\"variational\"", "model.dequantization_hidden=8"];
    for overrides in [GLOW.to_vec(), [&GLOW[..], &noise[..]].concat()] {
        let weights = |parts: usize| {
            let config = config(&[&overrides[..], &[&*format!("train.accumulate={parts}")]].concat());
            let mut trainer = Trainer::new(Cpu::<f32>::new(), config).unwrap();
            trainer.initialize(&batch.pixels, &[]).unwrap();
            trainer.state().unwrap().weights
        };
        let whole = weights(1);
        for parts in [2, 8] {
            for (have, want) in weights(parts).iter().zip(&whole) {
                let tolerance = 1e-4 * (1.0 + want.abs());
                assert!((have - want).abs() <= tolerance, "{overrides:?}, {parts} parts: {have}, {want}");
            }
        }
    }
}

#[test]
fn a_run_continues_on_another_number_of_ranks() {
    let batches = batches(STEPS);
    let config = config(&[&GLOW[..], &["train.accumulate=4"]].concat());
    let straight = train_on(&config, None, 1, &batches);
    let (_, mut state) = train_on(&config, None, 2, &batches[..1]);
    for (size, at) in [(4, 1), (1, 2)] {
        (_, state) = train_on(&config, Some(&state), size, &batches[at..at + 1]);
    }
    assert_same(&(straight.0.clone(), state), &straight, "2, 4 and 1 ranks");
}

#[test]
fn parts_that_ranks_cannot_share_are_refused() {
    let config = config(&[&GLOW[..], &["train.accumulate=4"]].concat());
    let ranks = Local::job(8, LIMIT).remove(0);
    let trainer = Trainer::new(Cpu::<f32>::new(), config).unwrap();
    let error = trainer.with_ranks(Arc::new(ranks)).err().unwrap();
    assert!(matches!(error, Error::Ranks(RanksError::Parts { .. })), "{error:?}");
    assert!(error.to_string().ends_with("valid numbers of ranks: 1, 2, 4"), "{error}");
}

#[test]
fn ranks_with_different_numbers_of_images_are_refused() {
    let config = config(&[&GLOW[..], &["train.accumulate=2"]].concat());
    let batch = &batches(1)[0];
    let image = batch.pixels.len() / BATCH;
    let step = &|ranks: Local| {
        let count = 2 + ranks.rank();
        let trainer = Trainer::new(Cpu::<f32>::new(), config.clone()).unwrap();
        let mut trainer = trainer.with_ranks(Arc::new(ranks)).unwrap();
        trainer.step(&batch.pixels[..count * image], &[]).unwrap_err()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            Local::job(2, LIMIT).into_iter().map(|ranks| scope.spawn(move || step(ranks))).collect();
        for thread in threads {
            let error = thread.join().unwrap();
            let unlike = RanksError::Unlike { what: "number of images", rank: 1 };
            assert!(matches!(&error, Error::Ranks(error) if *error == unlike), "{error:?}");
        }
    });
}

/// The state remains that of the last step, for saving.
#[test]
fn a_missing_rank_is_named_and_the_last_step_kept() {
    let config = config(&[&GLOW[..], &["train.accumulate=2"]].concat());
    let batches = &batches(STEPS);
    let config = &config;
    std::thread::scope(|scope| {
        let mut jobs = Local::job(2, LIMIT);
        let leaves = jobs.remove(1);
        scope.spawn(move || {
            let ranks: Arc<dyn Ranks> = Arc::new(leaves);
            let mut trainer = Trainer::new(Cpu::<f32>::new(), config.clone())
                .unwrap()
                .with_ranks(Arc::clone(&ranks))
                .unwrap();
            let pixels = own(&*ranks, &batches[0]);
            trainer.initialize(pixels, &[]).unwrap();
            trainer.step(pixels, &[]).unwrap();
        });
        let ranks: Arc<dyn Ranks> = Arc::new(jobs.remove(0));
        let mut trainer =
            Trainer::new(Cpu::<f32>::new(), config.clone()).unwrap().with_ranks(Arc::clone(&ranks)).unwrap();
        let pixels = own(&*ranks, &batches[0]);
        trainer.initialize(pixels, &[]).unwrap();
        trainer.step(pixels, &[]).unwrap();
        let before = trainer.state().unwrap();

        ranks.set_limit(Duration::from_millis(500));
        let begin = Instant::now();
        let error = trainer.step(pixels, &[]).unwrap_err();
        assert!(begin.elapsed() < Duration::from_secs(20));
        let Error::Ranks(RanksError::Missing { ranks: missing, .. }) = &error else { panic!("{error:?}") };
        assert_eq!(missing.iter().map(|absent| absent.rank).collect::<Vec<_>>(), [1]);
        assert_eq!(trainer.state().unwrap(), before);
    });
}

/// A GPU captures its passes, and its sums start after them.
#[test]
fn ranks_with_gpus_agree() {
    let batches = batches(STEPS);
    let config = config(&[&GLOW[..], &["train.accumulate=2"]].concat());
    let open = || cuda_emulator::gpu(|folders| Cuda::with_libraries(0, Precision::F32, folders));
    let run = |size: usize| -> Option<Vec<Trained>> {
        let devices: Vec<Cuda> = (0..size).map(|_| open()).collect::<Option<_>>()?;
        let jobs = devices.into_iter().zip(Local::job(size, LIMIT));
        Some(std::thread::scope(|scope| {
            let (config, batches) = (&config, &batches[..]);
            let start = |(device, ranks): (Cuda, Local)| {
                scope.spawn(move || train(device, config, None, Arc::new(ranks), batches))
            };
            let threads: Vec<_> = jobs.map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        }))
    };
    let Some(alone) = run(1) else { return };
    for have in run(2).unwrap() {
        assert_same(&have, &alone[0], "2 GPUs");
    }
}
