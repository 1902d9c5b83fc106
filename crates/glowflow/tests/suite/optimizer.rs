//! Weight decay and Muon through the public interface: training steps, compared with their formulas.

use crate::common::training::batches;
use glowflow::params::{HiddenMatrix, Layout};
use glowflow::train::{RunConfig, TrainState, Trainer};
use glowflow_kernels::Precision;
use glowflow_kernels::{Cpu, Cuda, Operations};
use nalgebra::DMatrix;

const BATCH: usize = 4;

/// A model that trains in milliseconds, with configuration `overrides`.
fn config(overrides: &[&str]) -> RunConfig {
    let base = [
        "model.image=[16,16,3]",
        "model.levels=2",
        "model.steps=2",
        "model.hidden=9",
        "model.classes=2",
        "train.batch=4",
        "train.warmup=2",
    ];
    let overrides: Vec<String> = base.iter().chain(overrides).map(|text| text.to_string()).collect();
    RunConfig::resolve(None, None, &overrides).unwrap()
}

fn labels(size: usize) -> Vec<usize> {
    (0..size).map(|i| i % 2).collect()
}

fn step<D: Operations>(trainer: &mut Trainer<D>, pixels: &[u8]) -> f64 {
    let size = trainer.config().train.batch;
    let report = trainer.step(pixels, &labels(size)).unwrap();
    assert!(report.applied, "{report:?}");
    report.bits_per_dim
}

/// A trainer initialised on its first batch.
fn begin<D: Operations>(device: D, config: RunConfig) -> Trainer<D> {
    let size = config.train.batch;
    let mut trainer = Trainer::new(device, config).unwrap();
    trainer.initialize(&batches(size).next().unwrap(), &labels(size)).unwrap();
    trainer
}

/// The initial state, and the states after each of `steps` steps.
fn states(config: &RunConfig, steps: usize) -> (Layout, Vec<TrainState>) {
    states_on(Cpu::<f32>::new(), config, steps)
}

