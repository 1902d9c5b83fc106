//! Training with variational dequantisation: on every device, in both modes of backpropagation, and resumed.

use glowflow::train::{RunConfig, Trainer};
use glowflow::{Architecture, Backprop, Dequantization, Model, Operations, Precision};
use glowflow_data::portraits::Portraits;
use glowflow_data::{Batch, TrainingBatches, TrainingOptions};
use glowflow_kernels::{Cpu, Cuda, Reference};
use ndarray::Array4;

/// A model that trains in milliseconds, with configuration `overrides`.
fn config(overrides: &[&str]) -> RunConfig {
    let base = [
        "model.image=[16,16,3]",
        "model.levels=2",
        "model.steps=2",
        "model.hidden=8",
        "model.dequantization=\"variational\"",
        "model.dequantization_hidden=8",
        "train.batch=4",
        "train.warmup=2",
    ];
    let overrides: Vec<String> = base.iter().chain(overrides).map(|text| text.to_string()).collect();
    RunConfig::resolve(None, None, &overrides).unwrap()
}

fn batches(size: usize) -> impl Iterator<Item = Batch> {
    let options =
        TrainingOptions { batch_size: size, seed: 0, augment: Default::default(), start_at: 0, threads: 1 };
    let portraits = std::sync::Arc::new(Portraits::new(64, 16, 0));
    TrainingBatches::new(portraits, options).unwrap().map(Result::unwrap)
}

/// The label of each image.
fn labels(config: &RunConfig) -> Vec<usize> {
    (0..config.model.labels_of(config.train.batch)).map(|i| i % config.model.classes()).collect()
}

/// Bits per dimension and gradient norms of the first steps, and the trainer.
fn train<D: Operations<Real = f32>>(
    device: D,
    config: RunConfig,
    steps: usize,
) -> (Vec<[f64; 2]>, Trainer<D>) {
    let (labels, mut batches) = (labels(&config), batches(config.train.batch));
    let mut trainer = Trainer::new(device, config).unwrap();
    trainer.initialize(&batches.next().unwrap().pixels, &labels).unwrap();
    let reports = batches.take(steps).map(|batch| trainer.step(&batch.pixels, &labels).unwrap());
    let reports = reports.inspect(|report| assert!(report.applied, "{report:?}"));
    (reports.map(|report| [report.bits_per_dim, report.gradient_norm]).collect(), trainer)
}

#[track_caller]
fn assert_close(have: &[[f64; 2]], want: &[[f64; 2]], tolerance: f64) {
    for (have, want) in have.as_flattened().iter().zip(want.as_flattened()) {
        assert!((have - want).abs() < tolerance * want.abs(), "{have}, not {want}");
    }
}

/// The noise equals that of uniform dequantisation, and a new dequantiser leaves it unchanged.
#[test]
fn the_first_step_has_the_loss_of_uniform_dequantization() {
    for couplings in [0, 4] {
        let variational = config(&[&format!("model.dequantization_couplings={couplings}")]);
        let uniform = config(&["model.dequantization=\"uniform\""]);
        let [have, want] = [variational, uniform].map(|config| train(Cpu::<f32>::new(), config, 1).0[0][0]);
        assert!((have - want).abs() < 1e-5, "{have}, not {want}");
    }
}

#[test]
fn stored_and_reversible_agree() {
    for overrides in
        [&["train.accumulate=2", "model.classes=3"][..], &["model.dequantization_couplings=0"], &[]]
    {
        let [reversible, stored] = [Backprop::Reversible, Backprop::Stored].map(|backprop| {
            let mut config = config(overrides);
            config.train.backprop = backprop;
            train(Cpu::<f32>::new(), config, 5).0
        });
        assert_close(&stored, &reversible, 1e-4);
    }
}

