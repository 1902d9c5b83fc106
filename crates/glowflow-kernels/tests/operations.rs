//! Compares every operation of a device with its reference body on the same device: forward, inverse,
//! backward and gradients.
//!
//! Arrays agree relative to their norm: to 1e-10 in `f64` and 1e-4 in `f32`. Operations that only rearrange
//! numbers must agree exactly.

mod common;

use common::{Numbers, Parameters, gpu};
use glowflow_kernels::Precision;
use glowflow_kernels::ops::{Attention, ResidualNetwork};
use glowflow_kernels::{
    AffineScale, AttentionShape, CouplingKind, Cpu, Device, Direction, Grid, HeadParams, HeadedNetworkParams,
    MixtureShape, NetworkOutputs, Operations, Real, Reference, ResidualAttentionParams, ResidualBlockParams,
    ResidualNetworkParams,
};

/// Single pixels, odd sides, images without inner pixels, more rows than one tile takes.
const GRIDS: [Grid; 4] = [
    Grid { batch: 1, height: 1, width: 1 },
    Grid { batch: 2, height: 3, width: 5 },
    Grid { batch: 3, height: 1, width: 4 },
    Grid { batch: 3, height: 9, width: 17 },
];

/// Images whose log-likelihoods are summed in several parts on a GPU.
const LARGE: Grid = Grid { batch: 2, height: 17, width: 33 };

/// Named results of an operation.
type Results = Vec<(&'static str, Vec<f64>)>;

/// A device under test, and the source of its inputs.
struct Bench<'a, D> {
    device: &'a D,
    numbers: Numbers,
}

impl<'a, D: Operations> Bench<'a, D> {
    fn new(device: &'a D, seed: u64) -> Self {
        Self { device, numbers: Numbers::new(seed) }
    }

    fn upload(&self, values: &[f32]) -> D::Buffer {
        self.device.upload(&values.iter().map(|&x| D::Real::of(x.into())).collect::<Vec<_>>())
    }

    fn normal(&mut self, len: usize) -> D::Buffer {
        let numbers = self.numbers.normal(len);
        self.upload(&numbers)
    }

    fn download(&self, buffer: &D::Buffer) -> Vec<f64> {
        self.device.download(buffer).unwrap().into_iter().map(D::Real::wide).collect()
    }

