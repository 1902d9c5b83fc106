//! Every layer of a flow against its definition: that it inverts, that its log-likelihood is a
//! log-determinant, and that its gradients are derivatives.
//!
//! All in `f64`, where central differences are good to about eight digits.

use std::f64::consts::TAU;

use CouplingKind::{Additive, Affine};
use glowflow::flow::{
    ActNormPermutation, BackwardPass, Coupling, Layer, Save, Split, Squeeze, State, Tensor, Top,
};
use glowflow_kernels::{
    ActNormParams, ChannelMapParams, CouplingKind, Cpu, Device, Direction, Grid, NetworkParams,
    PermutationParams, Span, Stream, TopPriorParams, ZeroConvParams,
};
use nalgebra::DMatrix;
use proptest::prelude::*;

/// Batch, height, width and channels of what enters the first layer.
type Shape = [usize; 4];
type Layers = Vec<Box<dyn Layer<Cpu<f64>>>>;
/// Layers for so many channels.
type Make = fn(&mut Parameters, usize) -> Layers;

/// The first two have pixels that no padding reaches; the last is all border.
const ANY: &[Shape] = &[[2, 3, 5, 4], [1, 4, 4, 2], [3, 1, 2, 6]];
const EVEN: &[Shape] = &[[2, 4, 2, 3], [1, 2, 6, 1]];
const TWICE_EVEN: &[Shape] = &[[2, 4, 8, 1], [1, 4, 4, 2]];

/// Name, shapes of the input, and how the layer is made. A new layer is one line here.
const CASES: &[(&str, &[Shape], Make)] = &[
    ("squeeze", EVEN, |_, _| vec![Box::new(Squeeze)]),
    ("actnorm, conv1x1", ANY, |p, c| vec![p.channel_map(c, Parameters::lu)]),
    ("actnorm, shuffle", ANY, |p, c| vec![p.channel_map(c, Parameters::shuffle)]),
    ("actnorm, reverse", ANY, |p, c| vec![p.channel_map(c, Parameters::reverse)]),
    ("affine coupling", ANY, |p, c| {
        vec![Box::new(Coupling { kind: Affine, network: p.network(c / 2, 5, c) })]
    }),
    ("additive coupling", ANY, |p, c| {
        vec![Box::new(Coupling { kind: Additive, network: p.network(c / 2, 5, c / 2) })]
    }),
    ("split", ANY, |p, c| vec![Box::new(Split { prior: p.zero_conv(c / 2, c) })]),
    ("top", ANY, |p, c| vec![Box::new(Top { prior: p.top_prior(c, 0) })]),
    ("top with classes", ANY, |p, c| vec![Box::new(Top { prior: p.top_prior(c, 3) })]),
    ("two levels", TWICE_EVEN, |p, c| {
        vec![
            Box::new(Squeeze),
            p.channel_map(4 * c, Parameters::lu),
            Box::new(Coupling { kind: Affine, network: p.network(2 * c, 3, 4 * c) }),
            Box::new(Split { prior: p.zero_conv(2 * c, 4 * c) }),
            Box::new(Squeeze),
            p.channel_map(8 * c, Parameters::shuffle),
            Box::new(Coupling { kind: Additive, network: p.network(4 * c, 3, 4 * c) }),
            Box::new(Top { prior: p.top_prior(8 * c, 3) }),
        ]
    }),
];

/// Hands out parts of a flat buffer and fills them with random numbers, those that no layer reads too.
#[derive(Default)]
struct Parameters {
    seed: u64,
    drawn: u64,
    values: Vec<f64>,
    spans: Vec<Span>,
    /// Elements that the formulas do not read.
    unread: Vec<usize>,
    classes: usize,
}

impl Parameters {
    fn normal(&mut self, len: usize, deviation: f64) -> Vec<f64> {
        let stream = Stream { seed: self.seed, id: 0 };
        let from = self.drawn;
        self.drawn += len as u64;
        (from..self.drawn).map(|i| deviation * stream.normal(i)[0]).collect()
    }

    /// Large enough that no term of a formula is lost, small enough that nothing saturates.
    fn span(&mut self, len: usize) -> Span {
        let span = Span { start: self.values.len(), len };
        let values = self.normal(len, 0.15);
        self.values.extend(values);
        self.spans.push(span);
        span
    }

