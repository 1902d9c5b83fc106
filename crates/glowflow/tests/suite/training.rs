//! Training through the public interface: the effect of a step on the weights, compared with formulas and
//! with equivalent computations.

use glowflow::model::largest;
use glowflow::train::{Optimizer, RunConfig, Schedule, TrainState, Trainer};
use glowflow::{Backprop, Error};
use glowflow_data::portraits::Portraits;
use glowflow_data::{Batch, TrainingBatches, TrainingOptions};
use glowflow_kernels::{Cpu, Device, Primitives, Rule, Training, Update};

const SIDE: usize = 16;

/// A model that trains in milliseconds, with configuration `overrides`.
fn config(overrides: &[&str]) -> RunConfig {
    let base = [
        "model.image=[16,16,3]",
        "model.levels=2",
        "model.steps=2",
        "model.hidden=8",
        "train.batch=4",
        "train.warmup=10",
    ];
    let overrides: Vec<String> = base.iter().chain(overrides).map(|text| text.to_string()).collect();
    RunConfig::resolve(None, None, &overrides).unwrap()
}

/// Batches of portraits as in a run.
fn batches(size: usize) -> impl Iterator<Item = Batch> {
    let options =
        TrainingOptions { batch_size: size, seed: 0, augment: Default::default(), start_at: 0, threads: 1 };
    let portraits = std::sync::Arc::new(Portraits::new(64, SIDE, 0));
    TrainingBatches::new(portraits, options).unwrap().map(Result::unwrap)
}

fn pixels(size: usize) -> Vec<u8> {
    batches(size).next().unwrap().pixels
}

/// A trainer initialised on its first batch.
fn begin(config: RunConfig) -> Trainer<Cpu<f32>> {
    let mut trainer = Trainer::new(Cpu::new(), config.clone()).unwrap();
    trainer.initialize(&pixels(config.train.batch), &[]).unwrap();
    trainer
}

