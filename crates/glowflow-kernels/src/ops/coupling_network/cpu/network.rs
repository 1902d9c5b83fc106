//! The coupling network: conv3×3 → actnorm → ReLU → conv1×1 → actnorm → ReLU → ZeroConv.
//!
//! With its scales folded in (see [`conv`](crate::cpu::conv)), it is three products over all pixels:
//!
//! ```text
//! patches [rows, 9·(inputs+1)] · W1 → ReLU → h1 [rows, hidden]
//! h1                           · W2 → ReLU → h2 [rows, hidden]
//! h2                           · W3 → [rows, 9·outputs], nine shifted copies added up → o [rows, outputs]
//! ```
//!
//! A tile of rows passes through all three before the next one starts, so hidden activations that are not
//! saved never leave the second-level cache.

use rayon::prelude::*;

use crate::cpu::conv::{ScaledAt, WeightGradient};
use crate::cpu::last_convolutions::LastConvolutions;
use crate::cpu::panels::{Cut, Panels, SLAB};
use crate::cpu::patches::{self, AddShifted, Gather, GatherBack, Offsets};
use crate::cpu::product::{Finish, Out, Packed, product, product_into_rows, transposed_products};
use crate::cpu::workspace::Workspace;
use crate::cpu::{Element, Scalar};
use crate::ops::{ActNormParams, HeadParams, NetworkParams, actnorm};
use crate::shape::{Grid, Span};

/// A network's weights, packed for the forward pass.
pub struct Network<E: Element> {
    work: Workspace<E>,
    inputs: usize,
    hidden: usize,
    outputs: usize,
    conv1: Packed<E>,
    conv2: Packed<E>,
    /// `[hidden, 9·outputs]`, columns in the order `k·outputs + c`.
    conv3: Packed<E>,
    /// Contribution of the edge channel to an output at each offset, `[9, outputs]`.
    edge: Vec<E::Sum>,
    /// `[outputs]`
    bias: Vec<E::Sum>,
    head: Option<Packed<E>>,
}

/// Both hidden activations, `[rows, hidden]` each, after their ReLUs.
pub struct Hidden<E: Element> {
    work: Workspace<E>,
    h1: Panels<E>,
    h2: Panels<E>,
}

fn scaled(weight: Span, actnorm: ActNormParams) -> ScaledAt {
    ScaledAt { weight, bias: actnorm.bias, logs: actnorm.logs }
}

impl<E: Element> Network<E> {
    pub(super) fn prepare(
        work: &Workspace<E>,
        at: &NetworkParams,
        head: Option<HeadParams>,
        params: &[E::Sum],
    ) -> Self {
        let (hidden, outputs) = (at.hidden, at.conv3.outputs);
        let conv3 = at.conv3.at().of(params);
        let (width, scale) = (9 * (hidden + 1), conv3.scale());
        // Column `k·outputs + c`: every ninth number of output `c`'s weights, and the scale.
        let column3 = |column: usize| {
            let (k, c) = (column / outputs, column % outputs);
            (&conv3.weight[c * width + k..(c + 1) * width], scale[c])
        };
        Self {
            work: work.clone(),
            inputs: at.inputs,
            hidden,
            outputs,
            conv1: scaled(at.conv1, at.actnorm1).of(params).pack(work),
            conv2: scaled(at.conv2, at.actnorm2).of(params).pack(work),
            conv3: Packed::of_columns(work, hidden, 9 * outputs, 9, column3),
            edge: (0..9 * outputs).map(column3).map(|(weight, scale)| weight[9 * hidden] * scale).collect(),
            bias: conv3.folded_bias(),
            head: head.map(|head| head.at().of(params).pack(work)),
        }
    }

    /// Runs the network on the first half of the channels of `x` into `o`, and into `head` if it has one.
    pub(super) fn run(&self, grid: Grid, x: &[E::Sum], o: &mut [E::Sum], head: &mut [E::Sum]) {
        let work = &self.work;
        let patches = Cut::of(work, grid.rows(), 9 * (self.inputs + 1));
        let mut contributions = work.take_sums(grid.rows() * 9 * self.outputs);
        let tiles = contributions.par_chunks_mut(patches.tile * 9 * self.outputs);
        let tile = |t: usize, to: &mut [E::Sum], head: &mut [E::Sum]| {
            let rows = to.len() / (9 * self.outputs);
            let hidden = rows * self.hidden.next_multiple_of(patches.width);
            let (mut h1, mut h2) = (work.take(hidden), work.take(hidden));
            self.tile(grid, x, (t, patches), &mut h1, &mut h2, to, head);
        };
        match self.head {
            None => tiles.enumerate().for_each(|(t, to)| tile(t, to, &mut [])),
            Some(_) => tiles
                .zip(head.par_chunks_mut(head_tile(head.len(), grid, patches)))
                .enumerate()
                .for_each(|(t, (to, head))| tile(t, to, head)),
        }
        self.add_up(grid, &contributions, o);
    }