    fn actnorm(&mut self, channels: usize) -> ActNormParams {
        ActNormParams { bias: self.span(channels), logs: self.span(channels) }
    }

    fn channel_map(
        &mut self,
        channels: usize,
        permutation: impl Fn(&mut Self, usize) -> PermutationParams,
    ) -> Box<dyn Layer<Cpu<f64>>> {
        let (actnorm, permutation) = (self.actnorm(channels), permutation(self, channels));
        Box::new(ActNormPermutation { params: ChannelMapParams { channels, actnorm, permutation } })
    }

    fn reverse(&mut self, channels: usize) -> PermutationParams {
        PermutationParams::Fixed { index: (0..channels).rev().collect() }
    }

    /// A cycle: unlike a reversal it is not its own inverse.
    fn shuffle(&mut self, channels: usize) -> PermutationParams {
        PermutationParams::Fixed { index: (0..channels).map(|i| (i + 1) % channels).collect() }
    }

    fn lu(&mut self, channels: usize) -> PermutationParams {
        let (lower, upper) = (self.span(channels * channels), self.span(channels * channels));
        for (i, j) in (0..channels).flat_map(|i| (0..=i).map(move |j| (i, j))) {
            self.unread.extend([lower.start + j * channels + i, upper.start + i * channels + j]);
        }
        let index = (0..channels).map(|i| (i + 1) % channels).collect();
        let sign = (0..channels).map(|i| if i % 2 == 0 { -1.0 } else { 1.0 }).collect();
        PermutationParams::Lu { index, sign, lower, upper, log_s: self.span(channels) }
    }

    /// The weight of a 3×3 convolution with an edge channel, whose middle tap never meets the padding.
    fn conv3x3(&mut self, inputs: usize, outputs: usize) -> Span {
        let weight = self.span(outputs * (inputs + 1) * 9);
        self.unread.extend((0..outputs).map(|o| weight.start + (o * (inputs + 1) + inputs) * 9 + 4));
        weight
    }

    fn zero_conv(&mut self, inputs: usize, outputs: usize) -> ZeroConvParams {
        let weight = self.conv3x3(inputs, outputs);
        ZeroConvParams { inputs, outputs, weight, bias: self.span(outputs), logs: self.span(outputs) }
    }

    fn network(&mut self, inputs: usize, hidden: usize, outputs: usize) -> NetworkParams {
        let (conv1, actnorm1) = (self.conv3x3(inputs, hidden), self.actnorm(hidden));
        let (conv2, actnorm2) = (self.span(hidden * hidden), self.actnorm(hidden));
        let conv3 = self.zero_conv(hidden, outputs);
        NetworkParams { inputs, hidden, conv1, actnorm1, conv2, actnorm2, conv3 }
    }

    fn top_prior(&mut self, channels: usize, classes: usize) -> TopPriorParams {
        self.classes = classes;
        let class_weight = (classes > 0).then(|| self.span(classes * 2 * channels));
        TopPriorParams { channels, mean: self.span(channels), logs: self.span(channels), class_weight }
    }
}

/// Layers, their parameters, and an input.
struct Case {
    name: String,
    device: Cpu<f64>,
    layers: Layers,
    parameters: Parameters,
    grid: Grid,
    channels: usize,
    x: Vec<f64>,
    logp: Vec<f64>,
}

impl Case {
    fn new(name: &str, shape: Shape, seed: u64, make: impl Fn(&mut Parameters, usize) -> Layers) -> Self {
        let [batch, height, width, channels] = shape;
        let grid = Grid { batch, height, width };
        let mut parameters = Parameters { seed, ..Parameters::default() };
        let layers = make(&mut parameters, channels);
        let (x, logp) = (parameters.normal(grid.rows() * channels, 1.0), parameters.normal(batch, 1.0));
        let device = Cpu::new();
        // Scratch buffers hold NaN, so that a layer that reads one before writing it is found out.
        let buffers: Vec<_> = (0..1024).flat_map(|len| [device.scratch(len), device.scratch(len)]).collect();
        buffers.into_iter().for_each(|mut buffer| buffer.fill(f64::NAN));
        Self { name: format!("{name} {shape:?}"), device, layers, parameters, grid, channels, x, logp }
    }

    fn all() -> impl Iterator<Item = Self> {
        let cases = CASES.iter().flat_map(|case| case.1.iter().map(move |&shape| (case, shape)));
        cases.map(|(&(name, _, make), shape)| Self::new(name, shape, 1, make))
    }

