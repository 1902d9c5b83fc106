//! Tutorial: a new layer and architecture, checked, trained and sampled, without changes to the library.
//!
//! ```text
//! cargo run --release -p glowflow-examples --example custom_flow
//! ```
//!
//! Read it from top to bottom. It assumes that you know flows, and explains this code:
//!
//! 1. a layer: its tensors, forward, inverse and backward pass,
//! 2. an architecture: the layer in a Glow,
//! 3. a check of the layer against numerical derivatives,
//! 4. training, evaluation, a model file, and samples as an image file.
//!
//! The layer compresses tails. Differences of neighbouring pixels, as computed by squeezes and 1×1
//! convolutions, have far more large values than a Gaussian. An inverse hyperbolic sine with a learned width
//! per channel compresses them:
//!
//! ```text
//! y = asinh(a·x)/a     a = exp(log_a)     log|det| = −Σ log cosh(a·y)
//! ```
//!
//! Near 0 it is the identity, far from 0 a logarithm. Its inverse is `x = sinh(a·y)/a`.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use glowflow::flow::views::{Dims, PER_IMAGE, of_span, per_channel, read, write};
use glowflow::flow::{
    ActNormPermutation, BackwardPass, Base, Context, Coupling, FactorOut, FactorRest, FlowBuilder, Layer,
    Prepared, Save, Saved, Shape, Shapes, Squeeze, State,
};
use glowflow::models::check;
use glowflow::params::{Init, ParamBuilder};
use glowflow::testing::LayerCase;
use glowflow::train::{DataConfig, RunConfig, TrainConfig, Trainer};
use glowflow::{
    Architecture, Backprop, Cpu, Draws, Error, Model, ModelFile, Operations, PermutationType, Primitives,
};
use glowflow_data::portraits::Portraits;
use glowflow_data::{Augment, TrainingBatches, TrainingOptions};
use glowflow_kernels::expr::{Expr, constant, input, old};
use glowflow_kernels::{AffineScale, CouplingKind, Direction, Span};
use glowflow_report::picture;
use ndarray::Array4;
use serde::{Deserialize, Serialize};

const USAGE: &str = "usage: custom_flow [OUT.png [STEPS]]

  OUT.png   samples of the trained model, default custom_flow.png; the model is written next to it
  STEPS     optimiser steps, default 600";

// -----------------------------------------------------------------------------------------------------------
// 1. The layer
// -----------------------------------------------------------------------------------------------------------

/// Compression of tails. A layer holds no parameter values, only their positions in one flat buffer.
#[derive(Clone, Copy, Debug)]
struct Tails {
    log_a: Span,
}

impl Tails {
    /// Declares `log_a`, initialised to 0, with its name in model files. Layout, initialisation, model files
    /// and checkpoints follow from the declaration.
    fn new(p: &mut ParamBuilder<'_>, channels: usize) -> Self {
        Self { log_a: p.parameter("log_a", &[channels], Init::Zeros) }
    }
}

/// The description of a layer, for every device that implements the general operations ([`Primitives`]).
impl<D: Primitives> Layer<D> for Tails {
    /// Shapes after the layer: here unchanged, with nothing factored out. A squeeze or a split returns
    /// others.
    fn shapes(&self, input: Shape) -> Shapes {
        Shapes::same(input)
    }

    /// Preprocessing of the parameters, done once for many batches, such as inverting a matrix or packing
    /// weights. This layer has none, so the description itself can run.
    fn prepare(&self, _: &Context<'_, D>, _: Direction) -> Box<dyn Prepared<D>> {
        Box::new(*self)
    }

    /// Data-dependent initialisation from the parts of the first batch, as for actnorms: `a = 1/√mean(x²)`
    /// for each channel, so that compression begins at one standard deviation. By default, parameters keep
    /// their declared initial values.
    fn initialize(&self, device: &D, params: &mut D::Buffer, parts: &[State<D>]) {
        let all = parts.iter().map(|part| Dims::of(part.x.grid, part.x.channels));
        let share = constant(1.0 / all.map(|dims| dims.rows()).sum::<usize>() as f64);
        let at = per_channel(self.log_a.start);
        // A sum over batch and pixels: the output has one value per channel, and `reduce` sums over the other
        // axes.
        for (index, part) in parts.iter().enumerate() {
            let dims = Dims::of(part.x.grid, part.x.channels);
            let x = read(&part.x.data, dims.each());
            let square = share.clone() * input(0) * input(0);
            device.reduce(&square, dims.shape(), &[x], write(params, at), index > 0);
        }
        let channels = parts[0].x.channels;
        // `old()` is the previous value of the output element.
        let log_a = constant(-0.5) * (old() + constant(1e-6)).ln();
        device.map(&log_a, [1, 1, channels], &[], write(params, at));
    }
}

/// `log cosh(u)`, without overflow. Expressions are small programs that a device evaluates for each element.
fn log_cosh(u: Expr) -> Expr {
    let magnitude = u.abs();
    magnitude.clone() + (constant(-2.0) * magnitude).softplus() - constant(2_f64.ln())
}

