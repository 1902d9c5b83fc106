//! Every layer of a flow, compared with its definition: see `glowflow::testing`.

use AffineScale::{Exp2Tanh, Sigmoid};
use CouplingKind::{Additive, Affine};
use PermutationType::{Conv1x1, Reverse, Shuffle};
use glowflow::PermutationType;
use glowflow::flow::{
    ActNormPermutation, AdditiveCoupling, Base, BatchNorm, Changes, ConditionalCoupling, Coupling, FactorOut,
    FactorRest, FinalPrior, FlowBuilder, Logit, Mask, MaskedCoupling, Mode, NetworkKind, Reorder, Scaling,
    SelfAttention, Split, Squeeze, Transform,
};
use glowflow::testing::{CONDITION_CHANNELS, LayerCase};
use glowflow_kernels::{AffineScale, CouplingKind, Cpu, Grid};
use proptest::prelude::*;

type Builder<'a, 'p> = &'a mut FlowBuilder<'p, Cpu<f64>>;
/// Batch, height, width and channels of the input.
type Shape = [usize; 4];
/// Appends layers.
type Make = fn(Builder);

/// The first two have pixels that padding does not affect; the last consists entirely of border.
const ANY: &[Shape] = &[[2, 3, 5, 4], [1, 4, 4, 2], [3, 1, 2, 6]];
const EVEN: &[Shape] = &[[2, 4, 2, 3], [1, 2, 6, 1]];
const ODD: &[Shape] = &[[2, 3, 1, 3], [1, 1, 5, 1]];
const THREE: &[Shape] = &[[2, 3, 1, 3], [1, 2, 2, 3]];
const FOURFOLD: &[Shape] = &[[2, 2, 3, 4], [1, 1, 2, 8]];
const TWICE_EVEN: &[Shape] = &[[2, 4, 8, 1], [1, 4, 4, 2]];
/// Number of classes of the layers that have any.
const CLASSES: usize = 3;

/// Name, input shapes, and layers. A new layer is one line here.
const CASES: &[(&str, &[Shape], Make)] = &[
    ("squeeze", EVEN, |flow| flow.push("", Squeeze)),
    ("actnorm, conv1x1", ANY, |flow| map(flow, Conv1x1)),
    ("actnorm, shuffle", ANY, |flow| map(flow, Shuffle)),
    ("actnorm, reverse", ANY, |flow| map(flow, Reverse)),
    ("affine coupling", ANY, |flow| couple(flow, Affine(Sigmoid), 5)),
    ("affine coupling, exp2tanh", ANY, |flow| couple(flow, Affine(Exp2Tanh), 5)),
    ("additive coupling", ANY, |flow| couple(flow, Additive, 5)),
    ("affine coupling, residual network", ANY, |flow| couple_residual(flow, Affine(Sigmoid), 2)),
    ("additive coupling, residual network", ANY, |flow| couple_residual(flow, Additive, 1)),
    ("mixture coupling", ANY, |flow| mix(flow, NetworkKind::Convolutions { hidden: 5 }, 3)),
    ("mixture coupling, residual network", ANY, |flow| {
        mix(flow, NetworkKind::Residual { width: 4, blocks: 1, attention: None }, 2);
    }),
    ("affine coupling, attention", ANY, |flow| couple_attention(flow, 1, 2)),
    ("affine coupling, attention without blocks", ANY, |flow| couple_attention(flow, 0, 1)),
    ("conditional coupling", ANY, |flow| condition(flow, Changes::LastHalf)),
    ("conditional coupling, first half", THREE, |flow| condition(flow, Changes::FirstHalf)),
    ("conditional coupling, all channels", ANY, |flow| condition(flow, Changes::All)),
    ("split", ANY, split),
    ("final prior", ANY, |flow| final_prior(flow, 0)),
    ("final prior with classes", ANY, |flow| final_prior(flow, CLASSES)),
    ("final prior with an edge term", ANY, |flow| edge_final_prior(flow, 0)),
    ("final prior with classes and an edge term", ANY, |flow| edge_final_prior(flow, CLASSES)),
    ("factor out", ANY, |flow| flow.push("", FactorOut(Base::Normal))),
    ("factor out, logistic", ANY, |flow| flow.push("", FactorOut(Base::Logistic))),
    ("factor rest", ANY, |flow| flow.push("", FactorRest(Base::Normal))),
    ("factor rest, logistic", ANY, |flow| flow.push("", FactorRest(Base::Logistic))),
    ("reorder", FOURFOLD, |flow| flow.push("", Reorder)),
    ("batch normalisation", ANY, |flow| {
        flow.push_with("norm", |p, shape| BatchNorm::new(p, shape.channels));
    }),
    ("checkerboard coupling", ANY, |flow| mask(flow, Mask::Checkerboard { parity: 0 }, 2)),
    ("checkerboard coupling, odd", ANY, |flow| mask(flow, Mask::Checkerboard { parity: 1 }, 1)),
    ("channel-wise coupling", ANY, |flow| mask(flow, Mask::FirstHalf, 2)),
    ("channel-wise coupling, last half", ANY, |flow| mask(flow, Mask::LastHalf, 0)),
    ("additive coupling of odd numbers", ANY, |flow| add(flow, false)),
    ("additive coupling of even numbers", ODD, |flow| add(flow, true)),
    ("scaling", ANY, |flow| {
        let dimensions = flow.shape().len();
        let layer = Scaling::new(&mut flow.params, dimensions);
        flow.push("", layer);
    }),
    ("two levels", TWICE_EVEN, |flow| {
        flow.push("", Squeeze);
        map(flow, Conv1x1);
        couple(flow, Affine(Sigmoid), 3);
        split(flow);
        flow.push("", Squeeze);
        map(flow, Shuffle);
        couple(flow, Additive, 3);
        final_prior(flow, CLASSES);
    }),
];