fn resume(config: &RunConfig, state: &TrainState) -> Trainer<Cpu<f32>> {
    Trainer::resume(Cpu::new(), config.clone(), state.clone())
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// `state` with an actnorm that scales the image beyond the range of numbers.
fn spoiled(trainer: &Trainer<Cpu<f32>>) -> TrainState {
    let mut state = trainer.state().unwrap();
    let parameters = &trainer.layout().parameters;
    let logs = parameters.iter().find(|p| p.name == "levels.0.steps.1.actnorm.logs").unwrap();
    state.weights[logs.span.start] = 200.0;
    state
}

#[test]
fn a_step_that_overflows_changes_nothing() {
    let config = config(&[]);
    let mut good = begin(config.clone());
    good.step(&pixels(4), &[]).unwrap();
    let bad_state = spoiled(&good);
    for backprop in [Backprop::Reversible, Backprop::Stored] {
        let mut config = config.clone();
        config.train.backprop = backprop;
        let mut trainer = resume(&config, &bad_state);
        for skipped in 1..=9 {
            let report = trainer.step(&pixels(4), &[]).unwrap();
            assert!(!report.applied, "{report:?}");
            assert!(!(report.bits_per_dim.is_finite() && report.gradient_norm.is_finite()), "{report:?}");
            let state = trainer.state().unwrap();
            for (have, want) in [
                (&state.weights, &bad_state.weights),
                (&state.first, &bad_state.first),
                (&state.second, &bad_state.second),
                (&state.ema, &bad_state.ema),
            ] {
                assert_eq!(bits(have), bits(want));
            }
            let (progress, before) = (&state.progress, &bad_state.progress);
            assert_eq!((progress.skipped, progress.skipped_in_a_row), (skipped, skipped as u32));
            assert_eq!((progress.step, progress.updates), (before.step + skipped, before.updates));
            // Means of the record must remain finite as well.
            assert_eq!(progress.window_sum, before.window_sum);
        }
        let error = trainer.step(&pixels(4), &[]).unwrap_err();
        assert!(matches!(error, Error::Diverged(_)), "{error:?}");
        let message = error.to_string();
        for part in ["10 steps in a row", "levels.0.steps.1.actnorm", "(from ", " to ", "train.lr"] {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
    }
}

#[test]
fn a_single_bad_step_is_skipped_once() {
    let config = config(&[]);
    let mut trainer = begin(config.clone());
    trainer.step(&pixels(4), &[]).unwrap();
    let good = trainer.state().unwrap();
    let mut bad = resume(&config, &spoiled(&trainer));
    assert!(!bad.step(&pixels(4), &[]).unwrap().applied);

    // The weights are restored, since the next noise may have worked with them; everything else remains as
    // after the bad step.
    let state = TrainState { weights: good.weights.clone(), ..bad.state().unwrap() };
    let mut trainer = resume(&config, &state);
    assert!(trainer.step(&pixels(4), &[]).unwrap().applied);
    let progress = trainer.progress();
    assert_eq!((progress.skipped, progress.skipped_in_a_row), (1, 0));
    assert_eq!((progress.step, progress.updates), (3, 2));
    // No gradient of the bad step is left in the next one.
    let mut other = resume(&config, &TrainState { progress: state.progress.clone(), ..good });
    other.step(&pixels(4), &[]).unwrap();
    assert_eq!(bits(&trainer.state().unwrap().weights), bits(&other.state().unwrap().weights));
}

/// The gradient of one step from `state` on these images, with the noise of step `step`: with `beta1` = 0,
/// the first moment is the gradient.
fn gradient(config: &RunConfig, state: &TrainState, step: u64, pixels: &[u8]) -> Vec<f64> {
    let mut state = state.clone();
    state.progress.step = step;
    let mut trainer = resume(config, &state);
    assert!(trainer.step(pixels, &[]).unwrap().applied);
    trainer.state().unwrap().first.iter().map(|&g| f64::from(g)).collect()
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn difference(a: &[f64], b: &[f64]) -> f64 {
    norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>())
}

/// An image's noise depends on the step and on its position in the batch, so gradients agree to rounding for
/// any number of parts, whether parts have equal sizes or not.
#[test]
fn gradients_of_parts_add_up() {
    let base = ["train.beta1=0", "train.beta2=0", "train.batch=12"];
    let state = begin(config(&base)).state().unwrap();
    let pixels = pixels(12);
    let together = gradient(&config(&base), &state, 3, &pixels);
    for parts in ["2", "3", "4", "12"] {
        let parts = format!("train.accumulate={parts}");
        let whole = config(&[&base[..], &[&*parts]].concat());
        for images in [12, 11] {
            let pixels = &pixels[..pixels.len() / 12 * images];
            let together =
                if images == 12 { together.clone() } else { gradient(&config(&base), &state, 3, pixels) };
            let accumulated = gradient(&whole, &state, 3, pixels);
            let error = difference(&accumulated, &together) / norm(&together);
            assert!(error < 1e-5, "{parts}, {images} images: gradients differ by {error:.1e} of their norm");
        }
    }
}

#[test]
fn saved_and_recomputed_activations_agree_to_rounding() {
    let ends = [Backprop::Reversible, Backprop::Stored].map(|backprop| {
        let mut config = config(&[]);
        config.train.backprop = backprop;
        let mut trainer = begin(config);
        for batch in batches(4).take(5) {
            assert!(trainer.step(&batch.pixels, &[]).unwrap().applied);
        }
        trainer.state().unwrap().weights
    });
    let differences = ends[0].iter().zip(&ends[1]).map(|(a, b)| f64::from((a - b).abs()));
    let most = largest(differences);
    // A step moves a weight by up to 5e-4 here.
    assert!(most < 1e-5, "weights differ by {most:.1e} after 5 steps");
}

#[test]
fn a_resumed_state_goes_on_bit_for_bit() {
    for overrides in [&["train.accumulate=2", "train.clip=1"][..], &["train.optimizer=adam"]] {
        let config = config(overrides);
        let mut straight = begin(config.clone());
        let mut stopped = begin(config.clone());
        for (i, batch) in batches(4).take(6).enumerate() {
            if i == 3 {
                stopped = resume(&config, &stopped.state().unwrap());
            }
            straight.step(&batch.pixels, &[]).unwrap();
            stopped.step(&batch.pixels, &[]).unwrap();
        }
        let (straight, stopped) = (straight.state().unwrap(), stopped.state().unwrap());
        assert_eq!(bits(&straight.weights), bits(&stopped.weights));
        assert_eq!(straight, stopped);
    }
}

#[test]
fn the_loss_falls() {
    for overrides in [&["train.batch=8"][..], &["train.batch=8", "train.accumulate=4"], &["train.batch=1"]] {
        let config = config(&[overrides, &["train.lr=3e-3"]].concat());
        let batch = config.train.batch;
        let mut trainer = begin(config);
        let losses: Vec<f64> = batches(batch)
            .take(40)
            .map(|batch| trainer.step(&batch.pixels, &[]).unwrap())
            .inspect(|report| assert!(report.applied))
            .map(|report| report.bits_per_dim)
            .collect();
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        let (before, after) = (mean(&losses[..5]), mean(&losses[35..]));
        assert!(after < before - 0.2, "{overrides:?}: from {before:.3} to {after:.3} bits/dim");
        let progress = trainer.progress();
        assert_eq!((progress.step, progress.updates, progress.skipped), (40, 40, 0));
    }
}

#[test]
fn the_average_follows_the_weights() {
    let annealed = ["train.ema=0.4", "train.schedule=cosine", "train.steps=12", "train.warmup=0"];
    for config in [config(&["train.ema=0.4"]), config(&annealed)] {
        average_follows(config);
    }
}

fn average_follows(config: RunConfig) {
    let mut trainer = begin(config);
    let state = trainer.state().unwrap();
    assert_eq!(bits(&state.ema), bits(&state.weights), "it begins where the weights do");
    let mut ema: Vec<f64> = state.weights.iter().map(|&w| f64::from(w)).collect();
    for (n, batch) in (1..=12).zip(batches(4)) {
        trainer.step(&batch.pixels, &[]).unwrap();
        let state = trainer.state().unwrap();
        // Early on the decay is smaller: n/(n + 10) until that exceeds 0.4, in the seventh step.
        let decay = f64::min(0.4, f64::from(n) / (f64::from(n) + 10.0));
        ema.iter_mut()
            .zip(&state.weights)
            .for_each(|(ema, &w)| *ema = decay * *ema + (1.0 - decay) * f64::from(w));
        let most = largest(ema.iter().zip(&state.ema).map(|(a, &b)| (a - f64::from(b)).abs()));
        assert!(most < 1e-6, "step {n}: the average is off by {most:.1e}");
        assert_ne!(bits(&state.ema), bits(&state.weights));
        // The weights for evaluation and sampling.
        assert_eq!(bits(&trainer.model().unwrap().weights), bits(&state.ema));
    }
}

#[test]
fn without_decay_the_average_is_the_weights() {
    let mut trainer = begin(config(&["train.ema=0"]));
    trainer.step(&pixels(4), &[]).unwrap();
    let state = trainer.state().unwrap();
    assert_eq!(bits(&state.ema), bits(&state.weights));
}

/// The learning rate of update `count`, counted from 1.
fn learning_rate(config: &RunConfig, count: u64) -> f64 {
    let mut state = Trainer::new(Cpu::<f32>::new(), config.clone()).unwrap().state().unwrap();
    state.progress.updates = count - 1;
    // Skipped steps do not advance the schedule.
    state.progress.step = count + 6;
    resume(config, &state).learning_rate()
}

#[test]
fn learning_rates_follow_their_schedule() {
    let mut config = config(&["train.lr=0.01", "train.warmup=4", "train.steps=24"]);
    for schedule in [Schedule::Constant, Schedule::Cosine, Schedule::Linear] {
        config.train.schedule = schedule;
        for (count, rate) in [(1, 0.0025), (2, 0.005), (3, 0.0075), (4, 0.01)] {
            assert!((learning_rate(&config, count) - rate).abs() < 1e-12);
        }
    }
    // Half a cosine or a line over the 20 updates after the warm-up: at a quarter, the half and the end, and
    // beyond it.
    let cosine = 0.01 * 0.5 * (1.0 + std::f64::consts::FRAC_1_SQRT_2);
    for (schedule, quarter) in [(Schedule::Cosine, cosine), (Schedule::Linear, 0.0075)] {
        config.train.schedule = schedule;
        for (count, rate) in [(9, quarter), (14, 0.005), (24, 0.0), (30, 0.0)] {
            assert!((learning_rate(&config, count) - rate).abs() < 1e-12, "{schedule:?}, update {count}");
        }
    }
    config.train.schedule = Schedule::Constant;
    assert_eq!(learning_rate(&config, 1000), 0.01);
    config.train.warmup = 0;
    assert_eq!(learning_rate(&config, 1), 0.01);
}

/// Weight, gradient, both moments and average of a single parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Numbers {
    weight: f64,
    gradient: f64,
    first: f64,
    second: f64,
    ema: f64,
}

/// One update of several parameters at once, in double precision.
fn update(update: &Update, logp: &[f64], numbers: &[Numbers]) -> (bool, f64, Vec<Numbers>) {
    let device = Cpu::<f64>::new();
    let upload = |part: fn(&Numbers) -> f64| device.upload(&numbers.iter().map(part).collect::<Vec<_>>());
    let mut buffers = [
        upload(|n| n.weight),
        upload(|n| n.gradient),
        upload(|n| n.first),
        upload(|n| n.second),
        upload(|n| n.ema),
    ];
    let [weights, gradient, first, second, ema] = &mut buffers;
    let training = Training { weights, gradient, first, second, ema };
    let report = device.update(update, &[&device.upload(logp)], training).unwrap();
    let [weights, gradient, first, second, ema] = buffers.map(|buffer| device.download(&buffer).unwrap());
    let after = (0..numbers.len()).map(|i| Numbers {
        weight: weights[i],
        gradient: gradient[i],
        first: first[i],
        second: second[i],
        ema: ema[i],
    });
    (report.applied, report.gradient_norm, after.collect())
}

const NUMBERS: [Numbers; 3] = [
    Numbers { weight: 0.5, gradient: 3.0, first: 0.2, second: 0.7, ema: 0.4 },
    Numbers { weight: -1.5, gradient: -4.0, first: 1.0, second: 9.0, ema: -1.0 },
    Numbers { weight: 2.0, gradient: 0.0, first: 0.0, second: 0.0, ema: 2.0 },
];

fn rule(rule: Rule) -> Update {
    Update {
        rule,
        learning_rate: 0.01,
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-3,
        count: 3,
        clip: None,
        ema_decay: 0.75,
    }
}

/// Kingma and Ba's algorithms, line by line.
fn by_the_book(update: &Update, before: Numbers, g: f64) -> Numbers {
    let &Update { learning_rate, beta1, beta2, epsilon, .. } = update;
    let t = update.count as i32;
    let first = beta1 * before.first + (1.0 - beta1) * g;
    let unbiased = first / (1.0 - beta1.powi(t));
    let (second, step) = match update.rule {
        Rule::Adam => {
            let second = beta2 * before.second + (1.0 - beta2) * g.powi(2);
            let root = (second / (1.0 - beta2.powi(t))).sqrt();
            (second, learning_rate * unbiased / (root + epsilon))
        }
        Rule::Adamax => {
            let norm = f64::max(beta2 * before.second, g.abs() + epsilon);
            (norm, learning_rate * unbiased / norm)
        }
    };
    let weight = before.weight - step;
    let ema = update.ema_decay * before.ema + (1.0 - update.ema_decay) * weight;
    Numbers { weight, gradient: 0.0, first, second, ema }
}

fn assert_close(have: &[Numbers], want: &[Numbers]) {
    for (have, want) in have.iter().zip(want) {
        for (have, want) in [
            (have.weight, want.weight),
            (have.gradient, want.gradient),
            (have.first, want.first),
            (have.second, want.second),
            (have.ema, want.ema),
        ] {
            assert!((have - want).abs() < 1e-12, "{have} is not {want}");
        }
    }
}

#[test]
fn updates_match_the_published_algorithms() {
    for kind in [Rule::Adam, Rule::Adamax] {
        let plain = rule(kind);
        let (applied, norm, after) = update(&plain, &[-1.0], &NUMBERS);
        assert!(applied);
        assert!((norm - 5.0).abs() < 1e-12);
        assert_close(&after, &NUMBERS.map(|n| by_the_book(&plain, n, n.gradient)));

        // The norm is 5: clipping at 2 scales the gradient to 2/5, clipping at 6 has no effect.
        for (clip, scale) in [(2.0, 0.4), (6.0, 1.0)] {
            let clipped = Update { clip: Some(clip), ..plain };
            let (_, norm, after) = update(&clipped, &[-1.0], &NUMBERS);
            assert!((norm - 5.0).abs() < 1e-12, "the norm before clipping");
            assert_close(&after, &NUMBERS.map(|n| by_the_book(&plain, n, scale * n.gradient)));
        }
    }
}

#[test]
fn an_update_that_is_not_finite_is_none() {
    let cleared = NUMBERS.map(|n| Numbers { gradient: 0.0, ..n });
    for kind in [Rule::Adam, Rule::Adamax] {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let (applied, _, after) = update(&rule(kind), &[-1.0, bad, -2.0], &NUMBERS);
            assert!(!applied);
            assert_eq!(after, cleared);
            let mut numbers = NUMBERS;
            numbers[1].gradient = bad;
            let (applied, norm, after) = update(&rule(kind), &[-1.0], &numbers);
            assert!(!applied && !norm.is_finite());
            assert_eq!(after, cleared);
        }
    }
}