/// The prepared layer. The context `cx` provides the device, the parameters, and the mode: a layer with batch
/// statistics, such as `BatchNorm`, uses those of the batch in `Mode::Train` and running ones in
/// `Mode::Eval`. This layer is the same in both.
impl<D: Primitives> Prepared<D> for Tails {
    /// Replaces `x` with `y`, and adds the log-determinant to each image's log-likelihood.
    fn forward(&self, cx: &Context<'_, D>, state: &mut State<D>, _: Save) -> Saved {
        let State { x, logp, .. } = state;
        let dims = Dims::of(x.grid, x.channels);
        let log_a = of_span(cx.params, self.log_a); // one value per channel, broadcast to all pixels
        // asinh(z) = ±log(|z| + √(z² + 1)), with the sign of z: for negative z, z + √(z² + 1) would cancel.
        let z = || old() * input(0).exp();
        let sign = constant(2.0) * z().step() - constant(1.0);
        let asinh = sign * (z().abs() + (z() * z() + constant(1.0)).sqrt()).ln();
        cx.device.map(&(asinh / input(0).exp()), dims.shape(), &[log_a], write(&mut x.data, dims.each()));
        // A sum over pixels and channels, added to the log-likelihood from the previous layers.
        let y = read(&x.data, dims.each());
        let log_det = -log_cosh(input(1).exp() * input(0));
        cx.device.reduce(&log_det, dims.shape(), &[y, log_a], write(logp, PER_IMAGE), true);
        // The output suffices for the backward pass. Other layers save what they need here.
        Saved::NOTHING
    }

    /// Replaces `y` with `x`. Log-likelihoods do not change.
    fn inverse(&self, cx: &Context<'_, D>, state: &mut State<D>) {
        let dims = Dims::of(state.x.grid, state.x.channels);
        let u = || input(0).exp() * old();
        let sinh = constant(0.5) * (u().exp() - (-u()).exp());
        let log_a = of_span(cx.params, self.log_a);
        let f = sinh / input(0).exp();
        cx.device.map(&f, dims.shape(), &[log_a], write(&mut state.x.data, dims.each()));
    }

    /// The backward pass, computed from the output: there is no tape. `dx` is replaced, from the gradient of
    /// the loss with respect to `y` to that with respect to `x`; `state.x` is replaced, from `y` to `x`; the
    /// layer adds its parameter gradient. `dlogp` is the derivative of the loss with respect to a
    /// log-likelihood. With `u = a·y`:
    ///
    /// ```text
    /// dlog_a += Σ dy·(tanh(u)/a − y) − dlogp·tanh(u)²          dx = (dy − dlogp·a·tanh(u))/cosh(u)
    /// ```
    fn backward(&self, pass: &mut BackwardPass<'_, D>, _: Saved) {
        let BackwardPass { cx, state, dx, dlogp, gradient, .. } = pass;
        let (device, dims) = (cx.device, Dims::of(state.x.grid, state.x.channels));
        let log_a = of_span(cx.params, self.log_a);
        let y = read(&state.x.data, dims.each());
        // Inputs of both expressions: y and log_a; the first one also has dy.
        let a = || input(1).exp();
        let tanh = || (a() * input(0)).tanh();
        let by_log_a = input(2) * (tanh() / a() - input(0)) - constant(*dlogp) * tanh() * tanh();
        let dy = read(&*dx, dims.each());
        let to = write(&mut **gradient, per_channel(self.log_a.start));
        device.reduce(&by_log_a, dims.shape(), &[y, log_a, dy], to, true);
        let by_x = (old() - constant(*dlogp) * a() * tanh()) * (-log_cosh(a() * input(0))).exp();
        device.map(&by_x, dims.shape(), &[y, log_a], write(dx, dims.each()));
        self.inverse(cx, state);
    }
}

// -----------------------------------------------------------------------------------------------------------
// 2. The architecture
// -----------------------------------------------------------------------------------------------------------

/// A Glow whose steps begin with [`Tails`]. It is serialised to the JSON object in model files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TailGlow {
    image: [usize; 3],
    bits: u32,
    levels: usize,
    steps: usize,
    hidden: usize,
}

impl Architecture for TailGlow {
    fn image(&self) -> [usize; 3] {
        self.image
    }

    fn bits(&self) -> u32 {
        self.bits
    }

    /// Validates the configuration. Error messages name the key, the value and a remedy; common checks are in
    /// `models::check`.
    fn validate(&self) -> Result<(), Error> {
        check::image(self.image, self.bits)?;
        check::at_least_one("levels", self.levels, 12)?;
        check::at_least_one("steps", self.steps, 1 << 10)?;
        check::at_least_one("hidden", self.hidden, 1 << 10)?;
        check::divisible(self.image, self.levels, "2^levels", |levels| levels)
    }

