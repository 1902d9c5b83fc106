//! Weight decay from outside: steps of training against their formulas.

use std::sync::Arc;

use glowflow::params::Layout;
use glowflow::train::{RunConfig, TrainState, Trainer};
use glowflow_data::portraits::Portraits;
use glowflow_data::{TrainingBatches, TrainingOptions};
use glowflow_kernels::{Cpu, Operations};

const BATCH: usize = 4;

/// A model that trains in milliseconds, with `overrides` over its configuration.
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

fn batches(size: usize) -> impl Iterator<Item = Vec<u8>> {
    let options =
        TrainingOptions { batch_size: size, seed: 0, augment: Default::default(), start_at: 0, threads: 1 };
    let batches = TrainingBatches::new(Arc::new(Portraits::new(64, 16, 0)), options).unwrap();
    batches.map(|batch| batch.unwrap().pixels)
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

/// A trainer that has seen its first batch.
fn begin<D: Operations>(device: D, config: RunConfig) -> Trainer<D> {
    let size = config.train.batch;
    let mut trainer = Trainer::new(device, config).unwrap();
    trainer.initialize(&batches(size).next().unwrap(), &labels(size)).unwrap();
    trainer
}

/// The states at the beginning and after each of `steps` steps.
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
