//! Glow on a device without specialised operations: every operation runs its reference implementation.

use glowflow::train::{RunConfig, Trainer};
use glowflow::{Backprop, Operations};
use glowflow_data::portraits::Portraits;
use glowflow_data::{TrainingBatches, TrainingOptions};
use glowflow_kernels::{Cpu, Reference};

const BATCH: usize = 4;
const STEPS: usize = 4;

fn config(coupling: &str, scale: &str, permutation: &str, backprop: Backprop) -> RunConfig {
    let keys = [
        "model.image=[16,16,3]".into(),
        "model.levels=2".into(),
        "model.steps=2".into(),
        "model.hidden=8".into(),
        format!("model.coupling={coupling:?}"),
        format!("model.scale={scale:?}"),
        format!("model.permutation={permutation:?}"),
        "model.classes=3".into(),
        format!("train.batch={BATCH}"),
        "train.warmup=2".into(),
    ];
    let mut config = RunConfig::resolve(None, None, &keys).unwrap();
    config.train.backprop = backprop;
    config
}

/// Bits per dimension and gradient norms of the first training steps.
fn train<D: Operations<Real = f32>>(device: D, config: RunConfig) -> Vec<[f64; 2]> {
    let options =
        TrainingOptions { batch_size: BATCH, seed: 0, augment: Default::default(), start_at: 0, threads: 1 };
    let portraits = std::sync::Arc::new(Portraits::new(64, 16, 0));
    let mut batches = TrainingBatches::new(portraits, options).unwrap().map(Result::unwrap);
    let mut trainer = Trainer::new(device, config).unwrap();
    let labels = [0, 2, 1, 2];
    trainer.initialize(&batches.next().unwrap().pixels, &labels).unwrap();
    let mut step = || {
        let report = trainer.step(&batches.next().unwrap().pixels, &labels).unwrap();
        assert!(report.applied, "{report:?}");
        [report.bits_per_dim, report.gradient_norm]
    };
    (0..STEPS).map(|_| step()).collect()
}

#[test]
fn glow_trains_on_reference_operations() {
    for (coupling, scale, permutation, backprop) in [
        ("affine", "sigmoid", "conv1x1", Backprop::Reversible),
        ("affine", "sigmoid", "shuffle", Backprop::Stored),
        ("affine", "exp2tanh", "conv1x1", Backprop::Reversible),
        ("additive", "sigmoid", "conv1x1", Backprop::Stored),
    ] {
        let config = config(coupling, scale, permutation, backprop);
        let want = train(Cpu::<f32>::new(), config.clone());
        let have = train(Reference(Cpu::<f32>::new()), config);
        for (have, want) in have.as_flattened().iter().zip(want.as_flattened()) {
            let error = (have - want).abs() / want.abs();
            assert!(error < 1e-3, "{coupling}, {scale}, {permutation}: {have} for {want}");
        }
    }
}