    fn state(&self, x: &[f64]) -> State<Cpu<f64>> {
        // Labels 1, 2, 0, …: in a small batch there are classes without an example.
        let classes = self.parameters.classes;
        let one_hot = |b: usize| (0..classes).map(move |y| f64::from(y == (b + 1) % classes));
        let labels: Vec<f64> = (0..self.grid.batch).flat_map(one_hot).collect();
        State {
            x: Tensor { grid: self.grid, channels: self.channels, data: self.device.upload(x) },
            latents: vec![],
            logp: self.device.upload(&self.logp),
            labels: self.device.upload(&labels),
        }
    }

    fn forward(&self, x: &[f64], params: &[f64]) -> State<Cpu<f64>> {
        let params = self.device.upload(params);
        let mut state = self.state(x);
        for layer in &self.layers {
            layer.prepare(&self.device, &params, Direction::Forward).forward(
                &self.device,
                &mut state,
                Save::Minimum,
            );
        }
        state
    }

    /// `x` and the latents of one sample after those of the other.
    fn outputs(&self, state: &State<Cpu<f64>>) -> Vec<f64> {
        let tensors = || std::iter::once(&state.x).chain(&state.latents);
        let part = |b, t: &Tensor<Cpu<f64>>| {
            let len = t.grid.pixels() * t.channels;
            t.data[b * len..(b + 1) * len].to_vec()
        };
        (0..self.grid.batch).flat_map(|b| tensors().flat_map(move |t| part(b, t))).collect()
    }

    /// Asserts that the way back has ended where the way forward began.
    fn assert_input(&self, state: &State<Cpu<f64>>) {
        assert!(state.latents.is_empty(), "{}: latents left", self.name);
        assert_eq!((state.x.grid, state.x.channels), (self.grid, self.channels), "{}", self.name);
        assert_close(&format!("{}: input", self.name), &state.x.data, &self.x);
    }

    fn assert_inverts(&self) {
        let params = self.device.upload(&self.parameters.values);
        let mut state = self.forward(&self.x, &params);
        let logp = state.logp.to_vec();
        for layer in self.layers.iter().rev() {
            layer.prepare(&self.device, &params, Direction::Inverse).inverse(&self.device, &mut state);
        }
        self.assert_input(&state);
        assert_eq!(state.logp.to_vec(), logp, "{}: log-likelihoods are left alone", self.name);
    }
}

/// Equal to rounding, element by element, relative to the larger of 1 and what is wanted.
fn assert_close(what: &str, have: &[f64], want: &[f64]) {
    assert_eq!(have.len(), want.len(), "{what}");
    for (i, (h, w)) in have.iter().zip(want).enumerate() {
        assert!((h - w).abs() <= 1e-10 * w.abs().max(1.0), "{what}: element {i} is {h}, not {w}");
    }
}

/// `‖have − want‖ ≤ 1e-6·‖want‖`: a derivative of 0 must be met exactly, and NaN never passes.
fn assert_derivative(what: &str, have: &[f64], want: &[f64]) {
    assert_eq!(have.len(), want.len(), "{what}");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut have.iter().zip(want).map(|(h, w)| h - w));
    assert!(difference <= 1e-6 * norm(&mut want.iter().copied()), "{what}: {have:?}, not {want:?}");
}