fn map(flow: Builder, permutation: PermutationType) {
    let channels = flow.shape().channels;
    let layer = ActNormPermutation::new(&mut flow.params, channels, permutation);
    flow.push("", layer);
}

fn couple(flow: Builder, kind: CouplingKind, hidden: usize) {
    let channels = flow.shape().channels;
    let layer = Coupling::new(&mut flow.params, channels, hidden, kind);
    flow.push("", layer);
}

fn couple_residual(flow: Builder, kind: CouplingKind, blocks: usize) {
    let (channels, network) =
        (flow.shape().channels, NetworkKind::Residual { width: 4, blocks, attention: None });
    let layer = Coupling::with_network(&mut flow.params, channels, network, kind.into());
    flow.push("", layer);
}

fn couple_attention(flow: Builder, blocks: usize, heads: usize) {
    let (channels, pixels) = (flow.shape().channels, flow.shape().pixels());
    let attention = Some(SelfAttention { heads, pixels });
    let network = NetworkKind::Residual { width: 6, blocks, attention };
    let layer = Coupling::with_network(&mut flow.params, channels, network, Affine(Sigmoid).into());
    flow.push("", layer);
}

fn mix(flow: Builder, network: NetworkKind, components: usize) {
    let (channels, transform) = (flow.shape().channels, Transform::Mixture { components });
    let layer = Coupling::with_network(&mut flow.params, channels, network, transform);
    flow.push("", layer);
}

fn condition(flow: Builder, changes: Changes) {
    let channels = flow.shape().channels;
    let layer = ConditionalCoupling::new(&mut flow.params, channels, CONDITION_CHANNELS, 5, changes);
    flow.push("", layer);
}

fn split(flow: Builder) {
    let channels = flow.shape().channels;
    let layer = Split::new(&mut flow.params, channels);
    flow.push("", layer);
}

fn final_prior(flow: Builder, classes: usize) {
    let channels = flow.shape().channels;
    let layer = FinalPrior::new(&mut flow.params, channels, classes);
    flow.push("", layer);
}

fn edge_final_prior(flow: Builder, classes: usize) {
    let channels = flow.shape().channels;
    let layer = FinalPrior::new(&mut flow.params, channels, classes).with_edge(&mut flow.params);
    flow.push("", layer);
}

fn mask(flow: Builder, mask: Mask, blocks: usize) {
    let channels = flow.shape().channels;
    let layer = MaskedCoupling::new(&mut flow.params, channels, 3, blocks, mask);
    flow.push("", layer);
}

fn add(flow: Builder, changes_even: bool) {
    let dimensions = flow.shape().len();
    let layer = AdditiveCoupling::new(&mut flow.params, dimensions, 5, 2, changes_even);
    flow.push("", layer);
}

/// Pixels are in [−½, ½), the domain of the logit.
#[test]
fn the_logit_is_invertible_and_its_gradients_are_derivatives() {
    for shape in ANY {
        let mut case = LayerCase::new("logit", *shape, |flow| flow.push("", Logit));
        case.x.iter_mut().for_each(|x| *x = 0.45 * x.sin());
        case.check();
    }
}