/// The trainer uses the update rule of its configuration.
#[test]
fn the_optimiser_is_the_one_configured() {
    for (optimizer, kind) in [(Optimizer::Adam, Rule::Adam), (Optimizer::Adamax, Rule::Adamax)] {
        let mut config = config(&["train.beta2=0.5", "train.ema=0.5"]);
        config.train.optimizer = optimizer;
        let mut trainer = begin(config.clone());
        let before = trainer.state().unwrap();
        trainer.step(&pixels(4), &[]).unwrap();
        let after = trainer.state().unwrap();
        let rule = Update {
            rule: kind,
            learning_rate: config.train.lr / 10.0,
            beta1: 0.9,
            beta2: 0.5,
            epsilon: config.train.epsilon,
            count: 1,
            clip: None,
            ema_decay: 1.0 / 11.0,
        };
        let logs = trainer.layout().parameters.iter().find(|p| p.name == "prior.logs").unwrap();
        for i in logs.span.range() {
            let [weight, ema] = [before.weights[i], before.ema[i]].map(f64::from);
            let g = f64::from(after.first[i]) / (1.0 - 0.9);
            assert_ne!(g, 0.0);
            let start = Numbers { weight, gradient: g, first: 0.0, second: 0.0, ema };
            let expected = by_the_book(&rule, start, g);
            assert!((f64::from(after.weights[i]) - expected.weight).abs() < 1e-8);
            assert!((f64::from(after.ema[i]) - expected.ema).abs() < 1e-8);
        }
    }
}
