//! Checks of a layer against its definition, for the layers of this crate and of others: the layer inverts,
//! its log-likelihood is a log-determinant, and its gradients are derivatives.
//!
//! All computations are in `f64`, in which central differences are accurate to about eight digits.
//!
//! ```
//! use glowflow::flow::Squeeze;
//! use glowflow::testing::LayerCase;
//!
//! // Batch, height, width and channels of the input.
//! LayerCase::new("squeeze", [2, 4, 2, 3], |flow| flow.push("squeeze", Squeeze)).check();
//! ```

use std::f64::consts::TAU;

use glowflow_kernels::{Cpu, Device, Direction, Grid, RngStream};
use nalgebra::DMatrix;

use crate::flow::{
    BackwardPass, Base, Context, FlowBuilder, LatentShape, Mode, NamedLayer, Save, Shape, State, Tensor,
};
use crate::params::{Layout, Source};

type F64 = Cpu<f64>;

/// Standard deviation of the parameters: large enough for every term of a formula to matter, small enough to
/// avoid saturation.
const DEVIATION: f64 = 0.15;
/// Derivative of the loss with respect to a log-likelihood, in the gradient check.
const DLOGP: f64 = -0.7;
/// Step of the central differences.
const STEP: f64 = 1e-5;
/// Rounding error of a central difference.
const ROUNDING: f64 = 1e-9;

/// Channels of the condition in every case: see [`ConditionalCoupling`](crate::flow::ConditionalCoupling).
pub const CONDITION_CHANNELS: usize = 3;

/// Layers with random parameters, and a random input.
pub struct LayerCase {
    name: String,
    device: F64,
    layers: Vec<NamedLayer<F64>>,
    layout: Layout,
    latents: Vec<LatentShape>,
    grid: Grid,
    channels: usize,
    classes: usize,
    /// The parameters.
    pub params: Vec<f64>,
    /// The buffers.
    pub buffers: Vec<f64>,
    /// The input, `[batch, height, width, channels]`.
    pub x: Vec<f64>,
    /// The condition, `[batch, height, width, CONDITION_CHANNELS]`.
    pub condition: Vec<f64>,
    logp: Vec<f64>,
    numbers: Numbers,
}

/// A sequence of normally distributed numbers.
struct Numbers {
    stream: RngStream,
    drawn: u64,
}

impl Numbers {
    fn normal(&mut self, len: usize, deviation: f64) -> Vec<f64> {
        let from = self.drawn;
        self.drawn += len as u64;
        (from..self.drawn).map(|i| deviation * self.stream.normal(i)[0]).collect()
    }
}