    /// The gradient, parameter by parameter, so that none is hidden by larger ones.
    fn gradient(&self, gradient: &D::Buffer, parts: &[(&'static str, glowflow_kernels::Span)]) -> Results {
        let all = self.download(gradient);
        parts.iter().map(|(name, span)| (*name, all[span.range()].to_vec())).collect()
    }
}

#[track_caller]
fn close(what: &str, tolerance: f64, have: &Results, want: &Results) {
    assert_eq!(have.len(), want.len(), "{what}");
    for ((name, have), (_, want)) in have.iter().zip(want) {
        assert_eq!(have.len(), want.len(), "{what}, {name}");
        let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
        let difference = norm(&mut have.iter().zip(want).map(|(have, want)| have - want));
        let error = difference / norm(&mut want.iter().copied()).max(f64::MIN_POSITIVE);
        // Both may be 0.
        let agree = difference == 0.0 || error <= tolerance;
        assert!(
            agree,
            "{what}, {name}: {error:e}, {:.4?} for {:.4?}",
            &have[..have.len().min(6)],
            &want[..want.len().min(6)]
        );
    }
}

/// Runs `work` on every device and on its reference.
macro_rules! compare {
    ($what:expr, |$device:ident| $work:expr) => {
        compare!($what, [1e-10, 1e-4], |$device| $work)
    };
    ($what:expr, [$double:expr, $single:expr], |$device:ident| $work:expr) => {{
        compare!(@ $what, "cpu in f64", $double, Cpu::<f64>::new(), $device, $work);
        compare!(@ $what, "cpu in f32", $single, Cpu::<f32>::new(), $device, $work);
        if let Some(gpu) = gpu(Precision::F32) {
            compare!(@ $what, "GPU", $single, gpu, $device, $work);
        }
    }};
    (@ $what:expr, $name:expr, $tolerance:expr, $new:expr, $device:ident, $work:expr) => {{
        let device = $new;
        let have: Results = { let $device = &device; $work };
        let want: Results = { let $device = &Reference(device.clone()); $work };
        close(&format!("{} on the {}", $what, $name), $tolerance, &have, &want);
    }};
}

fn squeeze<D: Operations>(device: &D, grid: Grid, channels: usize) -> Results {
    let mut bench = Bench::new(device, 1);
    let len = grid.rows() * channels;
    let x = bench.normal(len);
    let (mut y, mut back) = (device.scratch(len), device.scratch(len));
    device.squeeze(grid, channels, &x, &mut y);
    device.unsqueeze(grid, channels, &y, &mut back);
    let half = len / 2;
    let (mut first, mut last) = (device.scratch(half), device.scratch(half));
    let mut joined = device.scratch(len);
    device.split(4 * channels, &y, &mut first, &mut last);
    device.join(4 * channels, &first, &last, &mut joined);
    assert_eq!(bench.download(&back), bench.download(&x));
    assert_eq!(bench.download(&joined), bench.download(&y));
    [("y", y), ("first", first), ("last", last)].map(|(name, y)| (name, bench.download(&y))).into()
}

#[test]
fn squeeze_and_split_are_their_references() {
    for grid in [Grid { batch: 1, height: 2, width: 2 }, Grid { batch: 3, height: 4, width: 6 }] {
        for channels in [1, 3] {
            compare!(format!("squeeze of {channels} channels"), [0.0, 0.0], |device| squeeze(
                device, grid, channels
            ));
        }
    }
}

fn channel_map<D: Operations>(device: &D, grid: Grid, channels: usize, trained: bool) -> Results {
    let mut parameters = Parameters::new(channels as u64);
    let at = parameters.channel_map(channels, trained);
    let mut bench = Bench::new(device, 7);
    let (mut x, mut dx) = (bench.normal(grid.rows() * channels), bench.normal(grid.rows() * channels));
    let params = bench.upload(&parameters.values);
    let mut gradient = bench.upload(&vec![0.5; parameters.values.len()]);
    let mut logp = bench.upload(&vec![1.5; grid.batch]);
    let forward = device.prepare_channel_map(&at, &params, Direction::Forward);
    device.channel_map(&forward, grid, &mut x, Some(&mut logp));
    let y = bench.download(&x);
    let mut inverted = device.copied(&x, grid.rows() * channels);
    let inverse = device.prepare_channel_map(&at, &params, Direction::Inverse);
    device.channel_map(&inverse, grid, &mut inverted, None);
    let backward = device.prepare_channel_map(&at, &params, Direction::Backward);
    device.channel_map_backward(&backward, &at, &params, grid, &mut x, &mut dx, -0.3, &mut gradient);

    let mut parts = vec![("bias", at.actnorm.bias), ("logs", at.actnorm.logs)];
    if let glowflow_kernels::PermutationParams::Lu { lower, upper, log_s, .. } = &at.permutation {
        parts.extend([("lower", *lower), ("upper", *upper), ("log_s", *log_s)]);
    }
    let mut results = bench.gradient(&gradient, &parts);
    results.push(("y", y));
    results.extend(
        [("logp", &logp), ("inverse", &inverted), ("x", &x), ("dx", &dx)]
            .map(|(name, of)| (name, bench.download(of))),
    );
    results
}

#[test]
fn channel_maps_are_their_reference() {
    for grid in GRIDS {
        for channels in [1, 2, 6, 12, 24] {
            for trained in [true, false] {
                let what = format!("channel map of {channels} channels, trained {trained}, {grid:?}");
                compare!(what, |device| channel_map(device, grid, channels, trained));
            }
        }
    }
}

fn network<D: Operations>(device: &D, grid: Grid, [inputs, hidden, outputs]: [usize; 3]) -> Results {
    let mut parameters = Parameters::new(3);
    let at = parameters.network(inputs, hidden, outputs);
    let mut bench = Bench::new(device, 11);
    let rows = grid.rows();
    let x = bench.normal(rows * 2 * inputs);
    let d_o = bench.normal(rows * outputs);
    let mut dx = bench.normal(rows * 2 * inputs);
    let params = bench.upload(&parameters.values);
    let network = device.prepare_network(&at, &params);
    let (mut o, mut saved) = (device.scratch(rows * outputs), device.scratch(rows * outputs));
    device.network(&network, grid, &x, &mut o);
    let activations = device.network_saving(&network, grid, &x, &mut saved);
    let mut gradient = bench.upload(&vec![0.5; parameters.values.len()]);
    device.network_backward(&at, &params, grid, &x, &activations, &d_o, &mut dx, &mut gradient);
    let (norm1, norm2, conv3) = (at.actnorm1, at.actnorm2, at.conv3);
    let mut results = bench.gradient(
        &gradient,
        &[
            ("conv1", at.conv1),
            ("bias1", norm1.bias),
            ("logs1", norm1.logs),
            ("conv2", at.conv2),
            ("bias2", norm2.bias),
            ("logs2", norm2.logs),
            ("conv3", conv3.weight),
            ("bias3", conv3.bias),
            ("logs3", conv3.logs),
        ],
    );
    results.extend([("o", &o), ("saved", &saved), ("dx", &dx)].map(|(name, of)| (name, bench.download(of))));
    results
}

#[test]
fn coupling_networks_are_their_reference() {
    for grid in GRIDS {
        for sizes in [[1, 5, 2], [3, 8, 3], [6, 40, 12]] {
            compare!(format!("network {sizes:?}, {grid:?}"), |device| network(device, grid, sizes));
        }
    }
}

/// A head, if it has outputs.
fn head(parameters: &mut Parameters, inputs: usize, outputs: usize) -> Option<HeadParams> {
    let mut span = |len| parameters.span(len);
    let mut head = || {
        let weight = span(outputs * inputs);
        HeadParams { inputs, outputs, weight, bias: span(outputs), logs: span(outputs) }
    };
    (outputs > 0).then(&mut head)
}

fn residual_params(
    parameters: &mut Parameters,
    [inputs, width, outputs, of_head]: [usize; 4],
    blocks: usize,
    (heads, pixels): (usize, usize),
) -> ResidualNetworkParams {
    let (kernel, expanded) = (7, ResidualNetworkParams::expanded(width));
    let mut span = |len| parameters.span(len);
    let mut block = || ResidualBlockParams {
        taps: span(kernel * kernel * width),
        norm: span(width),
        expand: span(expanded * width),
        expand_bias: span(expanded),
        project: span(2 * width * expanded),
        project_bias: span(2 * width),
    };
    let blocks = (0..blocks).map(|_| block()).collect();
    let attention = (heads > 0).then(|| {
        let (norm, position) = (parameters.span(width), parameters.span(pixels * width));
        let [query, key, value, out] = [(); 4].map(|()| parameters.span(width * width));
        ResidualAttentionParams { heads, pixels, norm, position, query, key, value, out }
    });
    let mut span = |len| parameters.span(len);
    let conv_in = span(width * (inputs + 1) * 9);
    let (bias_in, norm_out) = (span(width), span(width));
    let conv_out = parameters.zero_conv(width, outputs);
    let head = head(parameters, width, of_head);
    ResidualNetworkParams {
        inputs,
        width,
        kernel,
        conv_in,
        bias_in,
        blocks,
        attention,
        norm_out,
        conv_out,
        head,
    }
}

fn residual_network<D: Operations>(
    device: &D,
    grid: Grid,
    sizes @ [inputs, _, outputs, of_head]: [usize; 4],
    blocks: usize,
    heads: usize,
) -> Results {
    let mut parameters = Parameters::new(3);
    let at = residual_params(&mut parameters, sizes, blocks, (heads, grid.pixels()));
    let mut bench = Bench::new(device, 11);
    let rows = grid.rows();
    let x = bench.normal(rows * 2 * inputs);
    let d_o = bench.normal(rows * outputs);
    let d_head = (of_head > 0).then(|| bench.normal(rows * of_head));
    let mut dx = bench.normal(rows * 2 * inputs);
    let params = bench.upload(&parameters.values);
    let weights = device.prepare_residual_network(&at, &params);
    let [mut run, mut saved] = [(); 2].map(|()| NetworkOutputs::scratch(device, grid, outputs, at.head));
    device.residual_network(&at, &weights, &params, grid, &x, &mut run);
    let activations = device.residual_network_saving(&at, &weights, &params, grid, &x, &mut saved);
    let mut gradient = bench.upload(&vec![0.5; parameters.values.len()]);
    let d_outputs = NetworkOutputs { o: d_o, head: d_head };
    device.residual_network_backward(
        &at,
        &params,
        grid,
        &x,
        &activations,
        &d_outputs,
        &mut dx,
        &mut gradient,
    );
    let mut parts = vec![
        ("conv_in", at.conv_in),
        ("bias_in", at.bias_in),
        ("norm_out", at.norm_out),
        ("conv_out", at.conv_out.weight),
        ("bias_out", at.conv_out.bias),
        ("logs_out", at.conv_out.logs),
    ];
    for block in &at.blocks {
        parts.extend([
            ("taps", block.taps),
            ("norm", block.norm),
            ("expand", block.expand),
            ("expand_bias", block.expand_bias),
            ("project", block.project),
            ("project_bias", block.project_bias),
        ]);
    }
    if let Some(attention) = at.attention {
        parts.extend([
            ("attention_norm", attention.norm),
            ("position", attention.position),
            ("query", attention.query),
            ("key", attention.key),
            ("value", attention.value),
            ("out", attention.out),
        ]);
    }
    if let Some(head) = at.head {
        parts.extend([("head", head.weight), ("head_bias", head.bias), ("head_logs", head.logs)]);
    }
    let mut results = bench.gradient(&gradient, &parts);
    results.extend(
        [("o", &run.o), ("saved", &saved.o), ("dx", &dx)].map(|(name, of)| (name, bench.download(of))),
    );
    for outputs in [&run, &saved] {
        results.extend(outputs.head.iter().map(|head| ("head", bench.download(head))));
    }
    results
}

#[test]
fn residual_networks_are_their_reference() {
    for grid in GRIDS {
        for (sizes, blocks, heads) in [
            ([1, 5, 2, 0], 0, 0),
            ([3, 8, 6, 9], 1, 0),
            ([6, 40, 12, 0], 2, 0),
            ([2, 6, 4, 0], 0, 3),
            ([6, 40, 12, 5], 1, 4),
        ] {
            let what = format!("residual network {sizes:?}, {blocks} blocks, {heads} heads, {grid:?}");
            compare!(what, |device| residual_network(device, grid, sizes, blocks, heads));
        }
    }
}

/// The outputs of an image have the same bits alone and in a batch, with one thread and with several, with and
/// without saved activations, in each precision.
#[test]
fn residual_networks_give_the_same_bits_in_any_batch() {
    let run = |device: &Cpu<f32>, batch: usize, threads: usize| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
            let mut parameters = Parameters::new(3);
            let at = residual_params(&mut parameters, [6, 40, 12, 18], 2, (4, 64));
            let params = device.upload(&parameters.values);
            let grid = Grid { batch, height: 8, width: 8 };
            let mut bench = Bench::new(device, 11);
            let x = bench.normal(grid.rows() * 12);
            let weights = device.prepare_residual_network(&at, &params);
            let mut outputs = NetworkOutputs::scratch(device, grid, 12, at.head);
            device.residual_network(&at, &weights, &params, grid, &x, &mut outputs);
            let mut saving = NetworkOutputs::scratch(device, grid, 12, at.head);
            device.residual_network_saving(&at, &weights, &params, grid, &x, &mut saving);
            let bits = |of: &[f32]| of.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            let [plain, saving] =
                [outputs, saving].map(|outputs| [bits(&outputs.o), bits(&outputs.head.unwrap())]);
            assert!(plain == saving, "{device:?}, {batch} images: saving activations changes outputs");
            let [o, head] = plain;
            [o[..64 * 12].to_vec(), head[..64 * 18].to_vec()]
        })
    };
    let narrow = Cpu::with_precision(Precision::Bf16);
    for device in [Ok(Cpu::new()), narrow].into_iter().flatten() {
        let want = run(&device, 1, 1);
        for (batch, threads) in [(1, 4), (5, 1), (5, 3), (32, 2)] {
            assert!(run(&device, batch, threads) == want, "{device:?}, {batch} images, {threads} threads");
        }
    }
}

