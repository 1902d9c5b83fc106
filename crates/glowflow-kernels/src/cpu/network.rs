//! The coupling network: conv3×3 → actnorm → ReLU → conv1×1 → actnorm → ReLU → ZeroConv.
//!
//! With its scales folded in (see [`super::conv`]) it is three products over all pixels:
//!
//! ```text
//! patches [rows, 9·(inputs+1)] · W1 → ReLU → h1 [rows, hidden]
//! h1                           · W2 → ReLU → h2 [rows, hidden]
//! h2                           · W3 → [rows, 9·outputs], nine shifted copies added up → o [rows, outputs]
//! ```
//!
//! A tile of rows goes through all three before the next one starts, so that hidden activations that
//! nobody keeps never leave the second-level cache.

use rayon::prelude::*;

use super::conv::{ScaledAt, column_sums, input_gradient};
use super::patches::{self, Look};
use super::product::{Finish, Packed, product, transposed_product};
use super::{Buffer, Cpu, actnorm, tile_rows};
use crate::real::Real;
use crate::shape::{ActNormParams, Grid, NetworkParams, Span};

/// A network's weights, packed for the way forward.
pub struct Network<T> {
    inputs: usize,
    hidden: usize,
    outputs: usize,
    conv1: Packed<T>,
    conv2: Packed<T>,
    /// `[hidden, 9·outputs]`, columns in the order `k·outputs + c`.
    conv3: Packed<T>,
    /// What the edge channel adds to an output for each offset, `[9, outputs]`.
    edge: Vec<T>,
    /// `[outputs]`
    bias: Vec<T>,
}

/// Both hidden activations, `[rows, hidden]` each, behind their ReLUs.
pub struct Hidden<T> {
    h1: Buffer<T>,
    h2: Buffer<T>,
}

fn scaled(weight: Span, actnorm: ActNormParams) -> ScaledAt {
    ScaledAt { weight, bias: actnorm.bias, logs: actnorm.logs }
}

impl<T: Real> Network<T> {
    pub(super) fn prepare(cpu: &Cpu<T>, at: &NetworkParams, params: &[T]) -> Self {
        let (hidden, outputs) = (at.hidden, at.conv3.outputs);
        let conv3 = at.conv3.at().of(params);
        let (width, scale) = (9 * (hidden + 1), conv3.scale());
        let weight3 = |j: usize, column: usize| {
            let (k, c) = (column / outputs, column % outputs);
            conv3.weight[c * width + 9 * j + k] * scale[c]
        };
        Self {
            inputs: at.inputs,
            hidden,
            outputs,
            conv1: scaled(at.conv1, at.actnorm1).of(params).pack(cpu),
            conv2: scaled(at.conv2, at.actnorm2).of(params).pack(cpu),
            conv3: Packed::new(cpu, hidden, 9 * outputs, weight3),
            edge: (0..9 * outputs).map(|column| weight3(hidden, column)).collect(),
            bias: conv3.folded_bias(),
        }
    }

    /// Runs the network on the first half of the channels of `x` into `o`.
    pub(super) fn run(&self, cpu: &Cpu<T>, grid: Grid, x: &[T], o: &mut [T]) {
        let tile = tile_rows(grid.rows());
        let mut contributions = cpu.take(grid.rows() * 9 * self.outputs);
        contributions.par_chunks_mut(tile * 9 * self.outputs).enumerate().for_each(|(t, to)| {
            let rows = to.len() / (9 * self.outputs);
            let (mut h1, mut h2) = (cpu.take(rows * self.hidden), cpu.take(rows * self.hidden));
            self.tile(cpu, grid, x, t * tile, &mut h1, &mut h2, to);
        });
        self.add_up(grid, &contributions, o);
    }

    /// As [`run`](Self::run), and keeps the hidden activations.
    pub(super) fn run_keeping(&self, cpu: &Cpu<T>, grid: Grid, x: &[T], o: &mut [T]) -> Hidden<T> {
        let rows = grid.rows();
        let tile = tile_rows(rows);
        let mut contributions = cpu.take(rows * 9 * self.outputs);
        let mut hidden = Hidden { h1: cpu.take(rows * self.hidden), h2: cpu.take(rows * self.hidden) };
        contributions
            .par_chunks_mut(tile * 9 * self.outputs)
            .zip(hidden.h1.par_chunks_mut(tile * self.hidden))
            .zip(hidden.h2.par_chunks_mut(tile * self.hidden))
            .enumerate()
            .for_each(|(t, ((to, h1), h2))| self.tile(cpu, grid, x, t * tile, h1, h2, to));
        self.add_up(grid, &contributions, o);
        hidden
    }

    /// One tile of rows through all three products.
    #[allow(clippy::too_many_arguments)]
    fn tile(
        &self,
        cpu: &Cpu<T>,
        grid: Grid,
        x: &[T],
        first_row: usize,
        h1: &mut [T],
        h2: &mut [T],
        contributions: &mut [T],
    ) {
        let rows = h1.len() / self.hidden;
        let mut patches = cpu.take(rows * 9 * (self.inputs + 1));
        patches::gather_with_edge(grid, self.inputs, 2 * self.inputs, x, first_row, &mut patches);
        product(rows, &patches, &self.conv1, h1, Finish::Relu);
        product(rows, h1, &self.conv2, h2, Finish::Relu);
        product(rows, h2, &self.conv3, contributions, Finish::Store);
    }