fn states_on<D: Operations>(device: D, config: &RunConfig, steps: usize) -> (Layout, Vec<TrainState>) {
    let mut trainer = begin(device, config.clone());
    let mut states = vec![trainer.state().unwrap()];
    for pixels in batches(BATCH).take(steps) {
        step(&mut trainer, &pixels);
        states.push(trainer.state().unwrap());
    }
    (trainer.layout().clone(), states)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn weights_of_convolutions_decay_and_nothing_else_does() {
    let config = |decay: &str| config(&["train.lr=0.01", decay]);
    // After a step, no weight is 0.
    let (layout, states) = states(&config("train.weight_decay=0"), 1);
    let before = &states[1];
    let pixels = batches(BATCH).nth(1).unwrap();
    let [plain, decayed] = ["train.weight_decay=0", "train.weight_decay=2"].map(|decay| {
        let mut trainer = Trainer::resume(Cpu::<f32>::new(), config(decay), before.clone());
        step(&mut trainer, &pixels);
        trainer.state().unwrap()
    });
    let mut changed = vec![];
    for parameter in &layout.parameters {
        let range = parameter.span.range();
        let [before, plain, decayed] = [before, &plain, &decayed].map(|state| &state.weights[range.clone()]);
        if bits(plain) == bits(decayed) {
            continue;
        }
        changed.push(parameter.name.as_str());
        for ((&before, &plain), &decayed) in before.iter().zip(plain).zip(decayed) {
            let want = f64::from(plain) - 0.01 * 2.0 * f64::from(before);
            assert!((f64::from(decayed) - want).abs() < 1e-7, "{}: {decayed} for {want}", parameter.name);
        }
    }
    assert_eq!((&plain.first, &plain.second), (&decayed.first, &decayed.second));
    let convolutions = layout.parameters.iter().map(|parameter| parameter.name.as_str());
    assert_eq!(changed, convolutions.filter(|name| name.ends_with(".weight")).collect::<Vec<_>>());
    assert_eq!(changed.len(), 3 * 4 + 1, "three of every coupling, and that of the split: {changed:?}");
}

#[test]
fn without_decay_and_muon_the_steps_are_the_same() {
    let (_, plain) = states(&config(&[]), 3);
    let (_, zero) = states(&config(&["train.weight_decay=0", "train.muon=false", "train.muon_lr=0.5"]), 3);
    assert_eq!(plain, zero);
}

/// Newton–Schulz iterations; matrices with more rows than columns are transposed.
fn orthogonal(x: DMatrix<f64>) -> DMatrix<f64> {
    if x.nrows() > x.ncols() {
        return orthogonal(x.transpose()).transpose();
    }
    let mut x = &x / (x.norm() + 1e-7);
    for _ in 0..5 {
        let a = &x * x.transpose();
        let b = -4.7750 * &a + 2.0315 * &a * &a;
        x = 3.4445 * &x + b * &x;
    }
    x
}

/// Values of a matrix in a flat buffer.
fn matrix(at: &HiddenMatrix, values: &[f32]) -> DMatrix<f64> {
    let values: Vec<f64> = values[at.span.range()].iter().map(|&x| x.into()).collect();
    DMatrix::from_row_slice(at.rows, at.columns, &values)
}

/// Five steps by the formula, with decay, warm-up and the average. The gradient is derived from the increase
/// of the momentum.
fn check_formula<D: Operations>(device: D, overrides: &[&str]) -> Layout {
    let keys = ["train.muon=true", "train.muon_lr=0.03", "train.weight_decay=1.5", "train.warmup=4"];
    let config = config(&[&keys[..], overrides].concat());
    let (layout, states) = states_on(device, &config, 5);
    for (n, pair) in states.windows(2).enumerate() {
        let [before, after] = pair else { unreachable!() };
        let rate = 0.03 * [0.25, 0.5, 0.75, 1.0, 1.0][n];
        let decay = (n as f64 + 1.0) / (n as f64 + 11.0);
        for at in &layout.hidden {
            let of = |values: &[f32]| matrix(at, values);
            let momentum = of(&after.first);
            // New zero convolutions propagate no gradient.
            assert_eq!(momentum.norm() > 0.0, n > 0);
            let gained = &momentum - 0.95 * of(&before.first);
            let scale = (at.rows as f64 / at.columns as f64).max(1.0).sqrt();
            let direction = rate * scale * orthogonal(0.95 * &momentum + gained);
            let weight = (1.0 - 1.5 * rate) * of(&before.weights) - &direction;
            let error = (of(&after.weights) - &weight).norm();
            assert!(error < 1e-3 * rate, "{overrides:?}, step {n}, {at:?}: {error:e}");
            let average = decay * of(&before.ema) + (1.0 - decay) * of(&after.weights);
            assert!((of(&after.ema) - average).norm() < 1e-6);
            assert_eq!(of(&after.second).norm(), 0.0, "no second moment");
        }
    }
    layout
}

#[test]
fn muon_matches_its_formula() {
    for clip in ["train.clip=0", "train.clip=1e-3"] {
        let hidden = check_formula(Cpu::<f32>::new(), &["model.hidden=64", clip]).hidden;
        let shapes: Vec<_> = hidden.iter().map(|at| (at.rows, at.columns)).collect();
        // conv1 and conv2 of the first and the second level.
        assert_eq!(
            shapes,
            [[(64, 63), (64, 64)]; 2]
                .into_iter()
                .chain([[(64, 117), (64, 64)]; 2])
                .flatten()
                .collect::<Vec<_>>()
        );
    }
}

/// Matrices of one shape are multiplied together. The second step is captured, and replayed in later ones
/// with other rates.
#[test]
fn muon_matches_its_formula_on_a_gpu() {
    let gpu = cuda_emulator::gpu(|folders| Cuda::with_libraries(0, Precision::F32, folders));
    let Some(gpu) = gpu else { return };
    check_formula(gpu, &["model.levels=1", "model.hidden=5", "train.clip=1"]);
}

/// All other parameters, among them those of the dequantiser, match those of Adamax, and the norm is that of the
/// whole gradient.
#[test]
fn muon_leaves_all_other_parameters_to_the_optimiser() {
    let dequantizer = [
        "model.dequantization=variational",
        "model.dequantization_hidden=8",
        "model.dequantization_channels=4",
    ];
    let with = |keys: &[&str]| config(&[&dequantizer[..], keys].concat());
    let clip = with(&["train.clip=0.01"]);
    let (layout, states) = states(&clip, 1);
    let pixels = batches(BATCH).nth(1).unwrap();
    let [(norm, plain), (muon_norm, muon)] =
        [clip, with(&["train.clip=0.01", "train.muon=true"])].map(|config| {
            let mut trainer = Trainer::resume(Cpu::<f32>::new(), config, states[1].clone());
            let report = trainer.step(&pixels, &labels(BATCH)).unwrap();
            (report.gradient_norm, trainer.state().unwrap())
        });
    assert_eq!(norm, muon_norm);
    for parameter in &layout.parameters {
        let of = |values: &[f32]| bits(&values[parameter.span.range()]);
        let hidden = parameter.name.starts_with("levels.")
            && [".conv1.weight", ".conv2.weight"].iter().any(|end| parameter.name.ends_with(end));
        for (plain, muon) in
            [(&plain.weights, &muon.weights), (&plain.ema, &muon.ema), (&plain.first, &muon.first)]
        {
            assert_eq!(of(plain) != of(muon), hidden, "{}", parameter.name);
        }
    }
}

#[test]
fn a_step_that_is_not_finite_changes_nothing() {
    let config = config(&["train.muon=true", "train.weight_decay=0.1"]);
    let mut trainer = begin(Cpu::<f32>::new(), config.clone());
    step(&mut trainer, &batches(BATCH).next().unwrap());
    let good = trainer.state().unwrap();
    let mut bad = good.clone();
    let logs =
        trainer.layout().parameters.iter().find(|p| p.name == "levels.0.steps.1.actnorm.logs").unwrap();
    bad.weights[logs.span.start] = 200.0;
    let mut spoiled = Trainer::resume(Cpu::<f32>::new(), config.clone(), bad.clone());
    let pixels = batches(BATCH).nth(1).unwrap();
    assert!(!spoiled.step(&pixels, &labels(BATCH)).unwrap().applied);
    let state = spoiled.state().unwrap();
    for (have, want) in [
        (&state.weights, &bad.weights),
        (&state.first, &bad.first),
        (&state.second, &bad.second),
        (&state.ema, &bad.ema),
    ] {
        assert_eq!(bits(have), bits(want));
    }
}

#[test]
fn a_resumed_state_goes_on_bit_for_bit() {
    for overrides in [
        &["train.muon=true", "train.accumulate=2", "train.clip=1", "train.weight_decay=0.1"][..],
        &["train.muon=true", "train.optimizer=adam", "train.steps=6", "train.schedule=linear"],
        &["train.weight_decay=0.1"],
        &[
            "train.muon=true",
            "train.weight_decay=0.1",
            "model.dequantization=variational",
            "model.dequantization_hidden=6",
        ],
    ] {
        let config = config(overrides);
        let mut straight = begin(Cpu::<f32>::new(), config.clone());
        let mut stopped = begin(Cpu::<f32>::new(), config.clone());
        for (i, pixels) in batches(BATCH).take(6).enumerate() {
            if i == 3 {
                stopped = Trainer::resume(Cpu::<f32>::new(), config.clone(), stopped.state().unwrap());
            }
            step(&mut straight, &pixels);
            step(&mut stopped, &pixels);
        }
        assert_eq!(straight.state().unwrap(), stopped.state().unwrap(), "{overrides:?}");
    }
}

#[test]
fn muon_trains() {
    for overrides in
        [&["train.batch=8"][..], &["train.batch=8", "model.scale=exp2tanh", "train.weight_decay=0.05"]]
    {
        let base = ["train.muon=true", "train.lr=3e-3", "train.muon_lr=0.01"];
        let mut trainer = begin(Cpu::<f32>::new(), config(&[overrides, &base].concat()));
        let losses: Vec<f64> = batches(8).take(60).map(|pixels| step(&mut trainer, &pixels)).collect();
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        let (before, after) = (mean(&losses[..5]), mean(&losses[55..]));
        assert!(after < before - 0.3, "{overrides:?}: from {before:.3} to {after:.3} bits/dim");
    }
}

#[test]
fn keys_are_written_only_if_they_are_not_the_defaults() {
    let text = config(&[]).to_toml().unwrap();
    assert!(!text.contains("muon") && !text.contains("weight_decay"), "{text}");
    let text =
        config(&["train.muon=true", "train.muon_lr=0.01", "train.weight_decay=0.1"]).to_toml().unwrap();
    for line in ["muon = true", "muon_lr = 0.01", "weight_decay = 0.1"] {
        assert!(text.contains(line), "{line:?} is not in {text}");
    }
}

#[test]
fn keys_that_do_not_fit_are_refused() {
    let realnvp = ["model.architecture=realnvp", "model.image=[16,16,3]", "model.levels=1", "model.blocks=1"];
    for (keys, words) in [
        (&["train.muon_lr=0"][..], &["train.muon_lr is 0", "above 0"][..]),
        (&["train.muon_lr=2"], &["train.muon_lr is 2", "at most 1"]),
        (&["train.weight_decay=-1"], &["train.weight_decay is -1", "0 for off"]),
        (&["train.weight_decay=100", "train.lr=0.01"], &["train.weight_decay is 100", "below 1"]),
        (&["train.weight_decay=50", "train.muon=true"], &["train.weight_decay is 50", "below 1"]),
        (&["train.schedule=linear"], &["linear", "train.steps"]),
        (&[&realnvp[..], &["train.muon=true"]].concat(), &["train.muon is true", "no hidden matrices"]),
        (
            &[&realnvp[..], &["train.muon=true", "model.dequantization=variational"]].concat(),
            &["train.muon is true", "no hidden matrices"],
        ),
        (&[&realnvp[..], &["train.weight_decay=0.1"]].concat(), &["train.weight_decay is 0.1", "no weights"]),
    ] {
        let overrides: Vec<String> = keys.iter().map(|text| text.to_string()).collect();
        let message = RunConfig::resolve(None, None, &overrides).unwrap_err().to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{keys:?}: {message}");
    }
}