/// bf16 is the precision of products within the network only: outputs and gradients stay close. Gradients by
/// biases before a ReLU differ most, because some inputs change their signs.
#[test]
fn residual_networks_in_bf16_are_close() {
    let (grid, sizes) = (GRIDS[3], [6, 40, 12, 18]);
    for (heads, tolerance) in [(0, 0.05), (4, 0.06)] {
        let Ok(narrow) = Cpu::with_precision(Precision::Bf16) else { return };
        let [have, want] =
            [narrow, Cpu::new()].map(|device| residual_network(&device, grid, sizes, 2, heads));
        assert!(have[0].1 != want[0].1, "the precision has no effect");
        close(&format!("residual network in bf16, {heads} heads"), tolerance, &have, &want);
    }
}

/// Infinite and undefined scores give undefined outputs, and no panic.
#[test]
fn attention_of_extreme_inputs_does_not_panic() {
    let shape = AttentionShape { grid: Grid { batch: 1, height: 1, width: 3 }, width: 2, heads: 1 };
    let run = |name: &str, worst: f32| {
        let qkv: Vec<f32> = (0..18).map(|i| if i % 5 == 0 { worst } else { 1.0 }).collect();
        let finite = |y: &[f32]| y.iter().all(|y| y.is_finite());
        let device = Cpu::<f32>::new();
        let (mut y, mut d_qkv) = (device.scratch(6), device.scratch(18));
        device.attention(shape, &device.upload(&qkv), &mut y);
        device.attention_backward(shape, &device.upload(&qkv), &device.upload(&[1.0; 6]), &mut d_qkv);
        assert!(finite(&y) == worst.is_finite(), "cpu, {name}: {y:?}");
        if let Some(gpu) = gpu(Precision::F32) {
            let (mut y, mut d_qkv) = (gpu.scratch(6), gpu.scratch(18));
            gpu.attention(shape, &gpu.upload(&qkv), &mut y);
            gpu.attention_backward(shape, &gpu.upload(&qkv), &gpu.upload(&[1.0; 6]), &mut d_qkv);
            let y = gpu.download(&y).unwrap();
            assert!(finite(&y) == worst.is_finite(), "GPU, {name}: {y:?}");
        }
    };
    run("large", 1e15);
    run("infinite", f32::INFINITY);
    run("undefined", f32::NAN);
}