    /// Builds the list of layers, generic in the device. The builder tracks the input shape of the next
    /// layer.
    fn build<D: Operations>(&self, flow: &mut FlowBuilder<'_, D>) {
        for level in 0..self.levels {
            flow.push(format!("levels.{level}.squeeze"), Squeeze);
            for step in 0..self.steps {
                let name = format!("levels.{level}.steps.{step}");
                flow.push_with(format!("{name}.tails"), |p, shape| Tails::new(p, shape.channels));
                flow.push_with(format!("{name}.map"), |p, shape| {
                    ActNormPermutation::new(p, shape.channels, PermutationType::Conv1x1)
                });
                flow.push_with(format!("{name}.coupling"), |p, shape| {
                    Coupling::new(p, shape.channels, self.hidden, CouplingKind::Affine(AffineScale::Sigmoid))
                });
            }
            // Half of the channels are latents of this level; in the last level, all remaining ones.
            let name = format!("levels.{level}.latents");
            if level + 1 < self.levels {
                flow.push(name, FactorOut(Base::Normal));
            } else {
                flow.push(name, FactorRest(Base::Normal));
            }
        }
    }

    fn set_channels(&mut self, channels: usize) {
        self.image[2] = channels;
    }
}

// -----------------------------------------------------------------------------------------------------------
// 3. The check
// -----------------------------------------------------------------------------------------------------------

/// Checks the layer in f64, on random inputs and parameters: the inverse, the log-determinant against that of
/// a numerical Jacobian, and all gradients against central differences. Panics with the name of the case and
/// the values.
fn check_layer() {
    // Batch, height, width and channels of the input.
    for shape in [[2, 3, 5, 4], [3, 1, 2, 6]] {
        LayerCase::new("tails", shape, |flow| {
            flow.push_with("tails", |p, shape| Tails::new(p, shape.channels));
        })
        .check();
    }
    println!("the layer inverts; its log-determinant and its gradients are right");
}

// -----------------------------------------------------------------------------------------------------------
// 4. The model
// -----------------------------------------------------------------------------------------------------------

const SIDE: usize = 16;

/// Trains on portraits that `glowflow-data` draws, so that nothing has to be downloaded.
fn train(steps: usize) -> anyhow::Result<ModelFile<TailGlow>> {
    let model = TailGlow { image: [SIDE, SIDE, 3], bits: 5, levels: 2, steps: 4, hidden: 64 };
    // Activations are stored: this is faster, but memory grows with depth. The layer's code is the same in
    // both modes.
    let train = TrainConfig {
        batch: 32,
        lr: 4e-3,
        warmup: 20,
        ema: 0.99,
        backprop: Backprop::Stored,
        ..TrainConfig::default()
    };
    let config = RunConfig { model, train, data: DataConfig::default() };

    let options = TrainingOptions {
        batch_size: config.train.batch,
        seed: config.train.seed,
        augment: Augment::default(),
        start_at: 0,
        threads: 1,
    };
    let batches = TrainingBatches::new(Arc::new(Portraits::new(20_000, SIDE, 0)), options)?;
    // Any device that implements the general operations can be used.
    let mut trainer = Trainer::new(Cpu::<f32>::new(), config)?;
    for (step, batch) in batches.take(steps).enumerate() {
        let pixels = batch?.pixels;
        if step == 0 {
            trainer.initialize(&pixels, &[])?;
        }
        let report = trainer.step(&pixels, &[])?;
        if step % 50 == 0 || step + 1 == steps {
            println!("step {step:4}: {:.3} bits/dim", report.bits_per_dim);
        }
    }
    // The model has the moving average of the weights.
    Ok(trainer.model()?)
}

/// Portraits that are not in the training set.
fn test_images(count: usize) -> anyhow::Result<Array4<u8>> {
    use glowflow_data::Dataset;

    let portraits = Portraits::new(count, SIDE, 1);
    let mut pixels = vec![0; count * portraits.shape().len()];
    for (i, image) in pixels.chunks_mut(portraits.shape().len()).enumerate() {
        portraits.read(i, image)?;
    }
    Ok(Array4::from_shape_vec((count, SIDE, SIDE, 3), pixels)?)
}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (out, steps) = match &args[..] {
        [] => ("custom_flow.png", 600),
        [out] => (out.as_str(), 600),
        [out, steps] => (out.as_str(), steps.parse().context(USAGE)?),
        _ => bail!(USAGE),
    };
    check_layer();
    let file = train(steps)?;

    // A model file, as for any other architecture. The program `glowflow` reads the architectures listed in
    // `models/mod.rs`; adding one takes a line there.
    let path = Path::new(out).with_extension("safetensors");
    file.write(&path)?;
    let file = ModelFile::<TailGlow>::read_as(&path)?;

    let model = Model::on(Cpu::<f32>::new(), &file);
    let images = test_images(64)?;
    let bits = model.bits_per_dim(images.view(), &[], Draws::default())?;
    println!("test: {:.3} bits/dim", bits.iter().sum::<f64>() / bits.len() as f64);

    let back = model.round_trip(images.view(), &[])?;
    let exact = back.exact.iter().filter(|&&exact| exact).count();
    println!("{exact} of {} test images come back from their latents with every pixel", back.exact.len());

    let samples = model.sample(32, 0.7, &[], 0)?;
    picture::save(Path::new(out), &picture::grid(&samples.into_bytes(), model.config().image(), 8))?;
    println!("{out}: 32 samples at temperature 0.7");
    Ok(())
}