fn cases() -> impl Iterator<Item = LayerCase> {
    let cases = CASES.iter().flat_map(|case| case.1.iter().map(move |&shape| (case, shape)));
    cases.map(|(&(name, _, make), shape)| LayerCase::seeded(name, shape, 1, CLASSES, make))
}

#[test]
fn inverse_undoes_forward() {
    cases().for_each(|case| case.check_inverse());
}

#[test]
fn log_likelihood_is_a_log_determinant() {
    cases().for_each(|case| case.check_log_det());
}

#[test]
fn gradients_are_derivatives() {
    cases().for_each(|mut case| case.check_gradients());
}

/// Asserts that `after`, the actnorm of `before`, has mean 0 and (population) standard deviation 1 in every
/// channel, up to the `1e-6` that keeps the scale of a constant channel finite.
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

/// The parameters after data-dependent initialisation, which changes only actnorms.
fn initialized(case: &LayerCase) -> Vec<f64> {
    let params = case.initialized();
    for parameter in &case.layout().parameters {
        let actnorm = parameter.name.starts_with("actnorm");
        for i in parameter.span.range() {
            assert_eq!(params[i] != case.params[i], actnorm, "{}, element {i}", parameter.name);
        }
    }
    params
}

/// A tensor of the parameters.
fn tensor<'a>(case: &LayerCase, params: &'a [f64], name: &str) -> &'a [f64] {
    let parameter = case.layout().parameters.iter().find(|parameter| parameter.name == name).unwrap();
    &params[parameter.span.range()]
}

#[test]
fn actnorms_are_initialized_from_data() {
    let case = LayerCase::seeded("actnorm", [2, 3, 5, 4], 2, 0, |flow| map(flow, Reverse));
    let params = initialized(&case);
    let after = case.forward(&case.x, &params, Mode::Train).x.data.to_vec();
    let reversed: Vec<f64> = case.x.chunks(4).flat_map(|x| x.iter().rev().copied()).collect();
    assert_normalized(4, &reversed, &after);
}

/// The 3×3 convolution with an edge channel, by its definition, of the first half of the channels of `x`.
fn conv3x3(grid: Grid, inputs: usize, x: &[f64], weight: &[f64]) -> Vec<f64> {
    let mut y = vec![];
    for pixel in 0..grid.rows() {
        let (row, column) = (pixel / grid.width % grid.height, pixel % grid.width);
        for weight in weight.chunks(9 * (inputs + 1)) {
            let tap = |k: usize| {
                // One more than the position in the image, which may be one before its edge.
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
fn actnorm(case: &LayerCase, params: &[f64], name: &str, x: &[f64]) -> Vec<f64> {
    let [bias, logs] = ["bias", "logs"].map(|part| tensor(case, params, &format!("{name}.{part}")));
    let y = |(i, x): (usize, &f64)| (x + bias[i % bias.len()]) * (3.0 * logs[i % logs.len()]).exp();
    x.iter().enumerate().map(y).collect()
}

#[test]
fn networks_are_initialized_from_data() {
    let (inputs, hidden, grid) = (2, 6, Grid { batch: 2, height: 3, width: 5 });
    let case = LayerCase::seeded("coupling", [2, 3, 5, 4], 3, 0, |flow| couple(flow, Affine(Sigmoid), 6));
    let params = initialized(&case);
    let h1 = conv3x3(grid, inputs, &case.x, tensor(&case, &params, "conv1.weight"));
    let a1 = actnorm(&case, &params, "actnorm1", &h1);
    assert_normalized(hidden, &h1, &a1);
    let weight = tensor(&case, &params, "conv2.weight");
    let dot = |a1: &[f64], row: &[f64]| a1.iter().zip(row).map(|(a, w)| a.max(0.0) * w).sum();
    let outputs = |a1| weight.chunks(hidden).map(move |row| dot(a1, row));
    let h2: Vec<f64> = a1.chunks(hidden).flat_map(outputs).collect();
    assert_normalized(hidden, &h2, &actnorm(&case, &params, "actnorm2", &h2));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// The layers that accept any grid, on any small one.
    #[test]
    fn any_input_and_parameters_invert(
        case in prop::sample::select(CASES.iter().filter(|case| case.1 == ANY).collect::<Vec<_>>()),
        [batch, height, width, half] in [1..4_usize, 1..6, 1..6, 1..5],
        seed: u64,
    ) {
        LayerCase::seeded(case.0, [batch, height, width, 2 * half], seed, CLASSES, case.2).check_inverse();
    }
}