fn attention<D: Operations>(device: &D, shape: AttentionShape) -> Results {
    let mut bench = Bench::new(device, 13);
    let len = shape.grid.rows() * shape.width;
    let (qkv, dy) = (bench.normal(3 * len), bench.normal(len));
    let (mut y, mut d_qkv) = (device.scratch(len), device.scratch(3 * len));
    device.attention(shape, &qkv, &mut y);
    device.attention_backward(shape, &qkv, &dy, &mut d_qkv);
    [("y", &y), ("d_qkv", &d_qkv)].map(|(name, of)| (name, bench.download(of))).into()
}

#[test]
fn attention_is_its_reference() {
    let eight = Grid { batch: 2, height: 8, width: 8 };
    for grid in GRIDS.into_iter().chain([eight]) {
        for (width, heads) in [(1, 1), (6, 3), (40, 2)] {
            let shape = AttentionShape { grid, width, heads };
            compare!(format!("{shape:?}"), |device| attention(device, shape));
        }
    }
}

/// The softmax of each query, in loops.
#[test]
fn attention_is_its_definition() {
    let (grid, width, heads) = (GRIDS[1], 6, 3);
    let (pixels, depth) = (grid.pixels(), width / heads);
    let device = Cpu::<f64>::new();
    let values = Numbers::new(21).normal(3 * grid.rows() * width);
    let qkv: Vec<f64> = values.into_iter().map(f64::from).collect();
    let mut y = device.scratch(grid.rows() * width);
    device.attention(AttentionShape { grid, width, heads }, &device.upload(&qkv), &mut y);
    for (index, &y) in y.iter().enumerate() {
        let (row, channel) = (index / width, index % width);
        let (first, head) = (row / pixels * pixels, channel / depth);
        let number = |row: usize, part: usize, channel: usize| qkv[(3 * row + part) * width + channel];
        let weight = |key: usize| {
            let terms = (0..depth).map(|c| head * depth + c).map(|c| number(row, 0, c) * number(key, 1, c));
            (terms.sum::<f64>() / (depth as f64).sqrt()).exp()
        };
        let keys = || first..first + pixels;
        let sum: f64 = keys().map(weight).sum();
        let want = keys().map(|key| weight(key) * number(key, 2, channel)).sum::<f64>() / sum;
        assert!((y - want).abs() < 1e-12, "row {row}, channel {channel}: {y} for {want}");
    }
}