    /// Like [`run`](Self::run), and returns the hidden activations.
    pub(super) fn run_saving(
        &self,
        grid: Grid,
        x: &[E::Sum],
        o: &mut [E::Sum],
        head: &mut [E::Sum],
    ) -> Hidden<E> {
        let (rows, work) = (grid.rows(), &self.work);
        let mut contributions = work.take_sums(rows * 9 * self.outputs);
        let [mut h1, mut h2] = [(); 2].map(|()| Panels::scratch(work, rows, self.hidden));
        let patches = Cut { columns: 9 * (self.inputs + 1), ..h1.cut };
        let tiles = contributions
            .par_chunks_mut(patches.tile * 9 * self.outputs)
            .zip(h1.tiles_mut())
            .zip(h2.tiles_mut());
        match self.head {
            None => tiles
                .enumerate()
                .for_each(|(t, ((to, h1), h2))| self.tile(grid, x, (t, patches), h1, h2, to, &mut [])),
            Some(_) => tiles
                .zip(head.par_chunks_mut(head_tile(head.len(), grid, patches)))
                .enumerate()
                .for_each(|(t, (((to, h1), h2), head))| {
                    self.tile(grid, x, (t, patches), h1, h2, to, head);
                }),
        }
        self.add_up(grid, &contributions, o);
        Hidden { work: work.clone(), h1, h2 }
    }

    /// Runs one tile of rows through all three products.
    #[allow(clippy::too_many_arguments)]
    fn tile(
        &self,
        grid: Grid,
        x: &[E::Sum],
        (tile, cut): (usize, Cut),
        h1: &mut [E],
        h2: &mut [E],
        contributions: &mut [E::Sum],
        head: &mut [E::Sum],
    ) {
        let rows = contributions.len() / (9 * self.outputs);
        let mut patches = self.work.take(rows * cut.stride());
        self.work.run(Gather {
            grid,
            inputs: self.inputs,
            stride: 2 * self.inputs,
            x,
            first_row: tile * cut.tile,
            cut,
            tile: &mut patches,
        });
        product(&patches, &self.conv1, Out::Panels(h1, Finish::Relu));
        product(h1, &self.conv2, Out::Panels(h2, Finish::Relu));
        product(h2, &self.conv3, Out::Rows(contributions));
        if let Some(weights) = &self.head {
            product(h2, weights, Out::Rows(head));
        }
    }

    fn add_up(&self, grid: Grid, contributions: &[E::Sum], o: &mut [E::Sum]) {
        let outputs = self.outputs;
        o.par_chunks_mut(outputs).with_min_len(1024).for_each(|o| o.copy_from_slice(&self.bias));
        let sum = AddShifted {
            grid,
            offsets: Offsets::Convolution,
            channels: outputs,
            stride: outputs,
            contributions,
            edge: Some(&self.edge),
        };
        sum.to(&self.work, o);
    }
}

/// Number of elements in a tile of the head's output, which has `len`.
fn head_tile(len: usize, grid: Grid, cut: Cut) -> usize {
    (len / grid.rows().max(1) * cut.tile).max(1)
}

