//! Every layer of a flow against its definition: that it inverts, that its log-likelihood is a log-determinant, and
//! that its gradients are derivatives.
//!
//! All in `f64`, where central differences are good to about nine digits.

use std::f64::consts::TAU;

use CouplingKind::{Additive, Affine};
use glowflow::flow::{
    ActNormPermutation, Backward, Coupling, Kept, Layer, Split, Squeeze, State, Tensor, Top,
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

/// The second has pixels that no padding reaches; the last is all border.
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
    ("two levels", TWICE_EVEN, two_levels),
];

fn two_levels(p: &mut Parameters, c: usize) -> Layers {
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
}

/// Hands out parts of a flat buffer, filled with random numbers: also the parts that no layer reads.
struct Parameters {
    stream: Stream,
    drawn: u64,
    values: Vec<f64>,
    spans: Vec<Span>,
    /// Elements that the formulas do not read.
    unread: Vec<usize>,
    classes: usize,
}

impl Parameters {
    fn new(seed: u64) -> Self {
        let stream = Stream { seed, id: 0 };
        Self { stream, drawn: 0, values: vec![], spans: vec![], unread: vec![], classes: 0 }
    }

    fn normal(&mut self, len: usize, deviation: f64) -> Vec<f64> {
        let from = self.drawn;
        self.drawn += len as u64;
        (from..self.drawn).map(|i| deviation * self.stream.normal(i)[0]).collect()
    }

    fn span(&mut self, len: usize, deviation: f64) -> Span {
        let span = Span { start: self.values.len(), len };
        let values = self.normal(len, deviation);
        self.values.extend(values);
        self.spans.push(span);
        span
    }

    fn weight(&mut self, len: usize) -> Span {
        self.span(len, 0.3)
    }

    /// Logarithms of scales, some of which are tripled before the exponential.
    fn logs(&mut self, len: usize) -> Span {
        self.span(len, 0.1)
    }

    fn actnorm(&mut self, channels: usize) -> ActNormParams {
        ActNormParams { bias: self.weight(channels), logs: self.logs(channels) }
    }

    fn channel_map(
        &mut self,
        channels: usize,
        permutation: fn(&mut Self, usize) -> PermutationParams,
    ) -> Box<dyn Layer<Cpu<f64>>> {
        let (actnorm, permutation) = (self.actnorm(channels), permutation(self, channels));
        Box::new(ActNormPermutation { params: ChannelMapParams { channels, actnorm, permutation } })
    }

    /// A cycle: unlike a reversal it is not its own inverse.
    fn cycle(channels: usize) -> Vec<usize> {
        (0..channels).map(|i| (i + 1) % channels).collect()
    }

    fn shuffle(&mut self, channels: usize) -> PermutationParams {
        PermutationParams::Fixed { index: Self::cycle(channels) }
    }

    fn reverse(&mut self, channels: usize) -> PermutationParams {
        PermutationParams::Fixed { index: (0..channels).rev().collect() }
    }

    fn lu(&mut self, channels: usize) -> PermutationParams {
        let (lower, upper) = (self.weight(channels * channels), self.weight(channels * channels));
        for (i, j) in (0..channels).flat_map(|i| (0..=i).map(move |j| (i, j))) {
            self.unread.extend([lower.start + j * channels + i, upper.start + i * channels + j]);
        }
        let sign = (0..channels).map(|i| if i % 2 == 0 { -1.0 } else { 1.0 }).collect();
        PermutationParams::Lu { index: Self::cycle(channels), sign, lower, upper, log_s: self.logs(channels) }
    }

    /// The weight of a 3×3 convolution with an edge channel, whose middle tap never meets the padding.
    fn conv3x3(&mut self, inputs: usize, outputs: usize) -> Span {
        let weight = self.span(outputs * (inputs + 1) * 9, 0.15);
        self.unread.extend((0..outputs).map(|o| weight.start + (o * (inputs + 1) + inputs) * 9 + 4));
        weight
    }

    fn zero_conv(&mut self, inputs: usize, outputs: usize) -> ZeroConvParams {
        let weight = self.conv3x3(inputs, outputs);
        ZeroConvParams { inputs, outputs, weight, bias: self.weight(outputs), logs: self.logs(outputs) }
    }

    fn network(&mut self, inputs: usize, hidden: usize, outputs: usize) -> NetworkParams {
        NetworkParams {
            inputs,
            hidden,
            conv1: self.conv3x3(inputs, hidden),
            actnorm1: self.actnorm(hidden),
            conv2: self.weight(hidden * hidden),
            actnorm2: self.actnorm(hidden),
            conv3: self.zero_conv(hidden, outputs),
        }
    }