/// Queries and keys are large enough that no term of the gradient is lost.
#[test]
fn attention_gradients_are_derivatives() {
    const STEP: f64 = 1e-5;
    let (device, grid) = (Cpu::<f64>::new(), GRIDS[1]);
    let shape = AttentionShape { grid, width: 6, heads: 3 };
    let len = grid.rows() * 6;
    let wide = |seed: u64, len: usize| -> Vec<f64> {
        Numbers::new(seed).normal(len).into_iter().map(f64::from).collect()
    };
    let (qkv, dy) = (wide(21, 3 * len), wide(22, len));
    let mut gradient = device.scratch(3 * len);
    device.attention_backward(shape, &device.upload(&qkv), &device.upload(&dy), &mut gradient);
    let loss = |at: usize, by: f64| -> f64 {
        let (mut qkv, mut y) = (qkv.clone(), device.scratch(len));
        qkv[at] += by;
        device.attention(shape, &device.upload(&qkv), &mut y);
        y.iter().zip(&dy).map(|(y, dy)| y * dy).sum()
    };
    for (at, &have) in gradient.iter().enumerate() {
        let want = (loss(at, STEP) - loss(at, -STEP)) / (2.0 * STEP);
        assert!((have - want).abs() < 1e-8, "element {at}: {have} for {want}");
    }
}

/// Large products of queries and keys neither overflow nor become NaN.
#[test]
fn attention_to_one_pixel_is_its_value() {
    let shape = AttentionShape { grid: Grid { batch: 1, height: 1, width: 3 }, width: 1, heads: 1 };
    let check = |name: &str, y: &[f32]| {
        let off = y.iter().any(|y| (y - 5.0).abs() > 1e-5);
        assert!(!off, "{name}: {y:?}");
    };
    let qkv = [100.0, -70.0, 3.0, 100.0, 90.0, 5.0, 100.0, 0.0, -8.0];
    let device = Cpu::<f32>::new();
    let mut y = device.scratch(3);
    device.attention(shape, &device.upload(&qkv), &mut y);
    check("cpu", &y);
    let reference = Reference(device);
    reference.attention(shape, &reference.upload(&qkv), &mut y);
    check("reference", &y);
    if let Some(gpu) = gpu(Precision::F32) {
        let mut y = gpu.scratch(3);
        gpu.attention(shape, &gpu.upload(&qkv), &mut y);
        check("GPU", &gpu.download(&y).unwrap());
    }
}

fn headed_network<D: Operations>(
    device: &D,
    grid: Grid,
    [inputs, hidden, outputs, of_head]: [usize; 4],
) -> Results {
    let mut parameters = Parameters::new(3);
    let network = parameters.network(inputs, hidden, outputs);
    let Some(head) = head(&mut parameters, hidden, of_head) else { return vec![] };
    let at = HeadedNetworkParams { network, head };
    let mut bench = Bench::new(device, 11);
    let rows = grid.rows();
    let x = bench.normal(rows * 2 * inputs);
    let d_outputs =
        NetworkOutputs { o: bench.normal(rows * outputs), head: Some(bench.normal(rows * of_head)) };
    let mut dx = bench.normal(rows * 2 * inputs);
    let params = bench.upload(&parameters.values);
    let weights = device.prepare_headed_network(&at, &params);
    let [mut run, mut saved] = [(); 2].map(|()| NetworkOutputs::scratch(device, grid, outputs, Some(head)));
    device.headed_network(&at, &weights, &params, grid, &x, &mut run);
    let hidden = device.headed_network_saving(&at, &weights, &params, grid, &x, &mut saved);
    let mut gradient = bench.upload(&vec![0.5; parameters.values.len()]);
    device.headed_network_backward(&at, &params, grid, &x, &hidden, &d_outputs, &mut dx, &mut gradient);
    let mut results = bench.gradient(
        &gradient,
        &[
            ("conv1", network.conv1),
            ("bias1", network.actnorm1.bias),
            ("conv2", network.conv2),
            ("logs2", network.actnorm2.logs),
            ("conv3", network.conv3.weight),
            ("logs3", network.conv3.logs),
            ("head", head.weight),
            ("head_bias", head.bias),
            ("head_logs", head.logs),
        ],
    );
    results.push(("dx", bench.download(&dx)));
    for outputs in [&run, &saved] {
        results.push(("o", bench.download(&outputs.o)));
        results.extend(outputs.head.iter().map(|head| ("head", bench.download(head))));
    }
    results
}