impl LayerCase {
    /// Creates a case of the layers that `make` appends to a flow, for an input of this shape: batch, height,
    /// width, channels.
    pub fn new(name: &str, shape: [usize; 4], make: impl FnOnce(&mut FlowBuilder<'_, F64>)) -> Self {
        Self::seeded(name, shape, 1, 0, make)
    }

    /// Like [`new`](Self::new), with a seed for parameters and input, and a number of classes. The samples
    /// have the labels 1, 2, …, so a small batch leaves some classes without an example.
    pub fn seeded(
        name: &str,
        shape: [usize; 4],
        seed: u64,
        classes: usize,
        make: impl FnOnce(&mut FlowBuilder<'_, F64>),
    ) -> Self {
        let [batch, height, width, channels] = shape;
        let mut builder = FlowBuilder::new(Shape { height, width, channels }, Source::Seed(seed));
        make(&mut builder);
        let (params, layers, latents) = builder.into_parts();
        let layout = params.into_layout();
        let mut numbers = Numbers { stream: RngStream { seed, id: 0 }, drawn: 0 };
        // All elements are drawn, including unread ones. A positive number is a valid variance.
        let params = numbers.normal(layout.len(), DEVIATION);
        let buffers = numbers.normal(layout.buffers_len(), 0.5).into_iter().map(|x| 0.3 + x.abs()).collect();
        let grid = Grid { batch, height, width };
        let (x, logp) = (numbers.normal(grid.rows() * channels, 1.0), numbers.normal(batch, 1.0));
        // A separate stream, so that the other numbers are unaffected.
        let mut others = Numbers { stream: RngStream { seed, id: 1 }, drawn: 0 };
        let condition = others.normal(grid.rows() * CONDITION_CHANNELS, 1.0);
        let device = F64::new();
        // Scratch buffers hold NaN, to detect a layer that reads one before writing it.
        let scratch: Vec<_> = (0..1024).flat_map(|len| [device.scratch(len), device.scratch(len)]).collect();
        scratch.into_iter().for_each(|mut buffer| buffer.fill(f64::NAN));
        let name = format!("{name} {shape:?}");
        Self {
            name,
            device,
            layers,
            layout,
            latents,
            grid,
            channels,
            classes,
            params,
            buffers,
            x,
            condition,
            logp,
            numbers,
        }
    }

    /// Names and spans of the tensors.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Runs all checks.
    ///
    /// # Panics
    /// If a check fails; the message names the case.
    pub fn check(mut self) {
        self.check_inverse();
        self.check_log_det();
        self.check_gradients();
    }

    fn state(&self, x: &[f64], condition: &[f64], mode: Mode) -> State<F64> {
        let label = |b: usize| (self.classes > 0).then(|| ((b + 1) % self.classes) as f64);
        let labels: Vec<f64> = (0..self.grid.batch).filter_map(label).collect();
        let statistics = if mode == Mode::Train { self.layout.buffers_len() } else { 0 };
        State {
            x: Tensor { grid: self.grid, channels: self.channels, data: self.device.upload(x) },
            latents: vec![],
            logp: self.device.upload(&self.logp),
            labels: self.device.upload(&labels),
            condition: Some(Tensor {
                grid: self.grid,
                channels: CONDITION_CHANNELS,
                data: self.device.upload(condition),
            }),
            statistics: self.device.scratch(statistics),
        }
    }

    /// Output of the layers for an input and parameters.
    pub fn forward(&self, x: &[f64], params: &[f64], mode: Mode) -> State<F64> {
        self.forward_given(x, &self.condition, params, mode)
    }

    fn forward_given(&self, x: &[f64], condition: &[f64], params: &[f64], mode: Mode) -> State<F64> {
        let (params, buffers) = (self.device.upload(params), self.device.upload(&self.buffers));
        let cx = Context { device: &self.device, params: &params, buffers: &buffers, mode };
        let mut state = self.state(x, condition, mode);
        for (_, layer) in &self.layers {
            layer.prepare(&cx, Direction::Forward).forward(&cx, &mut state, Save::Minimum);
        }
        state
    }

    /// Parameters after data-dependent initialisation of the first layer.
    pub fn initialized(&self) -> Vec<f64> {
        let mut params = self.device.upload(&self.params);
        if let Some((_, layer)) = self.layers.first() {
            layer.initialize(&self.device, &mut params, &[self.state(&self.x, &self.condition, Mode::Train)]);
        }
        params.to_vec()
    }

    /// `x` and the latents, sample by sample.
    fn outputs(&self, state: &State<F64>) -> Vec<f64> {
        let tensors = || std::iter::once(&state.x).chain(&state.latents);
        let part = |b, t: &Tensor<F64>| {
            let len = t.grid.pixels() * t.channels;
            t.data[b * len..(b + 1) * len].to_vec()
        };
        (0..self.grid.batch).flat_map(|b| tensors().flat_map(move |t| part(b, t))).collect()
    }

    /// Asserts that an inverse or backward pass has reconstructed the input.
    fn assert_input(&self, state: &State<F64>) {
        assert!(state.latents.is_empty(), "{}: latents left", self.name);
        assert_eq!((state.x.grid, state.x.channels), (self.grid, self.channels), "{}", self.name);
        assert_close(&format!("{}: input", self.name), &state.x.data, &self.x);
    }

    /// Checks that the inverse undoes the forward pass without changing log-likelihoods, and that shapes are
    /// as declared.
    ///
    /// # Panics
    /// If the check fails.
    pub fn check_inverse(&self) {
        let (params, buffers) = (self.device.upload(&self.params), self.device.upload(&self.buffers));
        let cx = Context { device: &self.device, params: &params, buffers: &buffers, mode: Mode::Eval };
        let mut state = self.forward(&self.x, &self.params, Mode::Eval);
        let of = |t: &Tensor<F64>| Shape { height: t.grid.height, width: t.grid.width, channels: t.channels };
        let latents: Vec<Shape> = state.latents.iter().map(of).collect();
        let announced: Vec<Shape> = self.latents.iter().map(|latents| latents.shape).collect();
        assert_eq!(latents, announced, "{}: shapes of the latents", self.name);
        let logp = state.logp.to_vec();
        for (_, layer) in self.layers.iter().rev() {
            layer.prepare(&cx, Direction::Inverse).inverse(&cx, &mut state);
        }
        self.assert_input(&state);
        assert_eq!(state.logp.to_vec(), logp, "{}: log-likelihoods are left alone", self.name);
    }

    /// Checks that the increase of `logp`, minus the log-density of the latents, is `log|det|` of the
    /// Jacobian of `x ↦ (x', eps)`.
    ///
    /// # Panics
    /// If the check fails.
    pub fn check_log_det(&self) {
        let (batch, d) = (self.grid.batch, self.x.len() / self.grid.batch);
        let forward = |x: &[f64]| self.forward(x, &self.params, Mode::Eval);
        let columns = derivatives(&self.x, |x| self.outputs(&forward(x)));
        for (i, column) in columns.iter().enumerate() {
            assert_eq!(column.len(), self.x.len(), "{}: dimensions", self.name);
            let mixes = column.iter().enumerate().any(|(j, &dy)| j / d != i / d && dy != 0.0);
            assert!(!mixes, "{}: element {i} reaches another sample", self.name);
        }
        let state = forward(&self.x);
        for b in 0..batch {
            let jacobian = DMatrix::from_fn(d, d, |i, j| columns[b * d + j][b * d + i]);
            let log_det: f64 = jacobian.lu().u().diagonal().iter().map(|u| u.abs().ln()).sum();
            let mut log_prior = 0.0;
            for (eps, LatentShape { base, .. }) in state.latents.iter().zip(&self.latents) {
                let len = eps.data.len() / batch;
                log_prior +=
                    eps.data[b * len..(b + 1) * len].iter().map(|&x| base.log_density(x)).sum::<f64>();
            }
            let gained = state.logp[b] - self.logp[b] - log_prior;
            assert!((gained - log_det).abs() < 1e-6, "{}: {gained}, not {log_det}", self.name);
        }
    }

    /// Checks that the gradients of `<r, x'> + DLOGP·Σ logp` with respect to input, condition and parameters
    /// are derivatives, in both modes, with saved and with recomputed activations, and that the input is
    /// reconstructed. A failure in a few elements of one shape may be a ReLU with its kink within the step of
    /// the differences; try another seed.
    ///
    /// # Panics
    /// If the check fails.
    pub fn check_gradients(&mut self) {
        for mode in [Mode::Eval, Mode::Train] {
            if mode == Mode::Eval || self.layout.buffers_len() > 0 {
                self.check_gradients_in(mode);
            }
        }
    }

    fn check_gradients_in(&mut self, mode: Mode) {
        let end = self.forward(&self.x, &self.params, mode);
        let r = self.numbers.normal(end.x.data.len(), 1.0);
        let before = self.numbers.normal(self.params.len(), 1.0);
        let loss = |x: &[f64], condition: &[f64], params: &[f64]| {
            let state = self.forward_given(x, condition, params, mode);
            let inner: f64 = state.x.data.iter().zip(&r).map(|(x, r)| x * r).sum();
            vec![inner + DLOGP * state.logp.iter().sum::<f64>()]
        };
        let (x, condition, params) = (&self.x, &self.condition, &self.params);
        let by_x = derivatives(x, |x| loss(x, condition, params)).concat();
        let by_condition = derivatives(condition, |condition| loss(x, condition, params)).concat();
        let by_params = derivatives(params, |params| loss(x, condition, params)).concat();

        // The input gradient, and the increments of the gradients of condition and parameters.
        let backward = |save: Save| {
            let (params, buffers) = (self.device.upload(&self.params), self.device.upload(&self.buffers));
            let cx = Context { device: &self.device, params: &params, buffers: &buffers, mode };
            let (mut state, mut saved) = (self.state(&self.x, &self.condition, mode), vec![]);
            for (_, layer) in &self.layers {
                saved.push(layer.prepare(&cx, Direction::Forward).forward(&cx, &mut state, save));
            }
            assert_close(&format!("{}: saving", self.name), &self.outputs(&state), &self.outputs(&end));
            assert_close(&format!("{}: saving, logp", self.name), &state.logp, &end.logp);
            assert_close(&format!("{}: statistics", self.name), &state.statistics, &end.statistics);
            let (dx, mut after) = (self.device.upload(&r), self.device.upload(&before));
            // Layers add to this buffer, so it starts at a non-zero value.
            let dcondition = self.device.upload(&self.condition);
            let mut pass = BackwardPass { cx, state, dx, dcondition, dlogp: DLOGP, gradient: &mut after };
            for ((_, layer), saved) in self.layers.iter().zip(saved).rev() {
                layer.prepare(&cx, Direction::Backward).backward(&mut pass, saved);
            }
            self.assert_input(&pass.state);
            let added = |after: &[f64], before: &[f64]| -> Vec<f64> {
                after.iter().zip(before).map(|(after, before)| after - before).collect()
            };
            let (dx, dcondition) = (pass.dx.to_vec(), added(&pass.dcondition, &self.condition));
            (dx, dcondition, added(&after, &before))
        };
        let [stored, recomputed] = [Save::Activations, Save::Minimum].map(backward);
        let name = format!("{}, {mode:?}", self.name);
        assert_close(&format!("{name}: dx, stored or recomputed"), &stored.0, &recomputed.0);
        assert_close(&format!("{name}: dcondition, stored or recomputed"), &stored.1, &recomputed.1);
        assert_close(&format!("{name}: gradient, stored or recomputed"), &stored.2, &recomputed.2);
        for (dx, dcondition, gradient) in [stored, recomputed] {
            assert_derivative(&format!("{name}: dx"), &dx, &by_x);
            assert_derivative(&format!("{name}: dcondition"), &dcondition, &by_condition);
            for parameter in &self.layout.parameters {
                let range = parameter.span.range();
                let what = format!("{name}: {}", parameter.name);
                assert_derivative(&what, &gradient[range.clone()], &by_params[range]);
            }
            // Differences of 0 belong to unread parameters, or are below the rounding error.
            for (i, (have, want)) in gradient.iter().zip(&by_params).enumerate() {
                let unread = *want == 0.0 && have.abs() > ROUNDING;
                assert!(!unread, "{name}: parameter {i} is not read, but has the gradient {have}");
            }
        }
    }
}

impl Base {
    /// Log-density of one number.
    pub fn log_density(self, x: f64) -> f64 {
        match self {
            Self::Normal => -0.5 * (TAU.ln() + x * x),
            Self::Logistic => -x.abs() - 2.0 * (-x.abs()).exp().ln_1p(),
        }
    }
}

/// Asserts elementwise equality up to rounding, relative to the larger of 1 and the expected value.
fn assert_close(what: &str, have: &[f64], want: &[f64]) {
    assert_eq!(have.len(), want.len(), "{what}");
    for (i, (h, w)) in have.iter().zip(want).enumerate() {
        assert!((h - w).abs() <= 1e-10 * w.abs().max(1.0), "{what}: element {i} is {h}, not {w}");
    }
}

/// Asserts `‖have − want‖ ≤ 1e-6·‖want‖` up to the rounding error of central differences, 1e-9 per element.
/// NaN always fails.
fn assert_derivative(what: &str, have: &[f64], want: &[f64]) {
    assert_eq!(have.len(), want.len(), "{what}");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut have.iter().zip(want).map(|(h, w)| h - w));
    let allowed = 1e-6 * norm(&mut want.iter().copied()) + ROUNDING * (want.len() as f64).sqrt();
    assert!(difference <= allowed, "{what}: {have:?}, not {want:?}");
}

/// Derivatives of all outputs of `f` with respect to each element of its input, as central differences.
fn derivatives(at: &[f64], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<Vec<f64>> {
    let shifted = |i: usize, by: f64| {
        let mut at = at.to_vec();
        at[i] += by;
        f(&at)
    };
    let by = |i| {
        let (after, before) = (shifted(i, STEP), shifted(i, -STEP));
        after.iter().zip(&before).map(|(after, before)| (after - before) / (2.0 * STEP)).collect()
    };
    (0..at.len()).map(by).collect()
}