    fn add_up(&self, grid: Grid, contributions: &[T], o: &mut [T]) {
        let outputs = self.outputs;
        o.par_chunks_mut(outputs).with_min_len(1024).for_each(|o| o.copy_from_slice(&self.bias));
        patches::add_shifted(grid, outputs, outputs, Look::Ahead, contributions, Some(&self.edge), o);
    }
}

/// Adds the gradient by the input to the first half of the channels of `dx`, and the parameters' to `gradient`.
#[allow(clippy::too_many_arguments)]
pub fn backward<T: Real>(
    cpu: &Cpu<T>,
    at: &NetworkParams,
    params: &[T],
    grid: Grid,
    x: &[T],
    Hidden { h1, h2 }: &Hidden<T>,
    d_o: &[T],
    dx: &mut [T],
    gradient: &mut [T],
) {
    let (rows, inputs, hidden, outputs) = (grid.rows(), at.inputs, at.hidden, at.conv3.outputs);
    let (at1, at2, at3) = (scaled(at.conv1, at.actnorm1), scaled(at.conv2, at.actnorm2), at.conv3.at());
    let (conv1, conv2, conv3) = (at1.of(params), at2.of(params), at3.of(params));
    let (width1, width3) = (9 * (inputs + 1), 9 * (hidden + 1));

    let (weight2, scale3) = (conv2.pack_transposed(cpu), conv3.scale());
    let weight3 = Packed::new(cpu, 9 * outputs, hidden, |row, j| {
        let (k, c) = (row / outputs, row % outputs);
        conv3.weight[c * width3 + 9 * j + k] * scale3[c]
    });

    let mut d_contributions = cpu.take(rows * 9 * outputs);
    let mut patches = cpu.take(rows * width1);
    let mut d_h1 = cpu.take(rows * hidden);
    let mut d_h2 = cpu.take(rows * hidden);
    let tile = tile_rows(rows);
    d_contributions
        .par_chunks_mut(tile * 9 * outputs)
        .zip(patches.par_chunks_mut(tile * width1))
        .zip(d_h1.par_chunks_mut(tile * hidden))
        .zip(d_h2.par_chunks_mut(tile * hidden))
        .zip(h1.par_chunks(tile * hidden))
        .zip(h2.par_chunks(tile * hidden))
        .enumerate()
        .for_each(|(t, (((((d_contributions, patches), d_h1), d_h2), h1), h2))| {
            let rows = h1.len() / hidden;
            patches::gather_with_edge(grid, inputs, 2 * inputs, x, t * tile, patches);
            patches::gather_back(grid, outputs, d_o, t * tile, d_contributions);
            product(rows, d_contributions, &weight3, d_h2, Finish::Mask(h2));
            product(rows, d_h2, &weight2, d_h1, Finish::Mask(h1));
        });
    input_gradient(cpu, grid, inputs, 2 * inputs, &conv1, &d_h1, dx);

    // [9·outputs, hidden] into the stored order [outputs, hidden + 1, 9], edge channel last.
    let by_column = transposed_product(cpu, 9 * outputs, hidden, &d_contributions, h2);
    let d_edge = patches::edge_gradient(grid, outputs, d_o);
    let mut d_weight3 = cpu.take(outputs * width3);
    d_weight3.par_chunks_mut(width3).enumerate().for_each(|(c, to)| {
        for k in 0..9 {
            let column = k * outputs + c;
            let from = by_column[column * hidden..(column + 1) * hidden].iter().chain([&d_edge[column]]);
            to[k..].iter_mut().step_by(9).zip(from).for_each(|(to, &from)| *to = from);
        }
    });
    conv3.unfold(at3, &d_weight3, &column_sums(outputs, d_o), gradient);
    let d_weight2 = transposed_product(cpu, hidden, hidden, &d_h2, h1);
    conv2.unfold(at2, &d_weight2, &column_sums(hidden, &d_h2), gradient);
    let d_weight1 = transposed_product(cpu, hidden, width1, &d_h1, &patches);
    conv1.unfold(at1, &d_weight1, &column_sums(hidden, &d_h1), gradient);
}

/// Data-dependent initialisation of both actnorms, the second on what the first, initialised, lets through.
pub fn initialize<T: Real>(cpu: &Cpu<T>, at: &NetworkParams, grid: Grid, x: &[T], params: &mut [T]) {
    let (rows, hidden) = (grid.rows(), at.hidden);
    let mut patches = cpu.take(rows * 9 * (at.inputs + 1));
    patches::gather_with_edge(grid, at.inputs, 2 * at.inputs, x, 0, &mut patches);
    let (mut input, mut h) = (patches, cpu.take(rows * hidden));
    for (weight, norm) in [(at.conv1, at.actnorm1), (at.conv2, at.actnorm2)] {
        params[norm.bias.range()].fill(T::zero());
        params[norm.logs.range()].fill(T::zero());
        let conv = scaled(weight, norm);
        product(rows, &input, &conv.of(params).pack(cpu), &mut h, Finish::Store);
        actnorm::initialize(&norm, &h, params);
        product(rows, &input, &conv.of(params).pack(cpu), &mut h, Finish::Relu);
        input = std::mem::replace(&mut h, cpu.take(rows * hidden));
    }
}