#[test]
fn headed_networks_are_their_reference() {
    for grid in GRIDS {
        for sizes in [[1, 5, 2, 3], [6, 40, 12, 72]] {
            compare!(format!("network with a head {sizes:?}, {grid:?}"), |device| headed_network(
                device, grid, sizes
            ));
        }
    }
}

fn mixture<D: Operations>(device: &D, grid: Grid, channels: usize, components: usize) -> Results {
    let mut bench = Bench::new(device, 6);
    let (rows, shape) = (grid.rows(), MixtureShape { grid, channels, components });
    let of_head = MixtureShape::head_outputs(channels, components);
    let outputs =
        NetworkOutputs { o: bench.normal(rows * channels), head: Some(bench.normal(rows * of_head)) };
    let (mut x, mut dx) = (bench.normal(rows * channels), bench.normal(rows * channels));
    let mut logp = bench.normal(grid.batch);
    device.mix(shape, &outputs, &mut x, &mut logp);
    let y = bench.download(&x);
    let mut inverted = device.copied(&x, rows * channels);
    device.unmix(shape, &outputs, &mut inverted);
    let mut d_outputs =
        NetworkOutputs { o: device.scratch(rows * channels), head: Some(device.scratch(rows * of_head)) };
    device.mix_backward(shape, &outputs, &mut x, &mut dx, -0.3, &mut d_outputs);
    let mut results = vec![("y", y), ("d_o", bench.download(&d_outputs.o))];
    results.extend(d_outputs.head.iter().map(|head| ("d_head", bench.download(head))));
    results.extend(
        [("logp", &logp), ("inverse", &inverted), ("x", &x), ("dx", &dx)]
            .map(|(name, of)| (name, bench.download(of))),
    );
    results
}

#[test]
fn mixtures_are_their_reference() {
    for grid in GRIDS.into_iter().chain([LARGE]) {
        for (channels, components) in [(2, 1), (6, 2), (12, 4)] {
            let what = format!("mixture of {components} components, {channels} channels, {grid:?}");
            compare!(what, |device| mixture(device, grid, channels, components));
        }
    }
}

/// The inverse of a mixture with NaN in a number, its shift or one of its parameters is NaN.
fn inverse_of_nan<D: Operations>(device: &D) {
    let shape = MixtureShape { grid: Grid { batch: 1, height: 1, width: 3 }, channels: 2, components: 4 };
    let of_head = MixtureShape::head_outputs(2, 4);
    for place in 0..2 + of_head {
        let mut bench = Bench::new(device, 6);
        let mut numbers = [6, 6, 3 * of_head].map(|len| bench.numbers.normal(len));
        // Of the second pixel.
        match place {
            0 => numbers[0][3] = f32::NAN,
            1 => numbers[1][2] = f32::NAN,
            _ => numbers[2][of_head + place - 2] = f32::NAN,
        }
        let [mut x, o, head] = numbers.map(|numbers| bench.upload(&numbers));
        device.unmix(shape, &NetworkOutputs { o, head: Some(head) }, &mut x);
        let finite = bench.download(&x).iter().map(|x| x.is_finite()).collect::<Vec<_>>();
        assert_eq!(finite, [true, true, true, false, true, true], "NaN at {place}");
    }
}

#[test]
fn the_inverse_of_a_mixture_keeps_nan() {
    inverse_of_nan(&Cpu::<f64>::new());
    inverse_of_nan(&Cpu::<f32>::new());
    inverse_of_nan(&Reference(Cpu::<f32>::new()));
    if let Some(gpu) = gpu(Precision::F32) {
        inverse_of_nan(&gpu);
    }
}

fn zero_conv<D: Operations>(device: &D, grid: Grid, inputs: usize, outputs: usize) -> Results {
    let mut parameters = Parameters::new(4);
    let at = parameters.zero_conv(inputs, outputs);
    let mut bench = Bench::new(device, 5);
    let rows = grid.rows();
    let (x, dy) = (bench.normal(rows * inputs), bench.normal(rows * outputs));
    let mut dx = bench.normal(rows * inputs);
    let params = bench.upload(&parameters.values);
    let mut y = device.scratch(rows * outputs);
    device.zero_conv(&device.prepare_zero_conv(&at, &params), grid, &x, &mut y);
    let mut gradient = bench.upload(&vec![0.5; parameters.values.len()]);
    device.zero_conv_backward(&at, &params, grid, &x, &dy, &mut dx, &mut gradient);
    let parts = [("weight", at.weight), ("bias", at.bias), ("logs", at.logs)];
    let mut results = bench.gradient(&gradient, &parts);
    results.extend([("y", &y), ("dx", &dx)].map(|(name, of)| (name, bench.download(of))));
    results
}

#[test]
fn zero_convolutions_are_their_reference() {
    for grid in GRIDS {
        for (inputs, outputs) in [(1, 2), (3, 6), (12, 24)] {
            let what = format!("zero convolution {inputs} to {outputs}, {grid:?}");
            compare!(what, |device| zero_conv(device, grid, inputs, outputs));
        }
    }
}