/// Adds the input gradient to the first half of the channels of `dx`, and the parameters' gradients to
/// `gradient`. `d_head` is the gradient of the head's output.
#[allow(clippy::too_many_arguments)]
pub fn backward<E: Element>(
    at: &NetworkParams,
    head: Option<HeadParams>,
    params: &[E::Sum],
    grid: Grid,
    x: &[E::Sum],
    Hidden { work, h1, h2 }: &Hidden<E>,
    d_o: &[E::Sum],
    d_head: &[E::Sum],
    dx: &mut [E::Sum],
    gradient: &mut [E::Sum],
) {
    let (rows, inputs, hidden, outputs) = (grid.rows(), at.inputs, at.hidden, at.conv3.outputs);
    let (at1, at2) = (scaled(at.conv1, at.actnorm1), scaled(at.conv2, at.actnorm2));
    let (conv1, conv2) = (at1.of(params), at2.of(params));
    let last = LastConvolutions::of(at.conv3.at(), head.map(|head| head.at()), hidden, params);
    let width1 = 9 * (inputs + 1);

    let (weight1, weight2) = (conv1.pack_contributions(work, inputs), conv2.pack_transposed(work));
    let weight3 = last.pack_transposed(work);

    let mut d_weight1 = WeightGradient::zero(work, hidden, width1);
    let mut d_weight2 = WeightGradient::zero(work, hidden, hidden);
    let mut d_weight3 = WeightGradient::zero(work, last.columns(), hidden);
    let mut contributions = work.take_sums(rows * 9 * inputs);
    // Weight gradients are computed over a few tiles per thread while these are still cached.
    let at_once = (4 * rayon::current_num_threads() * h1.cut.tile).next_multiple_of(SLAB);
    for first in (0..rows).step_by(at_once) {
        let some = at_once.min(rows - first);
        let (h1, h2) = (h1.view().part(first, some), h2.view().part(first, some));
        let in_panels = |columns| Panels::scratch_as(work, some, Cut { columns, ..h1.cut });
        let (mut patches, mut d_contributions) = (in_panels(width1), in_panels(last.columns()));
        let (mut d_h1, mut d_h2) = (in_panels(hidden), in_panels(hidden));
        let (patches_cut, d_contributions_cut) = (patches.cut, d_contributions.cut);
        d_contributions
            .tiles_mut()
            .zip(patches.tiles_mut())
            .zip(d_h1.tiles_mut())
            .zip(d_h2.tiles_mut())
            .zip(h1.tiles())
            .zip(h2.tiles())
            .zip(contributions[first * 9 * inputs..].par_chunks_mut(h1.cut.tile * 9 * inputs))
            .enumerate()
            .for_each(|(t, ((((((d_contributions, patches), d_h1), d_h2), h1), h2), to))| {
                let (first_row, stride) = (first + t * patches_cut.tile, 2 * inputs);
                work.run(Gather { grid, inputs, stride, x, first_row, cut: patches_cut, tile: patches });
                let (tile, cut, after) = (&mut *d_contributions, d_contributions_cut, d_head);
                work.run(GatherBack { grid, channels: outputs, dy: d_o, after, first_row, cut, tile });
                product(d_contributions, &weight3, Out::Panels(d_h2, Finish::Mask(h2)));
                product(d_h2, &weight2, Out::Panels(d_h1, Finish::Mask(h1)));
                product(d_h1, &weight1, Out::Rows(to));
            });
        transposed_products(
            work,
            vec![
                d_weight2.of(d_h2.view(), h1),
                d_weight1.of(d_h1.view(), patches.view()),
                d_weight3.of(d_contributions.view(), h2),
            ],
        );
    }
    let (offsets, channels, stride) = (Offsets::Transposed, inputs, 2 * inputs);
    AddShifted { grid, offsets, channels, stride, contributions: &contributions, edge: None }.to(work, dx);

    conv1.unfold(work, at1, &d_weight1.matrix, &d_weight1.sums, gradient);
    conv2.unfold(work, at2, &d_weight2.matrix, &d_weight2.sums, gradient);
    last.unfold(work, grid, &d_weight3, d_o, d_head, gradient);
}

/// Data-dependent initialisation of both actnorms, the second on the output of the initialised first one.
pub fn initialize<T: Scalar>(work: &Workspace<T>, at: &NetworkParams, grid: Grid, x: &[T], params: &mut [T]) {
    let (rows, hidden) = (grid.rows(), at.hidden);
    let mut input = patches::all_with_edge(work, grid, at.inputs, 2 * at.inputs, x);
    for (weight, norm) in [(at.conv1, at.actnorm1), (at.conv2, at.actnorm2)] {
        params[norm.bias.range()].fill(T::zero());
        params[norm.logs.range()].fill(T::zero());
        let conv = scaled(weight, norm);
        let packed = conv.of(params).pack(work);
        let mut h = work.take(rows * hidden);
        product_into_rows(input.view(), &packed, &mut h);
        actnorm::initialize(&norm, &h, params);
        let packed = conv.of(params).pack(work);
        let mut h = Panels::scratch(work, rows, hidden);
        h.tiles_mut().zip(input.view().tiles()).for_each(|(h, input)| {
            product(input, &packed, Out::Panels(h, Finish::Relu));
        });
        input = h;
    }
}