    fn top_prior(&mut self, channels: usize, classes: usize) -> TopPriorParams {
        self.classes = classes;
        let class_weight = (classes > 0).then(|| self.logs(classes * 2 * channels));
        TopPriorParams { channels, mean: self.weight(channels), logs: self.logs(channels), class_weight }
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
        let mut parameters = Parameters::new(seed);
        let layers = make(&mut parameters, channels);
        let (x, logp) = (parameters.normal(grid.rows() * channels, 1.0), parameters.normal(batch, 1.0));
        let device = dirty_device();
        Self { name: format!("{name} {shape:?}"), device, layers, parameters, grid, channels, x, logp }
    }

    fn all() -> impl Iterator<Item = Self> {
        let shapes = |(_, shapes, _): &(_, &'static [Shape], _)| shapes.iter();
        CASES.iter().flat_map(move |case| shapes(case).map(|&shape| Self::new(case.0, shape, 1, case.2)))
    }

    fn state(&self, x: &[f64]) -> State<Cpu<f64>> {
        // Labels 1, 2, 0 …: in a small batch there are classes without an example.
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
            layer.prepare(&self.device, &params, Direction::Forward).forward(&self.device, &mut state);
        }
        state
    }

    /// Asserts that nothing but the input is left, and no latents.
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

    /// What came of the input: `x` and the latents of one sample after those of the other.
    fn outputs(&self, state: &State<Cpu<f64>>) -> Vec<f64> {
        let tensors = || std::iter::once(&state.x).chain(&state.latents);
        let part = |b, t: &Tensor<Cpu<f64>>| {
            let len = t.grid.pixels() * t.channels;
            t.data[b * len..(b + 1) * len].to_vec()
        };
        (0..self.grid.batch).flat_map(|b| tensors().flat_map(move |t| part(b, t))).collect()
    }
}

/// A device whose scratch buffers hold NaN, so that nobody reads one before writing it.
fn dirty_device() -> Cpu<f64> {
    let device = Cpu::new();
    let buffers: Vec<_> = (0..1024).flat_map(|len| [device.scratch(len), device.scratch(len)]).collect();
    buffers.into_iter().for_each(|mut buffer| buffer.fill(f64::NAN));
    device
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}

/// Whether `‖have − want‖ ≤ tolerance·‖want‖`; so 0 must be met exactly, and NaN is never close.
fn is_close(have: &[f64], want: &[f64], tolerance: f64) -> bool {
    let difference = norm(have.iter().zip(want).map(|(h, w)| h - w));
    have.len() == want.len() && difference <= tolerance * norm(want.iter().copied())
}