/// The derivatives of all outputs of `f` by each element of its input, as central differences.
fn derivatives(at: &[f64], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<Vec<f64>> {
    const STEP: f64 = 1e-5;
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

#[test]
fn inverse_undoes_forward() {
    Case::all().for_each(|case| case.assert_inverts());
}

/// What `logp` gains, less `log N(eps; 0, 1)` of the latents, is `log|det|` of the Jacobian of
/// `x ↦ (x', eps)`.
#[test]
fn log_likelihood_is_a_log_determinant() {
    for case in Case::all() {
        let (batch, d, params) = (case.grid.batch, case.x.len() / case.grid.batch, &case.parameters.values);
        let columns = derivatives(&case.x, |x| case.outputs(&case.forward(x, params)));
        for (i, column) in columns.iter().enumerate() {
            assert_eq!(column.len(), case.x.len(), "{}: dimensions", case.name);
            let mixes = column.iter().enumerate().any(|(j, &dy)| j / d != i / d && dy != 0.0);
            assert!(!mixes, "{}: element {i} reaches another sample", case.name);
        }
        let state = case.forward(&case.x, params);
        for b in 0..batch {
            let jacobian = DMatrix::from_fn(d, d, |i, j| columns[b * d + j][b * d + i]);
            let log_det: f64 = jacobian.lu().u().diagonal().iter().map(|u| u.abs().ln()).sum();
            let eps = state.latents.iter().flat_map(|t| t.data.chunks(t.data.len() / batch).nth(b));
            let log_prior: f64 = eps.flatten().map(|eps| -0.5 * (TAU.ln() + eps * eps)).sum();
            let gained = state.logp[b] - case.logp[b] - log_prior;
            assert!((gained - log_det).abs() < 1e-6, "{}: {gained}, not {log_det}", case.name);
        }
    }
}

/// `loss = <r, x'> + DLOGP·Σ logp`. A failure in a few elements of one shape may be a ReLU whose kink lies
/// within the step of the differences; another seed tells.
#[test]
fn gradients_are_derivatives() {
    const DLOGP: f64 = -0.7;
    for mut case in Case::all() {
        let params = case.device.upload(&case.parameters.values);
        let end = case.forward(&case.x, &params);
        let r = case.parameters.normal(end.x.data.len(), 1.0);
        let before = case.parameters.normal(params.len(), 1.0);
        let loss = |x: &[f64], params: &[f64]| {
            let state = case.forward(x, params);
            let inner: f64 = state.x.data.iter().zip(&r).map(|(x, r)| x * r).sum();
            vec![inner + DLOGP * state.logp.iter().sum::<f64>()]
        };
        let by_x = derivatives(&case.x, |x| loss(x, &params)).concat();
        let by_params = derivatives(&params, |params| loss(&case.x, params)).concat();

        // The gradient by the input, and what was added to that by the parameters.
        let backward = |save: Save| {
            let (device, params) = (&case.device, &params);
            let (mut state, mut saved) = (case.state(&case.x), vec![]);
            for layer in &case.layers {
                let layer = layer.prepare(device, params, Direction::Forward);
                saved.push(layer.forward(device, &mut state, save));
            }
            assert_close(&format!("{}: saving", case.name), &case.outputs(&state), &case.outputs(&end));
            assert_close(&format!("{}: saving, logp", case.name), &state.logp, &end.logp);
            let (dx, mut after) = (device.upload(&r), device.upload(&before));
            let mut pass = BackwardPass { device, params, state, dx, dlogp: DLOGP, gradient: &mut after };
            for (layer, saved) in case.layers.iter().zip(saved).rev() {
                layer.prepare(device, params, Direction::Backward).backward(&mut pass, saved);
            }
            case.assert_input(&pass.state);
            let dx = pass.dx.to_vec();
            (dx, after.iter().zip(&before).map(|(after, before)| after - before).collect::<Vec<_>>())
        };
        let [stored, recomputed] = [Save::Activations, Save::Minimum].map(backward);
        assert_close(&format!("{}: dx, stored or recomputed", case.name), &stored.0, &recomputed.0);
        assert_close(&format!("{}: gradient, stored or recomputed", case.name), &stored.1, &recomputed.1);
        for (dx, gradient) in [stored, recomputed] {
            assert_derivative(&format!("{}: dx", case.name), &dx, &by_x);
            for &span in &case.parameters.spans {
                let what = format!("{}: {span:?}", case.name);
                assert_derivative(&what, &gradient[span.range()], &by_params[span.range()]);
            }
            for &i in &case.parameters.unread {
                assert_eq!((gradient[i], by_params[i]), (0.0, 0.0), "{}: parameter {i} is read", case.name);
            }
        }
    }
}

/// Asserts that `after`, the actnorm of `before`, has mean 0 and standard deviation 1 (the population's) in
/// every channel, but for the `1e-6` that keeps the scale of a constant channel finite.
fn assert_normalized(channels: usize, before: &[f64], after: &[f64]) {
    let moments = |x: &[f64], channel| {
        let column = || x.iter().skip(channel).step_by(channels);
        let rows = column().count() as f64;
        let mean = column().sum::<f64>() / rows;
        (mean, (column().map(|x| (x - mean).powi(2)).sum::<f64>() / rows).sqrt())
    };
    for channel in 0..channels {
        let ((_, deviation), (mean, normalized)) = (moments(before, channel), moments(after, channel));
        assert!(mean.abs() < 1e-10, "channel {channel}: mean {mean}");
        assert!(
            (normalized - deviation / (deviation + 1e-6)).abs() < 1e-10,
            "channel {channel}: {normalized}"
        );
    }
}

/// The parameters after data-dependent initialisation, which changes `actnorms` and nothing else.
fn initialized(case: &Case, actnorms: &[ActNormParams]) -> Vec<f64> {
    let mut params = case.device.upload(&case.parameters.values);
    case.layers[0].initialize(&case.device, &mut params, &case.state(&case.x));
    let changes = |i| actnorms.iter().any(|at| at.bias.range().contains(&i) || at.logs.range().contains(&i));
    for (i, (after, before)) in params.iter().zip(&case.parameters.values).enumerate() {
        assert_eq!(after != before, changes(i), "{}: parameter {i}", case.name);
    }
    params.to_vec()
}

#[test]
fn actnorms_are_initialized_from_data() {
    let at = Parameters::default().actnorm(4);
    // Behind the identity, what the actnorm lets through can be seen.
    let identity = |_: &mut _, c| PermutationParams::Fixed { index: (0..c).collect() };
    let case = Case::new("identity", [2, 3, 5, 4], 2, |p, c| vec![p.channel_map(c, identity)]);
    let params = initialized(&case, &[at]);
    assert_normalized(4, &case.x, &case.forward(&case.x, &params).x.data);
}

/// The 3×3 convolution with an edge channel, by its definition, of the first half of the channels of `x`.
fn conv3x3(grid: Grid, inputs: usize, x: &[f64], weight: &[f64]) -> Vec<f64> {
    let mut y = vec![];
    for pixel in 0..grid.rows() {
        let (row, column) = (pixel / grid.width % grid.height, pixel % grid.width);
        for weight in weight.chunks(9 * (inputs + 1)) {
            let tap = |k: usize| {
                // One more than the place in the image, which may lie one before it.
                let (row, column) = (row + k / 3, column + k % 3);
                if row == 0 || row > grid.height || column == 0 || column > grid.width {
                    return weight[9 * inputs + k];
                }
                let from = pixel + k / 3 * grid.width + k % 3 - grid.width - 1;
                (0..inputs).map(|c| weight[9 * c + k] * x[from * 2 * inputs + c]).sum()
            };
            y.push((0..9).map(tap).sum());
        }
    }
    y
}

/// An actnorm, by its definition.
fn actnorm(x: &[f64], at: ActNormParams, params: &[f64]) -> Vec<f64> {
    let (bias, logs) = (&params[at.bias.range()], &params[at.logs.range()]);
    let y = |(i, x): (usize, &f64)| (x + bias[i % bias.len()]) * (3.0 * logs[i % logs.len()]).exp();
    x.iter().enumerate().map(y).collect()
}

#[test]
fn networks_are_initialized_from_data() {
    let at = Parameters::default().network(2, 6, 4);
    let case = Case::new("coupling", [2, 3, 5, 4], 3, |p, _| {
        vec![Box::new(Coupling { kind: Affine, network: p.network(2, 6, 4) })]
    });
    let params = initialized(&case, &[at.actnorm1, at.actnorm2]);
    let h1 = conv3x3(case.grid, at.inputs, &case.x, &params[at.conv1.range()]);
    let a1 = actnorm(&h1, at.actnorm1, &params);
    assert_normalized(at.hidden, &h1, &a1);
    let weight = &params[at.conv2.range()];
    let dot = |a1: &[f64], row: &[f64]| a1.iter().zip(row).map(|(a, w)| a.max(0.0) * w).sum();
    let outputs = |a1| weight.chunks(at.hidden).map(move |row| dot(a1, row));
    let h2: Vec<f64> = a1.chunks(at.hidden).flat_map(outputs).collect();
    assert_normalized(at.hidden, &h2, &actnorm(&h2, at.actnorm2, &params));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// The layers that take any grid, on any small one.
    #[test]
    fn any_input_and_parameters_invert(
        case in prop::sample::select(CASES.iter().filter(|case| case.1 == ANY).collect::<Vec<_>>()),
        [batch, height, width, half] in [1..4_usize, 1..6, 1..6, 1..5],
        seed: u64,
    ) {
        Case::new(case.0, [batch, height, width, 2 * half], seed, case.2).assert_inverts();
    }
}