#[test]
fn a_resumed_state_goes_on_bit_for_bit() {
    for overrides in [&["train.accumulate=2"][..], &["model.dequantization_couplings=0"]] {
        let config = config(overrides);
        let (_, mut straight) = train(Cpu::<f32>::new(), config.clone(), 3);
        let (_, stopped) = train(Cpu::<f32>::new(), config.clone(), 3);
        let mut resumed = Trainer::resume(Cpu::<f32>::new(), config, stopped.state().unwrap());
        for batch in batches(4).skip(4).take(3) {
            straight.step(&batch.pixels, &[]).unwrap();
            resumed.step(&batch.pixels, &[]).unwrap();
        }
        assert_eq!(straight.state().unwrap(), resumed.state().unwrap());
    }
}

/// Parts of a batch have separate noise, and all parts contribute.
#[test]
fn a_step_in_parts_is_a_step() {
    let [whole, parts] = ["train.accumulate=1", "train.accumulate=4"]
        .map(|accumulate| train(Cpu::<f32>::new(), config(&[accumulate, "train.lr=1e-9"]), 2).0);
    for (have, want) in parts.iter().zip(&whole) {
        assert!((have[0] - want[0]).abs() < 0.2 * want[0].abs(), "{have:?}, not {want:?}");
    }
}

#[test]
fn every_device_agrees() {
    let config = config(&["model.classes=3", "model.bits=5"]);
    let (want, _) = train(Cpu::<f32>::new(), config.clone(), 4);
    assert_close(&train(Reference(Cpu::<f32>::new()), config.clone(), 4).0, &want, 1e-3);
    for (precision, tolerance) in [(Precision::F32, 1e-3), (Precision::Bf16, 5e-2)] {
        if let Some(gpu) = cuda_emulator::gpu(|folders| Cuda::with_libraries(0, precision, folders)) {
            assert_close(&train(gpu, config.clone(), 4).0, &want, tolerance);
        }
    }
    match Cpu::with_precision(Precision::Bf16) {
        Ok(device) => assert_close(&train(device, config, 4).0, &want, 5e-2),
        Err(error) => println!("skipped: {error}"),
    }
}

/// After training, the model's noise has a better bound than uniform noise.
#[test]
fn the_variational_bound_falls_below_the_uniform_one() {
    for couplings in [0, 2] {
        let config = config(&[
            &format!("model.dequantization_couplings={couplings}"),
            "model.bits=3",
            "train.batch=16",
            "train.lr=5e-3",
            "train.ema=0",
        ]);
        let (_, trainer) = train(Cpu::<f32>::new(), config, 80);
        let model = Model::on(Cpu::<f32>::new(), &trainer.model().unwrap());
        let images = batches(16).nth(90).unwrap().pixels;
        let images = Array4::from_shape_vec((16, 16, 16, 3), images).unwrap();
        let bits = |noise: fn(u64) -> Dequantization<'static>| {
            let densities =
                (0..8).flat_map(|seed| model.encode(images.view(), &[], noise(seed)).unwrap().log_density);
            let (sum, count) = densities.fold((0.0, 0), |(sum, count), density| (sum + density, count + 1));
            model.config().bits_per_dim(sum / f64::from(count))
        };
        let uniform = bits(|seed| Dequantization::Uniform { seed });
        let variational = bits(|seed| Dequantization::Variational { seed });
        println!("{couplings} couplings: uniform {uniform:.4}, variational {variational:.4}");
        assert!(variational < uniform - 0.01, "variational {variational}, uniform {uniform}");
    }
}

/// Values that become non-finite in the dequantiser are reported there.
#[test]
fn a_dequantizer_that_diverges_is_named() {
    let config = config(&[]);
    let (_, trainer) = train(Cpu::<f32>::new(), config.clone(), 1);
    let mut state = trainer.state().unwrap();
    let parameters = &trainer.layout().parameters;
    let logs = parameters.iter().find(|p| p.name == "dequantizer.condition.actnorm.logs").unwrap();
    state.weights[logs.span.start] = 200.0;
    let mut trainer = Trainer::resume(Cpu::<f32>::new(), config, state);
    let pixels = batches(4).next().unwrap().pixels;
    let error = (0..10).find_map(|_| trainer.step(&pixels, &[]).err()).unwrap().to_string();
    assert!(error.contains("not finite in 10 steps") && error.contains("dequantizer"), "{error}");
}