/// Equal to rounding, element by element, relative to the larger of 1 and what is wanted.
fn assert_close(what: &str, have: &[f64], want: &[f64]) {
    assert_eq!(have.len(), want.len(), "{what}");
    for (i, (h, w)) in have.iter().zip(want).enumerate() {
        assert!((h - w).abs() <= 1e-10 * w.abs().max(1.0), "{what}: element {i} is {h}, not {w}");
    }
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

/// `logp` gained, less `log N(eps; 0, 1)` of the new latents, is `log|det|` of the Jacobian of `x ↦ (x', eps)`.
#[test]
fn log_likelihood_is_a_log_determinant() {
    for case in Case::all() {
        let params = &case.parameters.values;
        let state = case.forward(&case.x, params);
        let columns = derivatives(&case.x, |x| case.outputs(&case.forward(x, params)));
        let d = case.grid.pixels() * case.channels;
        assert!(columns.iter().all(|column| column.len() == case.x.len()), "{}: dimensions", case.name);
        for (i, column) in columns.iter().enumerate() {
            let others = column.iter().enumerate().filter(|(j, _)| j / d != i / d);
            assert!(others.into_iter().all(|(_, &dy)| dy == 0.0), "{}: samples mix", case.name);
        }
        for b in 0..case.grid.batch {
            let jacobian = DMatrix::from_fn(d, d, |i, j| columns[b * d + j][b * d + i]);
            let log_det: f64 = jacobian.lu().u().diagonal().iter().map(|u| u.abs().ln()).sum();
            let eps = state.latents.iter().flat_map(|t| t.data.chunks(t.data.len() / case.grid.batch).nth(b));
            let log_prior: f64 = eps.flatten().map(|eps| -0.5 * (TAU.ln() + eps * eps)).sum();
            let gained = state.logp[b] - case.logp[b] - log_prior;
            assert!((gained - log_det).abs() < 1e-6, "{}: {gained}, not {log_det}", case.name);
        }
    }
}

/// `loss = <r, x'> + DLOGP·Σ logp`. Where this differs from central differences in few elements, of one case and shape,
/// a ReLU has its kink within the step: another seed helps.
#[test]
fn gradients_are_derivatives() {
    const DLOGP: f64 = -0.7;
    for mut case in Case::all() {
        let params = case.parameters.values.clone();
        let outputs = case.forward(&case.x, &params).x.data.len();
        let r = case.parameters.normal(outputs, 1.0);
        let before = case.parameters.normal(params.len(), 1.0);
        let loss = |x: &[f64], params: &[f64]| {
            let state = case.forward(x, params);
            let inner: f64 = state.x.data.iter().zip(&r).map(|(x, r)| x * r).sum();
            vec![inner + DLOGP * state.logp.iter().sum::<f64>()]
        };
        let by_x = derivatives(&case.x, |x| loss(x, &params)).concat();
        let by_params = derivatives(&params, |params| loss(&case.x, params)).concat();

        // The gradient by the input and what has been added to that by the parameters.
        let backward = |keep: bool| {
            let device = &case.device;
            let params = device.upload(&params);
            let mut state = case.state(&case.x);
            let forward = |layer: &Box<dyn Layer<_>>| -> Option<Kept<_>> {
                let layer = layer.prepare(device, &params, Direction::Forward);
                if keep {
                    return layer.forward_keeping(device, &mut state);
                }
                layer.forward(device, &mut state);
                None
            };
            let kept: Vec<_> = case.layers.iter().map(forward).collect();
            let mut gradient = device.upload(&before);
            let (dx, gradient_buffer) = (device.upload(&r), &mut gradient);
            let mut pass =
                Backward { device, params: &params, state, dx, dlogp: DLOGP, gradient: gradient_buffer };
            for (layer, kept) in case.layers.iter().zip(kept).rev() {
                layer.backward(&mut pass, kept);
            }
            case.assert_input(&pass.state);
            let dx = pass.dx.to_vec();
            (dx, gradient.iter().zip(&before).map(|(after, before)| after - before).collect::<Vec<_>>())
        };
        let (kept, anew) = (backward(true), backward(false));
        assert_close(&format!("{}: kept or anew, dx", case.name), &kept.0, &anew.0);
        assert_close(&format!("{}: kept or anew, gradient", case.name), &kept.1, &anew.1);
        for (dx, gradient) in [kept, anew] {
            assert!(is_close(&dx, &by_x, 1e-6), "{}: dx {dx:?}, not {by_x:?}", case.name);
            for span in &case.parameters.spans {
                let (have, want) = (&gradient[span.range()], &by_params[span.range()]);
                assert!(is_close(have, want, 1e-6), "{}: {span:?} {have:?}, not {want:?}", case.name);
            }
            for &i in &case.parameters.unread {
                assert_eq!((gradient[i], by_params[i]), (0.0, 0.0), "{}: {i} is read", case.name);
            }
        }
    }
}

/// Mean and standard deviation of a channel of `[rows, channels]`, both of the population.
fn moments(channels: usize, x: &[f64], channel: usize) -> (f64, f64) {
    let column = || x.iter().skip(channel).step_by(channels);
    let rows = column().count() as f64;
    let mean = column().sum::<f64>() / rows;
    (mean, (column().map(|x| (x - mean).powi(2)).sum::<f64>() / rows).sqrt())
}

/// Asserts that `after`, the actnorm of `before`, has mean 0 and standard deviation 1, but for the `1e-6` that
/// keeps a constant channel finite.
fn assert_normalized(channels: usize, before: &[f64], after: &[f64]) {
    for channel in 0..channels {
        let (_, deviation) = moments(channels, before, channel);
        let (mean, normalized) = moments(channels, after, channel);
        let want = deviation / (deviation + 1e-6);
        assert!(mean.abs() < 1e-10 && (normalized - want).abs() < 1e-10, "{channel}: {mean}, {normalized}");
    }
}

/// The parameters after data-dependent initialisation, which may change `actnorms` alone.
fn initialized(case: &Case, actnorms: &[ActNormParams]) -> Vec<f64> {
    let mut params = case.device.upload(&case.parameters.values);
    case.layers[0].initialize(&case.device, &mut params, &case.state(&case.x));
    let changes = |i| actnorms.iter().any(|at| at.bias.range().contains(&i) || at.logs.range().contains(&i));
    for (i, (after, before)) in params.iter().zip(&case.parameters.values).enumerate() {
        assert_eq!(after != before, changes(i), "parameter {i}");
    }
    params.to_vec()
}

#[test]
fn actnorms_are_initialized_from_data() {
    let shape = [2, 3, 5, 4];
    // Behind the identity, so that the actnorm's output can be seen.
    let identity = |_: &mut _, c| PermutationParams::Fixed { index: (0..c).collect() };
    let case = Case::new("actnorm", shape, 2, |p, c| vec![p.channel_map(c, identity)]);
    let at = Parameters::new(2).actnorm(case.channels);
    let params = initialized(&case, &[at]);
    assert_normalized(case.channels, &case.x, &case.forward(&case.x, &params).x.data);

    // Whatever the permutation, it is the same actnorm.
    let case = Case::new("actnorm, conv1x1", shape, 2, |p, c| vec![p.channel_map(c, Parameters::lu)]);
    initialized(&case, &[at]);
}

/// The convolution of spec section 3, as it is written there: `weight` is `[outputs, inputs + 1, size, size]`, or
/// without the edge channel where `size` is 1; `x` is `[grid, stride]`, of which it reads the first `inputs`.
fn convolution(grid: Grid, stride: usize, x: &[f64], size: usize, inputs: usize, weight: &[f64]) -> Vec<f64> {
    let (height, width, margin) = (grid.height as isize, grid.width as isize, size as isize / 2);
    let row = size * size * (inputs + size / 3);
    let mut y = vec![];
    for pixel in 0..grid.rows() {
        let (h, w) = ((pixel / grid.width % grid.height) as isize, (pixel % grid.width) as isize);
        for weight in weight.chunks(row) {
            let mut sum = 0.0;
            for tap in 0..size * size {
                let (dy, dx) = ((tap / size) as isize - margin, (tap % size) as isize - margin);
                let inside = (0..height).contains(&(h + dy)) && (0..width).contains(&(w + dx));
                let from = pixel as isize + dy * width + dx;
                sum += match inside {
                    true => (0..inputs)
                        .map(|c| weight[c * size * size + tap] * x[from as usize * stride + c])
                        .sum(),
                    false => weight[inputs * size * size + tap],
                };
            }
            y.push(sum);
        }
    }
    y
}

#[test]
fn networks_are_initialized_from_data() {
    let shape = [2, 3, 5, 4];
    let make = |p: &mut Parameters, c| p.network(c / 2, 6, c);
    let at = make(&mut Parameters::new(3), shape[3]);
    let case = Case::new("coupling", shape, 3, |p, c| {
        vec![Box::new(Coupling { kind: Affine, network: make(p, c) })]
    });
    let params = initialized(&case, &[at.actnorm1, at.actnorm2]);
    let normalized = |before: &[f64], norm: ActNormParams| -> Vec<f64> {
        let (bias, logs) = (&params[norm.bias.range()], &params[norm.logs.range()]);
        let channel = |(i, x): (usize, &f64)| (x + bias[i % at.hidden]) * (3.0 * logs[i % at.hidden]).exp();
        let after: Vec<f64> = before.iter().enumerate().map(channel).collect();
        assert_normalized(at.hidden, before, &after);
        after.iter().map(|x| x.max(0.0)).collect()
    };
    let h = convolution(case.grid, case.channels, &case.x, 3, at.inputs, &params[at.conv1.range()]);
    let h = normalized(&h, at.actnorm1);
    let h = convolution(case.grid, at.hidden, &h, 1, at.hidden, &params[at.conv2.range()]);
    normalized(&h, at.actnorm2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn channel_maps_invert(shape in [1..4_usize, 1..6, 1..6, 1..9], seed: u64, permutation in 0..3_usize) {
        let permutation = [Parameters::lu, Parameters::shuffle, Parameters::reverse][permutation];
        Case::new("channel map", shape, seed, |p, c| vec![p.channel_map(c, permutation)]).assert_inverts();
    }

    #[test]
    fn couplings_invert(
        [batch, height, width, half] in [1..4_usize, 1..6, 1..6, 1..5],
        hidden in 1..9_usize,
        seed: u64,
        affine: bool,
    ) {
        let kind = if affine { Affine } else { Additive };
        let make = |p: &mut Parameters, c| -> Layers {
            vec![Box::new(Coupling { kind, network: p.network(c / 2, hidden, kind.network_outputs(c)) })]
        };
        Case::new("coupling", [batch, height, width, 2 * half], seed, make).assert_inverts();
    }
}