/// All kinds of couplings.
const KINDS: [CouplingKind; 3] = [
    CouplingKind::Affine(AffineScale::Sigmoid),
    CouplingKind::Affine(AffineScale::Exp2Tanh),
    CouplingKind::Additive,
];

fn coupling<D: Operations>(device: &D, kind: CouplingKind, grid: Grid, channels: usize) -> Results {
    let mut bench = Bench::new(device, 6);
    let (rows, outputs) = (grid.rows(), kind.network_outputs(channels));
    let o = bench.normal(rows * outputs);
    let (mut x, mut dx) = (bench.normal(rows * channels), bench.normal(rows * channels));
    let mut logp = bench.normal(grid.batch);
    device.couple(kind, grid, channels, &o, &mut x, &mut logp);
    let y = bench.download(&x);
    let mut inverted = device.copied(&x, rows * channels);
    device.uncouple(kind, channels, &o, &mut inverted);
    let mut d_o = device.scratch(rows * outputs);
    device.couple_backward(kind, channels, &o, &mut x, &mut dx, -0.3, &mut d_o);
    let mut results = vec![("y", y)];
    results.extend(
        [("logp", &logp), ("inverse", &inverted), ("x", &x), ("dx", &dx), ("d_o", &d_o)]
            .map(|(name, of)| (name, bench.download(of))),
    );
    results
}

#[test]
fn couplings_are_their_reference() {
    for kind in KINDS {
        for grid in GRIDS.into_iter().chain([LARGE]) {
            for channels in [2, 6, 12] {
                let what = format!("{kind:?} coupling of {channels} channels, {grid:?}");
                compare!(what, |device| coupling(device, kind, grid, channels));
            }
        }
    }
}

/// Results of a coupling of two channels on `o`, which holds a pair of shift and `r` for each number of `x`.
fn coupled<D: Operations>(device: &D, scale: AffineScale, x: &[f32], o: &[f32]) -> [Vec<f64>; 4] {
    let bench = Bench::new(device, 0);
    let (kind, grid) = (CouplingKind::Affine(scale), Grid { batch: 1, height: 1, width: x.len() });
    let pairs: Vec<f32> = x.iter().flat_map(|&x| [0.0, x]).collect();
    let (o, mut x, mut logp) = (bench.upload(o), bench.upload(&pairs), device.zeros(1));
    device.couple(kind, grid, 2, &o, &mut x, &mut logp);
    let last = |x: &D::Buffer| bench.download(x).into_iter().skip(1).step_by(2).collect();
    let (y, mut dx, mut d_o) = (last(&x), bench.upload(&pairs), device.scratch(pairs.len()));
    device.couple_backward(kind, 2, &o, &mut x, &mut dx, -0.3, &mut d_o);
    [y, last(&x), bench.download(&d_o), bench.download(&logp)]
}

/// For any output of the network, the scale is between e⁻² and e², and the coupling inverts.
#[test]
fn a_bounded_scale_inverts_for_any_network_output() {
    let rs = [
        0.0,
        -0.0,
        1e-30,
        1e-3,
        -1.0,
        3.0,
        -9.5,
        40.0,
        -100.0,
        1e30,
        -1e30,
        f32::INFINITY,
        f32::NEG_INFINITY,
    ];
    let x: Vec<f32> = (0..rs.len()).map(|i| (i as f32 * 1.7).sin() * 3.0).collect();
    let o: Vec<f32> = rs.iter().flat_map(|&r| [0.25, r]).collect();
    let check = |what: &str, tolerance: f64, [y, back, d_o, logp]: [Vec<f64>; 4]| {
        for (i, &r) in rs.iter().enumerate() {
            let scale = (2.0 * (0.5 * f64::from(r)).tanh()).exp();
            let (want, x) = ((f64::from(x[i]) + 0.25) * scale, f64::from(x[i]));
            assert!((y[i] - want).abs() <= tolerance * want.abs(), "{what}, r = {r}: {} for {want}", y[i]);
            assert!((back[i] - x).abs() <= tolerance * 4.0, "{what}, r = {r}: {} for {x}", back[i]);
            assert!(d_o[2 * i].is_finite() && d_o[2 * i + 1].is_finite(), "{what}, r = {r}");
        }
        let want: f64 = rs.iter().map(|&r| 2.0 * (0.5 * f64::from(r)).tanh()).sum();
        assert!((logp[0] - want).abs() <= tolerance * 30.0, "{what}: {logp:?} for {want}");
    };
    let scale = AffineScale::Exp2Tanh;
    check("cpu in f64", 1e-14, coupled(&Cpu::<f64>::new(), scale, &x, &o));
    check("cpu in f32", 1e-6, coupled(&Cpu::<f32>::new(), scale, &x, &o));
    check("reference", 1e-6, coupled(&Reference(Cpu::<f32>::new()), scale, &x, &o));
    if let Some(gpu) = gpu(Precision::F32) {
        check("GPU", 1e-6, coupled(&gpu, scale, &x, &o));
    }
}

/// NaN does not spread.
#[test]
fn a_scale_that_is_not_a_number_reaches_its_own_element_alone() {
    for scale in [AffineScale::Sigmoid, AffineScale::Exp2Tanh] {
        let [y, ..] = coupled(&Cpu::<f32>::new(), scale, &[1.0, 2.0], &[0.5, f32::NAN, 0.5, 1.0]);
        assert!(y[0].is_nan() && y[1].is_finite(), "{scale:?}: {y:?}");
    }
}

fn priors<D: Operations>(device: &D, grid: Grid, channels: usize, classes: usize) -> Results {
    let mut parameters = Parameters::new(8);
    let at = parameters.final_prior(channels, classes);
    let mut bench = Bench::new(device, 9);
    let params = bench.upload(&parameters.values);
    let labels: Vec<f32> =
        (0..if classes > 0 { grid.batch } else { 0 }).map(|i| (i * 2 % classes) as f32).collect();
    let labels = bench.upload(&labels);
    let rows = grid.rows();
    let mut prior = device.scratch(rows * 2 * channels);
    device.final_prior(&device.prepare_final_prior(&at, &params), grid, &labels, &mut prior);
    let mut z = bench.normal(rows * channels);
    let mut logp = bench.normal(grid.batch);
    device.standardize(grid, channels, &prior, &mut z, &mut logp);
    let (mut dz, mut d_prior) = (device.scratch(rows * channels), device.scratch(rows * 2 * channels));
    device.standardize_backward(channels, &prior, &z, -0.3, &mut dz, &mut d_prior);
    let mut gradient = bench.upload(&vec![0.5; parameters.values.len()]);
    device.final_prior_backward(&at, grid, &labels, &d_prior, &mut gradient);
    let eps = bench.download(&z);
    device.unstandardize(channels, &prior, &mut z);
    let mut parts = vec![("mean", at.mean), ("logs", at.logs)];
    parts.extend(at.class_weight.map(|span| ("class_weight", span)));
    let mut results = bench.gradient(&gradient, &parts);
    results.push(("eps", eps));
    results.extend(
        [("prior", &prior), ("logp", &logp), ("dz", &dz), ("d_prior", &d_prior), ("z", &z)]
            .map(|(name, of)| (name, bench.download(of))),
    );
    results
}

#[test]
fn priors_are_their_reference() {
    for grid in GRIDS.into_iter().chain([LARGE]) {
        for (channels, classes) in [(1, 0), (6, 3), (12, 5)] {
            let what = format!("priors of {channels} channels and {classes} classes, {grid:?}");
            compare!(what, |device| priors(device, grid, channels, classes));
        }
    }
}

fn initialization<D: Operations>(device: &D, grid: Grid) -> Results {
    let (inputs, hidden) = (3, 8);
    let mut parameters = Parameters::new(10);
    let (norm, network) = (parameters.actnorm(2 * inputs), parameters.network(inputs, hidden, 6));
    let mut bench = Bench::new(device, 12);
    let x = bench.normal(grid.rows() * 2 * inputs);
    let mut params = bench.upload(&parameters.values);
    device.initialize_actnorm(&norm, &x, &mut params);
    device.initialize_network(&network, grid, &x, &mut params);
    vec![("params", bench.download(&params))]
}

/// Parts of one and of two images, which give what the whole batch gives.
fn initialization_from_parts<D: Operations>(device: &D, grid: Grid) -> Results {
    let (inputs, hidden) = (3, 8);
    let mut parameters = Parameters::new(10);
    let (norm, network) = (parameters.actnorm(2 * inputs), parameters.network(inputs, hidden, 6));
    let mut bench = Bench::new(device, 12);
    let numbers = bench.numbers.normal(grid.rows() * 2 * inputs);
    let (first, rest) = numbers.split_at(grid.pixels() * 2 * inputs);
    let [x, first, rest] = [&numbers, first, rest].map(|numbers| bench.upload(numbers));
    let [mut whole, mut params] = [(); 2].map(|()| bench.upload(&parameters.values));
    device.initialize_actnorm(&norm, &x, &mut whole);
    device.initialize_network(&network, grid, &x, &mut whole);
    let grids = [1, grid.batch - 1].map(|batch| Grid { batch, ..grid });
    device.initialize_actnorm_from(&norm, &[&first, &rest], &mut params);
    device.initialize_network_from(&network, &[(grids[0], &first), (grids[1], &rest)], &mut params);
    let [whole, params] = [whole, params].map(|params| bench.download(&params));
    for (part, whole) in params.iter().zip(&whole) {
        assert!((part - whole).abs() <= 1e-4 * (1.0 + whole.abs()), "{grid:?}: {part} and {whole}");
    }
    vec![("params", params)]
}

#[test]
fn parts_initialize_as_the_batch() {
    for grid in [GRIDS[2], GRIDS[3]] {
        compare!(format!("initialisation, {grid:?}"), |device| initialization_from_parts(device, grid));
    }
}

#[test]
fn initialization_is_its_reference() {
    for grid in [GRIDS[1], GRIDS[3], LARGE] {
        compare!(format!("initialisation, {grid:?}"), |device| initialization(device, grid));
    }
}
